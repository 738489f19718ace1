//! The ring and its buffers: requests in, completions out. Everything unsafe of this program is
//! here.
#![expect(
    unsafe_code,
    reason = "what a request points to must outlive it, which the compiler cannot see"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, SubmitArgs, Timespec};
use io_uring::{IoUring, squeue};

/// The group of the provided buffers.
pub(crate) const GROUP: u16 = 0;
/// No buffer.
pub(crate) const NONE: u16 = u16::MAX;
const REQUESTS: u32 = 1024;
const COMPLETIONS: u32 = 16 * 1024;

/// What came of a request.
#[derive(Clone, Copy)]
pub(crate) struct Done {
    pub(crate) token: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

#[repr(align(4096))]
#[derive(Clone)]
struct Page {
    _bytes: [u8; 4096],
}

/// One ring and the buffers it reads into.
pub(crate) struct Ring {
    ring: IoUring,
    entries: Vec<Page>,
    memory: Vec<u8>,
    size: usize,
    /// For each buffer: how much is in it, and which one follows it in its flow.
    pub(crate) fill: Vec<u32>,
    pub(crate) next: Vec<u16>,
    tail: u16,
    pub(crate) free: usize,
}

impl Ring {
    /// A ring with `count` buffers (a power of two) of `size` bytes, lent to the kernel.
    pub(crate) fn new(count: u16, size: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(REQUESTS)?;
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        let mut this = Self {
            ring,
            entries: vec![Page { _bytes: [0; 4096] }; bytes.div_ceil(4096)],
            memory: vec![0; usize::from(count) * size],
            size,
            fill: vec![0; usize::from(count)],
            next: vec![NONE; usize::from(count)],
            tail: 0,
            free: 0,
        };
        let address = this.entries.as_ptr() as u64;
        // SAFETY: `address` is page-aligned and has room for `count` entries; both it and what the
        // entries point to live as long as the ring, which is dropped before them.
        unsafe {
            this.ring
                .submitter()
                .register_buf_ring_with_flags(address, count, GROUP, 0)
        }?;
        (0..count).for_each(|buffer| this.give_back(buffer));
        this.publish();
        Ok(this)
    }

    /// Lends a buffer to the kernel, from the next [`Self::publish`] on.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        self.free += 1;
        let count = self.fill.len();
        let place = usize::from(self.tail) & (count - 1);
        let base = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: `place` is below the number of entries that `entries` was made for.
        let entry = unsafe { base.add(place) };
        // SAFETY: it is aligned and lives as long as `self`, zeros are a value of an entry, and the
        // kernel does not touch those at and beyond the tail.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.at(buffer) as u64);
        entry.set_len(u32::try_from(self.size).unwrap_or(0));
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was lent.
    pub(crate) fn publish(&mut self) {
        let base = self.entries.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `base` is the first, initialised entry of the buffer ring.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: it is aligned, lives as long as `entries`, and is written here alone.
        let shared = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        shared.store(self.tail, Ordering::Release);
    }

    /// Where a buffer is.
    pub(crate) fn at(&self, buffer: u16) -> *const u8 {
        let offset = usize::from(buffer) * self.size;
        self.memory.as_ptr().wrapping_add(offset)
    }

    /// Queues a request. What it points to must not move or end before its completion: buffers of
    /// this ring, and addresses that live as long as the program.
    pub(crate) fn push(&mut self, request: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: as this function's description demands of its callers.
            let pushed = unsafe { self.ring.submission().push(request) };
            match pushed {
                Ok(()) => return Ok(()),
                Err(_full) => self.ring.submit().map(drop)?,
            }
        }
    }

    /// Hands over what is queued and waits for at least one completion, for at most `patience`.
    pub(crate) fn enter(&mut self, patience: Duration) -> io::Result<()> {
        let limit = Timespec::from(patience);
        let arguments = SubmitArgs::new().timespec(&limit);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// What has completed since.
    pub(crate) fn completed(&mut self, into: &mut Vec<Done>) {
        into.extend(self.ring.completion().map(|entry| Done {
            token: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}

/// The descriptor that an accept answered.
pub(crate) fn accepted(result: i32) -> OwnedFd {
    // SAFETY: a completed accept gives a new descriptor to the process, and it is claimed once.
    unsafe { OwnedFd::from_raw_fd(result) }
}
