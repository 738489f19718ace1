//! The channel between nodes, as the running daemon tells: who speaks, and of which version. Pure.

use super::report::Finding;
use crate::ipc::message::{ChannelStatus, NodeView};

const CHECK: &str = "peer";

/// One finding per node, or what keeps the channel from working.
pub(super) fn findings(channel: &ChannelStatus, version: &str) -> Vec<Finding> {
    if let Some(fault) = &channel.fault {
        return vec![Finding::failed(CHECK, "", fault.clone()).remedy("docs/peer.md")];
    }
    channel
        .nodes
        .iter()
        .map(|node| one(node, version))
        .collect()
}

fn one(node: &NodeView, version: &str) -> Finding {
    if !node.reachable {
        return Finding::failed(CHECK, &node.name, "not heard on the channel between nodes")
            .cause(
                "lbd doesn't run there, its key differs, or a firewall drops UDP to `[peer] port`",
            )
            .remedy("the same key file on every node; `lbd doctor` there");
    }
    if node.version != version {
        let text = format!("runs lbd {}, this node {version}", node.version);
        return Finding::warning(CHECK, &node.name, text)
            .cause("an upgrade that is not finished")
            .remedy("the same version on every node");
    }
    if !node.can_serve {
        return Finding::warning(CHECK, &node.name, "heard, and can't serve clients")
            .cause("its proxy or its servers are not usable: it could not take over")
            .remedy("`lbd status` there");
    }
    Finding::ok(CHECK, &node.name, "heard, could serve, same version")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::State;

    #[test]
    fn a_node_that_is_silent_fails_and_one_that_could_not_take_over_is_worth_a_look() {
        let node = NodeView {
            name: "lb2".into(),
            reachable: true,
            version: "0.1.0".into(),
            can_serve: true,
            ..NodeView::default()
        };
        let state = |node: NodeView| {
            let channel = ChannelStatus {
                nodes: vec![node],
                ..ChannelStatus::default()
            };
            findings(&channel, "0.1.0").remove(0).state
        };
        assert_eq!(state(node.clone()), State::Ok);
        assert_eq!(
            state(NodeView {
                reachable: false,
                ..node.clone()
            }),
            State::Failed
        );
        assert_eq!(
            state(NodeView {
                can_serve: false,
                ..node.clone()
            }),
            State::Warning
        );
        assert_eq!(
            state(NodeView {
                version: "0.0.9".into(),
                ..node
            }),
            State::Warning
        );
    }

    #[test]
    fn a_channel_that_is_out_of_order_says_why() {
        let channel = ChannelStatus {
            fault: Some("no key".into()),
            ..ChannelStatus::default()
        };
        assert_eq!(findings(&channel, "0.1.0")[0].found, "no key");
    }
}
