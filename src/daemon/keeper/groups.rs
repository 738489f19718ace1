//! Which `[vip.NAME]`s of the file are one virtual router, and what such a group tracks; also what
//! is said when one can't start.

use std::io;
use std::time::Instant;

use super::KeeperError;
use crate::config::local::LocalVip;
use crate::config::model::Vip;
use crate::net::clock;
use crate::vrrp::fsm::StandDown;
use crate::vrrp::stamp::HoldMark;
use crate::vrrp::task::OpenError;

/// Positions of the virtual routers that move together, in the order of the file.
pub(super) fn groups(locals: &[LocalVip]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(Option<&str>, Vec<usize>)> = Vec::new();
    for (position, local) in locals.iter().enumerate() {
        let name = local.vip.sync_group.as_deref();
        let same = |(other, _): &&mut (Option<&str>, Vec<usize>)| name.is_some() && *other == name;
        match groups.iter_mut().find(same) {
            Some((_, members)) => members.push(position),
            None => groups.push((name, vec![position])),
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

/// The first member with the tracks of all.
pub(super) fn union(members: &[LocalVip]) -> Option<Vip> {
    let mut union = members.first()?.vip.clone();
    for track in members.iter().flat_map(|local| &local.vip.track) {
        if !union.track.contains(track) {
            union.track.push(track.clone());
        }
    }
    Some(union)
}

/// With what would help.
pub(super) fn refused(error: &OpenError) -> KeeperError {
    use std::error::Error;
    let source = error.source();
    let kernel = source.and_then(|cause| cause.downcast_ref::<io::Error>());
    let permission = kernel.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    let mut reason = error.to_string();
    if let Some(cause) = source {
        reason = format!("{reason}: {cause}");
    }
    if permission {
        reason.push_str(" (a VIP needs CAP_NET_ADMIN and CAP_NET_RAW)");
    }
    KeeperError::Router { reason, permission }
}

/// The hold that a previous keeper's router of these members was under, if it has not ended.
pub(super) fn hold_left(
    members: &[LocalVip],
    holds: &[HoldMark],
    now: Instant,
) -> Option<StandDown> {
    let same = |hold: &&HoldMark| {
        members
            .iter()
            .any(|local| hold.name == local.vip.name && hold.vrid == local.vip.vrid.get())
    };
    let Some(until) = holds.iter().find(same)?.until else {
        return Some(StandDown::UntilReleased);
    };
    let left = until.checked_sub(clock::boottime())?;
    let until = now.checked_add(left);
    Some(until.map_or(StandDown::UntilReleased, StandDown::Until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::config::local::resolve;
    use crate::config::local::{HostFacts, InterfaceFacts};

    fn locals(groups: [&str; 3]) -> Vec<LocalVip> {
        let mut text = String::from(
            "[track.script.one]\ncommand = [\"/bin/true\"]\n\
             [track.script.two]\ncommand = [\"/bin/true\"]\n",
        );
        for (last, (group, script)) in groups.into_iter().zip(["one", "two", "one"]).enumerate() {
            text.push_str(&format!(
                "[vip.v{last}]\naddress = \"10.1.0.10{last}/24\"\n\
                 nodes = [\"10.1.0.2\", \"10.1.0.3\"]\ntrack = [\"script:{script}\"]\n{group}\n"
            ));
        }
        let address = crate::config::model::VipAddress {
            ip: "10.1.0.2".parse().unwrap(),
            prefix: 24,
        };
        let facts = HostFacts {
            interfaces: vec![InterfaceFacts {
                name: "eth0".into(),
                index: 2,
                up: true,
                addresses: vec![address],
            }],
        };
        resolve(&load(&text).unwrap(), &facts, None).unwrap()
    }

    #[test]
    fn those_with_the_same_word_are_one_and_those_without_are_alone() {
        let word = "sync-group = \"g\"";
        assert_eq!(groups(&locals(["", "", ""])), [[0], [1], [2]]);
        let expected: [&[usize]; 2] = [&[0, 2], &[1]];
        assert_eq!(groups(&locals([word, "", word])), expected);
        assert_eq!(groups(&locals([word, word, word])), [[0, 1, 2]]);
    }

    #[test]
    fn a_group_tracks_once_what_any_member_tracks() {
        let locals = locals(["", "", ""]);
        let union = union(&locals).unwrap();
        assert_eq!(union.name, "v0");
        assert_eq!(union.track.len(), 2);
        assert_eq!(union.track[0], locals[0].vip.track[0]);
        assert_eq!(union.track[1], locals[1].vip.track[0]);
    }
}
