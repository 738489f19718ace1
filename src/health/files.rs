//! The files of a check: who is trusted, who the check says it is, its token. Probes that read the
//! same files share what was made of them. They are looked at again while probes run; what was
//! read last stays in force for as long as what is there now cannot be used.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::setup::{self, Setup, TlsSetupError};
use crate::config::Flaw;
use crate::config::model::{Check, CheckKind, TlsCheck, Verify};
use crate::net::clock;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that takes longer, because of a file system that hangs, is not waited for.
const LOOK_WITHIN: Duration = Duration::from_millis(100);

/// What is in force, by what it was read from. A probe of a server that was added later finds it
/// here, too.
static OPEN: Mutex<Vec<Weak<Files>>> = Mutex::new(Vec::new());

/// What to read, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The TLS half of the check.
    pub(super) tls: TlsCheck,
    /// A bearer token.
    pub(super) token_file: Option<PathBuf>,
    /// Offered by ALPN; none at all for a server that needn't speak HTTP.
    pub(super) protocols: &'static [&'static str],
    /// Where the cluster's CA would be.
    pub(super) cluster_ca: PathBuf,
}

impl Wanted {
    /// The CA file that applies at present; `None`: unverified.
    pub(super) fn trusted_file(&self) -> Option<&Path> {
        match (self.tls.verify, &self.tls.ca_file) {
            (Verify::Off, _) | (Verify::Required, None) => None,
            (Verify::Required | Verify::IfCaPresent, Some(path)) => Some(path),
            (Verify::IfCaPresent, None) => self.cluster_ca.exists().then_some(&self.cluster_ca),
        }
    }

    /// Every file whose change matters, there or not.
    fn paths(&self) -> Vec<&Path> {
        let by_default = match (self.tls.verify, &self.tls.ca_file) {
            (Verify::IfCaPresent, None) => Some(self.cluster_ca.as_path()),
            (Verify::IfCaPresent | Verify::Required | Verify::Off, _) => None,
        };
        by_default
            .into_iter()
            .chain(named(&self.tls))
            .chain(self.token_file.as_deref())
            .collect()
    }
}

fn named(tls: &TlsCheck) -> impl Iterator<Item = &Path> {
    let client = tls.client.as_ref();
    let pair = client.map(|client| [client.cert.as_path(), client.key.as_path()]);
    let ca_file = tls.ca_file.as_deref();
    ca_file.into_iter().chain(pair.into_iter().flatten())
}

/// The files that a check names, and reads again while it runs.
#[must_use]
pub fn of_check(check: &Check) -> Vec<&Path> {
    match &check.kind {
        CheckKind::Tcp | CheckKind::Http(_) => Vec::new(),
        CheckKind::Tls(tls) => named(tls).collect(),
        CheckKind::Https(tls, http) => named(tls).chain(http.token_file.as_deref()).collect(),
    }
}

