//! What would not have worked in the old files, said with their own numbers.

use super::super::Work;

/// A node as the election sees it.
#[derive(Debug, Clone)]
pub(super) struct Rank {
    pub(super) label: String,
    pub(super) priority: i64,
}

/// The two nodes between which an election is decided, the preferred one first.
fn strongest(nodes: &[Rank]) -> Option<(&Rank, &Rank)> {
    let mut sorted: Vec<&Rank> = nodes.iter().collect();
    sorted.sort_by_key(|node| std::cmp::Reverse(node.priority));
    match sorted.as_slice() {
        [first, second, ..] => Some((first, second)),
        [] | [_] => None,
    }
}

/// Says whether a script's weight would have moved the VIP.
pub(super) fn weight(
    vip: &str,
    script: &str,
    weight: i64,
    nodes: &[Rank],
    follows: bool,
    work: &mut Work,
) {
    let Some((first, second)) = strongest(nodes) else {
        return;
    };
    let (failed, healthy) = if weight > 0 {
        (first.priority, (second.priority + weight).min(254))
    } else {
        ((first.priority + weight).max(1), second.priority)
    };
    if weight == 0 || healthy > failed {
        return;
    }
    let sums = if weight > 0 {
        format!(
            "{} without `{script}` has {failed}, and {} with it {} + {weight} = {healthy}",
            first.label, second.label, second.priority
        )
    } else {
        format!(
            "{} without `{script}` has {} - {} = {failed}, and {} with it {healthy}",
            first.label, first.priority, -weight, second.label
        )
    };
    let outcome = if healthy == failed {
        "the higher address decides"
    } else {
        "the VIP stays on the node where it failed"
    };
    let now = if follows {
        "In lb.toml a node whose proxies can't serve gives the VIP away.".to_owned()
    } else {
        let gap = first.priority - second.priority;
        format!(
            "lb.toml has the same weight. Better: leave it out, or {} or less.",
            -(gap + 1)
        )
    };
    work.trap(
        "weight",
        format!("vip {vip}: the weight of `{script}` can't decide an election"),
        &[format!("{sums}: {outcome}."), now],
    );
}

/// Says what is odd about lines that hold for one node.
pub(super) fn conditions(
    label: &str,
    node: Option<&str>,
    others: &[String],
    half: &[String],
    work: &mut Work,
) {
    if let (Some(node), [first, ..]) = (node, others) {
        let names: Vec<String> = others.iter().map(|name| format!("@{name}")).collect();
        work.trap(
            "config-id",
            format!("{label}: no line is for @{node}, which this file's node is called here"),
            &[
                format!(
                    "It has {}. keepalived takes the name that -i gives it, else the host's.",
                    names.join(", ")
                ),
                format!("If the node has another name: --nodes {first}=ADDRESS,…"),
            ],
        );
    }
    if let [first, ..] = half {
        work.trap(
            "half-block",
            format!("{first}: in a block that is opened for another node"),
            &[
                "keepalived leaves out the line with the brace alone: what follows it belongs to the block around it then, and the next } ends that.".to_owned(),
                "Write the same @NAME in front of each line of the block, the last one with its } too.".to_owned(),
            ],
        );
    }
}

/// Says what keepalived makes of a command without quotes.
pub(super) fn unquoted(script: &str, place: &str, first: &str, work: &mut Work) {
    work.trap(
        "unquoted",
        format!("{place}: the command of `{script}` has no quotes"),
        &[format!(
            "keepalived starts `{first}` without the words behind it. lb.toml has the whole command, which is what was meant: look whether it is right."
        )],
    );
}

/// Says what a script that only looks for a process misses.
pub(super) fn process(vip: &str, script: &str, command: &str, work: &mut Work) {
    work.trap(
        "process-check",
        format!("vip {vip}: `{script}` asks whether HAProxy is there, not whether it serves"),
        &[format!("`{command}` is content with a process that hangs or reaches no server. lb.toml follows the proxies themselves.")],
    );
}

/// Says that nothing watched HAProxy.
pub(super) fn unwatched(vip: &str, work: &mut Work) {
    work.trap(
        "unwatched",
        format!("vip {vip}: nothing watched HAProxy"),
        &["The VIP would have stayed on a node whose HAProxy is gone. lb.toml follows the proxies.".to_owned()],
    );
}

