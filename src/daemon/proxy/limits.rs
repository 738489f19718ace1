//! How many client connections this process may hold, from `limits.max-connections` and the
//! kernel's limit of open files.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::setup::workers;
use crate::config::model::Config;

/// Descriptors kept back for logs, admin, metrics, health checks, epoll and pipes.
const RESERVE: u64 = 256;
/// A connection is two sockets.
const PER_CONNECTION: u64 = 2;
/// No machine needs more; an unlimited RLIMIT_NOFILE is no promise of memory.
const MOST: u64 = 1_000_000;

/// Raises the soft limit of open files to the hard one and says how many connections fit.
pub(super) fn max_connections(config: &Config) -> u32 {
    let files = raise_files();
    let fitting = connections_in(files, descriptors_kept(config));
    match config.limits.max_connections {
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
fn descriptors_kept(config: &Config) -> u64 {
    let workers = workers(config);
    let lots = config
        .proxies
        .iter()
        .map(|proxy| proxy.listen.len() * workers + proxy.servers.len())
        .sum::<usize>();
    RESERVE + u64::try_from(lots).unwrap_or(0)
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
        assert_eq!(descriptors_kept(&config), 256 + 400 + 1);
    }

    #[test]
    fn connections_take_two_descriptors_each_after_the_reserve() {
        assert_eq!(connections_in(1_024, 256), 384);
        assert_eq!(connections_in(524_288, 288), 262_000);
        assert_eq!(connections_in(1 << 30, 256), 1_000_000);
        assert_eq!(connections_in(100, 256), 1);
    }
}
