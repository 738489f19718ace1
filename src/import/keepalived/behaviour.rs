//! When a virtual router moves, how it tells the LAN, with whom it moves and who is told.

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::toml::{Table, key, string};
use super::super::words;
use super::instance::Instance;
use super::merge::{Group, agree, put};
use super::{File, Said, traps};

pub(super) fn preempt(group: &Group<'_>, table: &mut Table, work: &mut Work) {
    let mut never: Vec<Id> = Vec::new();
    for (file, instance) in &group.members {
        let Some(id) = instance.nopreempt else {
            continue;
        };
        if instance
            .state
            .as_ref()
            .is_some_and(|said| said.value == "MASTER")
        {
            let label = file
                .node
                .clone()
                .unwrap_or_else(|| work.ledger.place(instance.id));
            work.ledger.mark(
                id,
                Fate::NotNeeded,
                "keepalived ignores it with `state MASTER`",
            );
            traps::nopreempt_master(&group.name, &label, work);
        } else {
            work.ledger.mark(id, Fate::Exact, "");
            never.push(id);
        }
    }
    if !never.is_empty() && never.len() < group.members.len() {
        for id in &never {
            work.ledger
                .mark(*id, Fate::Changed, "it holds for every node");
        }
    }
    let given: Vec<_> = group
        .members
        .iter()
        .map(|(_, i)| i.preempt_delay.as_ref())
        .collect();
    let delay = agree(&group.name, "preempt_delay", &given, work);
    if !never.is_empty() {
        for id in delay.iter().flat_map(|(_, ids)| ids) {
            work.ledger
                .mark(*id, Fate::NotNeeded, "with `nopreempt` nothing is delayed");
        }
        put(table, "preempt", "false", &never, work);
    } else if let Some((ms, ids)) = delay {
        let value = if ms == 0 {
            "true".to_owned()
        } else {
            words::duration(ms.clamp(1_000, 1_000_000))
        };
        put(table, "preempt", &value, &ids, work);
    }
}

pub(super) fn garp(group: &Group<'_>, table: &mut Table, work: &mut Work) {
    let mut fields = Vec::new();
    let mut ids: Vec<Id> = Vec::new();
    for name in ["repeat", "delay", "refresh", "interval"] {
        let said = |(file, i): &(&'_ File, &'_ Instance)| {
            let own = i.garp.iter().rfind(|(key, _)| *key == name);
            own.or_else(|| file.globals.garp.iter().rfind(|(key, _)| *key == name))
                .map(|(_, said)| said.clone())
        };
        let given: Vec<Option<Said<String>>> = group.members.iter().map(said).collect();
        let first = given.iter().flatten().next();
        if let Some(first) = first {
            fields.push(format!("{name} = {}", first.value));
            for other in given.iter().flatten() {
                if other.value == first.value {
                    ids.push(other.id);
                } else {
                    work.ledger.mark(
                        other.id,
                        Fate::Changed,
                        format!("{} counts", work.ledger.place(first.id)),
                    );
                }
            }
        }
    }
    if !fields.is_empty() {
        put(
            table,
            "garp",
            &format!("{{ {} }}", fields.join(", ")),
            &ids,
            work,
        );
    }
}

pub(super) fn sync_group(group: &Group<'_>, table: &mut Table, work: &Work) {
    for (file, instance) in &group.members {
        for (name, members, id) in &file.groups {
            if let Some(member) = members.iter().find(|said| said.value == instance.name)
                && members.len() > 1
            {
                put(
                    table,
                    "sync-group",
                    &string(&words::name(name)),
                    &[*id, member.id],
                    work,
                );
                return;
            }
        }
    }
}

pub(super) fn notify(group: &Group<'_>, work: &mut Work) -> Option<Table> {
    let mut table = Table::new(format!("[vip.{}.notify]", key(&group.name)), String::new());
    for name in ["active", "backup", "fault", "stop", "any"] {
        let given: Vec<Option<&Said<Vec<String>>>> = group
            .members
            .iter()
            .map(|(_, i)| {
                i.notify
                    .iter()
                    .rfind(|(key, _)| *key == name)
                    .map(|(_, said)| said)
            })
            .collect();
        let Some((argv, ids)) = agree(&group.name, "a notify program", &given, work) else {
            continue;
        };
        let argv: Vec<String> = argv.iter().map(|word| string(word)).collect();
        put(
            &mut table,
            name,
            &format!("[{}]", argv.join(", ")),
            &ids,
            work,
        );
        if name == "any" {
            table.put(
                "keepalived-arguments",
                "true",
                "INSTANCE, name, state and priority, as keepalived gives them".to_owned(),
            );
        }
    }
    (!table.is_empty()).then_some(table)
}
