//! Memory that several processes share: a sealed memory file whose size nobody can change, mapped as
//! whole numbers that are read and written at once.
#![expect(unsafe_code, reason = "mmap(2), and a view of what it mapped")]

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

const WORD: usize = size_of::<AtomicU64>();

/// Without these a process that has the file could shrink it under the others.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

/// A new file of so many words, all 0.
///
/// # Errors
/// The kernel's.
pub fn create(name: &str, words: usize) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(name, flags)?;
    let bytes = words.saturating_mul(WORD);
    ftruncate(&fd, i64::try_from(bytes).map_err(io::Error::other)?)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(fd)
}

/// Whether this is a file of [`create`] with so many words: nobody can shorten it, and reading it waits
/// for nobody.
///
/// # Errors
/// The kernel's.
pub fn is_shared(fd: &OwnedFd, words: usize) -> io::Result<bool> {
    let present = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    let size = usize::try_from(fstat(fd)?.st_size);
    Ok(present.contains(seals()) && size == Ok(words.saturating_mul(WORD)))
}

/// Words that other processes see, too.
#[derive(Debug)]
pub struct Words {
    start: NonNull<AtomicU64>,
    count: usize,
    /// For those who are to have it, too.
    fd: OwnedFd,
}

// SAFETY: what it points to is shared by processes already, and made of atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps `count` words of a file of [`create`].
    ///
    /// # Errors
    /// `InvalidData` for a file that is shorter or could be shortened; else the kernel's.
    pub fn map(fd: OwnedFd, count: usize) -> io::Result<Self> {
        let present = SealFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GET_SEALS)?);
        let bytes = count.saturating_mul(WORD);
        let long_enough = usize::try_from(fstat(&fd)?.st_size).is_ok_and(|size| size >= bytes);
        let Some(length) = NonZeroUsize::new(bytes) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if !present.contains(seals()) || !long_enough {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours; the
        // file is long enough and can't get shorter (sealed).
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, &fd, 0) }?;
        Ok(Self {
            start: start.cast(),
            count,
            fd,
        })
    }
}

impl AsFd for Words {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `count` words are mapped from `start`, page-aligned, for as long as `self` lives;
        // whoever else writes to them does so atomically, and every bit pattern is a number.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made; no view of it outlives `self`.
        let done = unsafe { munmap(self.start.cast(), self.count * WORD) };
        if let Err(errno) = done {
            tracing::debug!(error = %errno, "shared memory stays mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let fd = create("test", 64).unwrap();
        let ours = Words::map(fd.try_clone().unwrap(), 64).unwrap();
        let theirs = Words::map(fd, 64).unwrap();
        ours[63].store(7, Ordering::Release);
        assert_eq!(theirs[63].load(Ordering::Acquire), 7);
        assert_eq!(theirs.len(), 64);
    }

    #[test]
    fn only_a_sealed_file_of_that_size_is_taken_for_one() {
        let fd = create("test", 64).unwrap();
        assert!(is_shared(&fd, 64).unwrap());
        assert!(!is_shared(&fd, 63).unwrap() && !is_shared(&fd, 65).unwrap());
        assert!(!is_shared(&fd, usize::MAX).unwrap());
        let open = memfd_create("open", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&open, 512).unwrap();
        assert!(!is_shared(&open, 64).unwrap());
        let other = std::fs::File::open("/dev/null").unwrap();
        assert!(is_shared(&other.into(), 0).is_err());
    }

    #[test]
    fn a_file_that_is_short_or_could_be_shortened_is_refused() {
        let short = create("test", 8).unwrap();
        assert!(ftruncate(&short, 0).is_err());
        let error = Words::map(short, 64).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let open = memfd_create("open", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&open, 4096).unwrap();
        assert!(Words::map(open, 64).is_err());
    }
}
