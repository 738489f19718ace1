//! Whose adverts count: keys that change, and forged adverts.

use lbd::ipc::message::VrrpState;

use crate::forged::Forged;
use crate::pair::{
    FAST, NODES, VIP, counters, has_vip, one_holder, open, pair, refused, status, watches,
};
use crate::routers::{secs, turn, within};

#[test]
fn signed_nodes_change_their_keys_without_a_gap() {
    let Some(_turn) = turn() else { return };
    let [a, b] = pair();
    open(&a, FAST.signed(&[1]));
    open(&b, FAST.signed(&[1, 2]));
    one_holder("lb1 active", &a, &b, secs(5.0));
    watches(&b);
    // The Active signs with the new key: its Backup knows it already.
    a.with(|inside| inside.routers.clear());
    within("lb2 takes over", secs(1.5), || has_vip(&b));
    open(&a, FAST.signed(&[2, 1]));
    one_holder("lb1 preempts", &a, &b, secs(3.0));
    watches(&b);
    for host in [&a, &b] {
        assert_eq!(counters(host).rejected, []);
    }
    // A node without the new key hears nobody, and names the reason.
    open(&b, FAST.signed(&[1]));
    within("another key", secs(2.0), || refused(&b, "hmac-key") >= 3);
    // Nor does one without any: an unknown trailer is another authentication.
    open(&b, FAST);
    within("no key", secs(2.0), || refused(&b, "auth-type") >= 3);
    within("lb1 refuses what nobody signed", secs(3.0), || {
        refused(&a, "hmac-missing") >= 3
    });
}

#[test]
fn forged_adverts_change_nothing_and_are_counted_by_reason() {
    let Some(_turn) = turn() else { return };
    let [a, b] = pair();
    b.run("ip address add 10.99.0.77/24 dev eth0");
    open(&a, FAST);
    within("lb1 active", secs(5.0), || has_vip(&a));
    let forged = Forged {
        target: NODES[0],
        peer: NODES[1],
        stranger: "10.99.0.77",
        vip: VIP,
    };
    b.with(move |_| forged.send(5000));
    within("each reason counted", secs(2.0), || {
        let each = ["unknown-sender", "ttl", "vrid", "checksum"];
        each.iter().all(|reason| refused(&a, reason) > 0)
    });
    let status = status(&a);
    assert_eq!(status.state, VrrpState::Active);
    assert_eq!(status.counters.became_active, 1);
    assert_eq!(status.counters.adverts_received, 0);
}
