//! `lbd failover` on a pair with the seed's settings: version 2, an advert each second; lb2 is
//! preferred and preempts at once, unless it is held back.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lbd::net::clock;
use lbd::net::netns::Process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Case;
use super::lab::{self, LB1, LB2, Pair, Role, SEED};

/// A planned move costs the client no more than this.
const GAP: Duration = Duration::from_millis(20);

/// For a user who may not look into the directory of the build.
const COPY: &str = "/run/lbd/program";

pub const CASES: &[Case] = &[
    (
        "an_ordered_failover_moves_the_vip_which_stays_there_until_that_is_cancelled",
        &[],
        failover_and_cancel,
    ),
    (
        "an_ordered_failover_that_nobody_answers_is_taken_back",
        &[],
        nobody_there,
    ),
    (
        "a_failover_for_some_time_ends_by_itself",
        &[],
        failover_for_a_time,
    ),
    (
        "a_user_who_may_only_read_gives_no_orders",
        &[],
        reader_is_refused,
    ),
    (
        "a_keeper_that_dies_during_a_failover_leaves_nobody_waiting",
        &[],
        keeper_killed_meanwhile,
    ),
    (
        "a_node_held_back_stays_so_when_its_keeper_is_killed",
        &[],
        keeper_killed_under_a_hold,
    ),
    (
        "a_failover_cancelled_while_it_waits_is_followed_by_no_hold",
        &[],
        cancelled_meanwhile,
    ),
];

