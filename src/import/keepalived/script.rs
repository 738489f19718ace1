//! `vrrp_script`, and what it asks: whether HAProxy runs, or something that a program must say.

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::words;
use super::{Said, lex, lost};

/// A script of one file.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) name: String,
    pub(super) id: Id,
    pub(super) command: Said<String>,
    pub(super) interval: Option<Said<u64>>,
    pub(super) timeout: Option<Said<u64>>,
    pub(super) rise: Option<Said<u64>>,
    pub(super) fall: Option<Said<u64>>,
    pub(super) weight: Option<Said<i64>>,
    pub(super) user: Option<Said<String>>,
}

/// Reads a block; nothing without a command.
pub(super) fn read(node: &lex::Node, work: &mut Work) -> Option<Script> {
    let command = node
        .inside()
        .iter()
        .find(|n| n.word(0) == "script" && n.words.len() > 1);
    let Some(command) = command else {
        lost(node, "it has no `script`", work);
        return None;
    };
    let text = command
        .words
        .iter()
        .skip(1)
        .cloned()
        .collect::<Vec<_>>()
        .join(" ");
    if command.words.len() > 2 {
        let why = "keepalived starts its first word alone";
        work.ledger.mark(command.id, Fate::Changed, why);
        let place = work.ledger.place(command.id);
        super::traps::unquoted(node.word(1), &place, command.word(1), work);
    }
    let mut script = Script {
        name: node.word(1).to_owned(),
        id: node.id,
        command: Said::new(text, command.id),
        interval: None,
        timeout: None,
        rise: None,
        fall: None,
        weight: None,
        user: None,
    };
    for inner in node.inside() {
        let id = inner.id;
        let time = || words::seconds(inner.word(1)).map(|ms| Said::new(ms, id));
        let count = || inner.word(1).parse::<u64>().ok().map(|n| Said::new(n, id));
        if matches!(inner.word(0), "interval" | "timeout" | "rise" | "fall") {
            super::instance::behind(inner, work);
        }
        match inner.word(0) {
            "script" => {}
            "interval" => script.interval = time(),
            "timeout" => script.timeout = time(),
            "rise" => script.rise = count(),
            "fall" => script.fall = count(),
            "weight" => {
                script.weight = inner.word(1).parse().ok().map(|n| Said::new(n, id));
                if inner.words.len() > 2 {
                    work.ledger.mark(id, Fate::Lost, "`reverse`");
                }
            }
            "user" => {
                let user = inner.words.get(1..).unwrap_or_default().join(":");
                script.user = Some(Said::new(user, id));
            }
            "init_fail" => work.ledger.mark(
                id,
                Fate::Default,
                "a node takes nothing before its first result",
            ),
            _ => lost(inner, "lbd knows nothing like it", work),
        }
    }
    Some(script)
}

impl Script {
    /// Every line of it.
    pub(super) fn lines(&self) -> Vec<Id> {
        let numbers = [&self.interval, &self.timeout, &self.rise, &self.fall];
        let numbers = numbers.into_iter().flatten().map(|said| said.id);
        let others = [
            self.weight.as_ref().map(|s| s.id),
            self.user.as_ref().map(|s| s.id),
        ];
        [self.id, self.command.id]
            .into_iter()
            .chain(numbers)
            .chain(others.into_iter().flatten())
            .collect()
    }

    /// Whether all it asks is that HAProxy runs, or answers on this machine at one of `ports`.
    pub(super) fn asks_for_proxy(&self, ports: &[u16]) -> bool {
        let text = self.command.value.as_str();
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = match words.as_slice() {
            [timeout, _, rest @ ..] if timeout.ends_with("timeout") => rest,
            all => all,
        };
        let program = words
            .first()
            .map_or("", |word| word.rsplit('/').next().unwrap_or(word));
        let haproxy = words
            .iter()
            .any(|w| w.trim_matches(['\'', '"']).rsplit('/').next() == Some("haproxy"));
        match program {
            "killall" | "killall5" | "pidof" | "pgrep" | "pkill" => haproxy,
            "systemctl" => {
                words.iter().any(|w| w.starts_with("haproxy")) && text.contains("is-active")
            }
            "nc" | "ncat" | "netcat" | "curl" | "wget" => asks_here(words, ports),
            _ if words.len() == 1 && text.starts_with("</dev/tcp/") => {
                let mut place = text.split('/').skip(3);
                let pair = [place.next().unwrap_or(""), place.next().unwrap_or("")];
                asks_here(&pair, ports)
            }
            "sh" | "bash" => {
                let inner = text.contains("haproxy")
                    && ["killall", "pidof", "pgrep", "ps "]
                        .iter()
                        .any(|p| text.contains(p));
                inner && !text.contains("systemctl")
            }
            _ => false,
        }
    }

