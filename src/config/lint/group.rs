//! Lints of sync-groups: virtual routers that move together have one election, so they must agree
//! on whatever decides it.

use crate::config::model::{Preempt, Track, Vip};
use crate::config::parse::{Draft, show_duration};
use crate::config::problem::Problem;

/// A key that decides elections, and its value as TOML.
struct Fact {
    key: &'static str,
    value: fn(&Vip) -> String,
}

const FACTS: &[Fact] = &[
    Fact {
        key: "version",
        value: |vip| vip.version.get().to_string(),
    },
    Fact {
        key: "advert-interval",
        value: |vip| quoted(&show_duration(vip.advert_interval.duration())),
    },
    Fact {
        key: "advert-spacing",
        value: |vip| quoted(&show_duration(vip.advert_spacing)),
    },
    Fact {
        key: "per-server-weight",
        value: |vip| vip.per_server_weight.to_string(),
    },
    Fact {
        key: "preempt",
        value: |vip| match vip.preempt {
            Preempt::Never => "false".to_owned(),
            Preempt::Always => "true".to_owned(),
            Preempt::After(delay) => quoted(&show_duration(delay)),
        },
    },
    Fact {
        key: "lease",
        value: |vip| {
            vip.lease
                .map_or_else(|| quoted("off"), |lease| quoted(&show_duration(lease)))
        },
    },
    Fact {
        key: "garp",
        value: |vip| {
            let garp = &vip.garp;
            let [delay, refresh, interval] =
                [garp.delay, garp.refresh, garp.interval].map(show_duration);
            format!(
                "{{ repeat = {}, delay = \"{delay}\", refresh = \"{refresh}\", interval = \"{interval}\" }}",
                garp.repeat
            )
        },
    },
];

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

pub(super) fn lint(draft: &Draft, problems: &mut Vec<Problem>) {
    let vips = &draft.config.vips;
    for (index, vip) in vips.iter().enumerate() {
        let Some(group) = &vip.sync_group else {
            continue;
        };
        let same = |other: &&Vip| other.sync_group.as_ref() == Some(group);
        match vips.iter().take(index).find(same) {
            Some(first) => {
                facts(draft, group, first, vip, problems);
                nodes(draft, group, first, vip, problems);
                let earlier = vips.iter().take(index).filter(same);
                let tracks: Vec<&Track> = earlier.flat_map(|other| &other.track).collect();
                tracked(draft, group, &tracks, vip, problems);
            }
            None if vips.iter().filter(same).count() < 2 && vips.len() == draft.vip_count => {
                problems.push(
                    Problem::warning("W0231", format!("`{group}` is a group of one")).at(
                        &place(draft, vip, "sync-group"),
                        "no other virtual router moves with it",
                    ),
                );
            }
            None => {}
        }
    }
}

fn place(draft: &Draft, vip: &Vip, key: &str) -> std::ops::Range<usize> {
    draft.spans.at(&format!("vip/{}/{key}", vip.name))
}

/// Whether the file has the key for one of them: a default that follows another key is no mistake
/// of its own.
fn given_by(draft: &Draft, vips: [&Vip; 2], key: &str) -> bool {
    let has = |vip: &Vip| draft.spans.has(&format!("vip/{}/{key}", vip.name));
    vips.into_iter().any(has)
}

fn facts(draft: &Draft, group: &str, first: &Vip, vip: &Vip, problems: &mut Vec<Problem>) {
    for Fact { key, value } in FACTS {
        let (wanted, given) = (value(first), value(vip));
        if wanted == given || (*key == "advert-spacing" && !given_by(draft, [first, vip], key)) {
            continue;
        }
        let span = place(draft, vip, key);
        let problem = Problem::error(
            "E0230",
            format!(
                "`vip.{}` and `vip.{}` move together but differ in `{key}`",
                first.name, vip.name
            ),
        )
        .at(&span, format!("here it is {given}"))
        .context(&place(draft, first, key), format!("here it is {wanted}"));
        problems.push(if draft.spans.has(&format!("vip/{}/{key}", vip.name)) {
            problem.fix(
                format!("the group `{group}` has one election, so write"),
                &span,
                wanted,
            )
        } else {
            problem.help(format!(
                "the group `{group}` has one election: write `{key} = {wanted}` here too, or leave it out of both"
            ))
        });
    }
}

/// The same hosts in the same order with the same priorities; each with an address on each LAN.
fn nodes(draft: &Draft, group: &str, first: &Vip, vip: &Vip, problems: &mut Vec<Problem>) {
    let complain = |key: &str, text: String| {
        Problem::error(
            "E0230",
            format!(
                "`vip.{}` and `vip.{}` move together but differ in `nodes`",
                first.name, vip.name
            ),
        )
        .at(&place(draft, vip, key), text)
        .context(&place(draft, first, "nodes"), "the nodes of the group")
    };
    if vip.nodes.len() != first.nodes.len() {
        let (ours, theirs) = (vip.nodes.len(), first.nodes.len());
        problems.push(
            complain("nodes", format!("{ours} here, {theirs} there")).help(format!(
                "list the same hosts in the same order in every member of `{group}`"
            )),
        );
        return;
    }
    for (index, (node, twin)) in vip.nodes.iter().zip(&first.nodes).enumerate() {
        if node.name.is_some() && twin.name.is_some() && node.name != twin.name {
            let text = format!("this is {}, there it is {}", node.label(), twin.label());
            problems.push(
                complain(&format!("nodes/{index}"), text)
                    .help("list the same hosts in the same order"),
            );
        } else if node.priority != twin.priority {
            let key = format!("nodes/{index}/priority");
            let text = format!("{} here, {} there", node.priority, twin.priority);
            let problem = complain(&key, text);
            problems.push(if draft.spans.has(&format!("vip/{}/{key}", vip.name)) {
                problem.fix(
                    "one election needs one priority for each node: write",
                    &place(draft, vip, &key),
                    twin.priority.to_string(),
                )
            } else {
                problem.help(format!("write `priority = {}` here too", twin.priority))
            });
        }
    }
}

/// The group tracks what any member tracks; nothing may count in two ways.
fn tracked(draft: &Draft, group: &str, earlier: &[&Track], vip: &Vip, problems: &mut Vec<Problem>) {
    for (index, track) in vip.track.iter().enumerate() {
        let clash = |other: &&Track| other.target == track.target && other.weight != track.weight;
        if earlier.iter().any(clash) {
            problems.push(
                Problem::error(
                    "E0230",
                    format!("`{group}` tracks one thing with two weights"),
                )
                .at(
                    &place(draft, vip, &format!("track/{index}")),
                    "another member gives it another weight",
                )
                .help("what one member of a group tracks, all do: list it once"),
            );
        }
    }
}
