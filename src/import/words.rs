//! Words of both formats: placeholders, secrets, times, names, addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::is_name;

/// No origin or directive is shown longer, in characters.
const SHOWN_MAX: usize = 160;

/// Directives whose last word is a secret.
const SECRETS: &[&str] = &[
    "auth_pass",
    "auth_hmac_key",
    "key",
    "password",
    "insecure-password",
    "auth",
];

/// Of those, the ones that stand for nothing else, wherever they are.
const ALWAYS: &[&str] = &["auth_pass", "auth_hmac_key", "insecure-password"];

/// Whether the words are a directive whose last word is a secret.
pub(super) fn is_secret(words: &[&str]) -> bool {
    let plain = |word: &&str| ALWAYS.contains(word);
    words.first().is_some_and(|word| SECRETS.contains(word))
        || matches!(words, ["stats", "auth", ..] | ["user", ..])
        || words.iter().any(plain)
}

/// A directive for people: on one line, bounded, secrets as stars.
pub(super) fn shown(text: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let secret = words.iter().position(|word| SECRETS.contains(word));
    let deep = matches!(words.first(), Some(&("stats" | "user")));
    let always = |at: &usize| words.get(*at).is_some_and(|word| ALWAYS.contains(word));
    if let Some(at) = secret.filter(|at| *at <= 1 || deep || always(at)) {
        let known = words.get(at + 1).is_some_and(|word| *word != "{");
        if known {
            words.truncate(at + 1);
            words.push("****");
        }
    }
    // A header of a check's request.
    let names = |word: &&str| word.to_ascii_lowercase().contains("authorization");
    if let Some(at) = words.iter().position(names) {
        words.truncate(at);
        words.extend(["Authorization", "****"]);
    }
    let plain: String = words
        .join(" ")
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if plain.chars().count() <= SHOWN_MAX {
        return plain;
    }
    plain.chars().take(SHOWN_MAX - 1).chain(['…']).collect()
}

/// What a template still has to fill in: `{{ x }}`, `{% if %}`, `${X}`, `<X>`.
pub(super) fn placeholder(text: &str) -> Option<&str> {
    for (open, close) in [("{{", "}}"), ("{%", "%}"), ("${", "}")] {
        if let Some((_, rest)) = text.split_once(open) {
            let from = text.len() - rest.len() - open.len();
            let to = rest
                .find(close)
                .map_or(text.len(), |at| text.len() - rest.len() + at + close.len());
            return text.get(from..to);
        }
    }
    let (_, rest) = text.split_once('<')?;
    let (name, _) = rest.split_once('>')?;
    let is_word = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let from = text.len() - rest.len() - 1;
    (!name.is_empty() && name.bytes().all(is_word))
        .then(|| text.get(from..from + name.len() + 2))
        .flatten()
}

/// The length of the placeholder in braces with which a text begins.
pub(super) fn placeholder_len(text: &str) -> Option<usize> {
    let (_, close) = [("{{", "}}"), ("{%", "%}"), ("${", "}")]
        .into_iter()
        .find(|(open, _)| text.starts_with(open))?;
    Some(text.find(close)? + close.len())
}

/// A name that lbd can use, made of any other.
pub(super) fn name(text: &str) -> String {
    if is_name(text) {
        return text.to_owned();
    }
    let usable = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().take(64).map(usable).collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

/// `name`, with a number behind it when it is taken.
pub(super) fn unique(wanted: &str, taken: &[String]) -> String {
    let base = name(wanted);
    if !taken.contains(&base) {
        return base;
    }
    let short: String = base.chars().take(56).collect();
    let numbered = (2..).map(|number: usize| format!("{short}-{number}"));
    let mut free = numbered.filter(|name| !taken.contains(name));
    free.next().unwrap_or(base)
}

/// A time of haproxy.cfg in milliseconds: `5000`, `30s`, `1d`; microseconds are rounded up.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits)?;
    let number: u64 = digits.parse().ok()?;
    match unit {
        "us" => Some(number.div_ceil(1_000)),
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    }
}

/// Seconds of keepalived.conf, with a fraction, in milliseconds: `1`, `0.25`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let whole: u64 = whole.parse().ok()?;
    whole
        .checked_mul(1_000)?
        .checked_add(thousandths.parse().ok()?)
}

/// A duration as lb.toml writes it, with quotes.
pub(super) fn duration(ms: u64) -> String {
    let (size, unit) = match ms {
        0 => (1, "s"),
        _ if ms.is_multiple_of(3_600_000) => (3_600_000, "h"),
        _ if ms.is_multiple_of(60_000) && ms >= 120_000 => (60_000, "m"),
        _ if ms.is_multiple_of(1_000) => (1_000, "s"),
        _ => (1, "ms"),
    };
    format!("\"{}{unit}\"", ms / size)
}

/// An address with a port, as HAProxy splits it: at the last colon.
pub(super) fn host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Some((bare.unwrap_or(host), port))
}

/// A port, 1…65535; `+1000` is none, but an offset.
pub(super) fn port(text: &str) -> Option<u16> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// An IP address; `localhost` is one.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        "::" => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => text.parse().ok(),
    }
}

/// `IP:PORT` with quotes.
pub(super) fn socket(ip: IpAddr, port: u16) -> String {
    format!("\"{}\"", SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_haproxy_does_and_written_as_people_do() {
        assert_eq!(milliseconds("1500us"), Some(2));
        assert_eq!(milliseconds("1500"), Some(1_500));
        assert_eq!(milliseconds("2m"), Some(120_000));
        assert_eq!(milliseconds("2w"), None);
        assert_eq!(duration(60_000), "\"60s\"");
        assert_eq!(duration(120_000), "\"2m\"");
        assert_eq!(duration(1_500), "\"1500ms\"");
    }

    #[test]
    fn a_name_is_given_once() {
        let taken = ["api".to_owned(), "api-2".to_owned()];
        assert_eq!(unique("etcd", &taken), "etcd");
        assert_eq!(unique("api", &taken), "api-3");
    }

    #[test]
    fn a_secret_is_hidden_and_says_that_it_is() {
        assert_eq!(shown("auth_pass  1111"), "auth_pass ****");
        assert_eq!(shown("stats auth admin:secret if X"), "stats auth ****");
        assert_eq!(shown("bind :6443"), "bind :6443");
        assert_eq!(
            shown("~LST(A, 1) @x auth_pass 1111"),
            "~LST(A, 1) @x auth_pass ****"
        );
    }
}
