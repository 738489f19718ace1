//! The slow part of a reload, on a thread of its own: reading and checking the file, looking at this
//! machine, opening the new listening sockets. The keeper's loop goes on meanwhile.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use nix::fcntl::OFlag;

use crate::config::diff::{self, Change, Rights};
use crate::config::local::{self, HostFacts, LocalVip};
use crate::config::model::{Config, Listen, Proxy};
use crate::config::{self, Host, View};
use crate::daemon::keeper::sandbox::{Reach, out_of_reach};
use crate::health::files;
use crate::ipc::reload::DIAGNOSTICS_MAX;
use crate::net::eventfd::Bell;
use crate::net::tcp::ListenError;
use crate::net::{memfd, netlink, program, tcp};
use crate::peer::task::keyfile;

/// No lb.toml is longer.
const BYTES_MAX: u64 = 1024 * 1024;

/// What is missing where a low port can't be had.
const LOW_PORT: &str = "ports below 1024 take CAP_NET_BIND_SERVICE, which lbd has from its start or not: \
                        docs/reload.md";

/// What the thread needs to know.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) path: PathBuf,
    pub(super) node: Option<String>,
    pub(super) old_text: String,
    pub(super) old: Config,
    pub(super) workers: usize,
    pub(super) rights: Rights,
    pub(super) reach: Reach,
}

/// A configuration that can be applied, as far as is known without asking others.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) text: String,
    pub(super) config: Config,
    pub(super) config_fd: OwnedFd,
    pub(super) locals: Vec<LocalVip>,
    pub(super) changes: Vec<Change>,
    /// What `lbd check` would say of it: warnings.
    pub(super) diagnostics: String,
    /// For each proxy and `listen` entry of the new file.
    pub(super) listeners: Vec<Vec<Place>>,
}

/// Where the sockets of a `listen` entry come from.
#[derive(Debug)]
pub(super) enum Place {
    /// The proxy of this name had them already, at this position of the old file.
    Kept(usize, usize),
    /// Another proxy had them.
    Moved(usize, usize),
    /// Opened just now.
    Opened(Vec<OwnedFd>),
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The text that counts already.
    Same,
    /// The file is not accepted.
    Refused {
        changes: Vec<Change>,
        problems: Vec<String>,
        diagnostics: String,
    },
    /// It can't be applied here and now.
    Failed {
        changes: Vec<Change>,
        problem: String,
    },
}

/// The thread's answer, on its way.
#[derive(Debug)]
pub(super) struct Reading(Receiver<Result<Box<Found>, Unfit>>);

impl Reading {
    /// Starts the thread; it rings `bell` when it is done.
    pub(super) fn begin(question: Question, bell: Arc<Bell>) -> io::Result<Self> {
        let (answer, reading) = sync_channel(1);
        std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || {
                if answer.send(look(question)).is_err() {
                    tracing::debug!("nobody waits for the configuration that was read");
                }
                if let Err(error) = bell.ring() {
                    tracing::error!(%error, "the keeper cannot be woken");
                }
            })?;
        Ok(Self(reading))
    }

    /// The answer, if it is there.
    pub(super) fn take(&self) -> Option<Result<Box<Found>, Unfit>> {
        self.0.try_recv().ok()
    }
}

fn look(question: Question) -> Result<Box<Found>, Unfit> {
    let Question {
        path,
        node,
        old_text,
        old,
        workers,
        rights,
        reach,
    } = question;
    let text = read(&path).map_err(|problem| Unfit::Refused {
        changes: Vec::new(),
        problems: vec![problem],
        diagnostics: String::new(),
    })?;
    if text == old_text {
        return Err(Unfit::Same);
    }
    let failed = |changes, problem| Unfit::Failed { changes, problem };
    let facts = netlink::host_facts().map_err(|error| {
        let problem = format!("this machine's addresses cannot be listed: {error}");
        failed(Vec::new(), problem)
    })?;
    let (config, diagnostics) = check(&path, &text, &old, (&facts, node.as_deref()))?;
    let changes = diff::diff(&old_text, &text);
    let mut problems = diff::obstacles(rights, &config);
    problems.extend(out_of_reach(&reach, &old, &config));
    let locals = local::resolve(&config, &facts, node.as_deref()).unwrap_or_else(|errors| {
        problems.extend(errors.iter().map(ToString::to_string));
        Vec::new()
    });
    if !problems.is_empty() {
        return Err(Unfit::Refused {
            changes,
            problems,
            diagnostics,
        });
    }
    let listeners = match places(&old, &config, workers) {
        Ok(listeners) => listeners,
        Err(problem) => return Err(failed(changes, problem)),
    };
    let config_fd = match memfd::sealed("lb.toml", text.as_bytes()) {
        Ok(config_fd) => config_fd,
        Err(error) => return Err(failed(changes, format!("memory file: {error}"))),
    };
    Ok(Box::new(Found {
        text,
        config,
        config_fd,
        locals,
        changes,
        diagnostics,
        listeners,
    }))
}

