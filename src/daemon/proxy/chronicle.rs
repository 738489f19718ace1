//! What happened on this node, beyond the life of the keeper that noted it: events lie in the state
//! directory, one line of JSON each, are read at the start and appended as they come. The file is
//! bounded: when it has grown it is replaced by what is still kept. Nothing waits for the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::whole;
use crate::admin::events::Feed;
use crate::ipc::event::{Event, Wanted};

/// The file in the directory.
const FILE: &str = "events.jsonl";
/// What it is replaced by.
const NEW: &str = "events.jsonl.new";
/// What a file that can't be read becomes.
const BROKEN: &str = "events.jsonl.broken";
/// The longest file that is read, bytes.
const BYTES_MAX: u64 = 4 << 20;
/// A file is replaced when it is longer than this, and than twice what was left the last time.
const REPLACE_ABOVE: u64 = 512 << 10;
/// Portions of events that wait for the disk; more are not kept.
const PORTIONS_MAX: usize = 64;
/// The end of a process waits no longer for its last events.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// The events of this node, with the file that keeps them, if there is a state directory.
#[derive(Debug)]
pub(super) struct Chronicle {
    feed: Arc<Feed>,
    dir: Option<PathBuf>,
    /// The file is to be replaced before anything is appended: its end is torn.
    torn: bool,
    writer: Option<(mpsc::Sender<Vec<Event>>, JoinHandle<()>)>,
    full: bool,
}

/// What a file held.
#[derive(Debug, Default)]
struct Loaded {
    events: Vec<Event>,
    /// The last line has no end: the power failed while it was written.
    torn: bool,
    /// A line that is no event.
    bad: Option<String>,
}

impl Chronicle {
    /// Reads what earlier processes kept in `dir` into `feed`.
    pub(super) fn open(dir: Option<&Path>, feed: Arc<Feed>) -> Self {
        let loaded = dir.map(load).unwrap_or_default();
        feed.push(loaded.events);
        Self {
            feed,
            dir: dir.map(Path::to_owned),
            torn: loaded.torn || loaded.bad.is_some(),
            writer: None,
            full: false,
        }
    }

    /// The keeper tells of events; those that are new are kept.
    pub(super) fn take_in(&mut self, events: Vec<Event>) {
        let new = self.feed.push(events);
        let Some(dir) = &self.dir else {
            return;
        };
        if new.is_empty() {
            return;
        }
        let (writer, _) = self.writer.get_or_insert_with(|| {
            let (sender, portions) = mpsc::channel(PORTIONS_MAX);
            let file = EventFile {
                dir: dir.clone(),
                feed: Arc::clone(&self.feed),
                replace_above: REPLACE_ABOVE,
                replace_first: self.torn,
            };
            (sender, tokio::spawn(write_all(file, portions)))
        });
        let full = writer.try_send(new).is_err();
        if full && !self.full {
            tracing::warn!(reason = "the disk is slow", "events are not kept");
        }
        self.full = full;
    }

    /// Waits until all of them lie on disk, not for long.
    pub(super) async fn close(&mut self) {
        let Some((sender, written)) = self.writer.take() else {
            return;
        };
        drop(sender);
        if tokio::time::timeout(CLOSE_WITHIN, written).await.is_err() {
            tracing::warn!(reason = "the disk is slow", "events are not kept");
        }
    }
}

async fn write_all(file: EventFile, mut portions: mpsc::Receiver<Vec<Event>>) {
    let mut file = file;
    let mut said = false;
    while let Some(mut events) = portions.recv().await {
        while let Ok(more) = portions.try_recv() {
            events.extend(more);
        }
        let work = tokio::task::spawn_blocking(move || {
            let written = file.keep(&events);
            (file, written)
        });
        let Ok((back, written)) = work.await else {
            return;
        };
        file = back;
        match written {
            Ok(()) => said = false,
            Err(error) => {
                if !said {
                    tracing::warn!(%error, "events are not kept");
                }
                said = true;
            }
        }
    }
}

/// The file, as its writer sees it.
#[derive(Debug)]
struct EventFile {
    dir: PathBuf,
    feed: Arc<Feed>,
    replace_above: u64,
    /// Nothing may be appended to it as it is.
    replace_first: bool,
}

impl EventFile {
    /// Appends events, or replaces the file if it is long.
    fn keep(&mut self, events: &[Event]) -> io::Result<()> {
        if self.replace_first {
            return self.replace();
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o640);
        let mut file = options.open(self.dir.join(FILE))?;
        if file.metadata()?.len() > self.replace_above {
            return self.replace();
        }
        file.write_all(&lines(events)?)?;
        file.sync_data()
    }

    /// Writes all that is still kept; the file is whole at each moment.
    fn replace(&mut self) -> io::Result<()> {
        let (events, _) = self.feed.last(usize::MAX, &Wanted::default());
        let text = lines(&events)?;
        whole::replace(&self.dir, FILE, NEW, &text)?;
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.replace_first = false;
        self.replace_above = REPLACE_ABOVE.max(length.saturating_mul(2));
        Ok(())
    }
}

fn lines(events: &[Event]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for event in events {
        serde_json::to_writer(&mut text, event)?;
        text.push(b'\n');
    }
    Ok(text)
}

