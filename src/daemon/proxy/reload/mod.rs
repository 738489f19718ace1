//! Another configuration in place of the one in force, while connections go on. The keeper sends the
//! text, and sockets for what is newly listened on; everything that can fail is done then (`plan`),
//! and nothing has changed. What was planned is put in force whole (`commit`) when the keeper says
//! so, which cannot fail, or dropped. What this process cannot do in place is said in so many words:
//! the keeper gives it to a new process then.

mod checks;
mod commit;
mod plan;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;

use self::checks::Precheck;
use self::plan::{Hindrance, Prepared};
use super::control::Control;
use super::link::Tie;
use super::start::read_text;
use crate::config::model::Config;
use crate::discovery::task;
use crate::health::files;
use crate::ipc::confinement::Confinement;
use crate::ipc::message::{ListenerGroup, ToKeeper};
use crate::ipc::reload::PrepareAnswer;
use crate::net::clock;
use crate::net::privileges::replaceable;

/// Descriptors that may come with one reload: more are no configuration.
const SOCKETS_MAX: usize = 65_536;
/// An answer that the keeper doesn't read is given up after this long; it then takes a new process.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What the sandbox lets this process use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sandbox {
    /// Files and folders.
    pub(super) read: Vec<PathBuf>,
    /// Whether connections may begin at clients' addresses.
    pub(super) client_source: bool,
    /// What is said of it.
    pub(super) confinement: Confinement,
}

/// What has to be readable for this configuration, files that are replaced included.
pub(super) fn needed(config: &Config) -> Vec<PathBuf> {
    let of_checks = config.proxies.iter();
    let of_checks = of_checks.flat_map(|proxy| files::of_check(&proxy.check));
    let of_sources = task::files(config);
    replaceable(of_checks.chain(of_sources.iter().map(PathBuf::as_path)))
}

/// New sockets, each with the `listen` entry of the new file that they are for.
pub(super) type Fresh = Vec<(ListenerGroup, Vec<OwnedFd>)>;

/// A reload under way.
#[derive(Debug, Default)]
pub(super) enum Reload {
    #[default]
    Idle,
    /// Its sockets are coming.
    Receiving {
        id: u64,
        text: Result<String, String>,
        fresh: Fresh,
        /// All have come: it begins as soon as this process serves.
        complete: bool,
    },
    /// Servers that are new are checked once, so that they can take over at once.
    Checking {
        id: u64,
        prepared: Box<Prepared>,
        checks: JoinHandle<Vec<Precheck>>,
    },
    /// It can be put in force.
    Ready { id: u64, prepared: Box<Prepared> },
}

impl Reload {
    /// The first checks of new servers, once they are finished.
    pub(super) async fn checked(&mut self) -> Vec<Precheck> {
        let Self::Checking { checks, .. } = self else {
            return std::future::pending().await;
        };
        match checks.await {
            Ok(checks) => checks,
            Err(error) => {
                tracing::error!(%error, "first checks of new servers failed");
                Vec::new()
            }
        }
    }
}

impl Control {
    /// A new text has come.
    pub(super) fn on_prepare(&mut self, id: u64, fds: Vec<OwnedFd>) {
        self.drop_reload();
        self.reload = Reload::Receiving {
            id,
            text: read_text(fds).map_err(|error| error.to_string()),
            fresh: Vec::new(),
            complete: false,
        };
    }

    /// Sockets for it have come. Those that nobody asked for close.
    pub(super) fn on_fresh(&mut self, group: ListenerGroup, fds: Vec<OwnedFd>) {
        if let Reload::Receiving { fresh, .. } = &mut self.reload
            && fresh.len() < SOCKETS_MAX
        {
            fresh.push((group, fds));
        }
    }

    /// All sockets have come.
    pub(super) fn on_fresh_done(&mut self) {
        if let Reload::Receiving { complete, .. } = &mut self.reload {
            *complete = true;
        }
        self.try_prepare();
    }

    /// Does everything that can fail, once that can be done.
    pub(super) fn try_prepare(&mut self) {
        let begun = self.listeners.is_none() && self.stopping.is_none();
        let complete = matches!(self.reload, Reload::Receiving { complete: true, .. });
        if !begun || !complete {
            return;
        }
        let Reload::Receiving {
            id, text, fresh, ..
        } = std::mem::take(&mut self.reload)
        else {
            return;
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.answer_reload(id, refused(error)),
        };
        match self.plan(&text, fresh) {
            Ok(mut prepared) => {
                let checks = tokio::spawn(checks::run(prepared.take_checks()));
                self.reload = Reload::Checking {
                    id,
                    prepared: Box::new(prepared),
                    checks,
                };
            }
            Err(Hindrance::Process(why)) => {
                tracing::info!(reason = why, "configuration needs another process");
                self.answer_reload(id, PrepareAnswer::NeedsNewProcess { why });
            }
            Err(Hindrance::Refused(problems)) => {
                tracing::warn!(reason = problems.join("; "), "configuration refused");
                self.answer_reload(id, PrepareAnswer::Refused { problems });
            }
        }
    }

    /// New servers have been checked: the configuration can be put in force.
    pub(super) fn on_checked(&mut self, checks: Vec<Precheck>) {
        let Reload::Checking {
            id, mut prepared, ..
        } = std::mem::take(&mut self.reload)
        else {
            return;
        };
        prepared.checked(checks);
        self.reload = Reload::Ready { id, prepared };
        self.answer_reload(id, PrepareAnswer::Ready);
    }

    /// The keeper has decided for it.
    pub(super) fn on_commit(&mut self, id: u64) {
        match std::mem::take(&mut self.reload) {
            Reload::Ready {
                id: ready,
                prepared,
            } if ready == id => {
                self.commit(*prepared, clock::now());
                self.tell(&ToKeeper::Committed { id });
            }
            other @ (Reload::Idle
            | Reload::Receiving { .. }
            | Reload::Checking { .. }
            | Reload::Ready { .. }) => {
                tracing::error!("keeper commits what was not prepared");
                self.reload = other;
            }
        }
    }

    /// The keeper has decided against it.
    pub(super) fn on_abort(&mut self, id: u64) {
        let under_way = match &self.reload {
            Reload::Idle => return,
            Reload::Receiving { id, .. }
            | Reload::Checking { id, .. }
            | Reload::Ready { id, .. } => *id,
        };
        if under_way == id {
            tracing::info!("reload given up");
            self.drop_reload();
        }
    }

    /// Nothing of it stays.
    pub(super) fn drop_reload(&mut self) {
        match std::mem::take(&mut self.reload) {
            Reload::Checking { checks, .. } => checks.abort(),
            Reload::Idle | Reload::Receiving { .. } | Reload::Ready { .. } => {}
        }
    }

    fn answer_reload(&self, id: u64, answer: PrepareAnswer) {
        self.tell(&ToKeeper::Prepared { id, answer });
    }

    /// Tells the keeper what it waits for. One that reads nothing for a while takes this process for
    /// one that can't reload.
    fn tell(&self, message: &ToKeeper) {
        let Tie::Connected(link) = &self.keeper else {
            return;
        };
        let until = clock::now() + ANSWER_WITHIN;
        loop {
            match link.send_now(message) {
                Ok(()) => return,
                Err(error)
                    if error.kind() == std::io::ErrorKind::WouldBlock && clock::now() < until =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    tracing::warn!(%error, "keeper cannot be told of a reload");
                    return;
                }
            }
        }
    }
}

fn refused(problem: String) -> PrepareAnswer {
    PrepareAnswer::Refused {
        problems: vec![problem],
    }
}
