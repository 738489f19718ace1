//! Which `[vip.NAME]` of another file goes on as which of the one before: the same virtual router,
//! whatever it is called by now, if it keeps an address, or else the one of the same name. Pure.
#![forbid(unsafe_code)]

use crate::config::local::LocalVip;

/// For each virtual router of the new file its position in the old one. None is there twice.
pub(in crate::daemon::keeper) fn lineage(old: &[LocalVip], new: &[LocalVip]) -> Vec<Option<usize>> {
    let same_name = |old: &LocalVip, new: &LocalVip| old.vip.name == new.vip.name;
    let all_the_same = |old: &LocalVip, new: &LocalVip| {
        old.is_same_router(new) && old.vip.addresses == new.vip.addresses
    };
    // Others see it by that, and hold on to what it holds: no name is worth a second one beside it.
    let still_itself = |old: &LocalVip, new: &LocalVip| {
        let mut kept = new.vip.addresses.iter();
        old.is_same_router(new)
            && kept.any(|kept| old.vip.addresses.iter().any(|old| old.ip == kept.ip))
    };
    let mut found = vec![None; new.len()];
    let mut free: Vec<bool> = vec![true; old.len()];
    let mut claim = |is: &dyn Fn(&LocalVip, &LocalVip) -> bool| {
        for (new, found) in new.iter().zip(&mut found) {
            if found.is_some() {
                continue;
            }
            let mut all = old.iter().zip(&mut free).enumerate();
            if let Some((at, (_, free))) = all.find(|(_, (old, free))| **free && is(old, new)) {
                *free = false;
                *found = Some(at);
            }
        }
    };
    claim(&|old, new| same_name(old, new) && all_the_same(old, new));
    claim(&all_the_same);
    claim(&|old, new| same_name(old, new) && still_itself(old, new));
    claim(&still_itself);
    claim(&same_name);
    claim(&LocalVip::is_same_router);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::config::local::resolve;
    use crate::config::local::{HostFacts, InterfaceFacts};
    use crate::config::model::VipAddress;

    /// Each by its name, vrid and last bytes of its addresses.
    fn locals(all: &[(&str, u8, &[u8])]) -> Vec<LocalVip> {
        let table = |(name, vrid, hosts): &(&str, u8, &[u8])| {
            let hosts = hosts.iter().map(|host| format!("\"10.1.0.{host}/24\""));
            let hosts: Vec<String> = hosts.collect();
            format!(
                "[vip.{name}]\naddress = [{}]\nvrid = {vrid}\n\
                 nodes = [\"10.1.0.2\", \"10.1.0.3\"]\n",
                hosts.join(", ")
            )
        };
        let text: String = all.iter().map(table).collect();
        let own = VipAddress {
            ip: "10.1.0.2".parse().unwrap(),
            prefix: 24,
        };
        let facts = HostFacts {
            interfaces: vec![InterfaceFacts {
                name: "eth0".into(),
                index: 2,
                up: true,
                addresses: vec![own],
            }],
        };
        resolve(&load(&text).unwrap(), &facts, None).unwrap()
    }

    fn found(old: &[(&str, u8, u8)], new: &[(&str, u8, u8)]) -> Vec<Option<usize>> {
        lineage(&locals(&single(old)), &locals(&single(new)))
    }

    fn single<'a>(all: &'a [(&'a str, u8, u8)]) -> Vec<(&'a str, u8, &'a [u8])> {
        let one = |vip: &'a (&'a str, u8, u8)| (vip.0, vip.1, std::slice::from_ref(&vip.2));
        all.iter().map(one).collect()
    }

    const OLD: [(&str, u8, u8); 2] = [("v", 7, 100), ("w", 8, 101)];

    #[test]
    fn another_name_is_no_other_router_and_names_that_change_places_move_nothing() {
        assert_eq!(
            found(&OLD, &[("v", 7, 100), ("x", 8, 101)]),
            [Some(0), Some(1)]
        );
        assert_eq!(
            found(&OLD, &[("x", 7, 100), ("v", 8, 101)]),
            [Some(0), Some(1)]
        );
        assert_eq!(
            found(&OLD, &[("w", 7, 100), ("v", 8, 101)]),
            [Some(0), Some(1)]
        );
        // With another address, too.
        assert_eq!(found(&OLD, &[("x", 7, 105)]), [Some(0)]);
    }

    #[test]
    fn the_same_name_is_the_same_router_with_whatever_else_it_has() {
        assert_eq!(
            found(&OLD, &[("w", 9, 105), ("v", 7, 101)]),
            [Some(1), Some(0)]
        );
        assert_eq!(
            found(&OLD, &[("v", 8, 100), ("w", 7, 101)]),
            [Some(0), Some(1)]
        );
    }

    #[test]
    fn who_keeps_vrid_and_an_address_goes_on_whoever_gets_its_name() {
        let old = [("v", 7, &[100][..]), ("w", 8, &[101, 103])];
        let found = |new| lineage(&locals(&old), &locals(new));
        // It has the name of one and is the other.
        assert_eq!(found(&[("v", 8, &[101, 102])]), [Some(1)]);
        assert_eq!(
            found(&[("v", 9, &[105]), ("x", 7, &[100, 104])]),
            [None, Some(0)]
        );
        assert_eq!(
            found(&[("w", 7, &[100, 101]), ("v", 8, &[103])]),
            [Some(0), Some(1)]
        );
    }

    #[test]
    fn what_has_neither_is_new_and_nobody_goes_on_as_two() {
        assert_eq!(found(&OLD, &[("x", 9, 105)]), [None]);
        // The router goes on as what it is; its former name is another one's from here on.
        assert_eq!(
            found(&OLD, &[("v", 9, 105), ("x", 7, 100)]),
            [None, Some(0)]
        );
    }
}
