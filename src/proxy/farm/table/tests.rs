//! A farm whose servers come and go, with a worker's mailbox and counters beside it.

use std::time::Duration;

use super::*;
use crate::config::model::MaxQueue;
use crate::net::clock;
use crate::proxy::balance::Key;
use crate::proxy::counters::ServerCount;
use crate::proxy::dispatch::tests::{proxy, server};
use crate::proxy::dispatch::{Admission, Turn};
use crate::proxy::mailbox::{Mailbox, Message};
use crate::proxy::queue::{Ticket, Tried};

fn spec(name: &str, port: u16) -> ServerSpec {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    ServerSpec {
        name: name.into(),
        address,
        check_address: address,
        ..server(1, 0)
    }
}

/// Servers a and b, both up.
fn farm() -> (Farm, Arc<Mailbox>) {
    let farm = Farm::new(&proxy(vec![spec("a", 1), spec("b", 2)], MaxQueue::Total(9)));
    let mailbox = Arc::new(Mailbox::new().unwrap());
    assert!(farm.attach(0, &[Arc::clone(&mailbox)]));
    for place in 0..2 {
        farm.set_up(place, true, clock::now());
    }
    (farm, mailbox)
}

fn admit(farm: &Farm, slot: u32) -> Admission {
    let ticket = Ticket {
        worker: 0,
        slot,
        serial: 0,
    };
    farm.admit(ticket, Tried::default(), Turn::First, Key::NONE)
}

fn taken(farm: &Farm, count: u32) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count)
        .map(|slot| {
            let Admission::Server(place) = admit(farm, slot) else {
                panic!("refused");
            };
            place
        })
        .collect();
    places.sort_unstable();
    places
}

#[test]
fn a_new_server_gets_its_share_once_it_was_found_ready() {
    let (farm, _mailbox) = farm();
    assert_eq!(farm.add(&spec("c", 3), Origin::Operator), Ok(2));
    assert_eq!(taken(&farm, 4), [0, 0, 1, 1]);
    farm.set_up(2, true, clock::now());
    assert_eq!(taken(&farm, 6), [0, 0, 1, 1, 2, 2]);
    assert_eq!(farm.address(2), Some("127.0.0.1:3".parse().unwrap()));
    assert_eq!(farm.member(2).unwrap().name, "c");
}

#[test]
fn a_removed_server_gets_nobody_and_workers_hear_of_it() {
    let (farm, mailbox) = farm();
    let mut mail = Vec::new();
    assert_eq!(taken(&farm, 2), [0, 1]);
    assert!(farm.remove(0));
    assert!(!farm.remove(0), "twice");
    mailbox.take(&mut mail);
    assert!(matches!(
        mail.as_slice(),
        [Message::ServerDown {
            proxy: 0,
            server: 0
        }]
    ));
    assert_eq!(taken(&farm, 3), [1, 1, 1]);
    assert_eq!(farm.member(0).unwrap().name, "a", "its connection goes on");
    let stats = farm.stats(clock::now());
    let names: Vec<_> = stats.servers.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["b"]);
    farm.remove(1);
    assert_eq!(admit(&farm, 9), Admission::NoServer);
}

#[test]
fn the_next_user_of_a_place_begins_with_nothing() {
    let (farm, _mailbox) = farm();
    let counters = Arc::clone(&farm.attached.get().unwrap().counters[0]);
    let now = clock::now();
    assert_eq!(taken(&farm, 4), [0, 0, 1, 1]);
    counters.add_server(0, ServerCount::Connected, 5);
    counters.add_server(1, ServerCount::Connected, 6);
    counters.connected(0, 100);
    farm.suspect(0);
    farm.remove(0);
    farm.tick(now + Duration::from_secs(5));
    assert_eq!(farm.add(&spec("c", 3), Origin::Operator), Ok(2));
    farm.release(0);
    farm.release(0);
    farm.tick(now + Duration::from_secs(6));
    farm.tick(now + Duration::from_secs(7));
    assert_eq!(farm.add(&spec("d", 4), Origin::Operator), Ok(0));
    counters.connected(0, 200);
    assert!(!farm.take_suspect(0));
    let stats = farm.stats(now);
    let seen: Vec<_> = stats
        .servers
        .iter()
        .map(|s| (s.name.as_str(), s.connections_max, s.totals.connected))
        .collect();
    assert_eq!(seen, [("d", 0, 1), ("b", 2, 6), ("c", 0, 0)]);
    assert_eq!(stats.servers[0].connects[..3], [0, 1, 0]);
    assert_eq!(farm.address(0), Some("127.0.0.1:4".parse().unwrap()));
}

#[test]
fn a_server_that_comes_back_while_it_leaves_still_has_its_connections() {
    let (farm, _mailbox) = farm();
    let limited = ServerSpec {
        max_connections: std::num::NonZeroU32::new(2),
        ..spec("c", 3)
    };
    assert_eq!(farm.add(&limited, Origin::Operator), Ok(2));
    farm.set_up(2, true, clock::now());
    farm.remove(0);
    farm.remove(1);
    assert_eq!(taken(&farm, 2), [2, 2]);
    farm.remove(2);
    assert_eq!(farm.add(&limited, Origin::Operator), Ok(2));
    farm.set_up(2, true, clock::now());
    assert_eq!(
        admit(&farm, 5),
        Admission::Queued(0),
        "both slots are in use"
    );
    assert_eq!(farm.stats(clock::now()).servers[0].connections, 2);
}

