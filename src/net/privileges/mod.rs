//! Giving up rights: capabilities, no_new_privs, seccomp, landlock. Each `confine_*` does what the
//! kernel and the present rights allow, never fails, and reports what is in force: a machine
//! without landlock still gets a load balancer, and its log says what it lacks.

mod bpf;
mod refused;
mod seccomp;
pub mod user;
mod wide;

use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};

pub use wide::{Bounds, TEMPORARY, Wide, confine_all};

/// What is in force after a `confine_*`, each in a few words for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose rights: a name, or a number where there is none.
    pub user: String,
    /// The capabilities left, or why they could not be dropped.
    pub capabilities: String,
    /// Whether programs started from here can gain rights.
    pub no_new_privs: bool,
    /// The system-call filter.
    pub seccomp: String,
    /// The file-system rules.
    pub landlock: String,
}

/// What the keeper goes on needing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperNeeds {
    /// Virtual routers: raw sockets and addresses.
    VirtualRouters,
    /// Nothing: a file with only `[proxy]`, its listeners already open.
    Nothing,
}

/// Reduces the keeper to what its virtual routers need. Real-time scheduling and memory locks must be
/// asked for before. The bounding set stays: a runner that has to be started again drops its own.
/// With `client_source` it keeps what a proxy started later needs, with `low_ports` the right to ports
/// below 1024, if it has it: those of a later configuration.
#[must_use]
pub fn confine_keeper(
    needs: KeeperNeeds,
    client_source: bool,
    low_ports: bool,
    wide: &Wide,
) -> Report {
    let mut wanted: CapsHashSet = match needs {
        KeeperNeeds::VirtualRouters => [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW].into(),
        KeeperNeeds::Nothing => CapsHashSet::new(),
    };
    if client_source {
        wanted.insert(Capability::CAP_NET_RAW);
    }
    if low_ports {
        wanted.insert(Capability::CAP_NET_BIND_SERVICE);
    }
    let outcome = reduce_to(&wanted);
    Report {
        user: user::own_name(),
        capabilities: described(outcome),
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
        seccomp: wide.seccomp.clone(),
        landlock: wide.landlock.clone(),
    }
}

/// What the runner goes on needing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerNeeds {
    /// No right of the network.
    Nothing,
    /// A proxy that connects from its clients' addresses: CAP_NET_RAW, to pass on to that alone.
    ClientSource,
}

/// It has what the keeper has.
const INHERITED: &str = "as the keeper";

/// Takes the network capabilities away from the runner and from every program it will start but
/// the proxy.
#[must_use]
pub fn confine_runner(needs: RunnerNeeds) -> Report {
    let mut network = vec![
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_NET_BROADCAST,
    ];
    match needs {
        RunnerNeeds::Nothing => network.push(Capability::CAP_NET_RAW),
        // It stays in the bounding set, too: beyond that nothing can be passed on.
        RunnerNeeds::ClientSource => {}
    }
    let outcome = drop_bounding(&network).and_then(|()| {
        let mut left = caps::read(None, CapSet::Permitted)?;
        left.retain(|cap| !network.contains(cap));
        reduce_to(&left)
    });
    Report {
        user: user::own_name(),
        capabilities: described(outcome),
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
        seccomp: INHERITED.to_owned(),
        landlock: INHERITED.to_owned(),
    }
}

/// Paths the proxy process may still use; what does not exist is left out.
#[derive(Debug, Clone, Copy)]
pub struct ProxyPaths<'a> {
    /// Files and folders it may read: CA files and the like.
    pub read: &'a [&'a Path],
    /// Folders in which it may create and remove files: the runtime directory.
    pub write: &'a [&'a Path],
}

/// What must be readable for these files to be read again after they were replaced, by a rename or
/// by a link that then points elsewhere in the same folder: their folders, and those of what they
/// are links to. Of a file right below the root the file alone: such a folder holds too much else.
#[must_use]
pub fn replaceable<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut add = |file: &Path| {
        let folder = file.parent().filter(|folder| folder.iter().count() > 2);
        let path = folder.unwrap_or(file).to_owned();
        if !paths.contains(&path) {
            paths.push(path);
        }
    };
    for file in files {
        add(file);
        // Not there yet, or not to be looked up: its folder is all there is to say.
        if let Ok(target) = file.canonicalize() {
            add(&target);
        }
    }
    paths
}

/// Read by every proxy process: trust stores, the time zone, its own threads and limits.
const READ_ALWAYS: [&str; 7] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/kubernetes/pki",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc",
    "/sys/fs/cgroup",
];

