//! The sandbox around all of lbd's processes and the programs they run: what the shipped unit builds
//! around them, built by lbd itself where nobody did: no_new_privs, a list of system calls that are
//! refused, and a file system that is written in a few places only. Each as far as this machine goes.

use std::path::Path;

use landlock::{
    ABI, AccessFs, BitFlags, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::refused;

/// Where everybody may write, and scripts do.
pub const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// Devices that are no way to anything.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];
/// What the unit leaves unwritable, as far as it is there.
const OF_THE_SYSTEM: [&str; 4] = ["/", "/etc", "/usr", "/var"];

/// In force, and by whom.
const ON: &str = "on";
const ON_BEFORE: &str = "on, by the service manager";
const READ_ONLY: &str = "not needed, the file system is read-only";

/// What is to be in force.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Directories in which files may be made, changed and removed, beside [`TEMPORARY`].
    pub write: &'a [&'a Path],
    /// Programs keep the chance to gain rights: root's runner needs it to run them as other users.
    pub programs_gain: bool,
    /// The files are restricted already, by an earlier program of this process.
    pub files_done: bool,
    /// And so are the system calls, if they are.
    pub calls_done: bool,
}

/// What is in force, each in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wide {
    /// The list of system calls.
    pub seccomp: String,
    /// The files that can be written.
    pub landlock: String,
}

impl Wide {
    /// Whether lbd itself restricts what can be written.
    #[must_use]
    pub fn restricts_files(&self) -> bool {
        self.landlock.starts_with(ON)
    }

    /// Whether lbd itself refuses system calls.
    #[must_use]
    pub fn refuses_calls(&self) -> bool {
        self.seccomp == ON
    }
}

/// Puts it into force for this thread, those it starts, and their programs. Call it before any is
/// started, as the user that it is to be for.
#[must_use]
pub fn confine_all(bounds: &Bounds<'_>) -> Wide {
    let gained = if bounds.programs_gain {
        Ok(())
    } else {
        prctl::set_no_new_privs()
    };
    let landlock = match (bounds.files_done, is_read_only()) {
        (true, _) => ON.to_owned(),
        (false, true) => READ_ONLY.to_owned(),
        (false, false) => restrict_writes(bounds),
    };
    Wide {
        landlock,
        seccomp: refuse_calls(gained, bounds.calls_done),
    }
}

fn refuse_calls(gained: Result<(), Errno>, done: bool) -> String {
    if let Err(error) = gained {
        return format!("off: no_new_privs is refused: {error}");
    }
    match refused::is_in_force() {
        Ok(true) if done => ON.to_owned(),
        Ok(true) => ON_BEFORE.to_owned(),
        // Whether it is there already isn't known: once more does no harm.
        Ok(false) | Err(_) => match refused::install() {
            Ok(()) => ON.to_owned(),
            Err(error) => format!("off: {error}"),
        },
    }
}

/// Whether a service manager or a container has seen to it. What it leaves writable is its decision.
fn is_read_only() -> bool {
    let mut there = OF_THE_SYSTEM.iter().filter_map(|path| statvfs(*path).ok());
    there.all(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

fn restrict_writes(bounds: &Bounds<'_>) -> String {
    match try_restrict_writes(bounds) {
        Ok(RulesetStatus::FullyEnforced) => ON.to_owned(),
        Ok(RulesetStatus::PartiallyEnforced) => "on, as far as this kernel has it".to_owned(),
        Ok(RulesetStatus::NotEnforced) => "off: not in this kernel".to_owned(),
        Err(error) => format!("off: {error}"),
    }
}

/// Reading and running programs stays as it was: `lbd reload` reads files anywhere.
fn try_restrict_writes(bounds: &Bounds<'_>) -> Result<RulesetStatus, landlock::RulesetError> {
    let writes = AccessFs::from_write(ABI::V3);
    let change: BitFlags<AccessFs> = AccessFs::WriteFile | AccessFs::Truncate;
    // A program's own /proc/self/oom_score_adj and the like. What of it concerns the machine belongs
    // to root, who therefore gets none of it.
    let own: &[&str] = if super::user::is_root() {
        &[]
    } else {
        &["/proc"]
    };
    let temporary = TEMPORARY.map(Path::new);
    let status = landlock::Ruleset::default()
        .handle_access(writes)?
        .create()?
        .no_new_privs(!bounds.programs_gain)
        .add_rules(path_beneath_rules(
            temporary.iter().chain(bounds.write),
            writes,
        ))?
        .add_rules(path_beneath_rules(DEVICES.iter().chain(own), change))?
        .restrict_self()?;
    Ok(status.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_written_is_written_in_few_places_and_everything_is_read() {
        let elsewhere = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
        let file = elsewhere.join(format!("lbd-wide-{}", std::process::id()));
        let kept = std::env::temp_dir().join(format!("lbd-wide-{}", std::process::id()));
        let (wide, foreign, own) = std::thread::spawn({
            let (file, kept) = (file.clone(), kept.clone());
            move || {
                let wide = confine_all(&Bounds {
                    write: &[],
                    programs_gain: false,
                    files_done: false,
                    calls_done: false,
                });
                let own = fs::write(&kept, "x");
                let own = own.and_then(|()| fs::rename(&kept, kept.with_extension("b")));
                let own = own.and_then(|()| fs::remove_file(kept.with_extension("b")));
                fs::read("/etc/passwd").unwrap();
                let shell = std::process::Command::new("/bin/sh")
                    .args(["-c", "exec 2>/dev/null; : > /etc/lbd-wide"])
                    .status();
                assert!(!shell.unwrap().success() || !wide.restricts_files());
                (wide, fs::write(&file, "x"), own)
            }
        })
        .join()
        .unwrap();
        own.unwrap();
        assert_eq!(wide.seccomp, "on");
        if !wide.restricts_files() {
            println!("skipped: landlock {}", wide.landlock);
            fs::remove_file(&file).unwrap();
            return;
        }
        let error = foreign.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(!file.exists());
    }
}