/// What is wrong with the files of a check, each with the key that names it; for `lbd check`.
#[must_use]
pub fn flaws(check: &Check) -> Vec<(&'static str, Flaw)> {
    let (tls, token_file) = match &check.kind {
        CheckKind::Tcp | CheckKind::Http(_) => return Vec::new(),
        CheckKind::Tls(tls) => (tls, None),
        CheckKind::Https(tls, http) => (tls, http.token_file.as_deref()),
    };
    let mut flaws: Vec<(&'static str, Flaw)> = setup::troubles(tls, token_file)
        .into_iter()
        .map(|(key, error)| (key, Flaw::Unusable(reason(&error))))
        .collect();
    let key = tls.client.as_ref().map(|client| client.key.as_path());
    let secrets = [("client-key", key), ("token-file", token_file)];
    for (name, file) in secrets {
        let Some(file) = file else { continue };
        if std::fs::metadata(file).is_ok_and(|meta| meta.mode() & 0o004 != 0) {
            flaws.push((name, Flaw::ReadableByAll(file.to_owned())));
        }
    }
    flaws
}

/// What files hold, kept as they are.
#[derive(Debug)]
pub(super) struct Files {
    wanted: Wanted,
    present: ArcSwap<Setup>,
    next_look: Mutex<Instant>,
    seen: Mutex<Seen>,
}

/// What the files looked like.
#[derive(Debug)]
struct Seen {
    /// When they were read.
    loaded: Vec<Option<Print>>,
    /// When they could not be used, and whether that was told.
    bad: Option<(Vec<Option<Print>>, bool)>,
}

/// Changes with every replacement of a file, by rename, by a link that points elsewhere, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Print {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    /// Reads the files, unless another probe has.
    pub(super) fn open(wanted: Wanted) -> Result<Arc<Self>, TlsSetupError> {
        let mut open = locked(&OPEN);
        open.retain(|files| files.strong_count() > 0);
        let same = |files: &Arc<Self>| files.wanted == wanted;
        if let Some(files) = open.iter().filter_map(Weak::upgrade).find(same) {
            return Ok(files);
        }
        // The prints first: what changes meanwhile is read again.
        let loaded = prints(&wanted);
        let files = Arc::new(Self {
            present: ArcSwap::from_pointee(Setup::read(&wanted)?),
            next_look: Mutex::new(clock::now() + LOOK_EVERY),
            seen: Mutex::new(Seen { loaded, bad: None }),
            wanted,
        });
        open.push(Arc::downgrade(&files));
        Ok(files)
    }

    /// What is in force.
    pub(super) fn present(&self) -> Arc<Setup> {
        self.present.load_full()
    }

    /// Looks at the files if that is due, on a thread that may wait for them.
    pub(super) async fn freshen(self: &Arc<Self>) {
        let now = clock::now();
        {
            let mut next = locked(&self.next_look);
            if now < *next {
                return;
            }
            *next = now + LOOK_EVERY;
        }
        let files = Arc::clone(self);
        let look = tokio::task::spawn_blocking(move || files.look());
        match tokio::time::timeout(LOOK_WITHIN, look).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "look at a check's files failed"),
            Err(_elapsed) => tracing::debug!("look at a check's files takes long"),
        }
    }

    /// The cluster's CA need not be there, but once it was there it is not given up for nothing.
    fn no_less_trusted(&self, setup: Setup) -> Result<Setup, TlsSetupError> {
        if setup.verified || !self.present().verified {
            return Ok(setup);
        }
        Err(TlsSetupError::Read {
            path: self.wanted.cluster_ca.clone(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    fn look(&self) {
        let prints = prints(&self.wanted);
        let mut seen = locked(&self.seen);
        if prints == seen.loaded {
            seen.bad = None;
            return;
        }
        match Setup::read(&self.wanted).and_then(|setup| self.no_less_trusted(setup)) {
            Ok(setup) => {
                let verified = setup.verified;
                self.present.store(Arc::new(setup));
                *seen = Seen {
                    loaded: prints,
                    bad: None,
                };
                tracing::info!(verified, "files of a check have changed and were read");
            }
            Err(error) => seen.on_error(prints, &error),
        }
    }
}

impl Seen {
    /// Files that are replaced one after the other don't fit together for a moment: what is
    /// unusable is told of when it is found unchanged by the next look.
    fn on_error(&mut self, prints: Vec<Option<Print>>, error: &TlsSetupError) {
        let told = match &self.bad {
            Some((bad, told)) if *bad == prints => {
                if !told {
                    let reason = reason(error);
                    tracing::warn!(
                        reason,
                        "changed files of a check cannot be used, the former stay in force"
                    );
                }
                true
            }
            Some(_) | None => false,
        };
        self.bad = Some((prints, told));
    }
}

/// The error and what caused it.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(present) = cause {
        text.push_str(": ");
        text.push_str(&present.to_string());
        cause = present.source();
    }
    text
}

fn prints(wanted: &Wanted) -> Vec<Option<Print>> {
    wanted.paths().into_iter().map(print).collect()
}

fn print(path: &Path) -> Option<Print> {
    let file: io::Result<std::fs::Metadata> = std::fs::metadata(path);
    file.ok().map(|file| Print {
        file: (file.dev(), file.ino()),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
