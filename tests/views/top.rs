//! `lbd top` on a real terminal, with a real pair behind it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use lbd::admin::status::Status;
use nix::sys::signal::Signal;

use super::Case;
use super::lab::{LB1, LB2, Pair, Role};
use super::screen::Screen;

pub const CASES: &[Case] = &[
    (
        "top_shows_both_nodes_and_a_failover_ordered_from_it_live",
        &["stty"],
        failover_from_top,
    ),
    (
        "top_gives_the_terminal_back_however_it_ends",
        &["stty"],
        given_back,
    ),
    (
        "a_server_is_drained_and_put_back_from_top",
        &["stty"],
        drain_from_top,
    ),
    (
        "a_watched_status_stays_on_its_screen_and_follows_the_daemon",
        &["stty"],
        watched_status,
    ),
];

fn top(pair: &Pair, node: usize) -> Screen {
    let screen = Screen::start(&pair.lab.nodes[node].host, &["top", "--every", "200ms"]);
    screen.until("it is drawn", 5_000, |text| text.contains(" Servers "));
    screen
}

/// The state of a node as the panel of nodes has it.
fn state_of<'a>(text: &'a str, node: &str) -> Option<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("NODE "));
    let line = lines.find(|line| line.starts_with(&format!("{node} ")))?;
    line.split_whitespace().nth(1)
}

fn both(text: &str, lb1: &str, lb2: &str) -> bool {
    state_of(text, "lb1") == Some(lb1) && state_of(text, "lb2") == Some(lb2)
}

fn failover_from_top() {
    let pair = super::pair();
    let mut here = top(&pair, LB2);
    let there = top(&pair, LB1);
    let text = here.until("lb2 is active", 3_000, |text| {
        both(text, "backup", "active")
    });
    here.picture("top-before");
    assert!(text.contains(" Servers  3 of 3 up "), "{text}");
    there.until("lb1 sees it", 3_000, |text| both(text, "backup", "active"));
    here.press("f");
    here.until("it asks", 2_000, |text| {
        text.contains("Hand over haproxy-vip to another node?")
    });
    assert!(pair.holds(LB2));
    here.press("y");
    let text = here.until("lb1 is active", 5_000, |text| {
        both(text, "active", "backup") && text.contains("lb1 (172.16.0.2) took over in ")
    });
    assert!(text.contains("held back after a failover"), "{text}");
    assert!(
        text.contains("state haproxy-vip: active → leaving"),
        "{text}"
    );
    there.until("lb1 sees that, too", 3_000, |text| {
        both(text, "active", "backup") && text.contains("backup → active")
    });
    assert_eq!(pair.only_holder(), Some(LB1));
    here.picture("top-after");
    // The other node dies as a whole: its peer says so while it takes over.
    here.press("c");
    here.until("it asks", 2_000, |text| {
        text.contains("take haproxy-vip back?")
    });
    here.press("y");
    here.until("lb2 is active again", 10_000, |text| {
        both(text, "backup", "active")
    });
    pair.signal(LB2, Role::Proxy, Signal::SIGSTOP);
    super::kill_keeper(&pair, LB2);
    let text = there.until("lb2 is silent", 10_000, |text| {
        state_of(text, "lb1") == Some("active") && state_of(text, "lb2") == Some("SILENT")
    });
    there.picture("top-silent");
    assert!(text.contains("the active node fell silent"), "{text}");
    here.until("nobody answers there", 10_000, |text| {
        text.contains("NO ANSWER")
    });
    here.press("q");
    assert_eq!(here.ended(), Some(0));
    here.is_as_before();
}

