//! inotify(7): a file that is replaced in any of the ways in which files are replaced. What is
//! watched is each directory on the way to it, by the one name in it that leads on, so that a rename,
//! a link that points elsewhere (also one in the middle of the path) and a directory that is replaced
//! are all seen. No policy: when to read the file is the caller's.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// Links followed on the way, as many as the kernel follows.
const LINKS_MAX: usize = 40;
/// The way is looked at again until it stays; one that changes this often is looked at later.
const TRIES: usize = 8;
/// Portions of events taken in one turn.
const READS_MAX: usize = 64;

/// What happened to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Somebody has begun to write it, and has not closed it yet.
    Writing,
    /// It is another one, or it was closed after writing, or it may be: events were lost.
    Changed,
}

/// A watched path. Directories that can't be read are left out.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    inotify: Inotify,
    /// The steps of the way, each with the watch over the directory that it is in.
    steps: Vec<(WatchDescriptor, PathBuf)>,
}

impl FileWatch {
    /// Watches `path`, whether or not there is anything.
    ///
    /// # Errors
    /// The kernel's: no further watches, or none of the directories can be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let (inotify, steps) = watched(&path)?;
        Ok(Self {
            path,
            inotify,
            steps,
        })
    }

    /// Follows the path anew. What changes after this is told, what changed before may not be.
    ///
    /// # Errors
    /// As [`FileWatch::open`]; the watch stays as it was.
    pub fn renew(&mut self) -> io::Result<()> {
        (self.inotify, self.steps) = watched(&self.path)?;
        Ok(())
    }

    /// What has happened, in order; nothing when all of it was about other files.
    ///
    /// # Errors
    /// The kernel's, other than "would block".
    pub fn take(&self) -> io::Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for _ in 0..READS_MAX {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            };
            seen.extend(events.iter().filter_map(|event| self.meaning(event)));
        }
        Ok(seen)
    }

    fn meaning(&self, event: &InotifyEvent) -> Option<Seen> {
        // Without a name it is about a directory itself, or says that others were lost.
        let Some(name) = &event.name else {
            return Some(Seen::Changed);
        };
        let ours = |(wd, own): &&(WatchDescriptor, PathBuf)| {
            *wd == event.wd && own.file_name() == Some(name)
        };
        let (_, step) = self.steps.iter().find(ours)?;
        if event.mask.contains(AddWatchFlags::IN_MODIFY) {
            return Some(Seen::Writing);
        }
        // Whoever makes a file goes on to write and close it; only a further name of one is whole.
        let created = event.mask.contains(AddWatchFlags::IN_CREATE);
        let new = |facts: fs::Metadata| facts.is_file() && facts.nlink() == 1;
        if created && fs::symlink_metadata(step).is_ok_and(new) {
            return Some(Seen::Writing);
        }
        Some(Seen::Changed)
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Whatever may put another file in a directory, or change one there.
pub fn changes_in_directory() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

type Watched = (Inotify, Vec<(WatchDescriptor, PathBuf)>);

fn watched(path: &Path) -> io::Result<Watched> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let mut steps = way(path);
    let mut found = Vec::new();
    for _ in 0..TRIES {
        found.clear();
        let mut failure = None;
        for (directory, name) in &steps {
            match inotify.add_watch(directory, changes_in_directory()) {
                Ok(wd) => found.push((wd, directory.join(name))),
                Err(error) => failure = Some(error),
            }
        }
        if let (true, Some(error)) = (found.is_empty(), failure) {
            return Err(error.into());
        }
        // What changed before its directory was watched.
        let again = way(path);
        if again == steps {
            break;
        }
        steps = again;
    }
    Ok((inotify, found))
}

