//! Whom a browser asked for. Pure.
//!
//! A page from elsewhere can have its own name resolved to this node's address; to the operator's
//! browser it is of one origin with this listener then, and its script reads what stands here (DNS
//! rebinding). Such a question names a host that is not this one. Programs are believed whatever
//! name they ask for: Prometheus, probes and `curl` find nodes by names that lbd can't know.

use std::net::IpAddr;

use hyper::header::{ACCEPT_LANGUAGE, HOST, HeaderMap, HeaderName, ORIGIN, USER_AGENT};

/// What browsers add to what a script asks for; scripts can change some of it and remove none.
const MARKS: [HeaderName; 3] = [
    ACCEPT_LANGUAGE,
    ORIGIN,
    HeaderName::from_static("sec-fetch-site"),
];

/// The name that a browser asked for and that is none of this node's; `None`: all is well.
/// `target` is the host of the request's target, if that names one.
pub(super) fn foreign(
    headers: &HeaderMap,
    target: Option<&str>,
    names: &[String],
) -> Option<String> {
    if !is_browser(headers) {
        return None;
    }
    let hosts = headers.get_all(HOST).iter();
    let hosts = hosts.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let mut asked = hosts.chain(target.map(str::to_owned));
    asked.find(|host| !is_ours(host, names))
}

fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
        || MARKS.iter().any(|mark| headers.contains_key(mark))
}

/// An address, this machine's own `localhost`, or one of `names`, with or without a port.
fn is_ours(host: &str, names: &[String]) -> bool {
    let name = without_port(host);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    // In brackets, and perhaps with a zone.
    let bare = name.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    let bare = bare.unwrap_or(&name);
    let bare = bare.split('%').next().unwrap_or(bare);
    bare.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(&name))
}

fn without_port(host: &str) -> &str {
    let Some((name, port)) = host.rsplit_once(':') else {
        return host;
    };
    // An address of IPv6 without brackets has no port.
    let is_bare = name.contains(':') && !name.ends_with(']');
    let is_port = port.bytes().all(|b| b.is_ascii_digit());
    if is_port && !is_bare { name } else { host }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn refused(host: &str, mark: Option<(&'static str, &'static str)>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some((name, value)) = mark {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let names = ["lb1", "lb.example.com"].map(str::to_owned);
        foreign(&headers, None, &names).is_some()
    }

    #[test]
    fn a_browser_may_ask_for_addresses_localhost_and_the_names_of_the_node() {
        let firefox = Some((
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0",
        ));
        for host in [
            "127.0.0.1:9633",
            "10.0.0.9",
            "[fd00::9]:9633",
            "[::1]",
            "localhost:9633",
            "LOCALHOST",
            "lbd.localhost:80",
            "lb1",
            "LB1.:9633",
            "lb.example.com:9633",
        ] {
            assert!(!refused(host, firefox), "{host}");
        }
        for host in [
            "evil.example:9633",
            "lb1.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9633",
            "evil.example:127.0.0.1",
            "lb.example.com.evil.example",
            "",
            ":9633",
        ] {
            assert!(refused(host, firefox), "{host}");
        }
    }

    #[test]
    fn a_script_that_hides_its_browser_is_found_by_what_it_cannot_hide() {
        for mark in [
            ("accept-language", ""),
            ("origin", "http://evil.example"),
            ("sec-fetch-site", "same-origin"),
            ("user-agent", "Mozilla/5.0"),
        ] {
            assert!(refused("evil.example", Some(mark)), "{mark:?}");
        }
    }

    #[test]
    fn programs_ask_for_whatever_name_they_have() {
        assert!(!refused("lb1.internal.example:9633", None));
        for agent in ["Prometheus/3.5.0", "kube-probe/1.33", "curl/8.14.1"] {
            assert!(!refused(
                "node-7.cluster.example",
                Some(("user-agent", agent))
            ));
        }
    }

    #[test]
    fn the_target_and_each_host_header_count() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        headers.append(HOST, HeaderValue::from_static("127.0.0.1"));
        assert_eq!(foreign(&headers, None, &[]), None);
        let found = foreign(&headers, Some("evil.example"), &[]);
        assert_eq!(found.as_deref(), Some("evil.example"));
        headers.append(HOST, HeaderValue::from_static("evil.example:9633"));
        let found = foreign(&headers, None, &[]);
        assert_eq!(found.as_deref(), Some("evil.example:9633"));
    }
}
