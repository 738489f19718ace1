//! What a node says of others on its LAN: who answers for its addresses, which node lives although
//! its adverts do not arrive, whose packets it refuses. Needs root; says so when it skips.
#![cfg(test)]

#[path = "lab/routers.rs"]
mod routers;

use lbd::ipc::message::{VipStatus, VrrpState};
use lbd::net::arp::Announcer;
use lbd::net::netlink::host_facts;
use lbd::net::netns::wire::Wire;
use lbd::vrrp::task::RouterEvent;
use routers::{Host, LAN, PAIR, elect, lan, secs, turn, within};

/// Two nodes and one host that is none, on one wire; the first node is active.
fn pair() -> ([Host; 3], Wire) {
    let (hosts, wire) = lan(LAN);
    let [a, b, _] = &hosts;
    elect(PAIR, a, b);
    (hosts, wire)
}

fn kube(host: &Host) -> VipStatus {
    host.status().remove(0)
}

#[test]
fn a_node_that_starts_beside_an_active_one_leaves_the_address_there() {
    let Some(_turn) = turn() else { return };
    let ([a], mut wire) = lan([("a", "10.1.0.2")]);
    a.open(PAIR, false);
    // Its kernel looks for b in vain, again and again, and holds the adverts back meanwhile.
    within("a active and looking for b", secs(3.0), || {
        kube(&a).counters.adverts_sent > 3
    });
    let b = Host::new();
    b.attach(&mut wire, "b", "eth0", "10.1.0.3");
    b.open(PAIR, false);
    let took = within("b hears a", secs(3.0), || kube(&b).peers[0].adverts > 5);
    println!("b heard six adverts of a after {took:?}");
    assert_eq!(kube(&b).counters.became_active, 0);
    assert_eq!(kube(&a).counters.left_active, 0);
}

#[test]
fn another_host_that_answers_for_the_address_is_named_with_its_mac_until_it_stops() {
    let Some(_turn) = turn() else { return };
    let ([a, _b, c], _wire) = pair();
    c.run("ip address add 10.1.0.100/32 dev eth0");
    // The first question comes a second after the take-over, the next with a refresh of 30 s: what
    // somebody says meanwhile is heard, too.
    within("a has asked", secs(4.0), || kube(&a).since_ms > 2_000);
    c.with(|_| {
        let facts = host_facts().unwrap();
        let index = facts.interface("eth0").unwrap().index;
        let (mac, vip) = ([2, 0, 10, 1, 0, 9], ["10.1.0.100".parse().unwrap()]);
        let announcer = Announcer::open("eth0", index, mac, &vip).unwrap();
        assert_eq!(announcer.announce(2).unwrap(), 2);
    });
    let text = "02:00:0a:01:00:09 answers for 10.1.0.100: another host uses the address";
    let took = within("a conflict", secs(4.0), || {
        kube(&a).conflict.as_deref() == Some(text)
    });
    println!("named after {took:?}");
    let is = |event: &RouterEvent| matches!(event, RouterEvent::Conflict { mac, .. } if mac.ends_with(&[9]));
    assert_eq!(
        a.with(move |inside| inside.events.iter().filter(|e| is(e)).count()),
        1
    );
    c.run("ip address del 10.1.0.100/32 dev eth0");
    let took = within("no conflict any more", secs(12.0), || {
        kube(&a).conflict.is_none()
    });
    println!("over after {took:?}");
    assert_eq!(kube(&a).state, VrrpState::Active);
    assert_eq!(kube(&a).counters.became_active, 1);
}

#[test]
fn an_active_node_that_lives_but_is_not_heard_is_named_and_so_is_the_split_brain() {
    let Some(_turn) = turn() else { return };
    let ([a, b, _c], _wire) = pair();
    for (host, other) in [(&a, "10.1.0.3"), (&b, "10.1.0.2")] {
        host.run(&format!(
            "ip xfrm policy add dst {other} proto 112 dir out action block"
        ));
    }
    within("b active too", secs(3.0), || {
        b.state() == Some(VrrpState::Active)
    });
    let took = within("b says that a lives", secs(4.0), || {
        kube(&b).peers[0].alive_unheard
    });
    println!("a is known to live after {took:?}");
    let text = "02:00:0a:01:00:02 answers for 10.1.0.100 (10.1.0.2): \
                the other node holds it, too: split brain";
    within("b names the split brain", secs(4.0), || {
        kube(&b).conflict.as_deref() == Some(text)
    });
    // The stronger one first: whoever can't send yields to whom it hears.
    a.run("ip xfrm policy del dst 10.1.0.3 proto 112 dir out");
    within("b yields", secs(3.0), || {
        b.state() == Some(VrrpState::Backup)
    });
    b.run("ip xfrm policy del dst 10.1.0.2 proto 112 dir out");
    within("healed", secs(3.0), || {
        let status = kube(&b);
        status.state == VrrpState::Backup
            && status.conflict.is_none()
            && !status.peers[0].alive_unheard
    });
    assert_eq!(kube(&a).counters.became_active, 1);
}

#[test]
fn a_node_s_adverts_are_regular_and_its_refused_packets_are_counted_by_reason() {
    let Some(_turn) = turn() else { return };
    let ([a, b, c], _wire) = pair();
    // Another cluster of this LAN has our vrid: it speaks to the group, we by unicast.
    let foreign = PAIR
        .replace("10.1.0.2\"", "10.1.0.9\"")
        .replace("10.1.0.100", "10.1.0.200")
        .replace("preempt", "vrid = 100\nmode = \"multicast\"\npreempt");
    c.open(&foreign, false);
    within("the foreign router is counted", secs(5.0), || {
        let rejected = kube(&b).counters.rejected;
        rejected
            .iter()
            .any(|(reason, count)| reason == "unknown-sender" && *count > 0)
    });
    assert_eq!(b.state(), Some(VrrpState::Backup));
    let status = kube(&b);
    assert_eq!(status.peers[0].rejected, []);
    let (p50, p99) = (status.peers[0].jitter_p50_us, status.peers[0].jitter_p99_us);
    println!("jitter of a: p50 {p50:?} us, p99 {p99:?} us");
    assert!(p50.is_some_and(|p50| p50 < 20_000));
    drop(a);
}
