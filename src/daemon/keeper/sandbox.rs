//! The sandbox that the keeper builds around itself before anything else, for all that is started
//! later: runner, scripts, proxies, and the program that it becomes by an upgrade. Where a service
//! manager has built one nothing is added. And what is said of it: to the log, and to the proxy process,
//! which tells `lbd status` and `lbd doctor`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Handover, Keeper, KeeperArgs, user};
use crate::config::model::Config;
use crate::daemon::confined;
use crate::daemon::proxy::state_dir;
use crate::ipc::confinement::Confinement;
use crate::ipc::message::ToProxy;
use crate::net::privileges::{self, Bounds, Report, TEMPORARY, Wide};

/// What a configuration that comes later has to do with.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    /// Where lbd itself leaves files to be written; `None`: it restricts none.
    writable: Option<Vec<PathBuf>>,
    /// `writable` as it was when this was decided.
    asked: Vec<PathBuf>,
    /// It is root and has left itself no way to run a program as somebody else.
    sealed: bool,
}

/// What is in force, and who was told.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) wide: Wide,
    pub(super) reach: Reach,
    /// Keeper and runner, as soon as they have spoken.
    keeper: Option<Confinement>,
    runner: Option<Confinement>,
    /// The proxy process that knows of them.
    told: Option<i32>,
}

impl Sandbox {
    /// Puts it into force. Before any thread is started and any file opened for long, and behind the
    /// change of user.
    pub(super) fn enter(args: &KeeperArgs, handover: Option<&Handover>) -> Self {
        // It can be left open to be written only if it is there. Who can't make it says so later.
        let mut builder = DirBuilder::new();
        if let Err(error) = builder
            .recursive(true)
            .mode(0o750)
            .create(&args.runtime_dir)
        {
            tracing::debug!(%error, "runtime directory not made");
        }
        let mut write = vec![args.runtime_dir.clone()];
        write.extend(state_dir(&args.config, &args.runtime_dir));
        let socket = args.config.admin.socket.as_deref().and_then(Path::parent);
        write.extend(socket.map(Path::to_owned));
        write.extend(args.config.writable.iter().cloned());
        let paths: Vec<&Path> = write.iter().map(PathBuf::as_path).collect();
        let words = handover.map(|handover| &handover.words);
        let programs_gain = user::programs_gain(&args.config);
        let wide = privileges::confine_all(&Bounds {
            write: &paths,
            programs_gain,
            files_done: words.is_some_and(|words| words.files_restricted),
            calls_done: words.is_some_and(|words| words.calls_refused),
        });
        let now = !words.is_some_and(|words| words.files_restricted);
        let writable = wide.restricts_files().then(|| opened(write, now));
        Self {
            wide,
            reach: Reach {
                writable,
                asked: args.config.writable.clone(),
                sealed: !programs_gain && privileges::user::is_root(),
            },
            keeper: None,
            runner: None,
            told: None,
        }
    }
}

/// What can be written, where the files are restricted `now`: what isn't there is left out of it. Of a
/// restriction from before an upgrade that isn't known any more.
fn opened(mut write: Vec<PathBuf>, now: bool) -> Vec<PathBuf> {
    write.extend(TEMPORARY.map(PathBuf::from));
    if now {
        write.retain(|path| path.exists());
    }
    write
}

/// What of `config` can't be done under the sandbox of a running keeper that has `old`, a line each.
/// What `old` has already is no reason to refuse another change.
pub(super) fn out_of_reach(reach: &Reach, old: &Config, config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if reach.sealed && user::runs_programs_as_others(config) {
        found.push(
            "the first program that runs as another user takes rights that lbd has given up: \
             restart lbd"
                .to_owned(),
        );
    }
    let Some(writable) = &reach.writable else {
        return found;
    };
    if config.writable != reach.asked {
        found.push("`writable` counts when lbd starts, for good: restart lbd".to_owned());
    }
    let places = |config: &'_ Config| {
        let socket = config.admin.socket.as_deref().and_then(Path::parent);
        let places = config.state_dir.as_deref().into_iter().chain(socket);
        places.map(Path::to_owned).collect::<Vec<_>>()
    };
    let had = places(old);
    let wanted = places(config)
        .into_iter()
        .filter(|path| !had.contains(path));
    let beyond = wanted.filter(|path| !writable.iter().any(|open| path.starts_with(open)));
    found.extend(beyond.map(|path| {
        let path = path.display();
        format!("{path} is out of reach of the sandbox of the running lbd: restart lbd")
    }));
    found
}

