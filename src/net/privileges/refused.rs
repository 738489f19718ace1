//! What no process of lbd and no program it runs has a use for: the system calls that the shipped unit
//! refuses, refused by lbd itself where nobody did that before it. A list of what is refused, not of what
//! is allowed: scripts, and the program of a later version, live under it, too.
//!
//! Not on it, though the unit refuses them: changes of user and owner (setuid, chown and the like,
//! capset), for a runner that stays root runs programs as others and nobody else has the rights; and
//! what does no harm (mincore, memfd_secret, process_mrelease, pkey_alloc, pkey_free).
#![expect(
    unsafe_code,
    reason = "whether a list is in force is found out by calling what it would refuse"
)]

use std::io;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::bpf::{Processor, Refusal, When, compile};
use super::seccomp;

/// `SYS_*` of calls that have the same number everywhere and no name yet in every C library.
mod newer {
    pub(super) const OPEN_TREE: i64 = 428;
    pub(super) const MOVE_MOUNT: i64 = 429;
    pub(super) const FSOPEN: i64 = 430;
    pub(super) const FSCONFIG: i64 = 431;
    pub(super) const FSMOUNT: i64 = 432;
    pub(super) const FSPICK: i64 = 433;
    pub(super) const CLONE3: i64 = 435;
    pub(super) const OPENAT2: i64 = 437;
    pub(super) const PIDFD_GETFD: i64 = 438;
    pub(super) const MOUNT_SETATTR: i64 = 442;
    pub(super) const QUOTACTL_FD: i64 = 443;
    pub(super) const FCHMODAT2: i64 = 452;
    pub(super) const OPEN_TREE_ATTR: i64 = 467;
}

const REFUSED: &[i64] = &[
    // File systems.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    newer::OPEN_TREE,
    newer::MOVE_MOUNT,
    newer::FSOPEN,
    newer::FSCONFIG,
    newer::FSMOUNT,
    newer::FSPICK,
    newer::MOUNT_SETATTR,
    newer::OPEN_TREE_ATTR,
    libc::SYS_quotactl,
    newer::QUOTACTL_FD,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_nfsservctl,
    // The kernel: modules, another kernel, its log, its tracing.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_lookup_dcookie,
    // Other processes, and the machine's name.
    libc::SYS_ptrace,
    newer::PIDFD_GETFD,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_setns,
    // The clock.
    libc::SYS_adjtimex,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    // Keys: under the unit they are the service's own.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_getpmsg,
    libc::SYS_putpmsg,
    libc::SYS_afs_syscall,
    libc::SYS_tuxcall,
    libc::SYS_security,
    libc::SYS_vserver,
];
/// The newer processors have the same table: kexec_file_load.
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[294];

#[cfg(target_arch = "x86_64")]
const HERE: Option<Processor> = Some(Processor {
    audit: 0xc000_003e,
    calls_end: Some(0x4000_0000),
});
#[cfg(target_arch = "aarch64")]
const HERE: Option<Processor> = Some(Processor {
    audit: 0xc000_00b7,
    calls_end: None,
});
#[cfg(target_arch = "riscv64")]
const HERE: Option<Processor> = Some(Processor {
    audit: 0xc000_00f3,
    calls_end: None,
});
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
const HERE: Option<Processor> = None;

