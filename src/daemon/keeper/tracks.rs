//! What virtual routers track beside proxies and scripts: files that the runner reads, and how many
//! servers count. Changes of verdicts become events here.

use std::time::{Duration, Instant};

use super::Keeper;
use super::health::{Names, Results};
use super::routers::{Routers, check_interval};
use crate::config::model::{Config, TrackFile, TrackTarget};
use crate::daemon::supervise::Standing;
use crate::ipc::event::EventKind;
use crate::ipc::runner::{Reading, ToRunner};
use crate::track::servers::Servers;
use crate::track::verdict::Found;

/// What is known of them.
#[derive(Debug)]
pub(super) struct Tracks {
    pub(super) files: Vec<Option<Found>>,
    /// What was found in each, in words.
    pub(super) contents: Vec<String>,
    /// One per virtual router; a sync-group is one.
    servers: Vec<Counted>,
    /// The verdict of each track of each virtual router that was noted last.
    pub(super) noted: Vec<Vec<Option<bool>>>,
}

#[derive(Debug)]
struct Counted {
    weight: u8,
    delay: Duration,
    servers: Servers,
}

impl Tracks {
    pub(super) fn new(config: &Config, routers: &Routers) -> Self {
        let all = (0..routers.count()).filter_map(|index| routers.tracked(index));
        let counted = all.map(|vip| Counted {
            weight: vip.per_server_weight,
            delay: check_interval(config, vip),
            servers: Servers::default(),
        });
        Self {
            files: vec![None; config.track_files.len()],
            contents: vec![String::new(); config.track_files.len()],
            servers: counted.collect(),
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
        let all = self.servers.iter();
        all.filter_map(|counted| counted.servers.deadline()).min()
    }
}

impl Keeper {
    /// What the usable servers add to the priority of a virtual router.
    pub(super) fn servers_weight(&mut self, index: usize, now: Instant) -> i32 {
        let holds = self.routers.holds(index);
        let vip = self.routers.tracked(index);
        let usable = vip.and_then(|vip| self.board.usable_servers(vip));
        let counted = self.tracks.servers.get_mut(index);
        let (Some(usable), Some(counted)) = (usable, counted) else {
            return 0;
        };
        if counted.weight == 0 {
            return 0;
        }
        let servers = counted.servers.count(now, usable, holds, counted.delay);
        i32::from(servers) * i32::from(counted.weight)
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
    pub(super) fn file_says(&mut self, file: u16, reading: &Reading) {
        let index = usize::from(file);
        let (Some(known), Some(config)) = (
            self.tracks.files.get_mut(index),
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
        let found = match reading {
            Reading::Number(number) => {
                tracing::info!(file, %path, number, "tracked file read");
                Found::Number(*number)
            }
            Reading::Failed(error) => {
                tracing::warn!(file, %path, error, "tracked file cannot be read: it counts as failed");
                Found::Ok(false)
            }
        };
        *known = Some(found);
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
