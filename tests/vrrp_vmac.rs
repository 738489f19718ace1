//! `virtual-mac = true`: the address has the virtual router's hardware address, on whichever node
//! it is. Needs root; says so when it skips.
#![cfg(test)]

#[path = "lab/routers.rs"]
mod routers;

use std::process::Command;

use lbd::ipc::message::VrrpState;
use lbd::net::clock::now;
use lbd::net::netns::wire::Wire;
use routers::{Host, LAN, elect, lan, secs, turn, within};

const VIP: &str = "10.1.0.100";
const MAC: &str = "00:00:5e:00:01:64";

fn config() -> String {
    routers::PAIR.to_owned() + "virtual-mac = true\n"
}

/// Two nodes and a client on one wire; the first node is active.
fn pair() -> ([Host; 3], Wire) {
    let (hosts, wire) = lan(LAN);
    let [a, b, c] = &hosts;
    for node in [a, b] {
        // What the guide tells an operator to set.
        node.run("sysctl -qw net.ipv4.conf.eth0.arp_ignore=1");
    }
    c.reach("10.1.0.2");
    c.reach("10.1.0.3");
    elect(&config(), a, b);
    (hosts, wire)
}

/// The port behind which the switch believes the hardware address to be.
fn port(wire: &Wire) -> Option<String> {
    let bridge = || Command::new("bridge").args(["fdb", "show"]).output();
    let table = wire.namespace().run(bridge).unwrap().unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let line = table.lines().find(|line| line.starts_with(MAC))?;
    line.split_whitespace().nth(2).map(str::to_owned)
}

/// What the client's neighbour table says of the address.
fn neighbour(client: &Host) -> String {
    client.run(&format!("ip neigh show {VIP}"))
}

#[test]
fn a_client_keeps_its_arp_entry_over_a_planned_and_an_unplanned_take_over() {
    let Some(_turn) = turn() else { return };
    let ([a, b, c], mut wire) = pair();
    c.reach(VIP);
    assert!(neighbour(&c).contains(MAC), "{}", neighbour(&c));
    assert_eq!(port(&wire).as_deref(), Some("a"));
    // A Backup's device is there, and down: it takes no frame.
    assert!(b.run("ip -o link show lbd4-100-2").contains("state DOWN"));

    // From here on the client never asks again: whatever it reaches, it reaches at that address.
    c.run(&format!(
        "ip neigh replace {VIP} lladdr {MAC} nud permanent dev eth0"
    ));
    let begin = now();
    a.with(|inside| inside.routers[0].resign(now()));
    within("the switch knows", secs(3.0), || {
        port(&wire).as_deref() == Some("b")
    });
    c.reach(VIP);
    println!("planned: reached on b after {:?}", now() - begin);
    within("a has left", secs(2.0), || a.has(&[VIP]) == [false]);
    assert!(a.run("ip -o link show lbd4-100-2").contains("state DOWN"));

    // An unplanned one: the cable.
    a.with(|inside| inside.routers.clear());
    a.open(&config(), false);
    within("a preempts", secs(3.0), || {
        port(&wire).as_deref() == Some("a") && b.has(&[VIP]) == [false]
    });
    c.reach(VIP);
    let begin = now();
    wire.plug("a", false).unwrap();
    within("the switch knows", secs(3.0), || {
        port(&wire).as_deref() == Some("b")
    });
    c.reach(VIP);
    println!("cable: reached on b after {:?}", now() - begin);

    // Who leaves for good leaves no device behind.
    b.with(|inside| inside.routers[0].give_up(now()));
    assert!(!b.run("ip -o link show").contains("lbd4-"));
    assert_eq!(b.has(&[VIP]), [false]);
}

#[test]
fn only_the_virtual_router_s_hardware_address_answers_for_the_address() {
    let Some(_turn) = turn() else { return };
    let ([a, _b, c], _wire) = pair();
    for _ in 0..20 {
        c.run("ip neigh flush to 10.1.0.100");
        c.reach(VIP);
        assert!(neighbour(&c).contains(MAC), "{}", neighbour(&c));
    }
    // Nobody else answers: not even the node that holds it is a conflict to itself.
    within("it has asked", secs(3.0), || a.status()[0].since_ms > 2_000);
    assert_eq!(a.status()[0].conflict, None);
    // The device is taken down by somebody: the next renewal raises it.
    a.run("ip link set lbd4-100-2 down");
    let took = within("raised again", secs(2.0), || {
        !a.run("ip -o link show lbd4-100-2").contains("state DOWN")
    });
    println!("raised again after {took:?}");
    c.reach(VIP);
    assert_eq!(a.status()[0].counters.left_active, 0);
}

#[test]
fn a_device_that_a_killed_keeper_left_is_taken_over() {
    let Some(_turn) = turn() else { return };
    let ([a, b, c], _wire) = pair();
    let device = |host: &Host| host.run("ip -o link show lbd4-100-2");
    let before = device(&a);
    // No farewell: the device stays, and the address until its lease ends.
    a.with(|inside| inside.routers.clear());
    within("b takes over", secs(3.0), || {
        b.state() == Some(VrrpState::Active)
    });
    a.open(&config(), false);
    within("a preempts", secs(3.0), || {
        a.state() == Some(VrrpState::Active) && b.state() == Some(VrrpState::Backup)
    });
    let index = |line: &str| line.split(':').next().map(str::to_owned);
    assert_eq!(index(&device(&a)), index(&before));
    c.reach(VIP);
    assert!(neighbour(&c).contains(MAC), "{}", neighbour(&c));
}

#[test]
fn by_ipv6_a_client_keeps_its_neighbour_entry_over_a_take_over() {
    let Some(_turn) = turn() else { return };
    let text = config()
        .replace("10.1.0.100/24\"", "fd00:1::100/64\"\nvrid = 100")
        .replace("10.1.0.", "fd00:1::");
    let (vip, mac) = ("fd00:1::100", "00:00:5e:00:02:64");
    let ([a, b, c], _wire) = lan([("a", "fd00:1::2"), ("b", "fd00:1::3"), ("c", "fd00:1::9")]);
    a.reach("fd00:1::3");
    c.reach("fd00:1::2");
    elect(&text, &a, &b);
    c.reach(vip);
    let neighbour = || c.run(&format!("ip neigh show {vip}"));
    assert!(neighbour().contains(mac), "{}", neighbour());
    a.with(|inside| inside.routers[0].resign(now()));
    within("moved", secs(3.0), || {
        b.has(&[vip]) == [true] && a.has(&[vip]) == [false]
    });
    c.reach(vip);
    assert!(neighbour().contains(mac), "{}", neighbour());
    assert!(b.run("ip -o link show lbd6-100-2").contains(mac));
}
