//! What one of lbd's processes may do, as it says itself, and what is missing of that. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// `keeper`, `runner` or `proxy`.
    pub process: String,
    /// Its process id.
    pub pid: u32,
    /// Whose rights it has: a name, or a number where there is none.
    pub user: String,
    /// The capabilities that it holds, in words.
    pub capabilities: String,
    /// Whether it and its programs can gain no rights.
    pub no_new_privs: bool,
    /// The list of system calls: `on`, or why not.
    pub seccomp: String,
    /// The files that it can reach: `on`, or why not.
    pub landlock: String,
    /// What is not as it could be.
    pub missing: Vec<Gap>,
}

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What, and why.
    pub what: String,
    /// What mends it.
    pub remedy: String,
}

impl Confinement {
    /// With what follows from the other fields, and nothing else; `root` is why it has root's rights, if that is not
    /// what was asked for.
    #[must_use]
    pub fn judged(mut self, root: Option<(&str, &str)>) -> Self {
        self.missing.clear();
        if let Some((why, remedy)) = root {
            self.lacks(format!("it runs as root: {why}"), remedy);
        }
        if !self.no_new_privs {
            self.lacks(
                "no_new_privs is off: its programs could gain rights".to_owned(),
                "no script or notify program with a `user` of its own; in a container \
                 `allowPrivilegeEscalation: false`",
            );
        }
        if let Some(why) = self.seccomp.strip_prefix("off: ") {
            let what = format!("system calls are not filtered: {why}");
            self.lacks(
                what,
                "a kernel with CONFIG_SECCOMP_FILTER, a container that permits seccomp(2)",
            );
        }
        if let Some(why) = self.landlock.strip_prefix("off: ") {
            let what = format!("files are not restricted by landlock: {why}");
            self.lacks(
                what,
                "Linux from 5.13 on with landlock among `lsm=`, or the unit as shipped, \
                 whose file system is read-only",
            );
        }
        self
    }

    fn lacks(&mut self, what: String, remedy: &str) {
        self.missing.push(Gap {
            what,
            remedy: remedy.to_owned(),
        });
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "user {}, capabilities {}, no_new_privs {}, seccomp {}, landlock {}",
            self.user,
            self.capabilities,
            if self.no_new_privs { "on" } else { "off" },
            self.seccomp,
            self.landlock
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Confinement {
        Confinement {
            process: "keeper".into(),
            pid: 7,
            user: "lbd".into(),
            capabilities: "CAP_NET_ADMIN CAP_NET_RAW".into(),
            no_new_privs: true,
            seccomp: "on".into(),
            landlock: "on".into(),
            missing: Vec::new(),
        }
    }

    #[test]
    fn what_is_off_is_missing_and_what_others_do_is_not() {
        let manager = Confinement {
            seccomp: "on, by the service manager".into(),
            landlock: "not needed, the file system is read-only".into(),
            ..complete()
        };
        for whole in [complete(), manager] {
            assert_eq!(whole.clone().judged(None), whole);
        }
        let bare = Confinement {
            no_new_privs: false,
            seccomp: "off: Function not implemented".into(),
            landlock: "off: not in this kernel".into(),
            ..complete()
        };
        let bare = bare.judged(Some(("there is no user lbd", "make one")));
        let gaps: Vec<&str> = bare.missing.iter().map(|gap| gap.what.as_str()).collect();
        assert_eq!(
            gaps,
            [
                "it runs as root: there is no user lbd",
                "no_new_privs is off: its programs could gain rights",
                "system calls are not filtered: Function not implemented",
                "files are not restricted by landlock: not in this kernel",
            ]
        );
    }
}
