//! What virtual routers track beside proxies and scripts: files that the runner reads, and the judges
//! of it all. Changes of verdicts become events here.

use std::time::Instant;

use super::Keeper;
use super::health::{Names, Results};
use super::routers::{Routers, check_interval};
use crate::config::model::{Config, TrackFile, TrackTarget};
use crate::daemon::judge::recorded::RecordedJudge;
use crate::daemon::judge::{Judge, Look, Seen};
use crate::daemon::supervise::Standing;
use crate::ipc::event::EventKind;
use crate::ipc::runner::{Reading, ToRunner};
use crate::recorder::tape::Tape;
use crate::track::recorded::{Reading as Read, RecordedFile};
use crate::track::verdict::Found;
use crate::vrrp::fsm::NodeHealth;

/// What is known of them.
#[derive(Debug)]
pub(super) struct Tracks {
    pub(super) files: Vec<Option<Found>>,
    /// The same with what was read.
    pub(super) reads: Vec<RecordedFile>,
    /// What was found in each, in words.
    pub(super) contents: Vec<String>,
    /// One per virtual router; a sync-group is one.
    judges: Vec<RecordedJudge>,
    /// For one look.
    looked: Vec<Seen>,
    /// The verdict of each track of each virtual router that was noted last.
    pub(super) noted: Vec<Vec<Option<bool>>>,
}

impl Tracks {
    pub(super) fn new(config: &Config, routers: &Routers, now: Instant) -> Self {
        Self::with(config, routers, now, |_| None)
    }

    /// Judges go on with the tapes that are there for their routers.
    pub(super) fn with(
        config: &Config,
        routers: &Routers,
        now: Instant,
        mut tape: impl FnMut(&str) -> Option<Tape>,
    ) -> Self {
        let names = Names::of(config);
        let judge = |index: usize, name: &str| {
            let vip = routers.tracked(index)?;
            let called = |at: usize| {
                let track = vip.track.get(at);
                track.map_or_else(String::new, |track| names.of_track(track.target))
            };
            let judge = Judge::new(vip, called, check_interval(config, vip));
            Some(RecordedJudge::new(judge, tape(name), now))
        };
        let all = routers.named_members().map(|(name, _)| name).enumerate();
        let mut judge = judge;
        let judges = all.filter_map(|(index, name)| judge(index, name)).collect();
        Self {
            judges,
            looked: Vec::new(),
            files: vec![None; config.track_files.len()],
            reads: config
                .track_files
                .iter()
                .map(|_| RecordedFile::new(now))
                .collect(),
            contents: vec![String::new(); config.track_files.len()],
            noted: config
                .vips
                .iter()
                .map(|vip| vec![None; vip.track.len()])
                .collect(),
        }
    }

    pub(super) fn files(&self) -> &[Option<Found>] {
        &self.files
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.judges
            .iter()
            .filter_map(|judge| judge.deadline())
            .min()
    }

    /// What the judges were told of late, in the order of the routers.
    pub(super) fn tapes(&self, now: Instant) -> impl Iterator<Item = Vec<u8>> {
        self.judges.iter().map(move |judge| judge.tape(now))
    }

    /// Their tapes, in the same order; they end with that.
    pub(super) fn take_tapes(&mut self) -> Vec<Tape> {
        let judges = self.judges.drain(..);
        judges.map(RecordedJudge::into_tape).collect()
    }
}

impl Keeper {
    /// What this node may claim for a virtual router.
    pub(super) fn look(
        &mut self,
        now: Instant,
        index: usize,
        proxy: Standing,
    ) -> Option<NodeHealth> {
        let Self {
            board,
            routers,
            scripts,
            tracks,
            ..
        } = self;
        let Tracks {
            files,
            judges,
            looked,
            ..
        } = tracks;
        let results = Results {
            scripts: scripts.verdicts(),
            files,
            interfaces: routers.interfaces.ok(),
        };
        let vip = routers.tracked(index)?;
        looked.clear();
        looked.extend(vip.track.iter().map(|track| board.seen(track, &results)));
        let look = Look {
            proxy,
            holds: routers.holds(index),
            tracks: looked,
        };
        Some(judges.get_mut(index)?.look(now, &look))
    }

