//! How many client connections this process may hold, from `limits.max-connections` and the
//! kernel's limit of open files; and which of the files are not for connections.

use std::num::NonZeroU32;
use std::os::fd::RawFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::model::Config;
use crate::proxy::roster::places;
use crate::proxy::shortage::Descriptors;

/// Descriptors kept back for logs, admin, metrics, health checks, epoll and pipes; a quarter of all
/// and a few where that is less.
const RESERVE: u64 = 256;
/// Those few: what a process has open before its first connection.
const BASE: u64 = 32;
/// The part of them that the data path never takes, beside one per server for its probe: admin
/// socket 24, HTTP 32, the tie to the keeper, logs. Another part of this size is for servers of
/// clients that were accepted just before.
const CONTROL: u64 = 72;
/// A connection is two sockets.
const PER_CONNECTION: u64 = 2;
/// No machine needs more; an unlimited RLIMIT_NOFILE is no promise of memory.
const MOST: u64 = 1_000_000;

/// What the data path may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) max_connections: u32,
    /// What the file wants: of all processes together, while there are several.
    pub(super) asked: Option<u32>,
    pub(super) descriptors: Descriptors,
}

impl Limits {
    /// Raises the soft limit of open files to the hard one and says what fits.
    pub(super) fn of(config: &Config, workers: usize) -> Self {
        let files = raise_files();
        let fitting = connections_in(files, descriptors_kept(config, workers, files));
        let max_connections = match config.limits.max_connections {
            None => fitting,
            Some(asked) if asked.get() <= fitting => asked.get(),
            Some(asked) => {
                tracing::warn!(
                    from = asked.get(),
                    to = fitting,
                    reason = "RLIMIT_NOFILE",
                    "max-connections is more than open files allow"
                );
                fitting
            }
        };
        // Those that come at run time are probed, too.
        let servers = config.proxies.iter().map(places).sum();
        Self {
            max_connections,
            asked: config.limits.max_connections.map(NonZeroU32::get),
            descriptors: descriptors(files, servers),
        }
    }
}

fn raise_files() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_refused) => soft,
        },
        Ok((soft, _)) => soft,
        Err(_unknown) => 1_024,
    }
}

/// Listening sockets and one probe per server, beside the fixed reserve.
fn descriptors_kept(config: &Config, workers: usize, files: u64) -> u64 {
    let lots = config
        .proxies
        .iter()
        .map(|proxy| proxy.listen.len() * workers + proxy.servers.len())
        .sum::<usize>();
    RESERVE.min(files / 4 + BASE) + u64::try_from(lots).unwrap_or(0)
}

/// What remains for control when connections, spare sockets and pipes have taken all they can get.
fn descriptors(files: u64, servers: usize) -> Descriptors {
    let servers = u64::try_from(servers).unwrap_or(u64::MAX);
    let control = CONTROL.saturating_add(servers).min(files / 8);
    let below = |number: u64| RawFd::try_from(number).unwrap_or(RawFd::MAX);
    Descriptors {
        accept_below: below(files.saturating_sub(2 * control)),
        connect_below: below(files.saturating_sub(control)),
    }
}

fn connections_in(files: u64, kept: u64) -> u32 {
    let fitting = (files.saturating_sub(kept) / PER_CONNECTION).clamp(1, MOST);
    u32::try_from(fitting).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_of_the_file_listens_whatever_the_number_of_cores() {
        let text = "[limits]\nworkers = 200\n[proxy.p]\nlisten = [\"127.0.0.1:1\", \
                    \"127.0.0.1:2\"]\nbackends = [\"127.0.0.1:3\"]\n";
        let config = crate::config::load(text).unwrap();
        assert_eq!(descriptors_kept(&config, 200, 20_000), 256 + 400 + 1);
        assert_eq!(descriptors_kept(&config, 1, 100), 25 + 32 + 2 + 1);
    }

    #[test]
    fn control_keeps_descriptors_and_no_more_than_a_part_of_few() {
        let of = |files, servers| {
            let found = descriptors(files, servers);
            (found.accept_below, found.connect_below)
        };
        assert_eq!(of(1_024, 3), (874, 949));
        assert_eq!(of(128, 3), (96, 112));
        assert_eq!(of(u64::MAX, 3), (RawFd::MAX, RawFd::MAX));
    }

    #[test]
    fn connections_take_two_descriptors_each_after_the_reserve() {
        assert_eq!(connections_in(1_024, 256), 384);
        assert_eq!(connections_in(524_288, 288), 262_000);
        assert_eq!(connections_in(1 << 30, 256), 1_000_000);
        assert_eq!(connections_in(100, 256), 1);
    }
}