/// Whether a proxy process that was given `given` to read may read `path`, too.
#[must_use]
pub fn is_readable(given: &[PathBuf], path: &Path) -> bool {
    let always = READ_ALWAYS.iter().map(Path::new);
    let mut given = given.iter().map(PathBuf::as_path).chain(always);
    given.any(|given| path.starts_with(given))
}

/// What the proxy process goes on needing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyNeeds {
    /// No right.
    Nothing,
    /// To connect from its clients' addresses: CAP_NET_RAW. The raw sockets that it also permits
    /// are refused by the list of system calls.
    ClientSource,
}

/// Leaves the proxy process no capability that isn't needed, no way to gain one, no system call it
/// doesn't use and no file but these. Call it before any thread is started; what runs then
/// inherits it.
#[must_use]
pub fn confine_proxy(needs: ProxyNeeds, paths: &ProxyPaths<'_>) -> Report {
    let all: Vec<Capability> = caps::all().into_iter().collect();
    let wanted: CapsHashSet = match needs {
        ProxyNeeds::Nothing => CapsHashSet::new(),
        ProxyNeeds::ClientSource => [Capability::CAP_NET_RAW].into(),
    };
    let user = user::own_name();
    let capabilities = described(drop_bounding(&all).and(reduce_to(&wanted)));
    let no_new_privs = nix::sys::prctl::set_no_new_privs().is_ok();
    let landlock = restrict_files(paths);
    let seccomp = match seccomp::install() {
        Ok(count) => format!("on ({count} system calls allowed)"),
        Err(error) => format!("off: {error}"),
    };
    Report {
        user,
        capabilities,
        no_new_privs,
        seccomp,
        landlock,
    }
}

/// Takes these out of the bounding set. Needs CAP_SETPCAP; without it there is nothing to do
/// either, since a process without capabilities and with no_new_privs gains none from exec.
fn drop_bounding(these: &[Capability]) -> Result<(), caps::errors::CapsError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        return Ok(());
    }
    for cap in these {
        if caps::has_cap(None, CapSet::Bounding, *cap).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, *cap)?;
        }
    }
    Ok(())
}

/// Reduces every set but the bounding one to what of `wanted` is held. Sets that are small enough
/// are left alone: a service manager may forbid capset(2), having granted no more than is needed.
fn reduce_to(wanted: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    let mut outcome = Ok(());
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        let held = caps::read(None, set)?;
        let kept: CapsHashSet = match set {
            CapSet::Inheritable => CapsHashSet::new(),
            CapSet::Effective | CapSet::Permitted | CapSet::Bounding | CapSet::Ambient => {
                held.intersection(wanted).copied().collect()
            }
        };
        if kept.len() == held.len() {
            continue;
        }
        // What is inheritable alone gives no right to any program without file capabilities.
        let harmless = matches!(set, CapSet::Inheritable);
        outcome = outcome.and(
            caps::set(None, set, &kept).or_else(|error| if harmless { Ok(()) } else { Err(error) }),
        );
    }
    outcome
}

/// Between fork and exec: what the new program holds is up to it alone. For a user other than
/// root that is nothing.
pub(super) fn leave_nothing_ambient() -> std::io::Result<()> {
    caps::clear(None, CapSet::Ambient).map_err(std::io::Error::other)
}

/// Between fork and exec of a program that gets CAP_NET_RAW, where it is held.
pub(super) fn pass_on_net_raw() -> std::io::Result<()> {
    super::capset::pass_on_net_raw()
}

/// Between fork and exec of a program that gets no rights: nothing effective, permitted or
/// inheritable, hence nothing ambient. With no_new_privs not even root's programs regain any.
pub(super) fn give_up_all() -> std::io::Result<()> {
    // The caps crate allocates, which a child between fork and exec must not.
    super::capset::clear()
}

fn described(outcome: Result<(), caps::errors::CapsError>) -> String {
    let left = caps::read(None, CapSet::Permitted).map(|held| {
        let mut names: Vec<String> = held.iter().map(ToString::to_string).collect();
        names.sort();
        match names.len() {
            0 => "none".to_owned(),
            1..=6 => names.join(" "),
            many => format!("{many}"),
        }
    });
    match (outcome, left) {
        (Ok(()), Ok(left)) => left,
        (Err(error), Ok(left)) => format!("{left} ({error})"),
        (_, Err(error)) => format!("unknown ({error})"),
    }
}

fn restrict_files(paths: &ProxyPaths<'_>) -> String {
    match try_restrict_files(paths) {
        Ok(RulesetStatus::FullyEnforced) => "on".to_owned(),
        Ok(RulesetStatus::PartiallyEnforced) => "on, as far as this kernel has it".to_owned(),
        Ok(RulesetStatus::NotEnforced) => "off: not in this kernel".to_owned(),
        Err(error) => format!("off: {error}"),
    }
}

