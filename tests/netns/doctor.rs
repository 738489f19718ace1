//! `lbd doctor` on the hosts of a pair: before the first start, while all is well, and in the troubles
//! that it is for.

use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use lbd::net::netns::Namespace;
use serde_json::Value;

use super::Case;
use super::lab::{self, LB1, LB2, Pair, SEED};

pub const CASES: &[Case] = &[
    (
        "doctor_before_the_first_start_finds_what_there_is_to_find",
        &[],
        before_the_start,
    ),
    (
        "doctor_finds_a_running_pair_well_and_names_what_is_wrong_with_a_sick_one",
        &["nft"],
        pair_well_and_sick,
    ),
    (
        "doctor_asks_by_neighbour_discovery_who_has_an_address_of_ipv6",
        &["ip"],
        over_ipv6,
    ),
];

const FILE: &str = "/run/lbd/doctor.toml";

/// What `lbd doctor` says on a host: its exit code and its findings.
fn doctor(host: &Namespace, config: &str) -> (Option<i32>, Vec<Value>) {
    host.run(|| {
        fs::create_dir_all("/run/lbd").unwrap();
        fs::write(FILE, config).unwrap();
    })
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    command
        .args(["doctor", FILE, "-o", "json", "--for", "2200ms"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = host
        .spawn(&mut command)
        .unwrap()
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document: Value = serde_json::from_slice(&output.stdout).expect(&said);
    let checks = document["checks"].as_array().unwrap().clone();
    let failed = checks.iter().any(|finding| finding["state"] == "failed");
    assert_eq!(document["ok"], !failed);
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{said}");
    (output.status.code(), checks)
}

/// The findings of a check, as `STATE TEXT`.
fn of(findings: &[Value], check: &str) -> Vec<String> {
    let fitting = findings.iter().filter(|finding| finding["check"] == check);
    let text = |finding: &Value| {
        let part = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", part("state"), part("found"), part("cause"))
    };
    fitting.map(text).collect()
}

#[track_caller]
fn says(findings: &[Value], check: &str, words: &str) {
    let found = of(findings, check);
    let fits = found.iter().any(|text| text.starts_with(words));
    assert!(fits, "{check}: no {words:?} in {found:#?}");
}

fn before_the_start() {
    let pair = Pair::new();
    let config = lab::config(SEED);
    let (exit, findings) = doctor(&pair.lab.nodes[LB1].host, &config);
    assert_eq!(exit, Some(0), "{findings:#?}");
    says(&findings, "daemon", "not-checked no lbd answers");
    says(
        &findings,
        "adverts",
        "not-checked no other node was heard in 2 s",
    );
    says(&findings, "arp", "ok nobody has 172.16.0.10 yet");
    says(&findings, "arp", "ok lb2 answers from ");
    says(&findings, "port", "ok free");
    says(&findings, "sandbox", "not-checked");
    says(
        &findings,
        "link",
        "ok eth0 is up, adverts come from 172.16.0.2",
    );
    let ready = "ok ready; its certificate is not verified";
    assert_eq!(
        of(&findings, "server"),
        [
            format!("{ready} "),
            format!("{ready} "),
            format!("{ready} ")
        ]
    );
    // On a host that is none of the nodes the rest is looked at all the same.
    let (exit, findings) = doctor(&pair.lab.client, &config);
    assert_eq!(exit, Some(1));
    says(
        &findings,
        "config",
        "failed E0202 this machine is not among the nodes",
    );
    assert_eq!(of(&findings, "server").len(), 3);
}

fn pair_well_and_sick() {
    let config = lab::config(SEED);
    let pair = Pair::of_lbd(&config);
    let host = |node: usize| &*pair.lab.nodes[node].host;
    let (exit, findings) = doctor(host(LB1), &config);
    assert_eq!(exit, Some(0), "{findings:#?}");
    says(
        &findings,
        "adverts",
        "ok lb2 (172.16.0.3) is active: priority 110",
    );
    says(&findings, "arp", "ok 172.16.0.10 answers from lb2 (");
    says(&findings, "port", "ok held by lbd (pid ");
    says(
        &findings,
        "sandbox",
        "ok user root, no capabilities, no_new_privs on, seccomp on",
    );
    let keeper = of(&findings, "sandbox");
    let held =
        "warning user root, CAP_NET_ADMIN CAP_NET_RAW, no_new_privs on, seccomp on, landlock on";
    assert!(keeper.iter().any(|text| text.contains(held)), "{keeper:#?}");
    let (exit, findings) = doctor(host(LB2), &config);
    assert_eq!(exit, Some(0), "{findings:#?}");
    says(
        &findings,
        "adverts",
        "ok this node is active; the others listen",
    );
    says(&findings, "arp", "ok 172.16.0.10 is on this node alone");

    a_second_holder(&pair, &config);
    a_foreign_router(&pair, &config);
    a_firewall(&pair, &config);
    assert!(pair.holds(LB2), "{}", pair.report());
}

/// Somebody gave the address to another host by hand.
fn a_second_holder(pair: &Pair, config: &str) {
    let mut rtnl = pair.lab.client.rtnl().unwrap();
    let index = rtnl.link_index("eth0").unwrap();
    let vip: IpAddr = "172.16.0.10".parse().unwrap();
    rtnl.add_address(index, vip, 32).unwrap();
    let (_, findings) = doctor(&pair.lab.nodes[LB2].host, config);
    says(&findings, "arp", "failed 172.16.0.10 is on this node, and ");
    let (_, findings) = doctor(&pair.lab.nodes[LB1].host, config);
    says(&findings, "arp", "failed 172.16.0.10 answers from ");
    rtnl.delete_address(index, vip, 32).unwrap();
}

/// Another cluster's router on this LAN has the same number.
fn a_foreign_router(pair: &Pair, config: &str) {
    let foreign = "[log]\ntarget = \"stderr\"\n[vip.other]\naddress = \"172.16.0.77/24\"\nvrid = 60\nversion = 2\n\
                   mode = \"multicast\"\nnodes = [\"172.16.0.100\", \"172.16.0.101\"]\n[metrics]\nlisten = \"off\"\n";
    let client = &pair.lab.client;
    client
        .run(|| {
            fs::create_dir_all("/run/lbd").unwrap();
            fs::write("/run/lbd/foreign.toml", foreign).unwrap();
        })
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    command
        .args([
            "--config",
            "/run/lbd/foreign.toml",
            "--runtime-dir",
            "/run/lbd",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut router = client.spawn(&mut command).unwrap();
    pair.until("the foreign router is heard", 20_000, |pair| {
        let (_, findings) = doctor(&pair.lab.nodes[LB1].host, config);
        let words = "failed adverts of 172.16.0.100 with vrid 60 are refused: unknown-sender \
                     a foreign router uses this vrid";
        of(&findings, "adverts")
            .iter()
            .any(|text| text.starts_with(words))
    });
    let pid = nix::unistd::Pid::from_raw(router.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    router.wait().unwrap();
}

/// The wire delivers what the host's firewall drops.
fn a_firewall(pair: &Pair, config: &str) {
    let host = &pair.lab.nodes[LB1].host;
    let nft = |rules: &str| {
        let mut command = Command::new("nft");
        command.arg(rules).stdin(Stdio::null());
        assert!(
            host.spawn(&mut command).unwrap().wait().unwrap().success(),
            "{rules}"
        );
    };
    nft(
        "table inet doctor { chain input { type filter hook input priority 0; ip protocol 112 drop; }; }",
    );
    let (_, findings) = doctor(host, config);
    says(
        &findings,
        "adverts",
        "failed adverts of lb2 (172.16.0.3) arrive and are dropped this host's firewall",
    );
    nft("delete table inet doctor");
}

/// A virtual address of IPv6: nobody has it, lb2's daemon, also a stranger, and this node as well.
fn over_ipv6() {
    let mut pair = Pair::new();
    let ip = |host: &Namespace, words: &str| {
        let mut command = Command::new("ip");
        command.args(words.split(' ')).stdin(Stdio::null());
        let ended = host.spawn(&mut command).unwrap().wait().unwrap();
        assert!(ended.success(), "ip {words}");
    };
    for (node, last) in [(LB1, 2), (LB2, 3)] {
        let words = format!("-6 address add fd00:16::{last}/64 dev eth0 nodad");
        ip(&pair.lab.nodes[node].host, &words);
    }
    ip(
        &pair.lab.client,
        "-6 address add fd00:16::64/64 dev eth0 nodad",
    );
    let six = "[log]\ntarget = \"stderr\"\n[vip.six]\naddress = \"fd00:16::10/64\"\nvrid = 61\nversion = 3\n\
               nodes = [\n{ name = \"lb1\", address = \"fd00:16::2\", priority = 100 },\n\
               { name = \"lb2\", address = \"fd00:16::3\", priority = 110 },\n]\n";
    let config = format!("{six}[metrics]\nlisten = \"off\"\n");
    let look = |pair: &Pair, node: usize| doctor(&pair.lab.nodes[node].host, &config).1;
    let findings = look(&pair, LB1);
    says(&findings, "nd", "ok nobody has fd00:16::10 yet");
    says(&findings, "nd", "ok lb2 answers from ");
    assert_eq!(of(&findings, "arp"), [""; 0]);

    pair.start_lbd(LB2, &config);
    let vip: IpAddr = "fd00:16::10".parse().unwrap();
    pair.until("lb2 holds the VIP", 20_000, |pair| {
        let held = pair.lab.nodes[LB2].host.run(|| {
            let host = lbd::net::netlink::host_facts().unwrap();
            host.interface_with(vip).is_some()
        });
        held.unwrap()
    });
    let findings = look(&pair, LB1);
    says(&findings, "nd", "ok fd00:16::10 answers from lb2 (");
    says(&findings, "adverts", "ok lb2 (fd00:16::3) is active");
    says(
        &look(&pair, LB2),
        "nd",
        "ok fd00:16::10 is on this node alone",
    );

    ip(
        &pair.lab.client,
        "-6 address add fd00:16::10/128 dev eth0 nodad",
    );
    says(&look(&pair, LB1), "nd", "failed fd00:16::10 answers from ");
    says(
        &look(&pair, LB2),
        "nd",
        "failed fd00:16::10 is on this node, and ",
    );
    // Nor has asking made anybody give it up.
    let text = pair.report();
    let holds = pair.lab.client.run(|| {
        let host = lbd::net::netlink::host_facts().unwrap();
        host.interface_with(vip).is_some()
    });
    assert!(holds.unwrap(), "{text}");
}