/// As `lbd check` does it here, but for ports that are this node's own.
fn check(
    path: &Path,
    text: &str,
    old: &Config,
    (facts, node): (&HostFacts, Option<&str>),
) -> Result<(Config, String), Unfit> {
    let ours: BTreeSet<u16> = listens(old).map(|listen| listen.port()).collect();
    let host = Host {
        facts,
        file_exists: &Path::exists,
        key_problem: &|path| keyfile::read(path).err().map(|error| error.to_string()),
        check_flaws: &files::flaws,
        trouble: &|path, user| program::prepare(path, user).err(),
        port_held: &|listen| !ours.contains(&listen.port()) && tcp::is_held(listen),
        node,
    };
    let parsed = config::examine(text, View::Here(host));
    let mut diagnostics = config::render(&parsed.problems, &path.to_string_lossy(), text, false);
    cut(&mut diagnostics, DIAGNOSTICS_MAX);
    match parsed.config {
        Some(config) => Ok((config, diagnostics)),
        None => Err(Unfit::Refused {
            changes: Vec::new(),
            problems: Vec::new(),
            diagnostics,
        }),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let bytes = regular(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > BYTES_MAX {
        return Err(format!("{shown} is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(at);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        format!("{shown} is not UTF-8 at byte {at}, line {line}")
    })
}

/// The bytes, a few too many if there are more than may be. A pipe would hold the thread for good.
fn regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = std::fs::File::options();
    let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        let what = if facts.is_dir() {
            "it is a directory"
        } else {
            "it is no regular file"
        };
        return Err(io::Error::other(what));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn cut(text: &mut String, most: usize) {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

fn listens(config: &Config) -> impl Iterator<Item = &Listen> {
    config.proxies.iter().flat_map(|proxy| &proxy.listen)
}

/// The sockets of the new file: those that are there, and new ones.
fn places(old: &Config, new: &Config, workers: usize) -> Result<Vec<Vec<Place>>, String> {
    let of_proxy = |proxy: &Proxy| {
        let places = proxy
            .listen
            .iter()
            .map(|listen| place(old, new, &proxy.name, *listen, workers));
        places.collect()
    };
    new.proxies.iter().map(of_proxy).collect()
}

fn place(
    old: &Config,
    new: &Config,
    name: &str,
    listen: Listen,
    workers: usize,
) -> Result<Place, String> {
    for (proxy, had) in old.proxies.iter().enumerate() {
        if let Some(at) = had.listen.iter().position(|one| *one == listen) {
            return Ok(if had.name == name {
                Place::Kept(proxy, at)
            } else {
                Place::Moved(proxy, at)
            });
        }
    }
    // One that goes, on this port at other addresses, is in the way only as far as it is ours.
    let leaves = |one: &Listen| one.port() == listen.port() && !listens(new).any(|n| n == one);
    let opened = if listens(old).any(leaves) {
        tcp::listener_group_beside(listen, workers)
    } else {
        tcp::listener_group(listen, workers)
    };
    opened.map(Place::Opened).map_err(|error| {
        let source = std::error::Error::source(&error);
        let why = source.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        if matches!(&error, ListenError::Kernel { source, .. } if denied(source)) {
            format!("{why} ({LOW_PORT})")
        } else {
            why
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        config::load(text).unwrap()
    }

    fn proxy(name: &str, listen: &str) -> String {
        format!("[proxy.{name}]\nlisten = [{listen}]\nbackends = [\"127.0.0.1:1\"]\n")
    }

    fn free_port() -> u16 {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        held.local_addr().unwrap().port()
    }

    #[test]
    fn a_pipe_is_refused_at_once_and_bytes_that_are_no_text_are_told_with_their_place() {
        let dir = std::env::temp_dir().join(format!("lbd-reload-read-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let (pipe, text) = (dir.join("pipe"), dir.join("text"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(&text, b"# one\n# \xff\n").unwrap();
        let of = |path: &Path| {
            let told = read(path).unwrap_err();
            told.replace(&dir.to_string_lossy().into_owned(), "DIR")
        };
        let told = [of(&pipe), of(&dir), of(&text)];
        std::fs::remove_dir_all(&dir).unwrap();
        let expected = [
            "cannot read DIR/pipe: it is no regular file",
            "cannot read DIR: it is a directory",
            "DIR/text is not UTF-8 at byte 8, line 2",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn sockets_that_are_there_stay_and_only_the_missing_are_opened() {
        let new_port = free_port();
        let old = config(&(proxy("a", "\"127.0.0.1:7001\"") + &proxy("b", "\"127.0.0.1:7002\"")));
        let listen = format!("\"127.0.0.1:{new_port}\", \"127.0.0.1:7002\"");
        let new = config(&(proxy("b", &listen) + &proxy("c", "\"127.0.0.1:7001\"")));
        let places = places(&old, &new, 2).unwrap();
        assert!(matches!(&places[0][0], Place::Opened(fds) if fds.len() == 2));
        assert!(matches!(places[0][1], Place::Kept(1, 0)));
        assert!(matches!(places[1][0], Place::Moved(0, 0)));
    }

    #[test]
    fn a_port_of_another_process_is_refused_and_one_of_our_own_is_shared_until_it_goes() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let none = config(&proxy("a", "\"127.0.0.1:7001\""));
        let new = config(&proxy("a", &format!("\"127.0.0.1:{port}\"")));
        let refused = places(&none, &new, 1).unwrap_err();
        assert_eq!(
            refused,
            format!("127.0.0.1:{port} is held by another process")
        );
        drop(held);
        let own = tcp::listener_group(Listen::Addr(([127, 0, 0, 1], port).into()), 1).unwrap();
        let old = config(&proxy("a", &format!("\"127.0.0.1:{port}\"")));
        let any = config(&proxy("a", &format!("\":{port}\"")));
        assert!(matches!(
            places(&old, &any, 1).unwrap()[0][0],
            Place::Opened(_)
        ));
        drop(own);
    }
}
