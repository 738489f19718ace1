//! Termination codes of the access log, letter by letter and together.

use super::Page;
use crate::proxy::termination::{Cause, Phase, Termination};

/// Every first letter.
const CAUSES: [Cause; 9] = [
    Cause::Normal,
    Cause::Client,
    Cause::Server,
    Cause::Proxy,
    Cause::Resource,
    Cause::Down,
    Cause::Killed,
    Cause::ClientTimeout,
    Cause::ServerTimeout,
];

/// Every second letter.
const PHASES: [Phase; 6] = [
    Phase::Done,
    Phase::Header,
    Phase::Queue,
    Phase::Connect,
    Phase::Data,
    Phase::Last,
];

/// The page of a code of two letters; small and capital ones differ.
pub(super) fn page(word: &str) -> Option<Page> {
    let all = CAUSES
        .iter()
        .flat_map(|cause| PHASES.iter().map(|phase| Termination::new(*cause, *phase)));
    let end = all.into_iter().find(|end| end.to_string() == word)?;
    Some(Page {
        topic: word.to_owned(),
        kind: "termination",
        title: title(end),
        text: text(end),
        wrong: None,
        right: None,
    })
}

fn title(end: Termination) -> String {
    if end == Termination::NORMAL {
        return "both sides finished".to_owned();
    }
    format!("{}, {}", cause(end.cause), phase(end.phase))
}

const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Normal => "both sides finished",
        Cause::Client => "the client broke off",
        Cause::Server => "the server refused or broke off, or none was usable",
        Cause::Proxy => "lbd ended it, to enforce a limit or a rule",
        Cause::Resource => "lbd ran out of descriptors, memory or ports",
        Cause::Down => "its server was found to be down",
        Cause::Killed => "an administrator ended it, or the virtual address left this node",
        Cause::ClientTimeout => "waited too long for the client",
        Cause::ServerTimeout => "waited too long for the server, or for a place on one",
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Done => "after the end",
        Phase::Header => "before its PROXY header was there, or refused for who the client is",
        Phase::Queue => "while it waited in the queue",
        Phase::Connect => "while connecting to a server",
        Phase::Data => "while bytes were flowing",
        Phase::Last => "while the last bytes were on their way to the client",
    }
}

/// What it comes from, and what helps.
fn text(end: Termination) -> String {
    let meaning = format!(
        "{}: {}.\n{}: {}.\n\n",
        end.cause_letter(),
        cause(end.cause),
        end.phase_letter(),
        phase(end.phase)
    );
    meaning + remedy(end)
}

fn remedy(end: Termination) -> &'static str {
    match (end.cause, end.phase) {
        (Cause::Normal, _) => "Nothing to do.",
        (Cause::Client, Phase::Queue | Phase::Connect) => {
            "The client lost patience before it had a server. If there are many, servers are slow to accept or at their\nlimits: see the queue in `lbd status`, and `lbd_server_connect_*` in the metrics."
        }
        (Cause::Client, _) => {
            "Mostly harmless: a client that was stopped, or that ends with RST instead of FIN."
        }
        (Cause::Server, Phase::Queue | Phase::Connect) => {
            "No server could be had: each refused, or none is up. `lbd status` says what checks found, and why."
        }
        (Cause::Server, _) => {
            "The server closed with RST, or its host went away. See the server's own log at that time."
        }
        (Cause::Proxy, Phase::Header) => {
            "The client is in `deny`, not in `allow`, has too many connections (`per-source`), or its PROXY header was\nmalformed. `lbd status --top` shows the busiest sources."
        }
        (Cause::Proxy, Phase::Queue) => {
            "The queue was full (`max-queue`). More or faster servers help, or a higher `max-connections` of each."
        }
        (Cause::Proxy, _) => {
            "A rule of the proxy: `max-age`, `rebalance`, or a limit at which the oldest silent connection gives way."
        }
        (Cause::Resource, _) => {
            "See `lbd_process_shortages_total`. Raise LimitNOFILE, or lower `limits.max-connections`; docs/operate.md."
        }
        (Cause::Down, _) => {
            "`on-unresponsive = \"reset\"` closed it, so that the client comes back to a server that lives. `lbd events` and\n`lbd status` say when the server went down, and why."
        }
        (Cause::Killed, _) => {
            "Expected at a failover, a stop, or an order by an operator: `lbd events` says which."
        }
        (Cause::ClientTimeout, Phase::Header) => {
            "The sender is in `proxy-protocol.accept` and sent no header in time: does it send one at all?"
        }
        (Cause::ClientTimeout, Phase::Data) => {
            "The client was silent for `idle-timeout`, or sent no first byte within `first-byte-timeout`. If clients are cut\nthat shouldn't be, raise the one; a port scan or a health check in front of lbd is the usual source of the other."
        }
        (Cause::ClientTimeout, _) => {
            "The client took nothing for too long: `half-close-timeout`, `user-timeout`."
        }
        (Cause::ServerTimeout, Phase::Queue) => {
            "Every server was at `max-connections` for `queue-timeout`. Raise the limits, or add servers; see the queue in\n`lbd status` and docs/capacity.md."
        }
        (Cause::ServerTimeout, Phase::Connect) => {
            "No server answered a connect within `connect-timeout` and `retries`: a firewall or a host that is gone. Checks\nfind that within a moment, so a few of these are normal when a host dies."
        }
        (Cause::ServerTimeout, _) => {
            "The server was silent for `idle-timeout`, or left bytes unacknowledged for `user-timeout`."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_explained_letter_by_letter() {
        let page = page("sQ").unwrap();
        assert_eq!(
            page.title,
            "waited too long for the server, or for a place on one, while it waited in the queue"
        );
        assert!(page.text.contains("queue-timeout"), "{}", page.text);
        assert_eq!(super::page("--").unwrap().title, "both sides finished");
    }

    #[test]
    fn letters_of_other_programs_and_other_cases_are_not_taken_for_codes() {
        assert_eq!(page("SH"), None);
        assert_eq!(page("sq"), None);
        assert_ne!(page("cD").unwrap().text, page("CD").unwrap().text);
        assert_eq!(page("é"), None);
    }
}
