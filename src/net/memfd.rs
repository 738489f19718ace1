//! Sealed memory files that carry a configuration between processes: what was sent is what is
//! read, whatever happens to the file on disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The longest text either side accepts, bytes.
const BYTES_MAX: u64 = 4 << 20;

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// A memory file with this content that nobody can change any more.
///
/// # Errors
/// The kernel's.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(name, flags)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(file.into())
}

/// The content of a sealed memory file.
///
/// # Errors
/// `InvalidData` when it isn't sealed or is longer than 4 MiB; else the kernel's.
pub fn read_sealed(fd: OwnedFd) -> io::Result<Vec<u8>> {
    read_sealed_within(fd, BYTES_MAX)
}

/// The same for another length.
///
/// # Errors
/// `InvalidData` when it isn't sealed or is longer; else the kernel's.
pub fn read_sealed_within(fd: OwnedFd, most: u64) -> io::Result<Vec<u8>> {
    let file = File::from(fd);
    let present = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS)?);
    let length = file.metadata()?.len();
    if !present.contains(seals()) || length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    // Not read(2): the file position is shared with every process that got this descriptor.
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_reads_back_and_cannot_be_written() {
        let fd = sealed("config", b"[proxy.a]").unwrap();
        let mut writer = File::from(fd.try_clone().unwrap());
        assert!(writer.write_all(b"x").is_err());
        assert!(writer.set_len(0).is_err());
        assert_eq!(read_sealed(fd).unwrap(), b"[proxy.a]");
    }

    #[test]
    fn a_file_without_seals_is_refused() {
        let fd = memfd_create("open", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        let error = read_sealed(fd).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
