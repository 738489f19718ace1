//! What only the whole file can tell, or the file together with this machine. Lints read the sound
//! items of the draft and say where in the text the trouble is; they change nothing.

mod check;
mod discovery;
mod group;
mod host;
mod origin;
mod proxy;
mod route;
mod track;
mod vip;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::local::HostFacts;
use super::model::{Check, Listen, RunAs};
use super::parse::Draft;
use super::problem::Problem;
pub use proxy::comes_back;

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
    /// Why a program would not be run for a user, if there is a reason.
    pub trouble: &'a dyn Fn(&Path, Option<&RunAs>) -> Option<Trouble>,
    /// What keeps a file from being used as the key file of `[peer]`; never what stands in it.
    pub key_problem: &'a dyn Fn(&Path) -> Option<String>,
    /// What is wrong with the files of a check, all of them there, each with the key that names it.
    pub check_flaws: &'a dyn Fn(&Check) -> Vec<(&'static str, Flaw)>,
    /// Whether a process of this machine holds a port.
    pub port_held: &'a dyn Fn(Listen) -> bool,
    /// `--node`: which node this machine is, by name or address.
    pub node: Option<&'a str>,
}

/// What is wrong with a file of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// lbd can't use it, for this reason.
    Unusable(String),
    /// A secret that everybody on this machine can read.
    ReadableByAll(PathBuf),
}

/// Why a program would not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// It is no file, or nobody may execute it.
    #[error("not an executable file")]
    NotExecutable,
    /// The user is unknown here.
    #[error("no such user: {0}")]
    NoSuchUser(String),
    /// The group is unknown here.
    #[error("no such group: {0}")]
    NoSuchGroup(String),
    /// Running programs as another user takes rights.
    #[error("not permitted to run programs as another user")]
    NotPermitted,
    /// It would run as root, and others can change it or a directory above it.
    #[error("refused as root: others can change {}", .0.display())]
    ChangeableByOthers(PathBuf),
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
    track::unused(draft, problems);
    proxy::lint(draft, problems);
    origin::lint(draft, problems);
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
