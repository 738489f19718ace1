//! The directory of recordings: each written whole under a name that sorts by time, the oldest
//! removed. Not for a loop that must not wait: a short-lived thread calls this.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Recordings kept.
pub const FILES_MAX: usize = 16;
/// How their names end.
pub const ENDING: &str = ".rec";

/// Writes one, then removes the oldest beyond [`FILES_MAX`]. `wall_ms` and `why` make its name.
///
/// # Errors
/// The kernel's.
pub fn keep(dir: &Path, wall_ms: u64, why: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750);
    builder.create(dir)?;
    let path = dir.join(format!("{wall_ms:015}-{why}{ENDING}"));
    let partial = dir.join(format!("{wall_ms:015}-{why}.partial"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640);
    let mut file = options.open(&partial)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&partial, &path)?;
    for old in surplus(dir)? {
        fs::remove_file(old)?;
    }
    Ok(path)
}

/// The oldest beyond the number that is kept, and what was never finished.
fn surplus(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut whole, mut gone) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("rec") => whole.push(path),
            Some("partial") => gone.push(path),
            Some(_) | None => {}
        }
    }
    whole.sort();
    let over = whole.len().saturating_sub(FILES_MAX);
    gone.extend(whole.into_iter().take(over));
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_recordings_make_room_and_other_files_stay() {
        let dir = std::env::temp_dir().join(format!("lbd-recorder-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("notes.txt"), "mine").unwrap();
        fs::write(dir.join("000000000000999-vip-move.partial"), "ha").unwrap();
        for ms in 1_000..1_020 {
            keep(&dir, ms, "vip-move", b"x").unwrap();
        }
        let names = fs::read_dir(&dir).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 17);
        assert_eq!(names[0], "000000000001004-vip-move.rec");
        assert_eq!(names[15], "000000000001019-vip-move.rec");
        assert_eq!(names[16], "notes.txt");
        fs::remove_dir_all(&dir).unwrap();
    }
}
