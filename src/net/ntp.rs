//! Whether the kernel's clock is kept in step with the world by somebody (adjtimex(2), read only).
#![expect(
    unsafe_code,
    reason = "no safe wrapper asks the kernel for the state of its clock"
)]

use std::io;
use std::time::Duration;

/// What adjtimex(2) answers for a clock that nobody keeps in step.
const TIME_ERROR: libc::c_int = 5;

/// The state of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discipline {
    /// Whether somebody keeps it in step.
    pub synchronised: bool,
    /// How far off it may be at most, as far as the kernel knows.
    pub error_max: Duration,
}

/// Asks the kernel.
///
/// # Errors
/// What it says: some containers may not ask.
pub fn discipline() -> io::Result<Discipline> {
    // SAFETY: `timex` is a plain structure of integers, for which all bits zero is a value; `modes` 0
    // means that nothing is to be changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid `timex` that the kernel may write to until the call returns.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Discipline {
        synchronised: answer != TIME_ERROR,
        error_max: Duration::from_micros(u64::try_from(state.maxerror).unwrap_or_default()),
    })
}