    /// The command as lbd starts it: a program by its absolute path, or a shell that finds it.
    pub(super) fn argv(&self) -> Vec<String> {
        argv(&self.command.value)
    }
}

/// Whether a request goes to this machine, at one of the ports that haproxy.cfg listens on.
fn asks_here(words: &[&str], ports: &[u16]) -> bool {
    let local = |host: &str| matches!(host, "localhost" | "127.0.0.1" | "::1" | "[::1]");
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| ports.contains(&port));
    let url = |word: &&str| {
        let rest = word.split_once("://").map_or("", |(_, rest)| rest);
        let place = rest.split('/').next().unwrap_or(rest);
        words::host_port(place).is_some_and(|(host, port)| local(host) && is_port(port))
    };
    let pair = words
        .windows(2)
        .any(|pair| matches!(pair, [host, port] if local(host) && is_port(port)));
    words.iter().any(url) || pair
}

/// A command line as a list. Without a shell's characters it is split as keepalived does.
pub(super) fn argv(text: &str) -> Vec<String> {
    let special = |c: char| "|&;<>()$`\\\"'*?[]~".contains(c);
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match words.first() {
        Some(first) if first.starts_with('/') && !text.contains(special) => words,
        // Files that bash alone knows.
        _ if text.contains("/dev/tcp/") || text.contains("/dev/udp/") => vec![
            "/bin/bash".to_owned(),
            "-c".to_owned(),
            text.trim().to_owned(),
        ],
        _ => vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            text.trim().to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::ledger::Ledger;

    fn asks(command: &str) -> bool {
        let id = Ledger::default().open("k", 1, "script");
        let script = Script {
            name: "chk".to_owned(),
            id,
            command: Said::new(command.to_owned(), id),
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            weight: None,
            user: None,
        };
        script.asks_for_proxy(&[6443, 9445])
    }

    #[test]
    fn scripts_that_only_look_for_haproxy_are_known() {
        assert!(asks("killall -0 haproxy"));
        assert!(asks("/usr/bin/pidof haproxy"));
        assert!(asks("/usr/bin/timeout 1.9 /usr/bin/pgrep haproxy"));
        assert!(asks("nc -zv localhost 6443"));
        assert!(asks("</dev/tcp/127.0.0.1/6443"));
        assert!(!asks("</dev/tcp/127.0.0.1/80"));
        assert!(asks(
            "curl -o /dev/null -kLs https://localhost:9445/healthz"
        ));
        assert!(asks(
            "/usr/bin/bash -c 'if [[ $(ps -C haproxy --no-headers | wc -l) -eq 0 ]] ; then exit 1;fi'"
        ));
    }

    #[test]
    fn scripts_that_ask_for_more_stay_scripts() {
        assert!(!asks("/etc/keepalived/check_apiserver.sh"));
        assert!(!asks("killall -0 nginx"));
        assert!(!asks("curl http://10.0.0.1:6443/"));
        assert!(!asks("curl http://localhost:1936/healthz/ready"));
        assert!(!asks(
            "/bin/sh -c 'pidof haproxy || systemctl restart haproxy'"
        ));
    }

    #[test]
    fn a_command_is_started_directly_where_that_is_the_same() {
        assert_eq!(argv("/usr/bin/x -a  b"), ["/usr/bin/x", "-a", "b"]);
        assert_eq!(argv("x a"), ["/bin/sh", "-c", "x a"]);
        assert_eq!(argv("</dev/tcp/h/1"), ["/bin/bash", "-c", "</dev/tcp/h/1"]);
        assert_eq!(
            argv("/bin/x | /bin/y"),
            ["/bin/sh", "-c", "/bin/x | /bin/y"]
        );
    }
}
