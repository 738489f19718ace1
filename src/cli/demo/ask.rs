//! Asks a node about itself.

use super::lab::Node;

/// What the node says, in a few words; `None` when nothing answers.
#[must_use]
pub fn says(node: &Node) -> Option<String> {
    let processes = node.host.processes().ok()?;
    if processes.is_empty() {
        return None;
    }
    Some(format!("{} processes", processes.len()))
}
