//! Words of both formats: placeholders, secrets, times, names, addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::is_name;

/// No origin or directive is shown longer, in characters.
const SHOWN_MAX: usize = 160;
/// No more of one is looked at for that, in characters.
const READ_MAX: usize = 1_024;

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

/// What stands for what nobody shall read.
pub(super) const STARS: &str = "****";

/// A word without its quotes.
fn bare(word: &str) -> &str {
    word.trim_matches(['"', '\''])
}

/// Whether the words are a directive whose last word is a secret.
pub(super) fn is_secret(words: &[&str]) -> bool {
    let is = |index: usize, wanted: &str| words.get(index).is_some_and(|w| bare(w) == wanted);
    words
        .first()
        .is_some_and(|word| SECRETS.contains(&bare(word)))
        || is(0, "stats") && is(1, "auth")
        || is(0, "user") && is(2, "password")
        || words.iter().any(|word| ALWAYS.contains(&bare(word)))
}

/// How many words of a check's request may be read, when not all.
fn readable(words: &[&str]) -> Option<usize> {
    let has = |word: &str, hints: &[&str]| {
        let small = word.to_ascii_lowercase();
        hints.iter().any(|hint| small.contains(hint))
    };
    let header = ["auth", "token", "cookie", "secret", "pass", "key"];
    let query = ["token=", "secret=", "password=", "key="];
    match words {
        ["http-check", "send", ..] => {
            let own = |pair: &[&str]| match pair {
                [word, name] => match bare(word) {
                    "hdr" => !bare(name).eq_ignore_ascii_case("host"),
                    "body" | "body-lf" => true,
                    _ => has(name, &query),
                },
                _ => false,
            };
            let at = words.windows(2).position(own)?;
            let named = words.get(at).is_some_and(|word| bare(word) == "hdr");
            Some(at + 1 + usize::from(named))
        }
        ["option", "httpchk", ..] => words
            .iter()
            .position(|word| word.contains('\\') && has(word, &header) || has(word, &query)),
        ["tcp-check", "send" | "send-lf", ..] => {
            words.iter().position(|word| has(word, &["auth", "pass"]))
        }
        _ => None,
    }
}

/// The text with stars in place of the items of its lists.
fn without_lists(text: &str) -> String {
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, list)) = rest.split_once("~LST") {
        made.push_str(before);
        made.push_str("~LST(****)");
        rest = list.split_once(')').map_or("", |(_, behind)| behind);
    }
    made + rest
}

/// A directive for people: on one line, bounded, secrets as stars.
pub(super) fn shown(text: &str) -> String {
    // What is behind is cut anyway, unless there are blanks alone.
    let start = text.trim_start();
    let end = start.char_indices().nth(READ_MAX).map(|(at, _)| at);
    let start = start.get(..end.unwrap_or(start.len())).unwrap_or(start);
    let mut words: Vec<&str> = start.split_whitespace().collect();
    let before = words.clone();
    let secret = words.iter().position(|word| SECRETS.contains(&bare(word)));
    let deep = matches!(words.first(), Some(&("stats" | "user")));
    let always = |at: &usize| {
        words
            .get(*at)
            .is_some_and(|word| ALWAYS.contains(&bare(word)))
    };
    if let Some(at) = secret.filter(|at| *at <= 1 || deep || always(at)) {
        let known = words.get(at + 1).is_some_and(|word| *word != "{");
        if known {
            words.truncate(at + 1);
            words.push(STARS);
        }
    }
    // A header of a check's request.
    let names = |word: &&str| word.to_ascii_lowercase().contains("authorization");
    if let Some(at) = words.iter().position(names) {
        words.truncate(at);
        words.extend(["Authorization", STARS]);
    } else if let Some(at) = readable(&words) {
        words.truncate(at);
        words.push(STARS);
    }
    let mut joined = words.join(" ");
    if words != before {
        joined = without_lists(&joined);
    }
    let plain: String = joined
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if plain.chars().count() <= SHOWN_MAX && end.is_none() {
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

/// Finds the placeholders of one text, from its start to its end, in time that grows with it.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    /// Whether what closes one stands no further on.
    ended: [bool; 3],
}

impl Placeholders {
    /// The length of the placeholder in braces with which what is left of the text begins.
    pub(super) fn len(&mut self, rest: &str) -> Option<usize> {
        let pairs = [("{{", "}}"), ("{%", "%}"), ("${", "}")];
        let mut known = pairs.into_iter().zip(&mut self.ended);
        let ((_, close), ended) = known.find(|((open, _), _)| rest.starts_with(open))?;
        if *ended {
            return None;
        }
        let found = rest.find(close);
        *ended = found.is_none();
        Some(found? + close.len())
    }
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
            "~LST(****) @x auth_pass ****"
        );
        assert_eq!(shown("\"auth_pass\" 1111"), "\"auth_pass\" ****");
        assert_eq!(shown("user haproxy"), "user haproxy");
        assert!(!is_secret(&["user", "haproxy"]));
        for (text, expected) in [
            (
                "http-check send hdr Host a hdr X-Auth-Token \"a b\" hdr B c",
                "http-check send hdr Host a hdr X-Auth-Token ****",
            ),
            (
                "http-check send uri / body \"a b\"",
                "http-check send uri / body ****",
            ),
            ("http-check send uri /?token=x", "http-check send uri ****"),
            ("tcp-check send AUTH\\ x\\r\\n", "tcp-check send ****"),
            (
                "option httpchk GET /auth/realms",
                "option httpchk GET /auth/realms",
            ),
            (
                "option httpchk GET / HTTP/1.1\\r\\nX-Token:\\ x",
                "option httpchk GET / ****",
            ),
        ] {
            assert_eq!(shown(text), expected);
        }
        let long = shown(&"a ".repeat(100_000));
        assert_eq!(long.chars().count(), SHOWN_MAX);
    }
}
