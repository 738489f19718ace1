//! The proxy process's list of allowed system calls. Whatever is not on it fails with ENOSYS, the
//! answer of a kernel that lacks the call, which libraries know how to live with (a killed proxy
//! would be an outage); the kernel's audit log names it.
#![expect(
    unsafe_code,
    reason = "seccompiler installs filters without the flags wanted here"
)]

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Why the filter is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    /// No filter for this machine.
    #[error("no filter for this processor")]
    Processor(#[source] seccompiler::BackendError),
    /// The list could not be compiled.
    #[error("the list does not compile")]
    Compile(#[source] seccompiler::BackendError),
    /// The kernel refused it.
    #[error("refused: {0}")]
    Kernel(#[source] io::Error),
}

/// Puts the filter into force for this thread and those it starts; returns its length in calls.
pub(super) fn install() -> Result<usize, SeccompError> {
    let arch: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(SeccompError::Processor)?;
    let rules = rules().map_err(SeccompError::Compile)?;
    let count = rules.len();
    let errno = u32::try_from(libc::ENOSYS).unwrap_or_default();
    let program: BpfProgram = SeccompFilter::new(
        rules,
        SeccompAction::Errno(errno),
        SeccompAction::Allow,
        arch,
    )
    .and_then(TryInto::try_into)
    .map_err(SeccompError::Compile)?;
    nix::sys::prctl::set_no_new_privs().map_err(|errno| SeccompError::Kernel(errno.into()))?;
    // LOG, so that refused calls show in the audit log.
    load(&program, libc::SECCOMP_FILTER_FLAG_LOG).map_err(SeccompError::Kernel)?;
    Ok(count)
}

/// `struct sock_fprog` over seccompiler's instructions.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const seccompiler::sock_filter,
}

/// With these flags, and SPEC_ALLOW, since kernels before 5.16 otherwise slow every branch of the data
/// path.
pub(super) fn load(program: &[seccompiler::sock_filter], flags: libc::c_ulong) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = Program {
        len,
        filter: program.as_ptr(),
    };
    let flags = flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` and the instructions it points to live until the call returns; the kernel
    // copies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|number| (*number, Vec::new()))
        .collect();
    // Of the network only TCP: with CAP_NET_RAW a raw socket would be permitted.
    let number = |number: libc::c_int| u64::try_from(number).unwrap_or_default();
    let mut sockets = vec![first_argument(SeccompCmpOp::Eq, number(libc::AF_UNIX))?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        // What is not the type are flags.
        let kind = SeccompCmpOp::MaskedEq(SOCK_TYPE_MASK);
        sockets.push(SeccompRule::new(vec![
            condition(0, SeccompCmpOp::Eq, number(family))?,
            condition(1, kind, number(libc::SOCK_STREAM))?,
        ])?);
    }
    rules.insert(libc::SYS_socket, sockets);
    // Threads, never processes. clone3 hides its flags in memory, so it isn't listed: the C
    // library then uses clone.
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    let threads = first_argument(SeccompCmpOp::MaskedEq(thread), thread)?;
    rules.insert(libc::SYS_clone, vec![threads]);
    Ok(rules)
}

fn first_argument(op: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![condition(0, op, value)?])
}

fn condition(
    argument: u8,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

/// The kernel's: a socket's type without its flags.
const SOCK_TYPE_MASK: u64 = 0xf;

const ALLOWED: &[i64] = &[
    // The data path.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_pipe2,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_socketpair,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_getrandom,
    libc::SYS_memfd_create,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_prctl,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // About itself.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_umask,
    // Files: landlock says which.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
];

/// The older calls that only this processor has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_epoll_wait,
    libc::SYS_epoll_create,
    libc::SYS_eventfd,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_dup2,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
/// The older calls that only this processor has.
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];