/// Of mount, cgroup, UTS, IPC, user, process and network namespaces, in this order.
const NAMESPACES: u32 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;
/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`, `AF_PACKET`.
const FAMILIES: &[u32] = &[1, 2, 10, 16, 17];
const PROT_WRITE: u32 = 2;
const PROT_EXEC: u32 = 4;
const SHM_EXEC: u32 = 0o100_000;
/// Linux's own, and asking which it is.
const PERSONALITIES: &[u32] = &[0, u32::MAX];

/// The bits by which a file's user or group counts for whoever runs it.
const SET_ID: u32 = 0o6000;
/// `O_CREAT`, and what of `O_TMPFILE` no other flag has: only then there is a mode.
const CREATES: u32 = 0o100 | 0o20_000_000;

/// Those that depend on their arguments; what the unit's `RestrictNamespaces`,
/// `RestrictAddressFamilies`, `MemoryDenyWriteExecute`, `LockPersonality` and `RestrictSUIDSGID` are.
const BY_ARGUMENT: &[(i64, When, i32)] = &[
    (libc::SYS_unshare, When::AnyBit(0, NAMESPACES), libc::EPERM),
    (libc::SYS_clone, When::AnyBit(0, NAMESPACES), libc::EPERM),
    // It hides its flags in memory; the C library then uses clone.
    (newer::CLONE3, When::Always, libc::ENOSYS),
    (
        libc::SYS_socket,
        When::NoneOf(0, FAMILIES),
        libc::EAFNOSUPPORT,
    ),
    (
        libc::SYS_mmap,
        When::AllBits(2, PROT_WRITE | PROT_EXEC),
        libc::EPERM,
    ),
    (libc::SYS_mprotect, When::AnyBit(2, PROT_EXEC), libc::EPERM),
    (
        libc::SYS_pkey_mprotect,
        When::AnyBit(2, PROT_EXEC),
        libc::EPERM,
    ),
    (libc::SYS_shmat, When::AnyBit(2, SHM_EXEC), libc::EPERM),
    (
        libc::SYS_personality,
        When::NoneOf(0, PERSONALITIES),
        libc::EPERM,
    ),
    (libc::SYS_fchmod, When::AnyBit(1, SET_ID), libc::EPERM),
    (libc::SYS_fchmodat, When::AnyBit(2, SET_ID), libc::EPERM),
    (newer::FCHMODAT2, When::AnyBit(2, SET_ID), libc::EPERM),
    (libc::SYS_mknodat, When::AnyBit(2, SET_ID), libc::EPERM),
    (
        libc::SYS_openat,
        When::AnyBitOfBoth((2, CREATES), (3, SET_ID)),
        libc::EPERM,
    ),
    // It hides its mode in memory; who uses it then uses openat.
    (newer::OPENAT2, When::Always, libc::ENOSYS),
];

#[cfg(target_arch = "x86_64")]
const BY_ARGUMENT_HERE: &[(i64, When, i32)] = &[
    (libc::SYS_chmod, When::AnyBit(1, SET_ID), libc::EPERM),
    (libc::SYS_mknod, When::AnyBit(1, SET_ID), libc::EPERM),
    (libc::SYS_creat, When::AnyBit(1, SET_ID), libc::EPERM),
    (
        libc::SYS_open,
        When::AnyBitOfBoth((1, CREATES), (2, SET_ID)),
        libc::EPERM,
    ),
];
#[cfg(not(target_arch = "x86_64"))]
const BY_ARGUMENT_HERE: &[(i64, When, i32)] = &[];

fn refusals() -> Vec<Refusal> {
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let errno = |errno: i32| u16::try_from(errno).unwrap_or(1);
    let always = REFUSED.iter().chain(REFUSED_HERE).map(|call| Refusal {
        call: number(*call),
        when: When::Always,
        errno: errno(libc::EPERM),
    });
    let by_argument = BY_ARGUMENT.iter().chain(BY_ARGUMENT_HERE);
    let by_argument = by_argument.map(|(call, when, error)| Refusal {
        call: number(*call),
        when: *when,
        errno: errno(*error),
    });
    always.chain(by_argument).collect()
}

/// Puts the list into force for this thread, those it starts, and their programs, for good. Takes
/// no_new_privs or `CAP_SYS_ADMIN`.
///
/// # Errors
/// The kernel's; `Unsupported` on a processor that nobody wrote down here.
pub(super) fn install() -> io::Result<()> {
    let here = HERE.ok_or(io::ErrorKind::Unsupported)?;
    // What a script is refused is its own business: no record for each call.
    seccomp::load(&compile(&refusals(), here), 0)
}

/// Whether what this list refuses is refused already: by a service manager, or by an earlier program
/// of this process.
///
/// # Errors
/// The kernel's, for want of a process to try it in.
pub(super) fn is_in_force() -> io::Result<bool> {
    // SAFETY: this prctl takes no arguments and answers with a number.
    if unsafe { libc::prctl(libc::PR_GET_SECCOMP) } <= 0 {
        return Ok(false);
    }
    // In a process of its own: a list may as well kill who calls what is not on it.
    // SAFETY: the child makes system calls alone and leaves by _exit.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let code = i32::from(!all_are_refused());
            // SAFETY: _exit ends this child and nothing else.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => Ok(match waitpid(child, None)? {
            WaitStatus::Exited(_, code) => code == 0,
            WaitStatus::Signaled(_, signal, _) => signal == nix::sys::signal::Signal::SIGSYS,
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => false,
        }),
    }
}

/// One call of each kind, with arguments for which the kernel itself has another answer: no path
/// (EFAULT), no process (ESRCH), no such clock and no such flag (EINVAL).
fn all_are_refused() -> bool {
    const PEEKUSER: libc::c_long = 3;
    const NOBODY: libc::c_long = 0x7fff_ffff;
    const NO_CLOCK: libc::c_long = 0x7fff;
    const NEW_NAMES_AND_NO_FLAG: libc::c_long = 0x0400_0001;
    is_refused(libc::SYS_mount, [0, 0])
        && is_refused(libc::SYS_ptrace, [PEEKUSER, NOBODY])
        && is_refused(libc::SYS_clock_settime, [NO_CLOCK, 0])
        && is_refused(libc::SYS_unshare, [NEW_NAMES_AND_NO_FLAG, 0])
}

/// The arguments that aren't given are 0.
fn is_refused(call: libc::c_long, [first, second]: [libc::c_long; 2]) -> bool {
    // SAFETY: with these arguments none of the calls reads or writes memory: see above.
    let answer = unsafe { libc::syscall(call, first, second, 0_i64, 0_i64, 0_i64) };
    let error = io::Error::last_os_error().raw_os_error();
    answer < 0 && matches!(error, Some(libc::EPERM | libc::ENOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_noticed_once_it_is_in_force_and_what_is_refused_is_refused() {
        std::thread::spawn(|| {
            assert!(!is_in_force().unwrap());
            nix::sys::prctl::set_no_new_privs().unwrap();
            install().unwrap();
            assert!(is_in_force().unwrap());
            let kernel = |error: io::Error| error.raw_os_error();
            let mount = nix::mount::mount(
                Some("x"),
                "/nonexistent",
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                None::<&str>,
            );
            assert_eq!(mount, Err(nix::errno::Errno::EPERM));
            // Sockets of the families that lbd uses, threads, processes: all as ever.
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            std::thread::spawn(|| ()).join().unwrap();
            let shell = std::process::Command::new("/bin/sh")
                .args(["-c", "sleep 0 & wait; test -r /proc/1/stat"])
                .status();
            assert!(shell.unwrap().success());
            // SAFETY: socket takes three integers.
            let other = unsafe { libc::socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0) };
            let error = kernel(io::Error::last_os_error());
            assert_eq!((other, error), (-1, Some(libc::EAFNOSUPPORT)));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn no_file_gets_a_set_id_bit_and_files_are_made_and_changed_as_ever() {
        use std::fs::{self, OpenOptions, Permissions};
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let base = std::env::temp_dir().join(format!("lbd-set-id-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let file = base.join("file");
        let make = |name: &str, mode| {
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(mode);
            options.open(base.join(name)).is_ok()
        };
        let change = |mode| fs::set_permissions(&file, Permissions::from_mode(mode)).is_ok();
        let shell = |command: &str| {
            let mut shell = std::process::Command::new("/bin/sh");
            let shell = shell.current_dir(&base).args(["-c", command]);
            shell.status().unwrap().success()
        };
        let outcome = std::thread::scope(|scope| {
            let within = scope.spawn(|| {
                nix::sys::prctl::set_no_new_privs().unwrap();
                install().unwrap();
                let made = [make("file", 0o600), make("other", 0o4700)];
                let changed = [change(0o755), change(0o2755), change(0o4755)];
                let ran = shell("echo x >> file && chmod 700 file && mkdir folder && test -s file");
                (made, changed, ran, shell("chmod u+s file 2>/dev/null"))
            });
            within.join().unwrap()
        });
        fs::remove_dir_all(&base).unwrap();
        let expected = ([true, false], [true, false, false], true, false);
        assert_eq!(outcome, expected);
    }

    #[test]
    fn no_call_stands_there_twice() {
        let mut calls: Vec<u32> = refusals().iter().map(|refusal| refusal.call).collect();
        calls.sort_unstable();
        let all = calls.len();
        calls.dedup();
        assert_eq!(calls.len(), all);
    }

    /// What the unit refuses and this list doesn't, with the reason in the head of this file; and what
    /// no kernel of this century has.
    #[cfg(target_arch = "x86_64")]
    const LEFT_OUT: &[&str] = &[
        "chown",
        "fchown",
        "fchownat",
        "lchown",
        "capset",
        "setuid",
        "setgid",
        "setreuid",
        "setregid",
        "setresuid",
        "setresgid",
        "setfsuid",
        "setfsgid",
        "setgroups",
        "create_module",
        "get_kernel_syms",
        "query_module",
        "epoll_ctl_old",
        "epoll_wait_old",
    ];

    /// The calls of systemd's sets, by the names in `of`.
    #[cfg(target_arch = "x86_64")]
    fn members(text: &str, of: &[&str]) -> Vec<String> {
        let (mut found, mut inside) = (Vec::new(), false);
        for line in text.lines() {
            let word = line.trim();
            if line.starts_with('@') {
                inside = of.contains(&word);
            } else if inside && word.starts_with('@') {
                found.extend(members(text, &[word]));
            } else if inside && !word.is_empty() && !word.starts_with('#') {
                found.push(word.to_owned());
            }
        }
        found
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_the_unit_refuses_is_refused_and_what_it_allows_is_not() {
        let mut command = std::process::Command::new("systemd-analyze");
        let sets = command.args(["syscall-filter", "--no-pager"]).output();
        let header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
        let (Ok(sets), Ok(header)) = (sets, std::fs::read_to_string(header)) else {
            println!("skipped: systemd-analyze or linux-libc-dev is not installed");
            return;
        };
        let sets = String::from_utf8_lossy(&sets.stdout);
        let lines = header.lines();
        let numbers: std::collections::BTreeMap<&str, u32> = lines
            .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
            .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
            .collect();
        let refusals = refusals();
        let always = refusals.iter().filter(|one| one.when == When::Always);
        let always: Vec<u32> = always.map(|one| one.call).collect();
        let refused_there = members(
            &sets,
            &[
                "@privileged",
                "@mount",
                "@debug",
                "@obsolete",
                "@cpu-emulation",
                "@clock",
                "@module",
                "@raw-io",
                "@reboot",
                "@swap",
            ],
        );
        assert!(refused_there.len() > 60, "{refused_there:?}");
        for name in &refused_there {
            let Some(number) = numbers.get(name.as_str()) else {
                continue;
            };
            let left_out = LEFT_OUT.contains(&name.as_str());
            assert_ne!(always.contains(number), left_out, "{name}");
        }
        for name in members(&sets, &["@system-service", "@default"]) {
            // `KeyringMode`, `RestrictNamespaces` and `RestrictSUIDSGID`.
            let otherwise = [
                "add_key",
                "request_key",
                "keyctl",
                "clone3",
                "setns",
                "openat2",
            ];
            let otherwise = otherwise.contains(&name.as_str());
            let number = numbers.get(name.as_str());
            let here = number.is_some_and(|number| always.contains(number));
            assert!(
                !here || otherwise || refused_there.contains(&name),
                "{name}"
            );
        }
    }
}