impl Keeper {
    /// What the keeper gave up, once it has; answers it in words for the log.
    pub(super) fn note_own_rights(&mut self, report: Report) -> String {
        let because = user::why_root(&self.args.config);
        let found = confined::of_process("keeper", report, because);
        let words = found.to_string();
        for gap in &found.missing {
            tracing::warn!(
                reason = gap.what,
                help = gap.remedy,
                "the sandbox is incomplete"
            );
        }
        self.sandbox.keeper = Some(found);
        self.sandbox.told = None;
        words
    }

    /// What the runner says of itself. It can't tell what restricts its files: that is what the
    /// keeper's does.
    pub(super) fn note_runner_rights(&mut self, said: Confinement) {
        let wide = &self.sandbox.wide;
        let found = Confinement {
            seccomp: wide.seccomp.clone(),
            landlock: wide.landlock.clone(),
            ..said
        };
        let found = found.judged(None);
        tracing::info!(rights = %found, "runner started");
        self.sandbox.runner = Some(found);
        self.sandbox.told = None;
    }

    /// Once for each proxy process, and when there is news.
    pub(super) fn tell_rights(&mut self, now: std::time::Instant) {
        let pid = self.proxies.pid();
        if pid.is_none() || self.sandbox.told == pid || !self.proxy_reads() {
            return;
        }
        self.sandbox.told = pid;
        let known = [&self.sandbox.keeper, &self.sandbox.runner];
        let known = known.into_iter().flatten().cloned().collect();
        self.tell_proxy(now, &ToProxy::Confined(known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_when_the_files_are_restricted_is_not_left_open() {
        let (there, missing) = (PathBuf::from("/proc"), PathBuf::from("/nonexistent/lbd"));
        let write = || vec![there.clone(), missing.clone()];
        let open = opened(write(), true);
        assert!(open.contains(&there) && !open.contains(&missing));
        assert!(opened(write(), false).contains(&missing));
    }

    #[test]
    fn a_reload_can_write_only_where_the_running_keeper_left_it_open() {
        let text = "state-dir = \"/srv/lbd\"\nadmin = { socket = \"/run/lbd/admin.sock\" }\n\
                    [proxy.p]\nlisten = \"127.0.0.1:6443\"\nbackends = [\"127.0.0.1:1\"]\n";
        let config = crate::config::load(text).unwrap();
        let reach = |paths: Option<&[&str]>| Reach {
            writable: paths.map(|paths| paths.iter().map(PathBuf::from).collect()),
            asked: Vec::new(),
            sealed: true,
        };
        let plain = "[proxy.p]\nlisten = \"127.0.0.1:6443\"\nbackends = [\"127.0.0.1:1\"]\n";
        let old = crate::config::load(plain).unwrap();
        let narrow = reach(Some(&["/run/lbd", "/tmp"]));
        let found = out_of_reach(&narrow, &config, &config);
        assert_eq!(found, Vec::<String>::new());
        let found = out_of_reach(&narrow, &old, &config);
        assert_eq!(
            found,
            ["/srv/lbd is out of reach of the sandbox of the running lbd: restart lbd"]
        );
        assert!(out_of_reach(&reach(Some(&["/run/lbd", "/srv"])), &old, &config).is_empty());
        assert!(out_of_reach(&reach(None), &old, &config).is_empty());
        let wider = crate::config::load(&format!("writable = [\"/opt\"]\n{text}")).unwrap();
        assert_eq!(
            out_of_reach(&reach(Some(&["/run/lbd", "/srv"])), &old, &wider),
            ["`writable` counts when lbd starts, for good: restart lbd"]
        );
        assert!(out_of_reach(&reach(None), &old, &wider).is_empty());
        let script = "[track.script.s]\ncommand = [\"/bin/true\"]\nuser = \"nobody\"\n";
        let config = crate::config::load(&format!("{text}{script}")).unwrap();
        let found = out_of_reach(&reach(None), &old, &config);
        assert!(
            found.len() == 1 && found[0].contains("as another user"),
            "{found:?}"
        );
    }
}
