//! System calls of the data path, counted: how many a worker makes for a short
//! connection and for a request, call by call. Each has its reason in docs/datapath.md; one more
//! than that turns this red. Needs strace; says so when it skips.
#![cfg(test)]

mod load;
#[path = "../lab/port.rs"]
mod port;
mod program;
mod trace;

use std::fmt::Write as _;

use load::Load;
use program::{Kind, Program};
use trace::Counts;

/// Connections, and requests, of each client that count.
const EACH: usize = 100;

/// The calls that wait: how many depends on how much arrives meanwhile.
const WAITS: [&str; 2] = ["epoll_wait", "epoll_pwait"];
/// Looks at those that wait longer than a moment: none on a calm machine, and never one for each.
const LOOKS: [(&str, u64); 1] = [("ioctl", 60)];
/// What a call that has no limit of its own may come to: ticks, trims, the clock of the log.
const STRAY: u64 = 10;

/// A short connection, at most, hundredths of calls: the request's bytes up, the answer's down, the
/// client closes first, on a recycled socket.
const CONNECTION: [(&str, u64); 8] = [
    ("accept4", 125),
    ("close", 110),
    ("connect", 205),
    ("epoll_ctl", 110),
    ("recvfrom", 410),
    ("sendto", 205),
    ("setsockopt", 210),
    ("shutdown", 105),
];
/// The same for a request over a connection that lasts.
const REQUEST: [(&str, u64); 2] = [("recvfrom", 205), ("sendto", 205)];

/// What a program did for the load.
struct Measured {
    connection: Counts,
    request: Counts,
}

/// Runs the load against a program under strace; `None`: something is not installed here.
fn measure(kind: &Kind) -> Option<Measured> {
    let load = Load::new();
    let program = Program::start(kind, &load.servers)?;
    load.connections(program.addr, EACH / 4);
    let connections = load.connections(program.addr, EACH);
    let requests = load.requests(program.addr, EACH);
    let trace = program.stop();
    let count = |span| trace.count(span, kind.thread()).each(load::CLIENTS * EACH);
    let measured = Measured {
        connection: count(connections),
        request: count(requests),
    };
    println!("{measured}");
    Some(measured)
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a short connection:\n{}a request:\n{}",
            self.connection, self.request
        )
    }
}

/// What goes beyond the limits, in words.
fn excess(counts: &Counts, limits: &[(&str, u64)]) -> String {
    let mut text = String::new();
    for (call, (count, _)) in &counts.0 {
        let limit = limits.iter().chain(&LOOKS).find(|(name, _)| name == call);
        let limit = limit.map_or(STRAY, |(_, limit)| *limit);
        if *count > limit && !WAITS.contains(&call.as_str()) {
            writeln!(text, "{call}: {count} hundredths, at most {limit}").unwrap();
        }
    }
    text
}

#[test]
fn a_short_connection_and_a_request_cost_lbd_the_calls_that_are_justified_and_no_more() {
    let Some(lbd) = measure(&Kind::Lbd) else {
        return;
    };
    assert_eq!(excess(&lbd.connection, &CONNECTION), "", "{lbd}");
    assert_eq!(excess(&lbd.request, &REQUEST), "", "{lbd}");
    // The load is what the limits are for: not less of it, either.
    for (counts, call, least) in [
        (&lbd.connection, "accept4", 95),
        (&lbd.request, "sendto", 195),
    ] {
        assert!(counts.of(call) >= least, "{lbd}");
    }
    // A read or write that finds nothing to do is a call too many; an accept may be now and then,
    // when many came at once.
    for counts in [&lbd.connection, &lbd.request] {
        for (call, most) in [("accept4", 25), ("recvfrom", 5), ("sendto", 5)] {
            assert!(counts.failed(call) <= most, "{call} in vain:\n{lbd}");
        }
    }
}

#[test]
fn haproxy_makes_more_calls_for_the_same_load() {
    let Some(haproxy) = measure(&Kind::haproxy()) else {
        return;
    };
    let total = |limits: &[(&str, u64)]| limits.iter().map(|(_, limit)| limit).sum::<u64>();
    assert!(haproxy.connection.without(&WAITS) > total(&CONNECTION));
    assert!(haproxy.request.without(&WAITS) >= 400);
}

#[test]
#[ignore = "for the table in docs/datapath.md, where nginx is installed"]
fn nginx_under_the_same_load() {
    assert!(measure(&Kind::Nginx).is_some());
}
