//! Real files, replaced in the ways that operators and their tools replace them.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::*;
use crate::discovery::known::Finding;
use crate::net::clock;

struct Scene {
    dir: PathBuf,
    findings: mpsc::Receiver<Finding>,
    task: tokio::task::JoinHandle<()>,
    name: &'static str,
}

impl Scene {
    /// Follows a file that `first` puts in place, or that isn't there.
    fn new(name: &'static str, first: impl FnOnce(&Path)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lbd-file-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        first(&dir);
        let (sender, findings) = mpsc::channel(4);
        let reporter = Reporter::new(0, 0, sender);
        let task = tokio::spawn(follow(dir.join(name), Template::default(), reporter));
        Self {
            dir,
            findings,
            task,
            name,
        }
    }

    async fn next(&mut self) -> Result<Vec<String>, String> {
        let wait = tokio::time::timeout(Duration::from_secs(20), self.findings.recv());
        let finding = wait.await.expect("a finding").unwrap();
        let names = |servers: Vec<Server>| servers.into_iter().map(|s| s.name).collect();
        finding.outcome.map(names)
    }

    fn rename_in(&self, text: &str) -> Instant {
        let new = self.dir.join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.dir.join(self.name)).unwrap();
        clock::now()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.task.abort();
        std::fs::remove_dir_all(&self.dir).unwrap_or_default();
    }
}

fn json(hosts: &[u8]) -> String {
    let targets: Vec<String> = hosts.iter().map(|h| format!("\"10.0.0.{h}:1\"")).collect();
    format!("[{{\"targets\": [{}]}}]", targets.join(", "))
}

fn names(hosts: &[u8]) -> Result<Vec<String>, String> {
    Ok(hosts.iter().map(|h| format!("10.0.0.{h}:1")).collect())
}

#[tokio::test]
async fn a_file_that_is_renamed_into_place_is_read_within_a_second() {
    let mut scene = Scene::new("b.json", |dir| {
        std::fs::write(dir.join("b.json"), json(&[1])).unwrap();
    });
    assert_eq!(scene.next().await, names(&[1]));
    let mut fastest = Duration::MAX;
    // The best of a few: the machine may be busy, the file is not to blame.
    for host in 2..5 {
        let done = scene.rename_in(&json(&[host, 9]));
        assert_eq!(scene.next().await, names(&[host, 9]));
        fastest = fastest.min(clock::now().duration_since(done));
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}

#[tokio::test]
async fn a_swapped_symbolic_link_is_another_file() {
    let put = |dir: &Path, version: &str, hosts: &[u8]| {
        let folder = dir.join(version);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("b.json"), json(hosts)).unwrap();
        symlink(version, dir.join("..data_tmp")).unwrap();
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    let mut scene = Scene::new("b.json", |dir| {
        put(dir, "..one", &[1]);
        symlink("..data/b.json", dir.join("b.json")).unwrap();
    });
    assert_eq!(scene.next().await, names(&[1]));
    put(&scene.dir, "..two", &[1, 2]);
    assert_eq!(scene.next().await, names(&[1, 2]));
}

#[tokio::test]
async fn a_file_that_breaks_goes_or_comes_is_told_and_read_again() {
    let mut scene = Scene::new("b.json", |_| {});
    let missing = Err("No such file or directory (os error 2)".to_owned());
    assert_eq!(scene.next().await, missing);
    scene.rename_in(&json(&[1]));
    assert_eq!(scene.next().await, names(&[1]));
    scene.rename_in("[{");
    let broken = scene.next().await.unwrap_err();
    assert!(broken.starts_with("EOF while parsing"), "{broken}");
    scene.rename_in(&json(&[2]));
    assert_eq!(scene.next().await, names(&[2]));
    std::fs::remove_file(scene.dir.join("b.json")).unwrap();
    assert_eq!(scene.next().await, missing);
}

#[tokio::test]
async fn a_pipe_in_place_of_the_file_holds_up_nobody() {
    let mut scene = Scene::new("b.json", |dir| {
        nix::unistd::mkfifo(&dir.join("b.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    });
    assert_eq!(scene.next().await, Err("it is no file".to_owned()));
    scene.rename_in(&json(&[1]));
    assert_eq!(scene.next().await, names(&[1]));
}

#[test]
fn a_file_is_not_read_while_it_is_being_written() {
    let at_size = |size| {
        Seen::File(Stamp {
            device: 1,
            inode: 2,
            size,
            modified: (0, 0),
            changed: (0, 0),
        })
    };
    let mut watch = Watch::default();
    let mut look = |seen| {
        let due = watch.is_due(seen);
        if due {
            watch.told = Some(seen);
        }
        due
    };
    let due: Vec<bool> = [1, 1, 2, 3, 4, 4, 4, 1, 4]
        .map(|size| look(at_size(size)))
        .into();
    assert_eq!(
        due,
        [true, false, false, false, false, true, false, false, false]
    );
    assert!(!look(Seen::Nothing(Some(2))));
    assert!(look(Seen::Nothing(Some(2))));
}

#[tokio::test]
async fn what_is_no_file_and_what_is_too_large_is_refused() {
    let mut scene = Scene::new("b.json", |dir| {
        std::fs::create_dir(dir.join("b.json")).unwrap();
    });
    assert_eq!(scene.next().await, Err("it is no file".to_owned()));
    std::fs::remove_dir(scene.dir.join("b.json")).unwrap();
    assert!(scene.next().await.is_err());
    scene.rename_in(&format!("{}{}", json(&[1]), " ".repeat(1024 * 1024)));
    assert_eq!(scene.next().await, Err("it is over 1 MiB".to_owned()));
}
