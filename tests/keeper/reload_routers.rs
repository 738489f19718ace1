//! What the nodes of a pair must agree on, changed on one after the other; groups, hardware addresses
//! and the other family in a running pair. Nothing of it moves an address that stays.

use super::node::{Client, Folder, Node, SOON, enter, wait_for};
use super::pair::{Lab, PAIR, pair_of};
use super::reload::{client_of_vip, lbd, reload};
use std::process::Command;
use std::time::Duration;

use lbd::net::clock;

fn count(node: &Node, words: &str) -> usize {
    node.log().matches(words).count()
}

/// The numbers in a status after each `"key":`.
pub(super) fn numbers(status: &str, key: &str) -> Vec<u64> {
    let key = format!("\"{key}\":");
    let number = |rest: &str| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    status.split(&key).skip(1).filter_map(number).collect()
}

/// Waits until each virtual router of `node` has heard more of the other node, its first peer.
fn hears(node: &Node) {
    let heard = || -> Vec<(u64, u64)> {
        let status = node.status();
        let vips = status.split("\"vrid\"").skip(1);
        let first = |vip: &str| {
            let vip = format!("\"vrid\"{vip}");
            let number = |key| numbers(&vip, key).first().copied();
            Some((number("vrid")?, number("adverts")?))
        };
        vips.filter_map(first).collect()
    };
    let before = heard();
    let further = |(vrid, adverts): &(u64, u64)| {
        let known = before.iter().find(|(one, _)| one == vrid);
        *adverts > known.map_or(0, |(_, known)| *known) + 1
    };
    wait_for("adverts of the other node", SOON, || {
        let after = heard();
        (!after.is_empty() && after.iter().all(further)).then_some(())
    });
}

/// Where the address is: of every device of that node.
pub(super) fn on(lab: &Lab, short: &str, address: &str) -> bool {
    let name = lab.name(short);
    let shown = Command::new("ip")
        .args(["-n", &name, "-o", "addr", "show"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&shown.stdout).contains(&format!(" {address}/"))
}

/// Waits until the first node has all of them and the second none.
pub(super) fn settled(lab: &Lab, first: &str, second: &str, addresses: &[&str]) {
    wait_for("each address on one node", SOON, || {
        let there = addresses.iter().all(|address| on(lab, first, address));
        let gone = addresses.iter().all(|address| !on(lab, second, address));
        (there && gone).then_some(())
    });
}

/// The same file on both, the backup first.
fn roll(lb1: &Node, lb2: &Node, text: &str) {
    reload(lb2, text);
    reload(lb1, text);
    hears(lb2);
}

fn signed(keys: &[u8]) -> String {
    let key = |id: &u8| {
        let digits = format!("{id:02x}").repeat(32);
        format!("{{ id = {id}, key = \"hex:{digits}\" }}")
    };
    let keys: Vec<String> = keys.iter().map(key).collect();
    let auth = format!(
        "auth = {{ type = \"hmac\", keys = [{}] }}\n",
        keys.join(", ")
    );
    PAIR.replace("preempt = false", &format!("{auth}preempt = false"))
}

#[test]
fn keys_intervals_nodes_and_versions_change_on_one_node_after_the_other_without_a_move() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("roll");
    let (lb1, lb2) = pair_of(&lab, &folder, &signed(&[1]));
    let client = client_of_vip(&lab);
    client.wait_answers(10);
    let became = count(&lb2, "to=Active");
    let rejected = || count(&lb1, "packet rejected") + count(&lb2, "packet rejected");
    let kept = |what: &str| {
        assert_eq!(count(&lb2, "to=Active"), became, "{what}");
        assert_eq!(count(&lb1, "from=Active"), 0, "{what}");
    };
    for keys in [&[1, 2][..], &[2, 1], &[2]] {
        roll(&lb1, &lb2, &signed(keys));
        kept("keys");
    }
    assert_eq!(rejected(), 0, "each step is understood by both");
    // Whoever is heard tells its own interval.
    let slow = PAIR.replace("\"100ms\"", "\"10s\"\nadvert-spacing = \"off\"");
    let quick = signed(&[2]).replace("\"100ms\"\nnodes", "\"60ms\"\nnodes");
    roll(&lb1, &lb2, &quick);
    kept("interval");
    // A third node joins and goes; a node has another priority of its own.
    let third = quick.replace("\"10.9.0.2\"]", "\"10.9.0.2\", \"10.9.0.3\"]");
    roll(&lb1, &lb2, &third);
    kept("third node");
    let own = quick.replace(
        "\"10.9.0.2\"]",
        "{ name = \"second\", address = \"10.9.0.2\", priority = 150 }]",
    );
    roll(&lb1, &lb2, &own);
    kept("names and priorities");
    wait_for("the other priority", SOON, || {
        let status = lb2.status();
        status.contains("\"effective_priority\":150").then_some(())
    });
    // Version 2 has whole seconds; between the two orders nobody is understood.
    let two = PAIR.replace("\"100ms\"", "\"1s\"\nversion = 2");
    let three = PAIR.replace("\"100ms\"", "\"1s\"");
    for text in [&three, &two, &three] {
        roll(&lb1, &lb2, text);
        kept("version");
    }
    // Its last advert is longer ago than the new interval lets a holder be silent.
    reload(&lb1, &slow);
    client.wait_answers(250);
    reload(&lb1, PAIR);
    reload(&lb2, PAIR);
    kept("a much shorter interval");
    let outcome = client.finish();
    assert_eq!(outcome.failed, [""; 0]);
    // While the other node takes over it is told something else.
    let mut lb1 = lb1;
    let proxy = lb1.proxy();
    let began = clock::now();
    lb1.kill_keeper();
    let signal = nix::sys::signal::Signal::SIGKILL;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(proxy), signal).unwrap();
    reload(&lb2, &PAIR.replace("\"100ms\"", "\"110ms\""));
    wait_for("lb2 to take over", SOON, || {
        on(&lab, "lb2", "10.9.0.100").then_some(())
    });
    let took = clock::now() - began;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// Adverts that nobody reads would keep the keeper's loop awake.
