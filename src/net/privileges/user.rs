//! From root to another user: what a service manager would do before it starts a program, done by
//! the program itself. It then is as if it had been started so: user, groups, limits, capabilities
//! that outlast an exec, and no way to gain others.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User, geteuid, setgroups, setresgid, setresuid};

/// As `LimitRTPRIO` of the unit.
const REALTIME_PRIORITY: u64 = 10;
/// As `LimitNOFILE` of the unit.
const DESCRIPTORS: u64 = 262_144;
/// Entries of a directory that are handed over, and how deep.
const ENTRIES_MAX: usize = 4096;
const DEPTH_MAX: usize = 2;

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    uid: Uid,
    gid: Gid,
}

/// Whether this process is root, and has somebody else to become.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Whose rights this process has: a name, or a number where there is none.
#[must_use]
pub fn own_name() -> String {
    name_of(geteuid().as_raw())
}

/// The name of the user with this number, or the number.
#[must_use]
pub fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) if uid == 0 => "root".to_owned(),
        Ok(None) | Err(_) => uid.to_string(),
    }
}

/// Looks a user up, and a group in the place of its own; `None`: there is no such.
///
/// # Errors
/// The user database's.
pub fn account(user: &str, group: Option<&str>) -> io::Result<Option<Account>> {
    let Some(user) = found(User::from_name(user))? else {
        return Ok(None);
    };
    let gid = match group {
        None => Some(user.gid),
        Some(name) => found(Group::from_name(name))?.map(|group| group.gid),
    };
    Ok(gid.map(|gid| Account { uid: user.uid, gid }))
}

/// Where there is no user database at all, as in an image with nothing but lbd, some C libraries call
/// that an error; getpwnam_r(3) lists how.
fn found<T>(looked_up: nix::Result<Option<T>>) -> io::Result<Option<T>> {
    match looked_up {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        other => other.map_err(io::Error::from),
    }
}

impl Account {
    /// Whether it is root's.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.uid.is_root()
    }

    /// Whether this user namespace has its numbers.
    #[must_use]
    pub fn is_known_here(self) -> bool {
        let has = |file: &str, id: u32| {
            let map = fs::read_to_string(file).unwrap_or_default();
            map.lines().any(|line| covers(line, id))
        };
        has("/proc/self/uid_map", self.uid.as_raw()) && has("/proc/self/gid_map", self.gid.as_raw())
    }
}

/// A line of uid_map, user_namespaces(7): first number inside, first outside, how many.
fn covers(line: &str, id: u32) -> bool {
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return false;
    };
    (first..first.saturating_add(count)).contains(&u64::from(id))
}

/// Makes a directory the account's, and what root left in it: 0750, made if it isn't there. One that
/// is not root's is left alone: its owner could have put links to other people's files into it.
///
/// # Errors
/// The kernel's.
pub fn hand_over(directory: &Path, account: Account) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750).create(directory)?;
    hand_over_below(directory, account, DEPTH_MAX)
}

fn hand_over_below(directory: &Path, account: Account, depth: usize) -> io::Result<()> {
    let of_root = |found: &Metadata| found.uid() == 0;
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || !of_root(&found) {
        return Ok(());
    }
    for entry in fs::read_dir(directory)?.take(ENTRIES_MAX) {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() {
            if depth > 0 {
                hand_over_below(&entry.path(), account, depth - 1)?;
            }
        } else if of_root(&found) && found.nlink() == 1 {
            give(&entry.path(), account)?;
        }
    }
    give(directory, account)
}

fn give(path: &Path, account: Account) -> io::Result<()> {
    lchown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
}

/// Goes on as this user with these capabilities of those held, for good. Call it before any thread
/// is started.
///
/// # Errors
/// The kernel's; the process is then neither what it was nor what it was to be, and has to end.
pub fn become_user(account: Account, keep: &[Capability]) -> io::Result<()> {
    raise_limits();
    let held = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let kept: CapsHashSet = keep
        .iter()
        .filter(|cap| held.contains(cap))
        .copied()
        .collect();
    let mut others = caps::all();
    others.retain(|cap| !kept.contains(cap));
    let others: Vec<Capability> = others.into_iter().collect();
    super::drop_bounding(&others).map_err(io::Error::other)?;
    prctl::set_keepcaps(true)?;
    setgroups(&[account.gid])?;
    setresgid(account.gid, account.gid, account.gid)?;
    setresuid(account.uid, account.uid, account.uid)?;
    prctl::set_keepcaps(false)?;
    // Ambient ones come last: they must be permitted and inheritable.
    for set in [
        CapSet::Permitted,
        CapSet::Effective,
        CapSet::Inheritable,
        CapSet::Ambient,
    ] {
        caps::set(None, set, &kept).map_err(io::Error::other)?;
    }
    prctl::set_no_new_privs()?;
    // A change of user hides /proc/self from ourselves, an exec shows it again.
    prctl::set_dumpable(true)?;
    Ok(())
}

/// As far as it is permitted: real-time scheduling, locked memory and descriptors take limits where
/// they took rights before.
fn raise_limits() {
    let wanted = [
        (Resource::RLIMIT_RTPRIO, REALTIME_PRIORITY),
        (Resource::RLIMIT_MEMLOCK, RLIM_INFINITY),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
    ];
    for (limit, wanted) in wanted {
        let raised = getrlimit(limit).and_then(|(soft, hard)| {
            if soft >= wanted {
                return Ok(());
            }
            setrlimit(limit, wanted, hard.max(wanted))
        });
        // What needs it says what it lacks, when it needs it.
        if let Err(error) = raised {
            tracing::debug!(?limit, %error, "limit not raised");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_with_only_root_knows_nobody_else() {
        assert!(covers("         0          0 4294967295", 998));
        assert!(covers("0 0 1", 0));
        assert!(!covers("0 1000 1", 998));
        assert!(covers("0 1000 1\n", 0) && !covers("", 0) && !covers("x 0 1", 0));
    }

    #[test]
    fn without_a_user_database_there_is_nobody() {
        assert_eq!(found::<u8>(Err(Errno::ENOENT)).unwrap(), None);
        assert_eq!(found(Ok(Some(7))).unwrap(), Some(7));
        assert!(found::<u8>(Err(Errno::EIO)).is_err());
    }

    #[test]
    fn what_is_not_roots_is_not_handed_over() {
        if !is_root() {
            println!("skipped: not root");
            return;
        }
        let nobody = Account {
            uid: Uid::from_raw(65_534),
            gid: Gid::from_raw(65_534),
        };
        let base = std::env::temp_dir().join(format!("lbd-handed-{}", std::process::id()));
        let theirs = base.join("theirs");
        fs::create_dir_all(&theirs).unwrap();
        fs::write(base.join("state"), "").unwrap();
        fs::write(theirs.join("file"), "").unwrap();
        fs::write(base.join("elsewhere"), "").unwrap();
        fs::hard_link(base.join("elsewhere"), base.join("link")).unwrap();
        lchown(&theirs, Some(1), Some(1)).unwrap();
        hand_over(&base, nobody).unwrap();
        let owner = |path: &str| fs::symlink_metadata(base.join(path)).unwrap().uid();
        let owners = ["", "state", "theirs", "theirs/file", "link"].map(owner);
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(owners, [65_534, 65_534, 1, 0, 0]);
    }
}