/// Each directory on the way to `path` with the name in it that leads on, as far as there is one.
fn way(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut steps = Vec::new();
    let mut here = PathBuf::from("/");
    let mut left: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        steps.push((here.clone(), name));
        match fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(name);
                }
            }
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            // No link.
            Err(_) => here = next,
        }
    }
    steps
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    /// A directory of this test alone, without links on the way.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let base = std::env::temp_dir().canonicalize().unwrap();
            let path = base.join(format!("lbd-watch-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_file_being_written_is_told_from_one_that_was() {
        let dir = Dir::new("write");
        let watch = FileWatch::open(&dir.at("lb.toml")).unwrap();
        let mut file = fs::File::create(dir.at("lb.toml")).unwrap();
        file.write_all(b"a").unwrap();
        assert_eq!(watch.take().unwrap(), [Seen::Writing; 2]);
        drop(file);
        assert_eq!(watch.take().unwrap(), [Seen::Changed]);
        fs::write(dir.at("other"), "").unwrap();
        assert_eq!(watch.take().unwrap(), []);
    }

    #[test]
    fn a_rename_over_it_its_removal_and_another_mode_are_changes() {
        let dir = Dir::new("rename");
        fs::write(dir.at("lb.toml"), "a").unwrap();
        let watch = FileWatch::open(&dir.at("lb.toml")).unwrap();
        fs::write(dir.at("new"), "b").unwrap();
        assert_eq!(watch.take().unwrap(), []);
        fs::rename(dir.at("new"), dir.at("lb.toml")).unwrap();
        assert_eq!(watch.take().unwrap(), [Seen::Changed]);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(dir.at("lb.toml"), mode).unwrap();
        assert_eq!(watch.take().unwrap(), [Seen::Changed]);
        fs::remove_file(dir.at("lb.toml")).unwrap();
        assert_eq!(watch.take().unwrap(), [Seen::Changed]);
    }

    #[test]
    fn a_link_in_the_middle_of_the_way_that_points_elsewhere_is_a_change() {
        let dir = Dir::new("links");
        for version in ["v1", "v2"] {
            fs::create_dir(dir.at(version)).unwrap();
            fs::write(dir.at(version).join("lb.toml"), version).unwrap();
        }
        symlink("v1", dir.at("..data")).unwrap();
        symlink("..data/lb.toml", dir.at("lb.toml")).unwrap();
        let names: Vec<OsString> = way(&dir.at("lb.toml")).into_iter().map(|s| s.1).collect();
        assert!(names.ends_with(&["lb.toml", "..data", "v1", "lb.toml"].map(OsString::from)));
        let mut watch = FileWatch::open(&dir.at("lb.toml")).unwrap();
        symlink("v2", dir.at("..data_tmp")).unwrap();
        assert_eq!(watch.take().unwrap(), []);
        fs::rename(dir.at("..data_tmp"), dir.at("..data")).unwrap();
        assert_eq!(watch.take().unwrap(), [Seen::Changed]);
        // Where it points now is watched only from here on.
        watch.renew().unwrap();
        fs::write(dir.at("v1").join("lb.toml"), "").unwrap();
        assert_eq!(watch.take().unwrap(), []);
        fs::write(dir.at("v2").join("lb.toml"), "").unwrap();
        assert_eq!(watch.take().unwrap().last(), Some(&Seen::Changed));
    }

    #[test]
    fn a_link_in_the_middle_of_the_way_that_is_removed_and_made_anew_is_a_change() {
        let dir = Dir::new("anew");
        for version in ["v1", "v2"] {
            fs::create_dir(dir.at(version)).unwrap();
            fs::write(dir.at(version).join("lb.toml"), version).unwrap();
        }
        symlink("v1", dir.at("current")).unwrap();
        let watch = FileWatch::open(&dir.at("current/lb.toml")).unwrap();
        fs::remove_file(dir.at("current")).unwrap();
        symlink("v2", dir.at("current")).unwrap();
        assert_eq!(watch.take().unwrap(), [Seen::Changed; 2]);
    }

    #[test]
    fn a_directory_that_is_replaced_and_links_in_a_circle_are_seen_through() {
        let dir = Dir::new("folder");
        fs::create_dir(dir.at("etc")).unwrap();
        let path = dir.at("etc/lb.toml");
        fs::write(&path, "a").unwrap();
        let watch = FileWatch::open(&path).unwrap();
        fs::rename(dir.at("etc"), dir.at("old")).unwrap();
        let seen = watch.take().unwrap();
        assert!(seen.contains(&Seen::Changed), "{seen:?}");
        symlink("loop", dir.at("loop")).unwrap();
        assert!(way(&dir.at("loop")).len() > LINKS_MAX);
    }
}