/// The rights of landlock's sixth version, fewer where the kernel has fewer. Later versions
/// restrict connecting to Unix sockets, which the logs need.
fn try_restrict_files(paths: &ProxyPaths<'_>) -> Result<RulesetStatus, landlock::RulesetError> {
    let version = ABI::V6;
    let everything = AccessFs::from_all(version);
    let read_always = READ_ALWAYS.map(Path::new);
    let status = landlock::Ruleset::default()
        .handle_access(everything)?
        .scope(Scope::from_all(version))?
        .create()?
        .add_rules(path_beneath_rules(
            read_always.iter().chain(paths.read),
            AccessFs::from_read(version) & !AccessFs::Execute,
        ))?
        .add_rules(path_beneath_rules(
            paths.write,
            everything & !AccessFs::Execute,
        ))?
        .restrict_self()?;
    Ok(status.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: capabilities, seccomp and landlock are per thread.
    fn confined<T: Send + 'static>(check: impl FnOnce(Report) -> T + Send + 'static) -> T {
        confined_with(ProxyNeeds::Nothing, check)
    }

    fn confined_with<T: Send + 'static>(
        needs: ProxyNeeds,
        check: impl FnOnce(Report) -> T + Send + 'static,
    ) -> T {
        let dir = std::env::temp_dir();
        std::thread::spawn(move || {
            let paths = ProxyPaths {
                read: &[],
                write: &[&dir],
            };
            check(confine_proxy(needs, &paths))
        })
        .join()
        .unwrap()
    }

    #[test]
    fn a_confined_thread_has_no_capability_and_starts_no_program() {
        let report = confined(|report| {
            assert!(std::process::Command::new("/bin/true").spawn().is_err());
            report
        });
        assert_eq!(report.capabilities, "none");
        assert!(report.no_new_privs);
        assert!(report.seccomp.starts_with("on ("), "{report:?}");
    }

    #[test]
    fn a_confined_thread_opens_tcp_sockets_and_no_raw_ones() {
        confined(|_| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            drop(std::net::TcpStream::connect(address).unwrap());
            use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
            let flags = SockFlag::SOCK_CLOEXEC;
            assert!(socket(AddressFamily::Packet, SockType::Datagram, flags, None).is_err());
            assert!(socket(AddressFamily::Netlink, SockType::Raw, flags, None).is_err());
        });
    }

    #[test]
    fn a_thread_that_uses_its_clients_addresses_has_one_right_and_still_no_raw_socket() {
        use crate::net::source;
        if source::try_foreign().is_err() {
            println!("skipped: not permitted here");
            return;
        }
        let needs = ProxyNeeds::ClientSource;
        let report = confined_with(needs, |report| {
            source::try_foreign().unwrap();
            const SOCK_PACKET: libc::c_int = 10;
            let kinds = [libc::SOCK_RAW, libc::SOCK_DGRAM, SOCK_PACKET];
            for (family, kind) in [libc::AF_INET, libc::AF_INET6]
                .into_iter()
                .flat_map(|family| kinds.map(|kind| (family, kind)))
            {
                let domain = socket2::Domain::from(family);
                let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
                for kind in [kind, kind | flags] {
                    let made = socket2::Socket::new_raw(domain, kind.into(), None);
                    // Not EPERM: it is the list that refuses.
                    let error = made.unwrap_err().raw_os_error();
                    assert_eq!(error, Some(libc::ENOSYS), "{family} {kind}");
                }
            }
            report
        });
        assert_eq!(report.capabilities, "CAP_NET_RAW");
        let refused = confined(|_| source::try_foreign().is_err());
        assert!(refused);
    }

    #[test]
    fn a_confined_thread_still_starts_threads_and_sleeps_on_locks() {
        confined(|_| {
            let (tx, rx) = std::sync::mpsc::sync_channel(1);
            let worker = std::thread::Builder::new().name("worker".into());
            let handle = worker.spawn(move || tx.send(7).unwrap()).unwrap();
            assert_eq!(rx.recv().unwrap(), 7);
            handle.join().unwrap();
        });
    }

    #[test]
    fn where_landlock_is_in_force_foreign_files_are_out_of_reach() {
        let (report, readable, writable) = confined(|report| {
            let readable = std::fs::read("/etc/passwd").is_ok();
            let file = std::env::temp_dir().join(format!("lbd-landlock-{}", std::process::id()));
            let writable = std::fs::write(&file, "x").and_then(|()| std::fs::remove_file(&file));
            (report, readable, writable.is_ok())
        });
        assert!(writable);
        if report.landlock.starts_with("on") {
            assert!(!readable);
        } else {
            println!("skipped: landlock {}", report.landlock);
        }
    }
}
