//! What a killed keeper leaves, and what the next one makes of it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lbd::ipc::message::VrrpState;
use lbd::net::clock::now;
use lbd::vrrp::stamp::{Resume, Stamp};

use crate::pair::{
    NODES, SLOW, VIP, copies, counters, elected, has_vip, one_holder, open, pair, reaches, watches,
};
use crate::routers::{Host, secs, turn, within};

/// When the machine was booted.
static BIRTH: LazyLock<Instant> = LazyLock::new(|| now() - Duration::from_secs(1000));

/// Forgets the router without any farewell, as a killed keeper does; the stamp it leaves, if any.
fn kill(host: &Host) -> Option<Stamp> {
    host.with(|inside| {
        let at = now();
        let router = inside.routers.remove(0);
        router.stamp(at, at - *BIRTH, "boot")
    })
}

/// Opens a router with the stamp of the one that was killed, as old as it is.
fn resume(host: &Host, stamp: Option<Stamp>) {
    host.with(move |inside| {
        let resume = stamp.map(|stamp| Resume {
            stamp,
            boot_id: "boot".into(),
            boottime: now() - *BIRTH,
        });
        inside.resume(&SLOW.text(), resume);
    });
}

#[test]
fn a_restarted_keeper_with_a_fresh_stamp_goes_on_as_active() {
    let Some(_turn) = turn() else { return };
    let [a, b] = elected(SLOW);
    watches(&b);
    let stamp = kill(&a);
    resume(&a, stamp);
    let took = reaches("active again", secs(0.5), &a, VrrpState::Active);
    println!("active again after {took:?}");
    assert!(has_vip(&a) && !has_vip(&b));
    // A stamp that is too old is worth nothing: the address is given up.
    let stamp = kill(&a);
    within("lb2 takes over", secs(5.0), || has_vip(&b));
    resume(&a, stamp);
    reaches("a Backup", secs(1.0), &a, VrrpState::Backup);
    one_holder("lb2 alone", &b, &a, secs(1.0));
}

#[test]
fn an_active_whose_adverts_cannot_leave_has_nothing_to_resume() {
    let Some(_turn) = turn() else { return };
    let [a, _b] = pair();
    let to = NODES[1];
    a.run(&format!("ip xfrm policy add dst {to} dir out action block"));
    open(&a, SLOW);
    within("lb1 active", secs(6.0), || has_vip(&a));
    let counters = counters(&a);
    assert_eq!((counters.adverts_sent, counters.errors > 0), (0, true));
    let stamp = kill(&a);
    resume(&a, stamp);
    watches(&a);
}

#[test]
fn a_resumed_router_removes_its_address_in_other_shapes() {
    let Some(_turn) = turn() else { return };
    let [a, _b] = pair();
    open(&a, SLOW);
    within("lb1 active", secs(6.0), || has_vip(&a));
    let stamp = kill(&a);
    a.run(&format!("ip address add {VIP}/32 dev eth0"));
    within("two shapes", secs(1.0), || copies(&a) == 2);
    resume(&a, stamp);
    reaches("active again", secs(0.5), &a, VrrpState::Active);
    within("one shape", secs(0.5), || copies(&a) == 1);
}
