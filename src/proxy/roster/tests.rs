//! Who gets which place, and when it is free again.

use super::*;
use crate::net::clock;
use crate::proxy::dispatch::tests::{proxy, server};

fn named(name: &str) -> ServerSpec {
    ServerSpec {
        name: name.into(),
        ..server(1, 0)
    }
}

/// Two servers of the file: places 0 and 1.
fn table() -> Table {
    let servers = vec![named("a"), named("b")];
    Table::new(&proxy(servers, model::MaxQueue::Total(1)))
}

fn names(table: &Table) -> Vec<(usize, String)> {
    let present = table.roster().present();
    present
        .map(|(place, member)| (place, member.name.clone()))
        .collect()
}

#[test]
fn servers_of_the_file_sit_in_its_order_and_others_behind_them() {
    let mut table = table();
    let added = table.add(named("c"), Origin::Operator);
    assert_eq!(added, Ok(Seated::Fresh(2)));
    assert_eq!(
        names(&table),
        [(0, "a".into()), (1, "b".into()), (2, "c".into())]
    );
    assert_eq!(table.roster().member(2).unwrap().origin, Origin::Operator);
    assert_eq!(table.roster().place("b"), Some(1));
}

#[test]
fn a_name_is_given_once_and_a_full_table_keeps_those_it_has() {
    let mut table = table();
    let taken = table.add(named("a"), Origin::Operator);
    assert_eq!(taken, Err(AddError::NameTaken));
    for extra in 0..64 {
        let name = format!("x{extra}");
        assert!(table.add(named(&name), Origin::Discovered).is_ok());
    }
    let refused = table.add(named("late"), Origin::Operator);
    assert_eq!(refused, Err(AddError::Full { places: 66 }));
    assert_eq!(names(&table).len(), 66);
}

#[test]
fn a_place_is_free_a_second_after_its_last_connection() {
    let start = clock::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut table = table();
    assert!(table.remove(0));
    assert!(!table.remove(0), "twice");
    assert_eq!(names(&table), [(1, "b".into())]);
    assert!(!table.sweep(at(0), |_| false));
    assert!(!table.sweep(at(5_000), |_| true));
    // One that was on its way came after all.
    assert!(!table.sweep(at(5_500), |_| false));
    assert!(!table.sweep(at(6_000), |_| true));
    assert!(!table.sweep(at(6_999), |_| true));
    assert!(table.roster().member(0).is_some());
    assert_eq!(
        table.add(named("c"), Origin::Operator),
        Ok(Seated::Fresh(2))
    );
    assert!(table.sweep(at(7_000), |_| true));
    assert!(table.roster().member(0).is_none());
    assert_eq!(
        table.add(named("d"), Origin::Operator),
        Ok(Seated::Fresh(0))
    );
}

#[test]
fn whoever_comes_back_before_it_has_left_sits_where_it_sat() {
    let mut table = table();
    let first = table.roster().member(1).unwrap().id;
    table.remove(1);
    let elsewhere = ServerSpec {
        address: "127.0.0.1:99".parse().unwrap(),
        ..named("b")
    };
    assert_eq!(
        table.add(elsewhere, Origin::Operator),
        Ok(Seated::Fresh(2)),
        "another address is another server"
    );
    table.remove(2);
    assert_eq!(
        table.add(named("b"), Origin::Operator),
        Ok(Seated::Again(1))
    );
    let again = table.roster().member(1).unwrap();
    assert!(!again.leaving && again.id != first);
}

#[test]
fn an_update_leaves_name_and_addresses() {
    let mut table = table();
    let update = |spec: &mut ServerSpec| *spec = server(7, 9);
    assert!(table.update(0, update));
    let member = table.roster().member(0).unwrap();
    assert_eq!((member.name.as_str(), member.weight.get()), ("a", 7));
    assert!(!table.update(5, update), "nobody is there");
}

#[test]
fn an_operators_weight_stands_before_its_own_until_it_is_taken_back() {
    let mut table = table();
    let weight = |weight| Weight::try_from(weight).unwrap();
    let present = |table: &Table| {
        let member = table.roster().member(0).unwrap();
        (member.weight.get(), member.is_as(&named("a")))
    };
    assert!(table.pin(0, Some(weight(50))));
    assert_eq!(present(&table), (50, true));
    assert!(table.update(0, |spec| spec.weight = weight(3)));
    assert_eq!(present(&table), (50, false));
    assert!(table.pin(0, None));
    assert_eq!(present(&table), (3, false));
}
