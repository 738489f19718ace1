//! Virtual routers that move together, on real interfaces in namespaces. Needs root; says so when
//! it skips.
#![cfg(test)]

#[path = "lab/routers.rs"]
mod routers;

use lbd::ipc::message::VrrpState;
use lbd::net::netns::wire::Wire;
use routers::{Host, secs, turn, within};

const GROUP: &str = r#"
[vip.outside]
address = "10.1.0.100/24"
nodes = [{ name = "a", address = "10.1.0.2" }, { name = "b", address = "10.1.0.3" }]
advert-interval = "100ms"
preempt = true
sync-group = "gateway"

[vip.inside]
address = "10.2.0.100/24"
vrid = 101
nodes = [{ name = "a", address = "10.2.0.2" }, { name = "b", address = "10.2.0.3" }]
advert-interval = "100ms"
preempt = true
sync-group = "gateway"
"#;
const VIPS: [&str; 2] = ["10.1.0.100", "10.2.0.100"];

struct Gateway {
    a: Host,
    b: Host,
    inside: Wire,
    _outside: Wire,
}

/// Two hosts on two wires, the group active on the first.
fn gateway() -> Gateway {
    let (mut outside, mut inside) = (Wire::new().unwrap(), Wire::new().unwrap());
    let [a, b] = [(2, "a"), (3, "b")].map(|(last, name)| {
        let host = Host::new();
        host.attach(&mut outside, name, "eth0", &format!("10.1.0.{last}"));
        host.attach(&mut inside, name, "eth1", &format!("10.2.0.{last}"));
        host
    });
    for peer in ["10.1.0.3", "10.2.0.3"] {
        a.reach(peer);
    }
    a.open(GROUP, true);
    within("a active", secs(3.0), || a.has(&VIPS) == [true; 2]);
    b.open(GROUP, true);
    within("b hears a", secs(3.0), || {
        b.status().iter().all(|vip| vip.peers[0].adverts > 3)
    });
    let gateway = Gateway {
        a,
        b,
        inside,
        _outside: outside,
    };
    only_on(&gateway.a, &gateway.b);
    assert_eq!(moves(&gateway.b), [0, 0]);
    gateway
}

/// Waits until `one` has both addresses and `other` none.
fn only_on(one: &Host, other: &Host) {
    let took = within("both addresses on one host", secs(5.0), || {
        one.has(&VIPS) == [true; 2] && other.has(&VIPS) == [false; 2]
    });
    println!("together on one host after {took:?}");
}

/// How often each member became active there.
fn moves(host: &Host) -> [u64; 2] {
    let all: Vec<u64> = host
        .status()
        .iter()
        .map(|vip| vip.counters.became_active)
        .collect();
    all.try_into().unwrap()
}

#[test]
fn a_link_lost_on_one_wire_moves_all_addresses_of_the_group() {
    let Some(_turn) = turn() else { return };
    let mut net = gateway();
    net.inside.plug("a", false).unwrap();
    only_on(&net.b, &net.a);
    assert_eq!(net.a.state(), Some(VrrpState::Initialize));
    for status in net.a.status() {
        assert_eq!(status.reason, "an interface of the group is down");
    }
    net.inside.plug("a", true).unwrap();
    only_on(&net.a, &net.b);
    for status in net.b.status() {
        assert_eq!(status.sync_group.as_deref(), Some("gateway"));
        assert_eq!(status.state, VrrpState::Backup);
        // Each member names the active node by its address on its own wire.
        let lan = status.addresses[0].split(".0.").next().unwrap().to_owned();
        let active = status.active.unwrap().to_string();
        assert_eq!(active, format!("{lan}.0.2"));
    }
    assert_eq!(moves(&net.b), [1, 1]);
}

#[test]
fn a_missing_source_address_on_one_wire_moves_all_addresses_of_the_group() {
    let Some(_turn) = turn() else { return };
    let net = gateway();
    net.a.run("ip address del 10.2.0.2/24 dev eth1");
    only_on(&net.b, &net.a);
    for status in net.a.status() {
        assert_eq!(status.reason, "an own address of the group is missing");
    }
    net.a.run("ip address add 10.2.0.2/24 dev eth1");
    only_on(&net.a, &net.b);
}

#[test]
fn adverts_on_one_wire_keep_the_group_in_place_and_the_silent_wire_is_named() {
    let Some(_turn) = turn() else { return };
    let net = gateway();
    let silent = || -> Vec<bool> { net.b.status().iter().map(|vip| vip.silent).collect() };
    net.a
        .run("ip xfrm policy add dst 10.2.0.3 dir out action block");
    within("the silent wire is named", secs(3.0), || {
        silent() == [false, true]
    });
    net.a.run("ip xfrm policy del dst 10.2.0.3 dir out");
    within("it is heard again", secs(3.0), || silent() == [false; 2]);
    only_on(&net.a, &net.b);
    assert_eq!(moves(&net.b), [0, 0]);
}

#[test]
fn a_group_leaves_together_and_hands_over_without_a_gap_in_between() {
    let Some(_turn) = turn() else { return };
    let net = gateway();
    net.a
        .with(|inside| inside.routers[0].resign(lbd::net::clock::now()));
    only_on(&net.b, &net.a);
    assert!(net.a.with(|inside| inside.routers[0].is_released()));
    for status in net.a.status() {
        // Priority 0 went out on every wire.
        assert!(status.counters.resigns_sent >= 1, "{}", status.name);
    }
}
