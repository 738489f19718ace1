//! Dropping every capability with one system call that allocates nothing.
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

fn holds_none(header: &Header) -> bool {
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
    done == 0 && held.iter().all(|set| set.permitted == 0)
}
