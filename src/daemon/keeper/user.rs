//! Whom a keeper that root started goes on as. It makes of itself what the shipped unit would have
//! made of it, before anything is opened and any thread started; all that comes later is the same.

use std::io;
use std::path::{Path, PathBuf};

use caps::Capability;

use super::{KeeperArgs, KeeperError};
use crate::config::model::{Config, RunAs};
use crate::net::privileges::user::{self, Account};

/// Whom the packages make for it.
const USUAL_USER: &str = "lbd";
const USUAL_STATE_DIR: &str = "/var/lib/lbd";

/// What came of it, for the log, which is not open yet.
#[derive(Debug)]
pub(super) enum Became {
    /// Somebody else started it, who has seen to this.
    NotRoot,
    /// It goes on as this user.
    User(String),
    /// It stays root, and why.
    Root(&'static str),
}

impl Became {
    /// Says it.
    pub(super) fn say(&self) {
        match self {
            Self::NotRoot => {}
            Self::User(name) => tracing::info!(user = %name, "started as root, goes on as user"),
            Self::Root(why) => tracing::info!(reason = why, "started as root, stays root"),
        }
    }
}

/// Goes on as another user, where there is one to be.
///
/// # Errors
/// [`KeeperError::User`] and [`KeeperError::System`]: it must not go on as anybody.
pub(super) fn leave_root(args: &KeeperArgs) -> Result<Became, KeeperError> {
    if !user::is_root() {
        return Ok(Became::NotRoot);
    }
    let config = &args.config;
    let (name, account) = match &config.user {
        Some(wanted) => (wanted.to_string(), named(wanted)?),
        None if runs_programs_as_others(config) => {
            return Ok(Became::Root("a program is to run as another user"));
        }
        None => match user::account(USUAL_USER, None).map_err(system("user database"))? {
            Some(account) => (USUAL_USER.to_owned(), account),
            None => return Ok(Became::Root("there is no user lbd")),
        },
    };
    if config.user.is_none() && !account.is_known_here() {
        return Ok(Became::Root("user lbd is unknown in this user namespace"));
    }
    if account.is_root() {
        return Ok(Became::Root("so says the configuration"));
    }
    let directories = std::iter::once(args.runtime_dir.clone()).chain(state_dir(config));
    for directory in directories {
        let given = user::hand_over(&directory, account);
        given.map_err(|source| KeeperError::RuntimeDir {
            path: directory,
            source,
        })?;
    }
    user::become_user(account, &needed(config)).map_err(system("change of user"))?;
    Ok(Became::User(name))
}

fn named(wanted: &RunAs) -> Result<Account, KeeperError> {
    let found = user::account(&wanted.user, wanted.group.as_deref());
    let found = found.map_err(system("user database"))?;
    found.ok_or_else(|| KeeperError::User {
        name: wanted.to_string(),
    })
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    move |source| KeeperError::System { what, source }
}

/// Whether programs must be able to gain rights: root's runner, started anew, runs some as others.
pub(super) fn programs_gain(config: &Config) -> bool {
    user::is_root() && runs_programs_as_others(config)
}

/// Why it is root, and what would change that; `None`: it isn't, or is meant to be.
pub(super) fn why_root(config: &Config) -> Option<(&'static str, &'static str)> {
    let meant = config.user.as_ref().is_some_and(|user| user.user == "root");
    if meant || !user::is_root() {
        return None;
    }
    if runs_programs_as_others(config) {
        return Some((
            "a program is to run as another user",
            "no `user` for scripts and notify programs: they run as the user lbd then",
        ));
    }
    Some((
        "there is no user lbd to become",
        "make one (systemd-sysusers, or `useradd --system lbd`), or name another by `user`",
    ))
}

/// Only root's runner can do that.
pub(super) fn runs_programs_as_others(config: &Config) -> bool {
    let scripts = config.scripts.iter().map(|script| script.user.as_ref());
    let notifies = config.vips.iter().filter_map(|vip| vip.notify.as_ref());
    scripts
        .chain(notifies.map(|notify| notify.user.as_ref()))
        .flatten()
        .any(|run_as| run_as.user != USUAL_USER)
}

/// Where states outlast a reboot, if it is there or somebody asks for it.
fn state_dir(config: &Config) -> Option<PathBuf> {
    let of_service = std::env::var_os("STATE_DIRECTORY").filter(|dir| !dir.is_empty());
    let usual = Path::new(USUAL_STATE_DIR);
    config
        .state_dir
        .clone()
        .or_else(|| of_service.map(PathBuf::from))
        .or_else(|| usual.is_dir().then(|| usual.to_owned()))
}

/// Addresses and raw sockets, for whoever has some, and low ports.
fn needed(config: &Config) -> Vec<Capability> {
    let mut needed = Vec::new();
    if !config.vips.is_empty() || !config.routes.is_empty() {
        needed.push(Capability::CAP_NET_ADMIN);
        needed.push(Capability::CAP_NET_RAW);
    } else if config.has_client_source() {
        needed.push(Capability::CAP_NET_RAW);
    }
    if has_low_port(config) {
        needed.push(Capability::CAP_NET_BIND_SERVICE);
    }
    needed
}

fn has_low_port(config: &Config) -> bool {
    let mut listens = config.proxies.iter().flat_map(|proxy| &proxy.listen);
    listens.any(|listen| listen.port() < 1024)
}

/// Whether the right to low ports is kept for later configurations: it was asked for, by the file or
/// by whoever gave it to another user than root.
pub(super) fn keeps_low_ports(config: &Config) -> bool {
    has_low_port(config) || !user::is_root()
}
