//! `check` of a proxy, in its short and its long form, and the preset for API servers.

use std::time::Duration;

use toml::de::DeValue;

use super::fields::Fields;
use super::given::Sink;
use crate::config::model::{Check, CheckKind, ClientFiles, HttpCheck, TlsCheck, Verify};
use crate::config::problem::Problem;
use crate::units::Count;

/// A check, and whether it shows that the client speaks first.
pub(super) struct Checked {
    pub(super) check: Check,
    pub(super) client_first: bool,
}

const SECTION: &str = "proxy.NAME.check";

/// The check of a proxy, by default a TCP connect.
pub(super) fn check(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Checked {
    let span = fields.span_of("check");
    let Some(given) = fields.take("check", sink) else {
        return build("tcp", Fields::absent(SECTION), &span, sink);
    };
    let DeValue::Table(_) = given.value else {
        let kind = crate::config::schema::section(SECTION).key("type");
        let mut given = given;
        given.key = kind.unwrap_or(given.key);
        let word = given.word(sink).unwrap_or("tcp");
        return build(word, Fields::absent(SECTION), &span, sink);
    };
    let before = sink.errors();
    let Some(mut table) = given.into_fields(SECTION, String::new(), sink) else {
        return build("tcp", Fields::absent(SECTION), &span, sink);
    };
    let word = table.word("type", sink);
    if sink.errors() > before && !table.has_known_type() {
        // Which keys belong here depends on the type, which is unknown.
        return build("tcp", Fields::absent(SECTION), &span, sink);
    }
    build(word, table, &span, sink)
}

fn build(
    word: &str,
    mut fields: Fields<'_, '_>,
    span: &std::ops::Range<usize>,
    sink: &mut Sink,
) -> Checked {
    let preset = word == "kube-apiserver";
    let kind = match word {
        "tls" => CheckKind::Tls(tls(&mut fields, span, preset, sink)),
        "http" => {
            refuse_token_in_clear(&mut fields, sink);
            CheckKind::Http(http(&mut fields, preset, sink))
        }
        "https" | "kube-apiserver" => {
            let tls = tls(&mut fields, span, preset, sink);
            let mut http = http(&mut fields, preset, sink);
            http.token_file = token_file(&mut fields, &tls, sink);
            CheckKind::Https(tls, http)
        }
        _ => CheckKind::Tcp,
    };
    let client_first = matches!(kind, CheckKind::Tls(_) | CheckKind::Https(..));
    let interval = time(&mut fields, "interval", preset.then_some(1_000), sink);
    let quarter = if preset {
        Duration::from_millis(250)
    } else {
        interval / 4
    };
    let check = Check {
        kind,
        interval,
        fast_interval: fields.time_given("fast-interval", sink).unwrap_or(quarter),
        down_interval: fields.time("down-interval", sink),
        timeout: time(&mut fields, "timeout", preset.then_some(500), sink),
        rise: fields.unit("rise", sink).unwrap_or(Count::TWO),
        fall: fields.unit("fall", sink).unwrap_or(Count::TWO),
    };
    fields.refuse_unread(&format!("a \"{word}\" check"), sink);
    Checked {
        check,
        client_first,
    }
}

fn time(
    fields: &mut Fields<'_, '_>,
    name: &str,
    preset_ms: Option<u64>,
    sink: &mut Sink,
) -> Duration {
    let given = fields.time_given(name, sink);
    match (given, preset_ms) {
        (Some(time), _) => time,
        (None, Some(ms)) => Duration::from_millis(ms),
        (None, None) => fields.time(name, sink),
    }
}

fn tls(
    fields: &mut Fields<'_, '_>,
    span: &std::ops::Range<usize>,
    preset: bool,
    sink: &mut Sink,
) -> TlsCheck {
    let ca_given = fields.has("ca-file");
    let ca_file = fields.absolute_path("ca-file", sink);
    let server_name = server_name(fields, sink);
    let verify = match fields.boolean("verify", sink) {
        Some(false) => Verify::Off,
        Some(true) => Verify::Required,
        None if preset && !ca_given => Verify::IfCaPresent,
        None => Verify::Required,
    };
    if verify == Verify::Off && ca_given {
        sink.push(
            Problem::error("E0109", "the check has `ca-file`, and `verify = false`")
                .at(&fields.span_of("ca-file"), "nothing is verified against it")
                .help("leave one of them out"),
        );
    }
    if verify == Verify::Required && !ca_given {
        sink.push(
            Problem::error("E0104", "the check needs `ca-file` to verify servers")
                .at(span, "whose certificate authority?")
                .help("write `check = { type = \"https\", ca-file = \"/etc/…/ca.crt\" }`, or `verify = false` to trust any server"),
        );
    }
    TlsCheck {
        ca_file,
        server_name,
        verify,
        client: client_files(fields, verify, sink),
    }
}

/// A certificate and its key, both or none.
fn client_files(
    fields: &mut Fields<'_, '_>,
    verify: Verify,
    sink: &mut Sink,
) -> Option<ClientFiles> {
    for (one, other) in [("client-cert", "client-key"), ("client-key", "client-cert")] {
        if fields.has(one) && !fields.has(other) {
            sink.push(
                Problem::error("E0104", format!("the check has `{one}` without `{other}`"))
                    .at(&fields.span_of(one), "one is of no use without the other")
                    .help(format!("add `{other} = \"/etc/…\"`; both may be one file")),
            );
        }
    }
    unverified(fields, "client-cert", verify, sink);
    let cert = fields.absolute_path("client-cert", sink);
    let key = fields.absolute_path("client-key", sink);
    Some(ClientFiles {
        cert: cert?,
        key: key?,
    })
}

fn token_file(
    fields: &mut Fields<'_, '_>,
    tls: &TlsCheck,
    sink: &mut Sink,
) -> Option<std::path::PathBuf> {
    unverified(fields, "token-file", tls.verify, sink);
    fields.absolute_path("token-file", sink)
}

/// Refuses credentials that would never be sent.
fn unverified(fields: &Fields<'_, '_>, name: &str, verify: Verify, sink: &mut Sink) {
    if verify == Verify::Off && fields.has(name) {
        sink.push(
            Problem::error(
                "E0109",
                format!("the check has `{name}`, and `verify = false`"),
            )
            .at(
                &fields.span_of(name),
                "never shown to a server that anybody could be",
            )
            .help("name the servers' certificate authority instead: `ca-file = \"/etc/…/ca.crt\"`"),
        );
    }
}

/// A token is a password: whoever reads it has it.
fn refuse_token_in_clear(fields: &mut Fields<'_, '_>, sink: &mut Sink) {
    if let Some(given) = fields.take("token-file", sink) {
        sink.push(
            Problem::error("E0109", format!("`{}` needs TLS", given.name))
                .at(&given.key_span, "everybody on the way could read the token")
                .help("write `type = \"https\"`, with `ca-file`"),
        );
    }
}

fn server_name(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<String> {
    let text = fields.text("server-name", sink)?;
    if rustls::pki_types::ServerName::try_from(text.text).is_err() {
        sink.push(
            Problem::error("E0108", format!("`{}` is no host name", text.name))
                .at(&text.span, "write a DNS name or an IP address"),
        );
    }
    Some(text.text.to_owned())
}

fn http(fields: &mut Fields<'_, '_>, preset: bool, sink: &mut Sink) -> HttpCheck {
    let by_default = if preset { "/readyz" } else { "/" };
    let path = match fields.text("path", sink) {
        None => by_default.to_owned(),
        Some(text) => {
            let fits =
                text.text.starts_with('/') && text.text.bytes().all(|b| b.is_ascii_graphic());
            if !fits {
                sink.push(
                    Problem::error("E0108", format!("`{}` is no path", text.name))
                        .at(&text.span, "it must begin with `/` and hold no spaces"),
                );
            }
            text.text.to_owned()
        }
    };
    let host = fields.text("host", sink).map(|text| {
        let fits = !text.text.is_empty() && text.text.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            sink.push(
                Problem::error("E0108", format!("`{}` is no host name", text.name))
                    .at(&text.span, "it must hold no spaces"),
            );
        }
        text.text.to_owned()
    });
    HttpCheck {
        path,
        host,
        expect_status: expect_status(fields, sink),
        unauthorized_is_ready: preset,
        token_file: None,
    }
}

fn expect_status(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Vec<u16> {
    let Some(given) = fields.take("expect-status", sink) else {
        return vec![200];
    };
    let mut codes = Vec::new();
    for item in given.one_or_more(64, sink) {
        let DeValue::Integer(digits) = item.value else {
            sink.push(item.wrong_type("a status such as 200, or a list of them"));
            continue;
        };
        let code = u16::from_str_radix(digits.as_str(), digits.radix()).ok();
        match code.filter(|code| (100..=599).contains(code)) {
            Some(code) => codes.push(code),
            None => sink.push(
                Problem::error("E0105", format!("`{}` is out of range", item.name))
                    .at(&item.span, "it must be 100 to 599"),
            ),
        }
    }
    codes
}
