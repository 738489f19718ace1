//! What each process says of its own sandbox, once it has given up what it does not need.

use crate::ipc::confinement::Confinement;
use crate::net::privileges::Report;

/// This process's `report`, and what it lacks. `why_root`: why it is root, and what mends that.
#[must_use]
pub(super) fn of_process(
    process: &str,
    report: Report,
    why_root: Option<(&str, &str)>,
) -> Confinement {
    let found = Confinement {
        process: process.to_owned(),
        pid: std::process::id(),
        user: report.user,
        capabilities: report.capabilities,
        no_new_privs: report.no_new_privs,
        seccomp: report.seccomp,
        landlock: report.landlock,
        missing: Vec::new(),
    };
    found.judged(why_root)
}
