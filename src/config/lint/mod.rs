//! What only the whole file can tell, or the file together with this machine. Lints read the sound
//! items of the draft and say where in the text the trouble is; they change nothing.

mod group;
mod host;
mod proxy;
mod route;
mod vip;

#[cfg(test)]
mod tests;

use std::path::Path;

use super::local::HostFacts;
use super::model::Listen;
use super::parse::Draft;
use super::problem::Problem;

/// From where a file is looked at.
#[derive(Debug, Clone, Copy)]
pub enum View<'a> {
    /// From nowhere in particular.
    Anywhere,
    /// As the node of that name or address, without its facts.
    Node(&'a str),
    /// From this machine.
    Here(Host<'a>),
}

/// This machine, as far as a configuration can fit it or not.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Its interfaces and addresses.
    pub facts: &'a HostFacts,
    /// Whether there is a file of that name.
    pub file_exists: &'a dyn Fn(&Path) -> bool,
    /// Whether a process of this machine holds a port.
    pub port_held: &'a dyn Fn(Listen) -> bool,
    /// `--node`: which node this machine is, by name or address.
    pub node: Option<&'a str>,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("facts", self.facts)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What the file tells, seen from `view`.
pub(super) fn lint(draft: &Draft, view: View<'_>, problems: &mut Vec<Problem>) {
    vip::lint(draft, problems);
    group::lint(draft, problems);
    proxy::lint(draft, problems);
    route::lint(draft, problems);
    match view {
        View::Anywhere => {}
        View::Node(node) => host::named(draft, node, problems),
        View::Here(here) => {
            host::lint(draft, &here, problems);
            route::here(draft, &here, problems);
        }
    }
}
