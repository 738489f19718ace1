//! What only the whole file can tell, or the file together with this machine.

use std::path::Path;

use super::local::HostFacts;
use super::parse::Draft;
use super::problem::Problem;

/// This machine, as far as a configuration can fit it or not.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Its interfaces and addresses.
    pub facts: &'a HostFacts,
    /// Whether there is a file of that name.
    pub file_exists: &'a dyn Fn(&Path) -> bool,
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

/// What the file alone tells.
pub(super) fn file(_draft: &Draft, _problems: &mut Vec<Problem>) {}

/// What the file tells together with this machine.
pub(super) fn host(_draft: &Draft, _host: &Host<'_>, _problems: &mut Vec<Problem>) {}
