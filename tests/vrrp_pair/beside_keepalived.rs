//! A virtual router of lbd's beside one of keepalived's.

use std::time::Duration;

use lbd::config::model::Mode;
use lbd::net::clock::now;

use crate::keepalived::{Instance, Keepalived, SIGNS, version};
use crate::pair::{
    FAST, Kind, NODES, Proof, VIP, counters, has_vip, one_holder, open, open_as, pair, resign,
};
use crate::routers::{Host, secs, turn, within};

/// keepalived as lb2.
fn start(host: &Host, kind: Kind) -> Keepalived {
    let mut lines = String::new();
    if kind.proof == Proof::Password {
        lines += "authentication {\nauth_type PASS\nauth_pass 1111\n}\n";
    }
    if kind.mode == Mode::Unicast {
        let [peer, own] = NODES;
        lines += &format!("unicast_src_ip {own}\nunicast_peer {{\n{peer}\n}}");
    }
    let instance = Instance {
        version: kind.version.get(),
        priority: 190,
        interval: Duration::from_millis(kind.ms),
        signed: matches!(kind.proof, Proof::Keys(_)),
        lines: &lines,
        addresses: &format!("{VIP}/24"),
    };
    Keepalived::start(host, "pair", &instance)
}

#[test]
fn keepalived_and_lbd_form_a_pair_in_both_roles() {
    let Some(_turn) = turn() else { return };
    let Some(version) = version() else { return };
    let mut kinds = vec![Kind::seed(), FAST, Kind::v3(1000, Mode::Multicast)];
    if version >= SIGNS {
        let multicast = Kind::v3(100, Mode::Multicast);
        kinds.extend([Kind::seed().signed(&[1]), FAST.signed(&[1])]);
        kinds.push(multicast.signed(&[1, 2]));
    } else {
        println!("without HMAC: keepalived has it from 2.4.2 on");
    }
    for kind in kinds {
        changes_roles(kind);
    }
}

fn changes_roles(kind: Kind) {
    let signed = matches!(kind.proof, Proof::Keys(_));
    let label = format!(
        "{:?} {:?} ms {:?} signed: {signed}",
        kind.version, kind.ms, kind.mode
    );
    let [a, b] = pair();
    // keepalived starts alone and is Active; lbd, stronger, preempts it.
    let mut keepalived = start(&b, kind);
    within("keepalived active", secs(6.0), || has_vip(&b));
    open(&a, kind);
    let took = one_holder("lbd preempts keepalived", &a, &b, secs(6.0));
    println!("{label}: lbd preempts keepalived after {took:?}");
    resign(&a);
    let took = one_holder("keepalived succeeds lbd", &b, &a, secs(4.0));
    println!("{label}: keepalived succeeds lbd after {took:?}");
    // lbd comes back as a Backup of its own: weaker now.
    open_as(&a, kind.text().replace("200", "150"));
    let calm = now();
    within("lbd hears keepalived", secs(6.0), || {
        assert!(!has_vip(&a), "{label}: two holders");
        counters(&a).adverts_received >= 3 && now() - calm > secs(2.0)
    });
    keepalived.terminate();
    let took = one_holder("lbd succeeds keepalived", &a, &b, secs(5.0));
    println!("{label}: lbd succeeds keepalived after {took:?}");
    drop(keepalived);
    let stronger = start(&b, kind);
    let took = one_holder("keepalived preempts lbd", &b, &a, secs(6.0));
    println!("{label}: keepalived preempts lbd after {took:?}");
    drop(stronger);
    let rejected = counters(&a).rejected;
    assert!(rejected.is_empty(), "{label}: {rejected:?}");
}
