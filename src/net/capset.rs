//! Capabilities between fork and exec, with system calls that allocate nothing: dropping every one,
//! or passing one on.
#![expect(
    unsafe_code,
    reason = "capset has no safe wrapper that allocates nothing"
)]

use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`: two sets of 32 bits.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const NOTHING: Data = Data {
    effective: 0,
    permitted: 0,
    inheritable: 0,
};

/// Empties the calling thread's effective, permitted and inheritable set, and with them the ambient
/// one.
///
/// # Errors
/// The kernel's, unless there was nothing to drop: a service manager may forbid capset(2) then.
pub(super) fn clear() -> io::Result<()> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let nothing = [NOTHING; 2];
    // SAFETY: capset reads a header and, for version 3, two data structures; both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, nothing.as_ptr()) };
    if done == 0 || holds_none(&header) {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Makes CAP_NET_RAW, where it is held, one that the program to be started gets too.
///
/// # Errors
/// The kernel's.
pub(super) fn pass_on_net_raw() -> io::Result<()> {
    const NET_RAW: u32 = 13;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let Some([low, high]) = held(&header) else {
        return Err(io::Error::last_os_error());
    };
    if low.permitted & 1 << NET_RAW == 0 {
        return Ok(());
    }
    // A service manager that grants it has made it inheritable, and may forbid capset(2).
    if low.inheritable & 1 << NET_RAW == 0 {
        let low = Data {
            inheritable: low.inheritable | 1 << NET_RAW,
            ..low
        };
        let sets = [low, high];
        // SAFETY: capset reads a header and, for version 3, two data structures; both outlive it.
        let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let number = libc::c_ulong::from(NET_RAW);
    // SAFETY: this prctl takes numbers and touches no memory.
    let done = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE,
            number,
            0,
            0,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes every capability that is held one that the next program of this process gets too.
///
/// # Errors
/// The kernel's.
pub(super) fn pass_on_all() -> io::Result<()> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let Some(sets) = held(&header) else {
        return Err(io::Error::last_os_error());
    };
    // A service manager that grants them has made them inheritable, and may forbid capset(2).
    if sets.iter().any(|set| set.permitted & !set.inheritable != 0) {
        let sets = sets.map(|set| Data {
            inheritable: set.inheritable | set.permitted,
            ..set
        });
        // SAFETY: capset reads a header and, for version 3, two data structures; both outlive it.
        let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let [low, high] = sets;
    let permitted = u64::from(high.permitted) << 32 | u64::from(low.permitted);
    for number in (0..64).filter(|number| permitted & 1 << number != 0) {
        let raise = libc::PR_CAP_AMBIENT_RAISE;
        let number: libc::c_ulong = number;
        // SAFETY: this prctl takes numbers and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn holds_none(header: &Header) -> bool {
    held(header).is_some_and(|held| held.iter().all(|set| set.permitted == 0))
}

/// The calling thread's sets.
fn held(header: &Header) -> Option<[Data; 2]> {
    let mut held = [Data {
        permitted: u32::MAX,
        ..NOTHING
    }; 2];
    // SAFETY: capget reads a header and writes, for version 3, two data structures of ours.
    let done = unsafe {
        libc::syscall(
            libc::SYS_capget,
            std::ptr::from_ref(header),
            held.as_mut_ptr(),
        )
    };
    (done == 0).then_some(held)
}