fn load(dir: &Path) -> Loaded {
    let path = dir.join(FILE);
    let key = path.display();
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Loaded::default(),
        Err(error) => {
            tracing::warn!(%key, %error, "kept events cannot be read");
            return Loaded::default();
        }
    };
    let loaded = parse(&text);
    if let Some(error) = &loaded.bad {
        let aside = dir.join(BROKEN);
        let to = aside.display();
        match std::fs::rename(&path, &aside) {
            Ok(()) => tracing::warn!(%key, %to, error, "kept events are damaged, set aside"),
            Err(why) => tracing::warn!(%key, %error, reason = %why, "kept events are damaged"),
        }
    }
    loaded
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Nothing that a start could wait for, a pipe for instance.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = Vec::new();
    let file = File::open(path)?;
    file.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// The whole lines of a file; a line that is no event is passed over, the others count.
fn parse(text: &[u8]) -> Loaded {
    let mut loaded = Loaded::default();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else {
            loaded.torn = true;
            continue;
        };
        match serde_json::from_slice(line) {
            Ok(event) => loaded.events.push(event),
            Err(error) => loaded.bad = Some(error.to_string()),
        }
    }
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::proxy::scratch::Scratch;
    use crate::ipc::event::EventKind;

    fn open(dir: &Scratch) -> Chronicle {
        Chronicle::open(Some(dir.path()), Arc::default())
    }

    fn text(dir: &Scratch) -> String {
        std::fs::read_to_string(dir.join(FILE)).unwrap()
    }

    fn events(numbers: std::ops::Range<u64>) -> Vec<Event> {
        let event = |seq| Event {
            seq,
            at_ms: seq,
            kind: EventKind::Health,
            vip: None,
            subject: Some("kube/a".into()),
            from: Some("up".into()),
            to: Some("down".into()),
            reason: "refused".into(),
            cause: None,
        };
        numbers.map(event).collect()
    }

    fn kept(chronicle: &Chronicle) -> Vec<u64> {
        let (events, _) = chronicle.feed.last(usize::MAX, &Wanted::default());
        events.iter().map(|event| event.seq).collect()
    }

    #[tokio::test]
    async fn the_next_process_knows_what_the_last_one_kept_and_each_event_once() {
        let dir = Scratch::new("chronicle-next");
        let mut first = open(&dir);
        first.take_in(events(0..3));
        first.take_in(events(3..4));
        first.close().await;
        assert_eq!(text(&dir).lines().count(), 4);
        let mut second = open(&dir);
        assert_eq!(kept(&second), [0, 1, 2, 3]);
        second.take_in(events(2..6));
        second.close().await;
        assert_eq!(text(&dir).lines().count(), 6);
        assert_eq!(kept(&open(&dir)), [0, 1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_torn_end_is_left_out_and_mended() {
        let dir = Scratch::new("chronicle-torn");
        let mut first = open(&dir);
        first.take_in(events(0..3));
        first.close().await;
        let mut text = text(&dir);
        text.truncate(text.len() - 5);
        std::fs::write(dir.join(FILE), text).unwrap();
        let mut second = open(&dir);
        assert_eq!(kept(&second), [0, 1]);
        second.take_in(events(7..8));
        second.close().await;
        assert_eq!(kept(&open(&dir)), [0, 1, 7]);
        assert!(!dir.join(BROKEN).exists());
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_its_whole_lines_count() {
        let dir = Scratch::new("chronicle-damaged");
        let mut text = lines(&events(0..1)).unwrap();
        text.extend(b"{\"seq\":1,\"kind\":\"weather\"}\n\x00\xff\n");
        text.extend(lines(&events(2..3)).unwrap());
        std::fs::write(dir.join(FILE), &text).unwrap();
        let mut chronicle = open(&dir);
        assert_eq!(kept(&chronicle), [0, 2]);
        assert_eq!(std::fs::read(dir.join(BROKEN)).unwrap(), text);
        chronicle.take_in(events(3..4));
        chronicle.close().await;
        let again = open(&dir);
        assert_eq!(kept(&again), [0, 2, 3]);
    }

    #[tokio::test]
    async fn a_file_that_has_grown_is_replaced_by_what_is_kept() {
        let dir = Scratch::new("chronicle-grown");
        let mut chronicle = open(&dir);
        for round in 0..60 {
            chronicle.take_in(events(round * 100..round * 100 + 100));
            chronicle.close().await;
        }
        assert!(text(&dir).len() < 700_000, "{}", text(&dir).len());
        let kept = kept(&open(&dir));
        assert_eq!(kept.last(), Some(&5_999));
        assert_eq!(kept.len(), 1_024);
        assert!(!dir.join(NEW).exists());
    }

    #[tokio::test]
    async fn without_a_directory_events_are_told_all_the_same() {
        let mut none = Chronicle::open(None, Arc::default());
        none.take_in(events(0..1));
        let mut gone = Chronicle::open(Some(Path::new("/nonexistent/lbd")), Arc::default());
        gone.take_in(events(0..1));
        gone.close().await;
        assert_eq!((kept(&none), kept(&gone)), (vec![0], vec![0]));
    }
}
