//! What the service and its manager say to each other.

use std::process::{Command, Stdio};
use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::{Signal, kill};

use super::faults::{Managed, wait};
use super::lab::cases::Case;
use super::lab::{self, LB2, Pair, Role, SEED};
use super::service::{Event, Service};
use super::unit::{LEFT_OUT, OBEYED, Unit, span};

pub const CASES: &[Case] = &[
    (
        "every_key_of_the_unit_is_obeyed_or_left_out_for_a_reason",
        &[],
        unit_keys,
    ),
    (
        "the_manager_hears_ready_signs_of_life_and_stopping",
        &[],
        conversation,
    ),
    (
        "the_units_sandbox_is_in_force_and_doctor_finds_nothing_wrong_with_it",
        &["systemd-analyze"],
        sandboxed,
    ),
    ("a_refused_configuration_is_not_tried_again", &[], refused),
    ("sighup_leaves_everything_running", &[], sighup),
    (
        "a_watched_file_is_seen_from_within_the_sandbox",
        &[],
        watched,
    ),
];

fn unit_keys() {
    let unit = Unit::shipped();
    let left_out: Vec<&str> = LEFT_OUT.iter().map(|(key, _)| *key).collect();
    for key in unit.keys() {
        let known = OBEYED.contains(&key) || left_out.contains(&key);
        assert!(known, "{key} is neither obeyed nor left out");
    }
    for key in OBEYED.iter().chain(&left_out) {
        assert!(unit.value(key).is_some(), "the unit has no {key} any more");
    }
    let parsed = Unit::parse("# text\n[Service]\nRestartSec=100ms\nRestart=no\nRestart=always\n");
    assert_eq!(parsed.span("RestartSec"), Duration::from_millis(100));
    assert_eq!(parsed.required("Restart"), "always");
    assert_eq!(span("2s"), Duration::from_secs(2));
    assert_eq!(span("1min"), Duration::from_secs(60));
}

fn conversation() {
    let began = clock::now();
    let lb = Managed::start();
    assert_eq!(lb.service.said_since(began, "READY=1"), 1);
    let active = "STATUS=proxy serving, haproxy-vip active (MASTER)";
    wait("the status line", 5_000, || {
        lb.service.said_since(began, active) > 0
    });
    // WatchdogSec=2s: fed each third of it.
    let from = clock::now();
    wait("six signs of life", 10_000, || {
        lb.service.said_since(from, "WATCHDOG=1") >= 6
    });
    let took = clock::now() - from;
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert_eq!(lb.service.stop(), Event::Ended(Some(0), None));
    assert_eq!(lb.service.said_since(from, "STOPPING=1"), 1);
    assert_eq!(lb.service.starts_since(began), 1);
    assert!(lb.pair.processes(LB2, Role::All).is_empty());
    assert!(!lb.pair.holds(LB2));
}

/// All other cases run under it, too: that it hinders nothing is theirs to show.
fn sandboxed() {
    let lb = Managed::start();
    let keeper = lb.service.main_pid().expect("it runs");
    let of_keeper = |file: &str| std::fs::read_to_string(format!("/proc/{keeper}/{file}")).unwrap();
    let status = of_keeper("status");
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "CapEff:\t0000000000003000",
        "CapBnd:\t0000000000003000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(
            status.lines().any(|other| other == line),
            "{line}: {status}"
        );
    }
    // Where each is mounted last, and how.
    let mounts = of_keeper("mounts");
    let options = |point: &str| {
        let fields = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let last = fields.rev().find(|fields| fields[1] == point);
        last.unwrap_or_else(|| panic!("no {point}: {mounts}"))[3].to_owned()
    };
    for point in ["/", "/run", "/dev", "/root"] {
        assert!(options(point).starts_with("ro"), "{point}: {mounts}");
    }
    for point in ["/run/lbd", "/run/var-lib/lbd", "/tmp"] {
        assert!(options(point).starts_with("rw"), "{point}: {mounts}");
    }
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_lbd"));
    doctor.args(["doctor", "/run/lb.toml", "--for", "2200ms"]);
    let doctor = doctor.stdout(Stdio::piped()).stderr(Stdio::piped());
    let doctor = lb.pair.lab.nodes[LB2].host.spawn(doctor).unwrap();
    let said = doctor.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(said.status.code(), Some(0), "{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let words = words.join(" ");
    // Keeper and runner by the manager, the proxy by itself, too.
    assert_eq!(
        words.matches("seccomp on, by the service manager").count(),
        2,
        "{text}"
    );
    assert_eq!(words.matches("seccomp on").count(), 3, "{text}");
    let files = "landlock not needed, the file system is read-only";
    assert_eq!(words.matches(files).count(), 2, "{text}");
    let log = lb.pair.report();
    assert!(!log.contains("Operation not permitted"), "{log}");
    assert!(!log.contains("Function not implemented"), "{log}");
}

fn refused() {
    let pair = Pair::new();
    let began = clock::now();
    let config = "[vip.v]\naddress = \"nonsense\"\n";
    let service = Service::start(&pair.lab.nodes[LB2].host, config);
    wait("the service to be given up", 5_000, || service.is_over());
    let events = service.since(began);
    assert_eq!(events.last(), Some(&Event::Ended(Some(78), None)));
    assert_eq!(service.starts_since(began), 1);
}

fn sighup() {
    let lb = Managed::start();
    let at = clock::now();
    let keeper = lb.service.main_pid().expect("it runs");
    let proxy = lb.proxy();
    kill(keeper, Signal::SIGHUP).expect("it runs");
    lb.pair.until_served(1_000, 5_000);
    assert_eq!(lb.service.main_pid(), Some(keeper));
    assert_eq!(lb.proxy(), proxy);
    assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
    assert_eq!(lb.moves(at), 0, "{}", lb.pair.report());
}

fn watched() {
    let lb = Managed::start();
    let at = clock::now();
    let text = format!("{}\n[reload]\nwatch = true\n", lab::config(SEED));
    let done = lb.service.reload(&text);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let changed = text.replace("max-connections = 250", "max-connections = 260");
    assert_ne!(changed, text);
    lb.service.replace_config(&changed);
    wait("the change", 5_000, || {
        lb.log().matches("configuration reloaded").count() == 2
    });
    assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
    assert_eq!(lb.moves(at), 0, "{}", lb.pair.report());
}