fn is_at_rest(node: &Node, client: &Client) {
    let pid = node.keeper.as_ref().unwrap().id();
    // Hundredths of a second, in user and kernel mode (proc(5)).
    let used = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let times = fields.split_whitespace().skip(11).take(2);
        times.map(|time| time.parse::<u64>().unwrap()).sum()
    };
    let (began, before) = (clock::now(), used());
    client.wait_answers(150);
    let elapsed = (clock::now() - began).as_millis();
    let busy = u128::from(used() - before) * 10;
    assert!(busy * 4 < elapsed, "busy for {busy} ms of {elapsed}");
}

const FIRST: &str = "10.9.0.100";
const SECOND: &str = "10.9.0.101";
const SIXTH: &str = "fd00:9::100";

/// A further virtual router, before the other in the file or after it.
fn with(text: &str, table: &str, first: bool) -> String {
    if first {
        text.replace("[vip.v]", &format!("{table}[vip.v]"))
    } else {
        text.replace("[proxy.p]", &format!("{table}[proxy.p]"))
    }
}

#[test]
fn groups_hardware_addresses_and_the_other_family_come_and_go() {
    let Some(lab) = Lab::new() else { return };
    for (node, ip) in [("lb1", "1"), ("lb2", "2")] {
        let name = lab.name(node);
        for address in [format!("fd00:9::{ip}/64"), format!("fd00:9::1{ip}/64")] {
            lab.ip(&format!("-n {name} addr add {address} dev eth0 nodad"));
        }
        let sysctl = ["netns", "exec", &name, "sysctl", "-qw"];
        let done = Command::new("ip")
            .args(sysctl)
            .arg("net.ipv4.conf.eth0.arp_ignore=1")
            .status();
        assert!(done.unwrap().success());
    }
    let folder = Folder::new("groups");
    let (lb1, lb2) = pair_of(&lab, &folder, PAIR);
    let client = client_of_vip(&lab);
    client.wait_answers(10);
    groups(&lab, (&lb1, &lb2), &client);
    roll(&lb1, &lb2, PAIR);
    settled(&lab, "lb1", "lb2", &[FIRST]);
    client.wait_answers(10);
    families_and_hardware_addresses(&lab, (&lb1, &lb2), &client);
    let outcome = client.finish();
    assert_eq!(outcome.failed, [""; 0]);
}