fn given_back() {
    let pair = super::pair();
    let mut quits = top(&pair, LB1);
    assert!(quits.is_taken());
    quits.press("\x03");
    assert_eq!(quits.ended(), Some(0));
    quits.is_as_before();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut screen = top(&pair, LB1);
        assert!(screen.is_taken());
        screen.signal(signal);
        assert_eq!(screen.ended(), Some(0), "{signal}");
        screen.is_as_before();
    }
    let nobody = ["top", "--socket", "/run/lbd/none.sock"];
    let mut fails = Screen::start(&pair.lab.nodes[LB1].host, &nobody);
    assert_eq!(fails.ended(), Some(69));
    fails.is_as_before();
    let mut piped = Command::new(env!("CARGO_BIN_EXE_lbd"));
    piped.arg("top").stdin(Stdio::null());
    let said = piped.output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("`lbd status -w`"), "{said}");
}

fn drain_from_top() {
    let pair = super::pair();
    let mut screen = top(&pair, LB2);
    let is = |number: u8, state: &'static str| {
        let start = format!("kube-apiserver-{number} ");
        move |text: &str| {
            let mut lines = text.lines();
            let line = lines.find(|line| line.starts_with(&start));
            line.and_then(|line| line.split_whitespace().nth(1)) == Some(state)
        }
    };
    // Down twice, to the third.
    screen.press("\x1b[B\x1b[B");
    screen.until("it is chosen", 2_000, |text| {
        text.contains("› 172.16.0.6:6443")
    });
    screen.press("d");
    let text = screen.until("it asks", 2_000, |text| text.contains("Sure?"));
    assert!(
        text.contains("Drain kube-apiserver/kube-apiserver-3?"),
        "{text}"
    );
    screen.picture("top-question");
    screen.press("n");
    screen.until("nothing was done", 2_000, |text| {
        text.contains("nothing was changed")
    });
    assert!(is(3, "up")(&screen.text()), "{}", screen.text());
    screen.press("dy");
    screen.until("it is drained", 3_000, is(3, "drain"));
    screen.until("what became of it is said", 2_000, |text| {
        text.contains("kube-apiserver/kube-apiserver-3: ready → drain")
    });
    screen.press("ry");
    screen.until("it is back", 5_000, |text| {
        is(3, "up")(text) || is(3, "slowstart")(text)
    });
    screen.press("q");
    assert_eq!(screen.ended(), Some(0));
    screen.is_as_before();
}

fn watched_status() {
    let pair = super::pair();
    let host = &pair.lab.nodes[LB1].host;
    // Fewer than it has to say at any time.
    let mut screen = Screen::with_lines(host, 20, &["status", "-w", "200ms"]);
    screen.until("it is drawn", 5_000, |text| {
        text.starts_with("VIP 172.16.0.10 held by lb2 (172.16.0.3)") && text.contains("more lines")
    });
    pair.signal(LB2, Role::Keeper, Signal::SIGTERM);
    screen.until("lb1 is active", 5_000, |text| {
        text.starts_with("VIP 172.16.0.10 held by this node")
    });
    // To programs each answer is a line.
    let mut json = Command::new(env!("CARGO_BIN_EXE_lbd"));
    json.args(["status", "-w", "200ms", "-o", "json"])
        .stdout(Stdio::piped());
    let mut json = host.spawn(&mut json).unwrap();
    let lines = BufReader::new(json.stdout.take().unwrap()).lines();
    let uptimes: Vec<u64> = lines
        .take(2)
        .map(|line| {
            let status: Status = serde_json::from_str(&line.unwrap()).unwrap();
            status.process.uptime_ms
        })
        .collect();
    json.kill().unwrap();
    json.wait().unwrap();
    assert!(uptimes[0] < uptimes[1], "{uptimes:?}");
    super::kill_keeper(&pair, LB1);
    pair.signal(LB1, Role::Proxy, Signal::SIGSTOP);
    screen.until("nobody answers", 10_000, |text| {
        text.starts_with("NO ANSWER for ")
    });
    pair.signal(LB1, Role::Proxy, Signal::SIGCONT);
    screen.until("it answers again", 10_000, |text| {
        text.contains("keeper not connected")
    });
    // Who starts the tests in the background has them, and all they start, ignore SIGINT.
    screen.signal(Signal::SIGTERM);
    assert_eq!(screen.ended(), None);
    screen.is_as_before();
}
