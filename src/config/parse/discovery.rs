//! `backends-file`, `discovery`, the host names in `backends`, and the text of a backends file.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address;
use super::fields::Fields;
use super::given::{Given, Sink, Text};
use super::{proxy, syntax};
use crate::config::discovery::{
    Credentials, Discovery, Dns, DnsName, FOUND_MAX, Family, Kubernetes, Template,
};
use crate::config::model::Server;
use crate::config::problem::Problem;

const NAMES_MAX: usize = 16;
const RESOLVERS_MAX: usize = 8;
const DNS_PORT: u16 = 53;
/// What a host name may have, RFC 1035 §2.3.4.
const HOST_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

const DNS: &str = "proxy.NAME.discovery.dns";

/// The host names in `backends`, in file order.
#[derive(Default)]
pub(super) struct Names(Vec<DnsName>);

impl Names {
    /// Whether this item of the list is a host name, and so no server of its own.
    pub(super) fn takes_item(&mut self, item: &Given<'_, '_>, sink: &mut Sink) -> bool {
        let DeValue::String(text) = item.value else {
            return false;
        };
        self.takes(item.name.clone(), item.span.clone(), text, sink)
    }

    /// The same of an entry of the table form.
    pub(super) fn takes_entry(
        &mut self,
        full: &str,
        entry: &Spanned<DeValue<'_>>,
        sink: &mut Sink,
    ) -> bool {
        let DeValue::String(text) = entry.get_ref() else {
            return false;
        };
        self.takes(full.to_owned(), entry.span(), text, sink)
    }

    fn takes(
        &mut self,
        name: String,
        span: std::ops::Range<usize>,
        text: &str,
        sink: &mut Sink,
    ) -> bool {
        if !address::looks_like_name(text) {
            return false;
        }
        self.add(&Text { name, span, text }, sink);
        true
    }

    fn add(&mut self, text: &Text<'_>, sink: &mut Sink) {
        let Some(found) = dns_name(text, sink) else {
            return;
        };
        if self.0.contains(&found) {
            sink.push(
                Problem::error("E0302", format!("`{found}` is listed twice"))
                    .at(&text.span, "again here"),
            );
        } else {
            self.0.push(found);
        }
    }
}

/// What a proxy says of servers beside those with an address in `backends`.
pub(super) fn discovery(
    fields: &mut Fields<'_, '_>,
    mut names: Names,
    template: Template,
    sink: &mut Sink,
) -> Discovery {
    let file = fields.absolute_path("backends-file", sink);
    if let Some(path) = &file
        && path.extension().is_some_and(|e| e == "yaml" || e == "yml")
    {
        let problem = Problem::error(
            "E0108",
            format!("`{}.backends-file` is YAML", fields.name()),
        );
        sink.push(problem.at(
            &fields.span_of("backends-file"),
            "it must be JSON, or TOML in a file that ends in .toml",
        ));
    }
    let mut table = fields.table("discovery", sink);
    let dns = table.as_mut().and_then(|table| dns_fields(table, sink));
    let dns = match dns {
        None if names.0.is_empty() => None,
        given => Some(dns_of(given, &mut names, sink)),
    };
    let kubernetes = table.as_mut().and_then(|table| {
        let fields = table.table("kubernetes", sink)?;
        kubernetes(fields, sink)
    });
    if let Some(table) = table {
        table.finish(sink);
    }
    Discovery {
        file,
        // A table without a sound name was complained of.
        dns: dns.filter(|dns| !dns.names.is_empty()),
        kubernetes,
        template,
    }
}

/// `dns` in its long form, or the names of its short one.
enum Form<'t, 'i> {
    Table(Fields<'t, 'i>),
    Names(Given<'t, 'i>),
}

fn dns_fields<'t, 'i>(table: &mut Fields<'t, 'i>, sink: &mut Sink) -> Option<Form<'t, 'i>> {
    let given = table.take("dns", sink)?;
    if let DeValue::Table(_) = given.value {
        return given.into_fields(DNS, String::new(), sink).map(Form::Table);
    }
    let mut given = given;
    given.key = crate::config::schema::section(DNS)
        .key("names")
        .unwrap_or(given.key);
    Some(Form::Names(given))
}