/// Starts `lbd` with these arguments on a node, as root or as another user.
fn spawn(pair: &Pair, node: usize, arguments: &[&str], uid: Option<u32>) -> std::process::Child {
    let program = match uid {
        None => env!("CARGO_BIN_EXE_lbd"),
        Some(_) => COPY,
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(uid) = uid {
        command.uid(uid);
    }
    let host = &pair.lab.nodes[node].host;
    host.spawn(&mut command).expect("lbd starts")
}

fn order(pair: &Pair, node: usize, arguments: &[&str]) -> Said {
    Said::from(spawn(pair, node, arguments, None).wait_with_output())
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<std::io::Result<Output>> for Said {
    fn from(output: std::io::Result<Output>) -> Self {
        let output = output.expect("lbd ends");
        let said = Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        println!("    {:?} {}{}", said.code, first_line(&said.out), said.err);
        said
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn gap_is_small(pair: &Pair, since: Instant) {
    let gap = pair.gap(since);
    println!("    gap: {} ms", gap.as_millis());
    let counts = pair
        .client()
        .tally(|tally| tally.counts(since, clock::now()));
    assert!(gap <= pair.bound(GAP, since), "{gap:?}\n{}", pair.report());
    assert_eq!(counts.refused, 0, "{counts:?}\n{}", pair.report());
}

fn stays_for(pair: &Pair, node: usize, time: Duration) {
    let end = clock::now() + time;
    while clock::now() < end {
        assert_eq!(pair.only_holder(), Some(node), "{}", pair.report());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn moved_to_lb1(pair: &Pair, since: Instant) {
    pair.until("lb1 alone holds the VIP", 1_000, |pair| {
        pair.only_holder() == Some(LB1)
    });
    pair.until_served(500, 5_000);
    gap_is_small(pair, since);
}

fn lb2_comes_back(pair: &Pair) {
    // 3 intervals + Skew_Time.
    pair.until("lb2 alone holds the VIP", 8_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 5_000);
}

fn failover_and_cancel() {
    let pair = Pair::of_lbd(&lab::config(SEED));
    let at = clock::now();
    let said = order(&pair, LB2, &["failover"]);
    assert_eq!(said.code, Some(0), "{}", pair.report());
    let first = "haproxy-vip: lb1 (172.16.0.2) took over in ";
    assert!(said.out.starts_with(first), "{said:?}");
    moved_to_lb1(&pair, at);
    // A preferred node that is not held back would be there after 3.6 s.
    stays_for(&pair, LB1, Duration::from_secs(5));

    let status = order(&pair, LB2, &["status"]);
    let held = "held back after a failover: until `lbd failover --cancel`";
    assert!(status.out.contains(held), "{status:?}");
    let said = order(&pair, LB2, &["failover", "haproxy-vip"]);
    let elsewhere = "haproxy-vip: not active here, but on lb1 (172.16.0.2)\n";
    assert_eq!((said.code, said.out.as_str()), (Some(1), elsewhere));
    let said = order(&pair, LB2, &["failover", "haproxy-vpi"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("did you mean `haproxy-vip`?"), "{said:?}");

    let back = clock::now();
    let said = order(&pair, LB2, &["failover", "--cancel", "-o", "json"]);
    assert_eq!(said.code, Some(0));
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["vips"][0]["result"], "released");
    lb2_comes_back(&pair);
    gap_is_small(&pair, back);
    let status = order(&pair, LB2, &["status"]);
    assert!(!status.out.contains("held back"), "{status:?}");
    let said = order(&pair, LB2, &["failover", "--cancel"]);
    assert_eq!(said.out, "haproxy-vip: was not held back\n");
}

fn nobody_there() {
    let pair = Pair::of_lbd(&lab::config(SEED));
    pair.signal(LB1, Role::All, Signal::SIGKILL);
    pair.until("lb1 is gone", 2_000, |pair| pair.ended(LB1));
    let at = clock::now();
    let said = order(&pair, LB2, &["failover", "haproxy-vip"]);
    assert_eq!(said.code, Some(1), "{}", pair.report());
    let nobody = "haproxy-vip: nobody took over within ";
    assert!(said.out.starts_with(nobody), "{said:?}");
    pair.until_served(500, 5_000);
    assert_eq!(pair.only_holder(), Some(LB2), "{}", pair.report());
    let moves = pair.lab.history(|history| history.moves(at, clock::now()));
    assert_eq!(moves, 0, "{}", pair.report());
    gap_is_small(&pair, at);
    let status = order(&pair, LB2, &["status"]);
    assert!(!status.out.contains("held back"), "{status:?}");
}

fn failover_for_a_time() {
    let pair = Pair::of_lbd(&lab::config(SEED));
    let at = clock::now();
    let said = order(&pair, LB2, &["failover", "--for", "6s"]);
    assert_eq!(said.code, Some(0), "{}", pair.report());
    moved_to_lb1(&pair, at);
    let status = order(&pair, LB2, &["status"]);
    assert!(
        status.out.contains("held back after a failover: "),
        "{status:?}"
    );
    assert!(status.out.contains("s left, or until"), "{status:?}");
    stays_for(&pair, LB1, Duration::from_secs(4));
    lb2_comes_back(&pair);
    assert!(clock::now() - at >= Duration::from_secs(6));
}

/// The keeper alone: whoever gives orders is an lbd, too.
fn keeper(pair: &Pair, node: usize) -> Pid {
    let all = pair.lab.nodes[node].host.processes().unwrap();
    let is_keeper = |process: &&Process| process.has_argument("--config");
    all.iter().find(is_keeper).expect("a keeper runs").pid
}

fn keeper_killed_meanwhile() {
    let pair = Pair::of_lbd(&lab::config(SEED));
    pair.signal(LB1, Role::All, Signal::SIGKILL);
    pair.until("lb1 is gone", 2_000, |pair| pair.ended(LB1));
    let waiting = spawn(&pair, LB2, &["failover"], None);
    pair.until("lb2 hands over", 3_000, |pair| {
        let status = order(pair, LB2, &["status"]);
        status.out.contains("leaving (waits for the successor)")
    });
    kill(keeper(&pair, LB2), Signal::SIGKILL).unwrap();
    let said = Said::from(waiting.wait_with_output());
    assert_eq!(said.code, Some(1), "{}", pair.report());
    let lost = "nobody knows how it ended: the keeper ended before it said how it ended\n";
    assert_eq!(said.out, lost);
}

/// A service manager starts it again after 100 ms.
fn keeper_killed_under_a_hold() {
    let mut pair = Pair::of_lbd(&lab::config(SEED));
    let said = order(&pair, LB2, &["failover", "--for", "1h"]);
    assert_eq!(said.code, Some(0), "{}", pair.report());
    pair.until("lb1 alone holds the VIP", 1_000, |pair| {
        pair.only_holder() == Some(LB1)
    });
    kill(keeper(&pair, LB2), Signal::SIGKILL).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    pair.start_lbd(LB2, &lab::config(SEED));
    // A preferred node that is not held back would be there after 3.6 s.
    stays_for(&pair, LB1, Duration::from_secs(6));
    let status = order(&pair, LB2, &["status"]);
    assert!(
        status.out.contains("held back after a failover: 59m"),
        "{status:?}"
    );
    let said = order(&pair, LB2, &["failover", "--cancel"]);
    assert_eq!(said.out, "haproxy-vip: no longer held back\n");
    lb2_comes_back(&pair);
}

fn cancelled_meanwhile() {
    let pair = Pair::of_lbd(&lab::config(SEED));
    let waiting = spawn(&pair, LB2, &["failover"], None);
    // The successor needs 0.6 s.
    std::thread::sleep(Duration::from_millis(200));
    let said = order(&pair, LB2, &["failover", "--cancel"]);
    assert_eq!(said.out, "haproxy-vip: no longer held back\n");
    let said = Said::from(waiting.wait_with_output());
    assert_eq!(said.code, Some(0), "{}", pair.report());
    lb2_comes_back(&pair);
}

/// The file's mode lets this user in, as it lets the socket's group in.
fn reader_is_refused() {
    let nobody = Some(65_534);
    let pair = Pair::of_lbd(&lab::config(SEED));
    let open_up = || {
        std::fs::copy(env!("CARGO_BIN_EXE_lbd"), COPY).unwrap();
        for (path, mode) in [
            ("/run/lbd", 0o755),
            ("/run/lbd/admin.sock", 0o666),
            (COPY, 0o755),
        ] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).unwrap();
        }
    };
    pair.lab.nodes[LB2].host.run(open_up).unwrap();
    let said = Said::from(spawn(&pair, LB2, &["status"], nobody).wait_with_output());
    assert_eq!(said.code, Some(0));
    let said = Said::from(spawn(&pair, LB2, &["failover"], nobody).wait_with_output());
    assert_eq!(said.code, Some(77));
    assert!(said.err.contains("not permitted"), "{said:?}");
    assert_eq!(pair.only_holder(), Some(LB2), "{}", pair.report());
}