    /// Has the runner watch the tracked files.
    pub(super) fn order_files(&mut self, now: Instant) {
        let files = &self.args.config.track_files;
        if files.is_empty() {
            return;
        }
        let path = |file: &TrackFile| file.path.to_string_lossy().into_owned();
        let order = ToRunner::Watch(files.iter().map(path).collect());
        self.tell_runner(now, &order);
    }

    /// The runner has looked at a file.
    pub(super) fn file_says(&mut self, now: Instant, file: u16, reading: &Reading) {
        let index = usize::from(file);
        let (Some(known), Some(read), Some(config)) = (
            self.tracks.files.get_mut(index),
            self.tracks.reads.get_mut(index),
            self.args.config.track_files.get(index),
        ) else {
            return;
        };
        let (file, path) = (&config.name, config.path.display());
        if let Some(content) = self.tracks.contents.get_mut(index) {
            *content = match reading {
                Reading::Number(number) => format!("holds {number}"),
                Reading::Failed(error) => error.clone(),
            };
        }
        let told = match reading {
            Reading::Number(number) => {
                tracing::info!(file, %path, number, "tracked file read");
                Read::Number(*number)
            }
            Reading::Failed(error) => {
                tracing::warn!(file, %path, error, "tracked file cannot be read: it counts as failed");
                Read::Failed(error.clone())
            }
        };
        *known = Some(read.read(now, &told));
    }

    /// Makes events of the verdicts that have changed.
    pub(super) fn note_tracks(&mut self, standing: Standing) {
        let mut changed = Vec::new();
        let results = Results {
            scripts: self.scripts.verdicts(),
            files: self.tracks.files(),
            interfaces: self.routers.interfaces.ok(),
        };
        for (vip, config) in self.args.config.vips.iter().enumerate() {
            for (at, track) in config.track.iter().enumerate() {
                let ok = self.board.entry(track, standing, &results).ok();
                let before = self.tracks.noted.get(vip).and_then(|noted| noted.get(at));
                if ok.is_some() && before != Some(&ok) {
                    changed.push((vip, at, ok));
                }
            }
        }
        for (vip, at, ok) in changed {
            self.note_track(vip, at, ok, standing);
        }
    }

    /// Why a track's verdict is what it is.
    fn track_reason(&self, target: TrackTarget, ok: bool, standing: Standing) -> String {
        let words = match (target, ok) {
            (TrackTarget::Script(index), _) => self.scripts.reason(index),
            (TrackTarget::File(index), _) => {
                self.tracks.contents.get(index).map_or("", String::as_str)
            }
            (TrackTarget::Interface(_), true) => "up",
            (TrackTarget::Interface(_), false) => "down or gone",
            (TrackTarget::Proxy(_), true) => "a server is usable",
            (TrackTarget::Proxy(_), false) if standing == Standing::Lost => "proxy does not serve",
            (TrackTarget::Proxy(_), false) => "no server is usable",
        };
        words.to_owned()
    }

    fn note_track(&mut self, vip: usize, at: usize, ok: Option<bool>, standing: Standing) {
        let noted = self.tracks.noted.get_mut(vip);
        let Some(noted) = noted.and_then(|noted| noted.get_mut(at)) else {
            return;
        };
        let before = std::mem::replace(noted, ok);
        // That all is well at the start is no news.
        if before.is_none() && ok == Some(true) {
            return;
        }
        let config = &self.args.config;
        let Some(vip) = config.vips.get(vip) else {
            return;
        };
        let Some(track) = vip.track.get(at) else {
            return;
        };
        let name = Names::of(config).of_track(track.target);
        let reason = self.track_reason(track.target, ok == Some(true), standing);
        let word = |ok: Option<bool>| match ok {
            Some(true) => "ok",
            Some(false) => "failed",
            None => "unknown",
        };
        let vip = vip.name.clone();
        let cause = self.cause_of_track(&name);
        self.record_caused(
            EventKind::Track,
            (Some(&vip), Some(&name)),
            Some((word(before), word(ok))),
            (&reason, cause),
        );
    }
}