/// Says what multicast means.
pub(super) fn multicast(vip: &str, work: &mut Work) {
    work.trap(
        "multicast",
        format!("vip {vip}: adverts go to everybody on the LAN"),
        &[
            "Without unicast_peer keepalived sends to 224.0.0.18, where others with the same virtual_router_id interfere and some networks drop it. lb.toml does the same, so that both understand each other.".to_owned(),
            "Better, once no keepalived is left: remove `mode = \"multicast\"`.".to_owned(),
        ],
    );
}

/// Says that a word about the start contradicts what decides.
pub(super) fn states(vip: &str, nodes: &[(Rank, Option<String>)], work: &mut Work) {
    for (node, state) in nodes {
        let Some(state) = state else { continue };
        if state != "MASTER" && state != "BACKUP" {
            work.trap(
                "state",
                format!("vip {vip}: {} has state {state}", node.label),
                &["keepalived knows MASTER and BACKUP, in capitals, and takes this for BACKUP. The priority decides anyhow.".to_owned()],
            );
        }
    }
    let masters: Vec<&Rank> = nodes
        .iter()
        .filter(|(_, s)| s.as_deref() == Some("MASTER"))
        .map(|(n, _)| n)
        .collect();
    let best = nodes.iter().map(|(n, _)| n.priority).max();
    for master in &masters {
        if Some(master.priority) < best {
            work.trap(
                "master-is-weaker",
                format!(
                    "vip {vip}: {} is called MASTER and has not the highest priority",
                    master.label
                ),
                &[format!(
                    "Its {} loses against {}. The priority decides.",
                    master.priority,
                    best.unwrap_or(0)
                )],
            );
        }
    }
    if masters.len() > 1 {
        let names: Vec<&str> = masters.iter().map(|n| n.label.as_str()).collect();
        work.trap(
            "two-masters",
            format!("vip {vip}: {} are both called MASTER", names.join(" and ")),
            &["Both take the VIP when they start, until they hear each other.".to_owned()],
        );
    }
}

/// Says that keepalived ignores `nopreempt` there.
pub(super) fn nopreempt_master(vip: &str, node: &str, work: &mut Work) {
    work.trap(
        "nopreempt-master",
        format!("vip {vip}: `nopreempt` of {node} does nothing"),
        &["With `state MASTER` keepalived ignores it, and takes the VIP back at each start. lb.toml does the same; for the other behaviour write preempt = false.".to_owned()],
    );
}

/// Says what the password is.
pub(super) fn password(vip: &str, long: bool, work: &mut Work) {
    if long {
        work.trap(
            "long-password",
            format!("vip {vip}: the password is longer than 8 bytes"),
            &["VRRP version 2 carries 8; keepalived cuts the rest off. lb.toml has the first 8, so that both understand each other.".to_owned()],
        );
    }
    work.trap(
        "clear-password",
        format!("vip {vip}: the password protects from nothing but mistakes"),
        &["It is sent in clear with each advert. Once no keepalived is left: version = 3 and auth type \"hmac\".".to_owned()],
    );
}

/// Says that the nodes' files disagree.
pub(super) fn differs(vip: &str, what: &str, places: &[String], work: &mut Work) {
    work.trap(
        "differs",
        format!("vip {vip}: {what} differs between the nodes"),
        &[format!("{}: the first counts in lb.toml. Nodes that disagree there don't understand each other.", places.join(", "))],
    );
}

/// Says that a priority stands in no file.
pub(super) fn guessed(vip: &str, node: &str, priority: i64, work: &mut Work) {
    work.trap(
        "guessed-priority",
        format!("vip {vip}: the priority of {node} is in no file"),
        &[format!("{priority} is a guess. Give that node's keepalived.conf with another --keepalived, or correct it.")],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_that_brings_both_nodes_to_one_sum_decides_nothing() {
        let told = |first: i64, second: i64, points: i64| {
            let rank = |label: &str, priority| Rank {
                label: label.to_owned(),
                priority,
            };
            let mut work = Work::default();
            let nodes = [rank("a", first), rank("b", second)];
            weight("kube", "check", points, &nodes, false, &mut work);
            !work.traps.is_empty()
        };
        assert!(!told(100, 90, -11));
        assert!(told(100, 90, -10));
        assert!(told(100, 90, -5));
        // No sum is above 254.
        assert!(told(254, 100, 155));
        assert!(!told(253, 100, 155));
    }
}
