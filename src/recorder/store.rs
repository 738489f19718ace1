//! The directory of recordings: each written whole under a name that sorts by time, the oldest
//! removed. Not for a loop that must not wait: a short-lived thread calls this.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Recordings kept.
pub const FILES_MAX: usize = 16;
/// Why one is written when a proxy process has ended. Of these so many are kept, beside the others.
pub const PROXY_ENDED: &str = "proxy-ended";
const ENDED_MAX: usize = 4;
/// How their names end.
pub const ENDING: &str = ".rec";

/// The path of the one that is written at `wall_ms` because of `why`.
#[must_use]
pub fn path(dir: &Path, wall_ms: u64, why: &str) -> PathBuf {
    dir.join(format!("{wall_ms:015}-{why}{ENDING}"))
}

/// Writes one, then removes the oldest beyond those that are kept. `wall_ms` and `why` make its name.
///
/// # Errors
/// The kernel's.
pub fn keep(dir: &Path, wall_ms: u64, why: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750);
    builder.create(dir)?;
    let path = path(dir, wall_ms, why);
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
    let (mut whole, mut ended, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    let of_ended = |path: &Path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        stem.is_some_and(|stem| stem.ends_with(PROXY_ENDED))
    };
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("rec") if of_ended(&path) => ended.push(path),
            Some("rec") => whole.push(path),
            Some("partial") => gone.push(path),
            Some(_) | None => {}
        }
    }
    for (mut kept, most) in [(whole, FILES_MAX), (ended, ENDED_MAX)] {
        kept.sort();
        let over = kept.len().saturating_sub(most);
        gone.extend(kept.into_iter().take(over));
    }
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
            keep(&dir, ms, "proxy-ended", b"x").unwrap();
        }
        let names = fs::read_dir(&dir).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 21);
        assert_eq!(names[0], "000000000001004-vip-move.rec");
        let ended: Vec<&String> = names.iter().filter(|name| name.contains("ended")).collect();
        assert_eq!(
            (ended.len(), ended[0].as_str()),
            (4, "000000000001016-proxy-ended.rec")
        );
        assert_eq!(names[19], "000000000001019-vip-move.rec");
        assert_eq!(names[20], "notes.txt");
        fs::remove_dir_all(&dir).unwrap();
    }
}