fn groups(lab: &Lab, (lb1, lb2): (&Node, &Node), client: &Client) {
    let became = || count(lb2, "to=Active");
    let before = became();
    // Before the other in the file, which changes in the same reload: both go on being heard.
    let w = "[vip.w]\naddress = \"10.9.0.101/24\"\nvrid = 78\npreempt = false\n\
             advert-interval = \"100ms\"\nnodes = [\"10.9.0.1\", \"10.9.0.2\"]\n";
    let quick = PAIR.replace("\"100ms\"\nnodes", "\"110ms\"\nnodes");
    reload(lb1, &with(&quick, w, true));
    settled(lab, "lb1", "lb2", &[FIRST, SECOND]);
    reload(lb2, &with(&quick, w, true));
    hears(lb2);
    is_at_rest(lb2, client);
    let apart = with(PAIR, w, false);
    roll(lb1, lb2, &apart);
    settled(lab, "lb1", "lb2", &[FIRST, SECOND]);
    assert_eq!(became(), before, "two routers");
    // They become one, and two again.
    let grouped = apart.replace("preempt = false", "preempt = false\nsync-group = \"g\"");
    roll(lb1, lb2, &grouped);
    assert_eq!(became(), before, "group");
    roll(lb1, lb2, &apart);
    settled(lab, "lb1", "lb2", &[FIRST, SECOND]);
    assert_eq!(became(), before, "no group");
    assert_eq!(count(lb1, "from=Active"), 0);
    // They become one while each node has one of them.
    let done = lbd(lb1, &["failover", "w"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    wait_for("one on each", SOON, || {
        let each = on(lab, "lb1", FIRST) && on(lab, "lb2", SECOND) && !on(lab, "lb1", SECOND);
        each.then_some(())
    });
    reload(lb1, &grouped);
    reload(lb2, &grouped);
    wait_for("both on one node", SOON, || {
        let both = |node| [FIRST, SECOND].map(|address| on(lab, node, address));
        let (one, two) = (both("lb1"), both("lb2"));
        let settled = one == [true, true] && two == [false, false]
            || one == [false, false] && two == [true, true];
        settled.then_some(())
    });
}

fn families_and_hardware_addresses(lab: &Lab, (lb1, lb2): (&Node, &Node), client: &Client) {
    let became = || count(lb2, "to=Active");
    let before = became();
    // The other family, its source, and no more of it.
    let six = "[vip.s]\naddress = \"fd00:9::100/64\"\nvrid = 79\npreempt = false\n\
               advert-interval = \"100ms\"\nnodes = [\"fd00:9::1\", \"fd00:9::2\"]\n";
    let families = with(PAIR, six, false);
    reload(lb1, &families);
    settled(lab, "lb1", "lb2", &[FIRST, SIXTH]);
    reload(lb2, &families);
    hears(lb2);
    let other = families
        .replace("::1\"", "::11\"")
        .replace("::2\"]", "::12\"]");
    reload(lb1, &other);
    reload(lb2, &other);
    hears(lb2);
    settled(lab, "lb1", "lb2", &[FIRST, SIXTH]);
    roll(lb1, lb2, PAIR);
    wait_for("no address of the other family", SOON, || {
        let there = on(lab, "lb1", SIXTH) || on(lab, "lb2", SIXTH);
        (!there).then_some(())
    });
    // The RFC's hardware address, and back.
    let virtual_mac = PAIR.replace("preempt = false", "preempt = false\nvirtual-mac = true");
    for (text, has) in [(virtual_mac.as_str(), true), (PAIR, false)] {
        roll(lb1, lb2, text);
        settled(lab, "lb1", "lb2", &[FIRST]);
        assert_eq!(!lab.holds("lb1"), has, "on a device of its own");
        client.wait_answers(10);
    }
    assert_eq!(became(), before, "families and hardware addresses");
}

/// Nobody follows: it waits some five seconds for one who does.
#[test]
fn what_was_removed_comes_back_only_once_it_has_left() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("comes-back");
    let one = PAIR.replace("\"100ms\"", "\"1s\"");
    let table = |name: &str, vrid: u8| {
        format!(
            "[vip.{name}]\naddress = \"10.9.0.101/24\"\nvrid = {vrid}\n\
             nodes = [\"10.9.0.1\", \"10.9.0.2\"]\n"
        )
    };
    let two = with(&one, &table("w", 78), false);
    let lb1 = lab.node(&folder, "lb1", &two);
    let both = || (on(&lab, "lb1", FIRST) && on(&lab, "lb1", SECOND)).then_some(());
    wait_for("lb1 to hold both", SOON, both);
    reload(&lb1, &one);
    // The same again, and another with its address.
    let other = with(&one, &table("x", 79), false);
    for text in [&two, &other] {
        std::fs::write(&lb1.config, text).unwrap();
        let done = lbd(&lb1, &["reload"]);
        let said = String::from_utf8_lossy(&[done.stdout.clone(), done.stderr.clone()].concat())
            .into_owned();
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(said.contains("vip w, which an earlier reload"), "{said}");
        assert!(on(&lab, "lb1", SECOND), "it waits for another node");
    }
    wait_for("w to leave", SOON, || {
        (!on(&lab, "lb1", SECOND)).then_some(())
    });
    reload(&lb1, &two);
    wait_for("w to be back", SOON, both);
}

/// A port that takes a right: there only for who was given it.
#[test]
fn a_further_port_below_1024_can_be_had_where_the_first_could() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("low-port");
    let low = PAIR.replace("\":6443\"", "\":443\"");
    let lb1 = lab.node(&folder, "lb1", &low);
    wait_for("lb1 to hold the vip", SOON, || {
        lab.holds("lb1").then_some(())
    });
    reload(&lb1, &low.replace("\":443\"", "[\":443\", \":80\"]"));
    let name = lab.name("lb1");
    let answered = std::thread::spawn(move || {
        enter(&name);
        wait_for("an answer", SOON, || {
            super::node::ask("127.0.0.1:80".parse().unwrap()).ok()
        });
    });
    answered.join().unwrap();
}