#[test]
fn a_server_that_comes_while_others_wait_serves_them() {
    let (farm, mailbox) = farm();
    let one = std::num::NonZeroU32::new(1);
    for (name, place) in [("a", 0), ("b", 1)] {
        assert!(
            farm.update(place, |spec| spec.max_connections = one),
            "{name}"
        );
    }
    assert_eq!(taken(&farm, 2), [0, 1]);
    assert_eq!(admit(&farm, 7), Admission::Queued(0));
    farm.add(&spec("c", 3), Origin::Operator).unwrap();
    farm.set_up(2, true, clock::now());
    let mut mail = Vec::new();
    mailbox.take(&mut mail);
    let [Message::Notice { notice, .. }] = mail.as_slice() else {
        panic!("{mail:?}");
    };
    let expected = Ticket {
        worker: 0,
        slot: 7,
        serial: 0,
    };
    assert_eq!(
        *notice,
        crate::proxy::dispatch::Notice::Granted(expected, 2)
    );
    assert_eq!(taken(&farm, 1), [2], "nobody waits any more");
}

#[test]
fn another_weight_is_another_share() {
    let (farm, _mailbox) = farm();
    assert!(farm.set_weight(1, Some(Weight::try_from(3).unwrap())));
    assert_eq!(taken(&farm, 8), [0, 0, 1, 1, 1, 1, 1, 1]);
    assert!(farm.set_weight(0, Some(Weight::try_from(0).unwrap())));
    assert_eq!(taken(&farm, 2), [1, 1]);
    assert!(!farm.set_weight(7, None), "nobody is there");
}

#[test]
fn reconciling_adds_removes_and_changes_its_own_members_only() {
    let (farm, _mailbox) = farm();
    let found = Origin::Discovered;
    let first = farm.reconcile(found, &[spec("x", 10), spec("y", 11), spec("b-too", 2)]);
    assert_eq!(first.added, ["x", "y"], "b is a member already");
    let heavier = ServerSpec {
        weight: Weight::try_from(9).unwrap(),
        ..spec("y", 11)
    };
    let second = farm.reconcile(found, &[heavier.clone(), spec("z", 12)]);
    assert_eq!(
        second,
        Reconciled {
            added: vec!["z".into()],
            removed: vec!["x".into()],
            changed: vec!["y".into()],
            refused: Vec::new(),
            held: Vec::new(),
        }
    );
    assert_eq!(farm.member(3).unwrap().weight.get(), 9);
    assert_eq!(
        farm.reconcile(found, &[heavier, spec("z", 12)]),
        Reconciled::default()
    );
    // The same name elsewhere is another server, and a name of the file's is not given away.
    let moved = farm.reconcile(found, &[spec("y", 13), spec("a", 14)]);
    assert_eq!(
        (moved.added, moved.removed),
        (vec!["y".to_owned()], vec!["y".to_owned(), "z".to_owned()])
    );
    assert_eq!(moved.refused, [("a".to_owned(), AddError::NameTaken)]);
    assert_eq!(farm.member(0).unwrap().address.port(), 1);
}

#[test]
fn servers_no_longer_wanted_serve_until_another_is_ready() {
    let (farm, _mailbox) = farm();
    let (found, now) = (Origin::Discovered, clock::now());
    let first = farm.reconcile(found, &[spec("x", 10), spec("y", 11)]);
    assert!(first.is_settled());
    for place in 0..4 {
        farm.set_up(place, place != 3, now);
    }
    // a and b, which stay, are usable: x goes at once.
    assert_eq!(farm.reconcile(found, &[spec("y", 11)]).removed, ["x"]);
    farm.reconcile(found, &[spec("x", 10), spec("y", 11)]);
    let x = farm.roster().place("x").unwrap();
    farm.set_up(x, true, now);
    farm.set_up(0, false, now);
    farm.set_up(1, false, now);
    let swap = farm.reconcile(found, &[spec("z", 12)]);
    assert_eq!(
        (swap.added, swap.held),
        (vec!["z".into()], vec!["x".into()])
    );
    assert_eq!(swap.removed, ["y"], "it is of no use");
    let z = farm.roster().place("z").unwrap();
    farm.set_up(z, true, now);
    let settled = farm.reconcile(found, &[spec("z", 12)]);
    assert_eq!(settled.removed, ["x"]);
    assert!(settled.is_settled());
}

#[test]
fn addresses_of_both_families_are_read_as_they_were_written() {
    for text in [
        "10.1.2.3:6443",
        "255.255.255.255:65535",
        "[2001:db8::1]:6443",
        "[::]:0",
        "[::ffff:10.0.0.1]:80",
    ] {
        let address: SocketAddr = text.parse().unwrap();
        assert_eq!(Address::new(address).get(), address, "{text}");
    }
    let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, 3).into();
    assert_eq!(Address::new(scoped).get(), scoped);
}
