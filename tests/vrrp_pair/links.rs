//! What happens to interfaces and to a node's own address.

use lbd::ipc::message::VrrpState;

use crate::pair::{
    ARP, FAST, NODES, SLOW, announcers, counters, elected, has_vip, join, one_holder, open, pair,
    resign, stays, watches,
};
use crate::routers::{Host, secs, turn, within};

#[test]
fn a_node_without_its_own_address_leaves_the_virtual_one_to_the_other() {
    let Some(_turn) = turn() else { return };
    let [a, b] = elected(FAST);
    a.run("ip address del 10.99.0.2/24 dev eth0");
    one_holder("lb2 takes over", &b, &a, secs(3.0));
    assert_eq!(a.state(), Some(VrrpState::Initialize));
    a.run("ip address add 10.99.0.2/24 dev eth0");
    one_holder("lb1 preempts", &a, &b, secs(3.0));
}

#[test]
fn a_moment_without_its_own_address_moves_nothing_and_costs_a_node_nothing() {
    let Some(_turn) = turn() else { return };
    for promote in [0, 1] {
        let [a, b] = pair();
        for scope in ["all", "eth0"] {
            let key = format!("net.ipv4.conf.{scope}.promote_secondaries={promote}");
            a.run(&format!("sysctl -qw {key}"));
        }
        open(&a, SLOW);
        open(&b, SLOW);
        one_holder("lb1 active", &a, &b, secs(6.0));
        watches(&b);
        a.run("ip address del 10.99.0.2/24 dev eth0");
        a.run("ip address add 10.99.0.2/24 dev eth0");
        within("the virtual address is there", secs(1.0), || has_vip(&a));
        stays("some intervals", secs(3.5), || true);
        one_holder("still lb1", &a, &b, secs(0.1));
        assert_eq!([&a, &b].map(|host| counters(host).became_active), [1, 0]);
        resign(&a);
        one_holder("lb2 succeeds", &b, &a, secs(2.0));
        within("the take-over is timed", secs(2.0), || {
            let counters = counters(&b);
            let resigned: u64 = counters.after_resignation.counts.iter().sum();
            resigned == 1 && counters.after_silence.counts.is_empty()
        });
        // Its own address went with the virtual one if that was the primary one of the subnet.
        a.run(&format!("ip route get {} from {}", NODES[1], NODES[0]));
    }
}

#[test]
fn a_changed_hardware_address_is_announced_at_once() {
    let Some(_turn) = turn() else { return };
    let [a, b] = elected(FAST);
    let ear = b.ear(ARP);
    a.run("ip link set eth0 address 02:00:00:00:00:77");
    let mut last = None;
    within("the new address is announced", secs(1.0), || {
        last = announcers(&ear).pop().or(last);
        last == Some([2, 0, 0, 0, 0, 0x77])
    });
}

#[test]
fn an_interface_that_joins_and_leaves_a_bridge_is_no_link_failure() {
    let Some(_turn) = turn() else { return };
    let [a, _b] = elected(FAST);
    a.run("ip link add br0 type bridge");
    a.run("ip link set eth0 master br0");
    a.run("ip link set eth0 nomaster");
    stays("some intervals", secs(1.0), || true);
    let counters = counters(&a);
    assert_eq!((counters.became_active, counters.left_active), (1, 0));
}

#[test]
fn an_interface_that_is_made_anew_is_taken_up_again() {
    let Some(_turn) = turn() else { return };
    let [a, b] = elected(FAST);
    a.run("ip link del eth0");
    within("fault", secs(1.0), || {
        [&a, &b].map(Host::state) == [Some(VrrpState::Initialize); 2]
    });
    join(&a, &b);
    one_holder("lb1 active again", &a, &b, secs(5.0));
    watches(&b);
}
