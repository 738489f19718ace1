//! The state directory: one file of notes, replaced as a whole. A file that can't be read is set
//! aside and said; nothing waits for the disk but the answer to the order that changed something.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::whole;
use crate::ipc::note::{NOTES_MAX, ServerNote};

/// The file in the directory.
const FILE: &str = "servers.json";
/// What it is written as first.
const NEW: &str = "servers.json.new";
/// What a file that can't be read becomes.
const BROKEN: &str = "servers.json.broken";
/// The longest file that is read, bytes.
const BYTES_MAX: u64 = 1 << 20;
/// The form of the file.
const VERSION: u32 = 1;
/// Writes that wait; whoever finds it full waits too.
const WRITES_MAX: usize = 8;

/// The state directory.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    dir: PathBuf,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    v: u32,
    servers: Vec<ServerNote>,
}

/// Where notes are sent to be written, and whoever waits is told how it went.
pub(super) type Writer = mpsc::Sender<(Vec<ServerNote>, oneshot::Sender<io::Result<()>>)>;

impl Shelf {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// What was written last.
    pub(super) fn load(&self) -> Vec<ServerNote> {
        let path = self.dir.join(FILE);
        let key = path.display();
        match read(&path) {
            Ok(servers) => servers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = self.dir.join(BROKEN);
                let to = aside.display();
                match std::fs::rename(&path, &aside) {
                    Ok(()) => {
                        tracing::warn!(%key, %to, %error, "kept server states are unreadable, set aside");
                    }
                    Err(why) => {
                        tracing::warn!(%key, %error, reason = %why, "kept server states are unreadable");
                    }
                }
                Vec::new()
            }
            Err(error) => {
                tracing::warn!(%key, %error, "kept server states cannot be read");
                Vec::new()
            }
        }
    }

    /// Replaces the file; it is whole at each moment, also when the power fails.
    fn write(&self, servers: Vec<ServerNote>) -> io::Result<()> {
        let saved = Saved {
            v: VERSION,
            servers,
        };
        let mut text = serde_json::to_vec_pretty(&saved)?;
        text.push(b'\n');
        whole::replace(&self.dir, FILE, NEW, &text)
    }

    /// Writes in the order of the orders, on a thread where a slow disk holds up nobody else.
    pub(super) fn writer(&self) -> Writer {
        let (sender, mut writes) =
            mpsc::channel::<(Vec<ServerNote>, oneshot::Sender<io::Result<()>>)>(WRITES_MAX);
        let shelf = self.clone();
        tokio::spawn(async move {
            while let Some((notes, answer)) = writes.recv().await {
                let shelf = shelf.clone();
                let written = tokio::task::spawn_blocking(move || shelf.write(notes)).await;
                let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
                if let Err(error) = &written {
                    tracing::warn!(%error, "server states cannot be kept");
                }
                if answer.send(written).is_err() {
                    tracing::debug!("whoever changed a server does not wait for the disk");
                }
            }
        });
        sender
    }
}

fn read(path: &Path) -> io::Result<Vec<ServerNote>> {
    let mut text = Vec::new();
    // Nothing that a start could wait for, a pipe for instance.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    File::open(path)?
        .take(BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > BYTES_MAX {
        return Err(bad("longer than 1 MiB".to_owned()));
    }
    let saved: Saved = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    if saved.v != VERSION {
        return Err(bad(format!("of version {}, not {VERSION}", saved.v)));
    }
    if saved.servers.len() > NOTES_MAX {
        return Err(bad(format!("about more than {NOTES_MAX} servers")));
    }
    Ok(saved.servers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::proxy::scratch::Scratch;
    use crate::ipc::note::AdminWord;

    fn note(server: &str) -> ServerNote {
        ServerNote {
            admin: Some(AdminWord::Maint),
            ..ServerNote::new("kube", server)
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read_again_and_the_last_write_holds() {
        let dir = Scratch::new("shelf-again");
        let shelf = Shelf::new(dir.path());
        assert!(shelf.load().is_empty());
        let writer = shelf.writer();
        for servers in [vec![note("a")], vec![note("a"), note("b")]] {
            let (answer, written) = oneshot::channel();
            writer.send((servers, answer)).await.unwrap();
            written.await.unwrap().unwrap();
        }
        assert_eq!(shelf.load(), [note("a"), note("b")]);
        assert!(!dir.join(NEW).exists());
    }

    #[test]
    fn a_file_that_is_torn_or_of_another_version_is_set_aside() {
        let dir = Scratch::new("shelf-torn");
        let shelf = Shelf::new(dir.path());
        shelf.write(vec![note("a")]).unwrap();
        let whole = std::fs::read(dir.join(FILE)).unwrap();
        let other = b"{\"v\":2,\"servers\":[]}".as_slice();
        for broken in [&whole[..whole.len() / 2], other, &[]] {
            std::fs::write(dir.join(FILE), broken).unwrap();
            assert!(shelf.load().is_empty());
            assert!(!dir.join(FILE).exists());
            assert_eq!(std::fs::read(dir.join(BROKEN)).unwrap(), broken);
        }
    }

    #[test]
    fn what_is_no_file_holds_up_nobody() {
        let dir = Scratch::new("shelf-pipe");
        let mode = nix::sys::stat::Mode::S_IRUSR;
        nix::unistd::mkfifo(&dir.join(FILE), mode).unwrap();
        assert!(Shelf::new(dir.path()).load().is_empty());
    }

    #[test]
    fn a_directory_that_is_gone_is_an_error_and_no_panic() {
        let shelf = Shelf::new(Path::new("/nonexistent/lbd"));
        assert!(shelf.load().is_empty());
        assert!(shelf.write(vec![note("a")]).is_err());
    }
}
