//! The keys of `discovery` in `[proxy.NAME]`.

use super::{DAY, Fallback, HOUR, Key, Kind, MINUTE, SECOND, Section, Word, ms};

pub(super) const DISCOVERY: Section = Section {
    path: "proxy.NAME.discovery",
    doc: "Servers beside those of `backends`, found at run time. A source that fails or has none keeps those it had.",
    keys: &[
        Key::new(
            "dns",
            Kind::Table("proxy.NAME.discovery.dns"),
            Fallback::Words("off"),
            "Names whose addresses are servers: `NAME:PORT`, a list of up to 16, or a table.",
        )
        .called(&["server-template", "strict_dns", "dns_sd_configs"]),
        Key::new(
            "kubernetes",
            Kind::Table("proxy.NAME.discovery.kubernetes"),
            Fallback::Words("off"),
            "The ready endpoints of a service, by default the API servers themselves; asked through the servers of `backends` and those found.",
        )
        .called(&["k8s", "kube", "endpointslice", "kubernetes_sd_configs"]),
    ],
};

pub(super) const DNS: Section = Section {
    path: "proxy.NAME.discovery.dns",
    doc: "DNS over TCP (RFC 7766); `dns = \"NAME:PORT\"` is short for `dns = { names = \"NAME:PORT\" }`.",
    keys: &[
        Key::new(
            "names",
            Kind::Form("`NAME:PORT`, or a list of up to 16"),
            Fallback::Required,
            "Every address of these names is a server. Names are absolute: no search list is tried.",
        )
        .called(&["name", "fqdn", "host"]),
        Key::new(
            "resolvers",
            Kind::Form("`IP` or `IP:PORT`, or a list of up to 8"),
            Fallback::Words("/etc/hosts, then those of /etc/resolv.conf"),
            "Who is asked, in this order; then neither of those files is read.",
        )
        .called(&["nameserver", "nameservers", "resolver", "dns_resolvers"]),
        Key::new(
            "family",
            Kind::Choice(&[
                Word::new("any").called(&["all", "auto", "both", "v4_preferred"]),
                Word::new("ipv4").called(&["4", "v4", "inet", "v4_only"]),
                Word::new("ipv6").called(&["6", "v6", "inet6", "v6_only"]),
            ]),
            Fallback::Value("\"any\""),
            "Which addresses are servers.",
        )
        .called(&["resolve-prefer", "dns_lookup_family"]),
        Key::new(
            "min-interval",
            ms(SECOND, HOUR),
            Fallback::Value("\"5s\""),
            "Between two questions at least, whatever the TTL.",
        )
        .called(&["min-ttl", "hold_valid", "dns_refresh_rate"]),
        Key::new(
            "max-interval",
            ms(SECOND, DAY),
            Fallback::Value("\"5m\""),
            "Between two questions at most, whatever the TTL.",
        )
        .called(&["max-ttl", "valid"]),
        Key::new(
            "timeout",
            ms(10, MINUTE),
            Fallback::Value("\"2s\""),
            "For the answer of one resolver.",
        )
        .called(&["timeout_resolve", "timeout_retry", "resolver_timeout"]),
    ],
};

pub(super) const KUBERNETES: Section = Section {
    path: "proxy.NAME.discovery.kubernetes",
    doc: "A watch on a service's EndpointSlices; needs `client-cert` and `client-key`, or `token-file`, and may `list` and `watch` endpointslices of that namespace.",
    keys: &[
        Key::new(
            "ca-file",
            Kind::Form("absolute path"),
            Fallback::Value("\"/etc/kubernetes/pki/ca.crt\""),
            "Certificates that the API server's is verified against; no credential is shown to one that fails.",
        )
        .called(&["ca", "certificate-authority"]),
        Key::new(
            "server-name",
            Kind::Form("host name or IP address"),
            Fallback::Value("\"kubernetes.default.svc\""),
            "The name that every API server's certificate has.",
        )
        .called(&["sni", "tls-server-name"]),
        Key::new(
            "client-cert",
            Kind::Form("absolute path"),
            Fallback::Words("none"),
            "A client certificate, PEM.",
        )
        .called(&["crt", "client-certificate"]),
        Key::new(
            "client-key",
            Kind::Form("absolute path"),
            Fallback::Words("none"),
            "Its key, PEM.",
        ),
        Key::new(
            "token-file",
            Kind::Form("absolute path"),
            Fallback::Words("none"),
            "A bearer token, instead.",
        )
        .called(&["token", "bearer_token_file"]),
        Key::new(
            "namespace",
            Kind::Form("name"),
            Fallback::Value("\"default\""),
            "Of the service.",
        ),
        Key::new(
            "service",
            Kind::Form("name"),
            Fallback::Value("\"kubernetes\""),
            "Whose endpoints are servers.",
        )
        .called(&["endpoints", "name"]),
        Key::new(
            "port",
            Kind::Form("name"),
            Fallback::Value("\"https\""),
            "The name of the port of the endpoints; empty for one without a name.",
        )
        .called(&["port-name"]),
        Key::new(
            "timeout",
            ms(10, MINUTE),
            Fallback::Value("\"5s\""),
            "For a connection, and for the answer to begin.",
        ),
    ],
};
