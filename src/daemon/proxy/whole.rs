//! A file that is whole at each moment, also when the power fails. Not what is in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a folder's file `name` by way of the file `new` beside it.
///
/// # Errors
/// The kernel's; the old file is there then.
pub(super) fn replace(folder: &Path, name: &str, new: &str, bytes: &[u8]) -> io::Result<()> {
    let new = folder.join(new);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640);
    let mut file = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()
}