fn dns_of(given: Option<Form<'_, '_>>, names: &mut Names, sink: &mut Sink) -> Dns {
    let mut fields = match given {
        None => Fields::absent(DNS),
        Some(Form::Table(mut fields)) => {
            if let Some(given) = fields.take("names", sink) {
                listed(given, names, sink);
            }
            fields
        }
        Some(Form::Names(given)) => {
            listed(given, names, sink);
            Fields::absent(DNS)
        }
    };
    let (shortest, longest) = (
        fields.time("min-interval", sink),
        fields.time("max-interval", sink),
    );
    if shortest > longest {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}.min-interval` is too long", fields.name()),
            )
            .at(
                &fields.span_of("min-interval"),
                "it must not be over `max-interval`",
            ),
        );
    }
    let dns = Dns {
        names: std::mem::take(&mut names.0),
        resolvers: resolvers(&mut fields, sink),
        family: match fields.word("family", sink) {
            "ipv4" => Family::Ipv4,
            "ipv6" => Family::Ipv6,
            _ => Family::Any,
        },
        min_interval: shortest,
        max_interval: longest,
        timeout: fields.time("timeout", sink),
    };
    fields.finish(sink);
    dns
}

fn listed(given: Given<'_, '_>, names: &mut Names, sink: &mut Sink) {
    for item in given.one_or_more(NAMES_MAX, sink) {
        if let Some(text) = item.text(sink) {
            names.add(&text, sink);
        }
    }
}

/// `NAME:PORT`.
fn dns_name(text: &Text<'_>, sink: &mut Sink) -> Option<DnsName> {
    let parts = text.text.rsplit_once(':');
    let port = parts.and_then(|(_, port)| port.parse::<u16>().ok());
    let host = parts.map_or(text.text, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let problem = Problem::error("E0108", format!("`{}` is no NAME:PORT", text.name));
    if !is_host_name(&host) {
        sink.push(problem.at(
            &text.span,
            "write a host name and a port: \"api.example:6443\"",
        ));
        return None;
    }
    let Some(port) = port.filter(|port| *port != 0) else {
        sink.push(problem.at(&text.span, format!("the port is missing: \"{host}:6443\"")));
        return None;
    };
    Some(DnsName { host, port })
}

/// Whether it could be a host's name in DNS, and is no address.
pub(super) fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_CHARS_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    host.len() <= HOST_CHARS_MAX && host.split('.').all(label) && host.parse::<IpAddr>().is_err()
}

fn resolvers(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Vec<SocketAddr> {
    let Some(given) = fields.take("resolvers", sink) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for item in given.one_or_more(RESOLVERS_MAX, sink) {
        let Some(text) = item.text(sink) else {
            continue;
        };
        match text.text.parse::<IpAddr>() {
            Ok(ip) => found.push(SocketAddr::new(ip, DNS_PORT)),
            Err(_) => found.extend(address::server_addr(&text, sink)),
        }
    }
    found
}

fn kubernetes(mut fields: Fields<'_, '_>, sink: &mut Sink) -> Option<Kubernetes> {
    let name = |fields: &mut Fields<'_, '_>, key: &str, sink: &mut Sink| {
        let by_default = fields.default_text(key).to_owned();
        let Some(text) = fields.text(key, sink) else {
            return by_default;
        };
        let label = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let may_be_empty = key == "port";
        if text.text.len() > LABEL_CHARS_MAX
            || !text.text.bytes().all(label)
            || (text.text.is_empty() && !may_be_empty)
        {
            sink.push(
                Problem::error("E0108", format!("`{}` is no name", text.name))
                    .at(&text.span, "use lower-case letters, digits and `-`"),
            );
        }
        text.text.to_owned()
    };
    let ca_file = fields.absolute_path("ca-file", sink);
    let ca_file = ca_file.unwrap_or_else(|| fields.default_text("ca-file").into());
    let credentials = credentials(&mut fields, sink);
    let found = Kubernetes {
        ca_file,
        server_name: server_name(&mut fields, sink),
        credentials: credentials?,
        namespace: name(&mut fields, "namespace", sink),
        service: name(&mut fields, "service", sink),
        port: name(&mut fields, "port", sink),
        timeout: fields.time("timeout", sink),
    };
    fields.finish(sink);
    Some(found)
}

fn server_name(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> String {
    let Some(text) = fields.text("server-name", sink) else {
        return fields.default_text("server-name").to_owned();
    };
    if rustls::pki_types::ServerName::try_from(text.text).is_err() {
        sink.push(
            Problem::error("E0108", format!("`{}` is no host name", text.name))
                .at(&text.span, "write a DNS name or an IP address"),
        );
    }
    text.text.to_owned()
}

fn credentials(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<Credentials> {
    let before = sink.errors();
    let cert = fields.absolute_path("client-cert", sink);
    let key = fields.absolute_path("client-key", sink);
    let token = fields.absolute_path("token-file", sink);
    match (cert, key, token) {
        (Some(cert), Some(key), None) => Some(Credentials::Certificate { cert, key }),
        (None, None, Some(token)) => Some(Credentials::Token(token)),
        (_, _, _) => {
            if sink.errors() == before {
                sink.push(
                    Problem::error(
                        "E0104",
                        format!(
                            "`{}` needs `client-cert` and `client-key`, or `token-file`",
                            fields.name()
                        ),
                    )
                    .at(&fields.span_of(""), "exactly one of the two")
                    .help("docs/discovery.md has a manifest that makes either"),
                );
            }
            None
        }
    }
}

/// Refuses a proxy without any server, and a watch without one to ask first.
pub(super) fn ask_for_servers(
    fields: &Fields<'_, '_>,
    servers: &[Server],
    discovery: &Discovery,
    sink: &mut Sink,
) {
    if sink.recovering {
        return;
    }
    let given = fields.has("backends");
    if !given && !fields.has("backends-file") && !fields.has("discovery") {
        sink.push(
            Problem::error("E0104", format!("`{}.backends` is missing", fields.name())).at(
                &fields.span_of(""),
                format!("`{}` needs `backends`", fields.name()),
            ),
        );
    }
    if discovery.kubernetes.is_some() && servers.is_empty() && (!given || discovery.dns.is_some()) {
        sink.push(
            Problem::error(
                "E0104",
                format!("`{}.discovery.kubernetes` has nobody to ask", fields.name()),
            )
            .at(
                &fields.span_of("discovery"),
                "the first question goes to a server of `backends`",
            )
            .help("list the address of at least one API server in `backends`; it stays a server, whatever is found"),
        );
    }
}

/// Reads the text of a backends file: `backends` as in `[proxy.NAME]`, with addresses only.
///
/// # Errors
/// Every problem of it.
pub fn backends(text: &str, template: Template) -> Result<Vec<Server>, Vec<Problem>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut sink = Sink::default();
    for error in &errors {
        sink.push(syntax::problem(text, error));
    }
    sink.recovering = !errors.is_empty();
    let mut fields = Fields::open(
        "proxy.NAME",
        String::new(),
        String::new(),
        0..0,
        tree.get_ref(),
        &mut sink,
    );
    let mut names = Names::default();
    let servers = proxy::bare_servers(&mut fields, template, &mut names, &mut sink);
    if !fields.has("backends") && !sink.recovering {
        sink.push(Problem::error("E0104", "`backends` is missing"));
    }
    if let Some(name) = names.0.first() {
        let problem = Problem::error("E0109", format!("{name} is a host name"));
        sink.push(problem.help("host names stand in lb.toml"));
    }
    if servers.len() > FOUND_MAX {
        sink.push(Problem::error(
            "E0105",
            format!("there are more than {FOUND_MAX} servers"),
        ));
    }
    fields.refuse_unread("a backends file", &mut sink);
    if sink.errors() == 0 {
        Ok(servers)
    } else {
        Err(sink.problems)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::load;

    fn proxy_with(rest: &str) -> Result<Discovery, Vec<String>> {
        let text = format!("[proxy.p]\nlisten = \":6443\"\n{rest}");
        let config = load(&text).map_err(|problems| {
            let told = problems.into_iter().filter(Problem::is_error);
            told.map(|problem| problem.message).collect::<Vec<_>>()
        })?;
        Ok(config.proxies.into_iter().next().unwrap().discovery)
    }

    #[test]
    fn a_host_name_in_backends_is_a_name_to_resolve_beside_the_addresses() {
        let found = proxy_with("backends = [\"10.0.0.4:6443\", \"API.example.:6443\"]").unwrap();
        let dns = found.dns.unwrap();
        assert_eq!(
            dns.names,
            [DnsName {
                host: "api.example".to_owned(),
                port: 6443
            }]
        );
        assert_eq!(dns.min_interval, Duration::from_secs(5));
        assert_eq!(dns.max_interval, Duration::from_secs(300));
    }

    #[test]
    fn names_of_both_places_are_one_list_under_one_set_of_settings() {
        let found = proxy_with(
            "backends = { a = \"one.example:1\" }\n\
             discovery = { dns = { names = [\"two.example:2\"], resolvers = [\"10.0.0.53\", \"[::1]:5353\"], family = \"ipv4\" } }",
        )
        .unwrap();
        let dns = found.dns.unwrap();
        let names: Vec<String> = dns.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["one.example:1", "two.example:2"]);
        let resolvers: Vec<String> = dns.resolvers.iter().map(ToString::to_string).collect();
        assert_eq!(resolvers, ["10.0.0.53:53", "[::1]:5353"]);
        assert_eq!(dns.family, Family::Ipv4);
    }

    #[test]
    fn a_watch_needs_one_kind_of_credentials_and_a_server_to_ask() {
        let seed = "backends = [\"10.0.0.4:6443\"]\n";
        let with = |keys: &str| {
            proxy_with(&format!(
                "{seed}discovery = {{ kubernetes = {{ {keys} }} }}"
            ))
        };
        let found = with("token-file = \"/etc/lbd/token\"")
            .unwrap()
            .kubernetes
            .unwrap();
        assert_eq!(
            found.credentials,
            Credentials::Token("/etc/lbd/token".into())
        );
        assert_eq!(
            found.ca_file,
            std::path::Path::new("/etc/kubernetes/pki/ca.crt")
        );
        assert_eq!(found.server_name, "kubernetes.default.svc");
        assert_eq!(
            (found.namespace.as_str(), found.service.as_str()),
            ("default", "kubernetes")
        );
        let needs = [
            "`proxy.p.discovery.kubernetes` needs `client-cert` and `client-key`, or `token-file`",
        ];
        assert_eq!(with("").unwrap_err(), needs);
        assert_eq!(with("client-cert = \"/c\"").unwrap_err(), needs);
        let both = "client-cert = \"/c\", client-key = \"/k\", token-file = \"/t\"";
        assert_eq!(with(both).unwrap_err(), needs);
        let alone = proxy_with("discovery = { kubernetes = { token-file = \"/t\" } }");
        assert_eq!(
            alone.unwrap_err(),
            ["`proxy.p.discovery.kubernetes` has nobody to ask"]
        );
    }

    #[test]
    fn a_proxy_may_have_no_backends_where_something_else_brings_them() {
        assert_eq!(
            proxy_with("").unwrap_err(),
            ["`proxy.p.backends` is missing"]
        );
        let found = proxy_with("backends-file = \"/etc/lbd/backends/p.json\"").unwrap();
        assert_eq!(
            found.file.unwrap(),
            std::path::Path::new("/etc/lbd/backends/p.json")
        );
        assert_eq!(
            proxy_with("backends-file = \"/etc/lbd/backends/p.yml\"").unwrap_err(),
            ["`proxy.p.backends-file` is YAML"]
        );
        proxy_with("discovery = { dns = \"api.example:6443\" }").unwrap();
    }

    #[test]
    fn a_name_without_a_port_and_one_that_is_none_are_refused() {
        for (bad, why) in [
            ("\"api.example\"", "`proxy.p.discovery.dns` is no NAME:PORT"),
            (
                "\"api.example:0\"",
                "`proxy.p.discovery.dns` is no NAME:PORT",
            ),
            (
                "\"api..example:1\"",
                "`proxy.p.discovery.dns` is no NAME:PORT",
            ),
            ("\"10.0.0.1:1\"", "`proxy.p.discovery.dns` is no NAME:PORT"),
            (
                "[\"a.example:1\", \"A.example:1\"]",
                "`a.example:1` is listed twice",
            ),
        ] {
            let told = proxy_with(&format!("discovery = {{ dns = {bad} }}")).unwrap_err();
            assert_eq!(told, [why], "{bad}");
        }
    }

    #[test]
    fn a_backends_file_holds_backends_as_lb_toml_does_and_nothing_else() {
        let template = Template {
            weight: crate::units::Weight::try_from(7).unwrap(),
            ..Template::default()
        };
        let text =
            "[backends]\na = \"10.0.0.1:6443\"\nb = { address = \"10.0.0.2:6443\", weight = 2 }\n";
        let servers = backends(text, template).unwrap();
        let seen: Vec<_> = servers
            .iter()
            .map(|s| (s.name.as_str(), s.address.to_string(), s.weight.get()))
            .collect();
        assert_eq!(
            seen,
            [
                ("a", "10.0.0.1:6443".to_owned(), 7),
                ("b", "10.0.0.2:6443".to_owned(), 2)
            ]
        );
        for (text, why) in [
            ("", "`backends` is missing"),
            ("backends = []", "`backends` is empty"),
            ("backends = [\"10.0.0.1\"]", "`backends[0]` is no IP:PORT"),
            ("backends = [\"a.example:1\"]", "a.example:1 is a host name"),
            (
                "backends = [\"10.0.0.1:1\"]\nretries = 2",
                "`retries` has no meaning here",
            ),
        ] {
            let told = backends(text, template).unwrap_err();
            assert_eq!(told.first().unwrap().message, why, "{text}");
        }
    }
}
