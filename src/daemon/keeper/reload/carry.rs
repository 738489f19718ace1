//! What the keeper knows by positions of the old file, put at those of the new one. What has no
//! place any more is forgotten; what is new begins without a verdict.

use std::time::Instant;

use crate::config::local::LocalVip;
use crate::config::model::{self, Config, Node, TrackTarget};
use crate::daemon::keeper::health::Names;
use crate::daemon::keeper::notifier::Notifier;
use crate::daemon::keeper::notify::Notifiers;
use crate::daemon::keeper::routers::Routers;
use crate::daemon::keeper::scripts::Scripts;
use crate::daemon::keeper::tracks::Tracks;
use crate::recorder::tape::Tape;
use crate::track::fsm::Script;
use crate::track::recorded::RecordedScript;

impl Scripts {
    /// Scripts that stay go on; one with another command or rhythm keeps its verdict until its first
    /// result.
    pub(super) fn carry(&mut self, now: Instant, old: &[model::Script], new: &[model::Script]) {
        if old == new {
            return;
        }
        let runs = self
            .machines
            .iter()
            .map(|machine| machine.runs())
            .max()
            .unwrap_or(0);
        let mut machines: Vec<Option<RecordedScript>> = std::mem::take(&mut self.machines)
            .into_iter()
            .map(Some)
            .collect();
        let verdicts = std::mem::take(&mut self.verdicts);
        let reasons = std::mem::take(&mut self.reasons);
        for (at, config) in new.iter().enumerate() {
            let was = old.iter().position(|one| one.name == config.name);
            let same = was.filter(|was| old.get(*was) == Some(config));
            let kept = same.and_then(|was| machines.get_mut(was)?.take());
            let mut machine =
                kept.unwrap_or_else(|| RecordedScript::new(Script::new(now, config), now));
            if same != Some(at) {
                // The end of its run would come under another position.
                machine.count_from(runs);
            }
            self.machines.push(machine);
            let verdict = was.and_then(|was| verdicts.get(was).copied().flatten());
            self.verdicts.push(verdict);
            let reason = was.and_then(|was| reasons.get(was).cloned());
            self.reasons.push(reason.unwrap_or_default());
        }
        self.examined = false;
    }
}

impl Tracks {
    /// Files and verdicts that were noted; how servers count begins anew. `names` are those of the
    /// routers before, by what they are called now: those that stay go on with their judges' tapes.
    /// `lineage`: as which `[vip]` of the old file each of the new one goes on.
    pub(super) fn carry(
        &mut self,
        now: Instant,
        (old, new): (&Config, &Config),
        routers: &Routers,
        (names, lineage): (&[String], &[Option<usize>]),
    ) {
        let mut tapes: Vec<(&String, Tape)> = names.iter().zip(self.take_tapes()).collect();
        let kept = |name: &str| {
            let place = tapes.iter().position(|(known, _)| *known == name)?;
            Some(tapes.swap_remove(place).1)
        };
        let mut before = std::mem::replace(self, Self::with(new, routers, now, kept));
        for (at, file) in new.track_files.iter().enumerate() {
            let Some(was) = old.track_files.iter().position(|one| one == file) else {
                continue;
            };
            copy(&before.files, was, &mut self.files, at);
            copy(&before.contents, was, &mut self.contents, at);
            if let (Some(known), Some(place)) = (before.reads.get_mut(was), self.reads.get_mut(at))
            {
                std::mem::swap(known, place);
            }
        }
        let name = |config: &Config, target: TrackTarget| Names::of(config).of_track(target);
        for ((vip, noted), was) in new.vips.iter().zip(&mut self.noted).zip(lineage) {
            let Some(was) = *was else {
                continue;
            };
            let (Some(tracks), Some(known)) = (old.vips.get(was), before.noted.get(was)) else {
                continue;
            };
            for (track, noted) in vip.track.iter().zip(noted) {
                let wanted = name(new, track.target);
                let mut known = tracks.track.iter().zip(known);
                let same = known.find(|(track, _)| name(old, track.target) == wanted);
                *noted = same.and_then(|(_, known)| *known);
            }
        }
    }
}

fn copy<T: Clone>(from: &[T], was: usize, to: &mut [T], at: usize) {
    if let (Some(known), Some(place)) = (from.get(was), to.get_mut(at)) {
        *place = known.clone();
    }
}

impl Notifiers {
    /// Each `[vip.NAME]` keeps what was told of it, also under another name.
    pub(super) fn carry(&mut self, lineage: &[Option<usize>], locals: &[LocalVip]) {
        let runs = self.all.iter().map(Notifier::runs).max().unwrap_or(0);
        let mut before: Vec<_> = std::mem::take(&mut self.all)
            .into_iter()
            .map(Some)
            .collect();
        for (at, was) in lineage.iter().enumerate() {
            let kept = was.and_then(|was| before.get_mut(was)?.take());
            let mut notifier = kept.unwrap_or_default();
            if *was != Some(at) {
                // The end of its program would come under another position.
                notifier.lost();
                notifier.count_from(runs);
            }
            self.all.push(notifier);
        }
        let node = |local: &LocalVip| {
            let node = local.vip.nodes.get(local.me);
            node.map_or_else(String::new, Node::label)
        };
        self.nodes = locals.iter().map(node).collect();
    }
}
