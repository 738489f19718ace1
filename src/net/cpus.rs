//! The CPUs this process may use, and threads that stay on one. Which thread goes where is decided
//! elsewhere.

use std::io;
use std::num::NonZero;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// How many threads can run at once: CPUs of the affinity mask, less what the cgroup's CPU quota
/// forbids; at least 1. Reads files of the cgroup, so it is asked before the sandbox closes.
#[must_use]
pub fn usable() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Numbers of the CPUs in the calling thread's affinity mask, ascending.
///
/// # Errors
/// The kernel's, from `sched_getaffinity`.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let all = 0..CpuSet::count();
    Ok(all
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Keeps the calling thread on that CPU.
///
/// # Errors
/// The kernel's, from `sched_setaffinity`; EINVAL when there is no such CPU, or it is not allowed.
pub fn stay_on(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_the_cpu_it_was_given() {
        let all = allowed().unwrap();
        assert!((1..=all.len()).contains(&usable()));
        for cpu in all {
            let kept = std::thread::spawn(move || {
                stay_on(cpu).unwrap();
                allowed().unwrap()
            });
            assert_eq!(kept.join().unwrap(), [cpu]);
        }
        let nowhere = std::thread::spawn(|| stay_on(CpuSet::count() - 1).is_err());
        assert!(nowhere.join().unwrap());
    }
}
