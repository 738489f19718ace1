//! Real-time scheduling and locked memory, where permitted.
#![expect(unsafe_code, reason = "nix has no sched_setscheduler")]

use std::io;

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// SCHED_RR priority: above everything that isn't real-time, below the kernel's own threads.
const PRIORITY: i32 = 10;

/// Puts this thread under SCHED_RR; programs it starts are ordinary again (reset on fork).
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_NICE or RLIMIT_RTPRIO.
pub fn schedule() -> io::Result<()> {
    // SAFETY: all of its fields are numbers (musl has more of them), for which zero is valid.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = PRIORITY;
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` is a live sched_param; pid 0 is the calling thread; the call keeps no pointer.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps this process in memory. Only without a limit, which is lifted where that is permitted: the
/// right to exceed it is given up later, and then an allocation beyond it would end the process.
///
/// # Errors
/// `PermissionDenied` when RLIMIT_MEMLOCK is limited and can't be lifted (CAP_SYS_RESOURCE).
pub fn lock_memory() -> io::Result<()> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if soft != RLIM_INFINITY {
        setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    }
    Ok(mlockall(
        MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_time_thread_says_so_or_says_why_not() {
        let outcome = std::thread::spawn(schedule).join().unwrap();
        match outcome {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
