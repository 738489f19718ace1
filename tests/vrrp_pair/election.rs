//! Who holds the address: elections, planned leaves, and the address itself.

use lbd::config::model::Mode;
use lbd::ipc::message::VrrpState;
use lbd::net::clock::now;
use lbd::vrrp::task::RouterEvent;

use crate::pair::{
    ARP, FAST, Kind, SLOW, UNFIT, VIP, announcers, counters, elected, has_vip, one_holder, open,
    open_as, pair, reaches, resign, status, stays, tell, watches,
};
use crate::routers::{secs, turn, within};

#[test]
fn two_routers_elect_one_and_the_kernel_ends_a_dead_ones_lease() {
    let Some(_turn) = turn() else { return };
    for mode in [Mode::Unicast, Mode::Multicast] {
        let [a, b] = pair();
        let ear = b.ear(ARP);
        let kind = Kind::v3(100, mode);
        open(&a, kind);
        open(&b, kind);
        one_holder("lb1 active", &a, &b, secs(5.0));
        let mut announced = 0;
        within("gratuitous ARP on the wire", secs(1.0), || {
            announced += announcers(&ear).len();
            announced >= 5
        });
        watches(&b);
        a.with(|inside| inside.routers.clear());
        let takeover = within("lb2 takes over", secs(1.5), || has_vip(&b));
        assert!(takeover < secs(0.6), "{mode:?}: took {takeover:?}");
        let gone = one_holder("the kernel removes the address", &b, &a, secs(2.6));
        println!("{mode:?}: take-over after {takeover:?}, dead node's address gone {gone:?} later");
        open(&a, kind);
        one_holder("lb1 preempts", &a, &b, secs(2.0));
    }
}

#[test]
fn left_over_addresses_are_removed_at_start() {
    let Some(_turn) = turn() else { return };
    let [a, b] = pair();
    open(&a, FAST);
    within("lb1 active", secs(5.0), || has_vip(&a));
    for prefix in ["24", "32"] {
        b.run(&format!("ip address add {VIP}/{prefix} dev eth0"));
    }
    within("both have it", secs(1.0), || has_vip(&b));
    open(&b, FAST);
    one_holder("lb1 alone", &a, &b, secs(1.0));
}

#[test]
fn a_planned_leave_keeps_the_address_until_the_successor_has_it() {
    let Some(_turn) = turn() else { return };
    let [a, b] = elected(SLOW);
    resign(&a);
    within("released", secs(2.0), || {
        a.with(|inside| inside.routers[0].is_released())
    });
    assert_eq!(b.state(), Some(VrrpState::Active));
    one_holder("lb2 alone", &b, &a, secs(0.5));
    let counters = counters(&a);
    assert!(counters.resigns_sent >= 3, "{counters:?}");
    let events = a.with(|inside| std::mem::take(&mut inside.events));
    let releasing = RouterEvent::Releasing(vec![VIP.parse().unwrap()]);
    let told = events.iter().position(|event| *event == releasing);
    let gone = events
        .iter()
        .rposition(|event| *event == RouterEvent::Released);
    assert!(told.unwrap() < gone.unwrap(), "{events:?}");
}

#[test]
fn a_deleted_address_is_put_back_without_an_election() {
    let Some(_turn) = turn() else { return };
    let [a, b] = elected(FAST);
    a.run(&format!("ip address del {VIP}/24 dev eth0"));
    within("restored", secs(1.0), || counters(&a).restored == 1);
    one_holder("still lb1", &a, &b, secs(0.5));
    watches(&b);
    a.run("ip link set eth0 down");
    reaches("fault", secs(1.0), &a, VrrpState::Initialize);
    a.run("ip link set eth0 up");
    one_holder("lb1 preempts", &a, &b, secs(3.0));
}

#[test]
fn a_router_that_gives_up_leaves_no_address_behind() {
    let Some(_turn) = turn() else { return };
    let [a, b] = pair();
    open_as(&a, SLOW.text() + "lease = \"off\"\n");
    open(&b, SLOW);
    one_holder("lb1 active", &a, &b, secs(6.0));
    watches(&b);
    let begin = now();
    a.with(|inside| inside.routers[0].give_up(now()));
    within("no address", secs(0.5), || !has_vip(&a));
    println!("given up after {:?}", now() - begin);
    // It said so: the other one doesn't wait for its silence.
    within("lb2 takes over", secs(0.6), || has_vip(&b));
}

#[test]
fn a_node_that_cannot_serve_hands_the_address_to_one_that_can_and_to_nobody_else() {
    let Some(_turn) = turn() else { return };
    let [a, b] = elected(SLOW);
    watches(&b);
    tell(&a, UNFIT);
    let took = one_holder("lb2 takes over", &b, &a, secs(0.6));
    println!("handed off after {took:?}");
    tell(&b, UNFIT);
    within("lb2 goes on at priority 1", secs(2.0), || {
        let status = status(&b);
        status.effective_priority == 1 && status.state == VrrpState::Active
    });
    stays("nothing moves", secs(4.5), || has_vip(&b) && !has_vip(&a));
}
