//! What proxy and scripts say, as each virtual router needs it. Pure.

use crate::config::model::{Track, TrackTarget, Vip};
use crate::daemon::supervise::Standing;
use crate::ipc::message::{ProxyServing, TrackStatus};
use crate::track::verdict::{self, Entry};
use crate::vrrp::fsm::NodeHealth;

/// The last word of each proxy of the file.
#[derive(Debug)]
pub(super) struct Board {
    proxies: Vec<Proxy>,
}

#[derive(Debug, Clone, Default)]
struct Proxy {
    /// Whether it has a usable server; `None`: not probed yet.
    usable: Option<bool>,
    /// Successful probes, counted on across processes.
    epoch: u64,
    /// The present process's own count.
    raw_epoch: u64,
}

impl Board {
    pub(super) fn new(proxies: usize) -> Self {
        Self {
            proxies: vec![Proxy::default(); proxies],
        }
    }

    /// A new process counts its probes from the beginning.
    pub(super) fn new_process(&mut self) {
        for proxy in &mut self.proxies {
            proxy.raw_epoch = 0;
        }
    }

    /// Takes a report in. What isn't probed keeps its last word, unless there is no time left to
    /// wait (`settle`): then what is usable counts.
    pub(super) fn report(&mut self, reports: &[ProxyServing], settle: bool) {
        for (proxy, report) in self.proxies.iter_mut().zip(reports) {
            if report.probed || settle {
                proxy.usable = Some(report.usable > 0);
            }
            let probes = report.probe_epoch.saturating_sub(proxy.raw_epoch);
            // Whatever a proxy says: one that is probed never counts as one that isn't.
            proxy.epoch = proxy
                .epoch
                .saturating_add(probes)
                .min(NodeHealth::NO_PROBE - 1);
            proxy.raw_epoch = report.probe_epoch;
        }
    }

    fn proxy_ok(&self, index: usize, standing: Standing) -> Option<bool> {
        match standing {
            Standing::Lost => Some(false),
            Standing::Unknown | Standing::Fine => self.proxies.get(index)?.usable,
        }
    }

    fn ok(
        &self,
        target: TrackTarget,
        standing: Standing,
        scripts: &[Option<bool>],
    ) -> Option<bool> {
        match target {
            TrackTarget::Proxy(index) => self.proxy_ok(index, standing),
            TrackTarget::Script(index) => scripts.get(index).copied().flatten(),
        }
    }

    /// What this node may claim for `vip`.
    pub(super) fn node_health(
        &self,
        vip: &Vip,
        standing: Standing,
        scripts: &[Option<bool>],
    ) -> NodeHealth {
        let entries = vip.track.iter().map(|track| Entry {
            ok: self.ok(track.target, standing, scripts),
            weight: track.weight,
        });
        let verdict = verdict::reduce(entries);
        let probed = vip.track.iter().filter_map(|track| match track.target {
            TrackTarget::Proxy(index) if track.weight.is_none() => self.proxies.get(index),
            TrackTarget::Proxy(_) | TrackTarget::Script(_) => None,
        });
        // With several proxies the one probed least decides: all of them have to be fit.
        let epoch = probed.map(|proxy| proxy.epoch).min();
        NodeHealth {
            can_serve: verdict.can_serve,
            known: verdict.known,
            weight: verdict.weight,
            probe_epoch: epoch.unwrap_or(NodeHealth::NO_PROBE),
        }
    }

    /// Whether this node can serve by a list without weights; `None`: that isn't known yet.
    pub(super) fn can_serve(
        &self,
        list: &[Track],
        standing: Standing,
        scripts: &[Option<bool>],
    ) -> Option<bool> {
        let entries = list.iter().map(|track| Entry {
            ok: self.ok(track.target, standing, scripts),
            weight: None,
        });
        let verdict = verdict::reduce(entries);
        verdict.known.then_some(verdict.can_serve)
    }

    /// The same for people. `names` are the proxies' and the scripts' names.
    pub(super) fn tracks(
        &self,
        list: &[Track],
        standing: Standing,
        scripts: &[Option<bool>],
        names: &Names<'_>,
    ) -> Vec<TrackStatus> {
        let status = |track: &Track| {
            let (kind, list, index) = match track.target {
                TrackTarget::Proxy(index) => ("proxy", names.proxies, index),
                TrackTarget::Script(index) => ("script", names.scripts, index),
            };
            let name = list.get(index).map_or("?", String::as_str);
            TrackStatus {
                name: format!("{kind}:{name}"),
                ok: self.ok(track.target, standing, scripts),
                weight: track.weight.map(crate::units::TrackWeight::get),
            }
        };
        list.iter().map(status).collect()
    }
}

/// What tracks are called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) proxies: &'a [String],
    pub(super) scripts: &'a [String],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(track: &str) -> Vip {
        let text = format!(
            "[vip.a]\naddress = \"172.16.0.10/24\"\n\
             nodes = [\"172.16.0.2\", \"172.16.0.3\"]\n{track}\n\
             [proxy.p]\nlisten = \"127.0.0.1:6443\"\nbackends = [\"172.16.0.4:6443\"]\n\
             [track.script.s]\ncommand = [\"/bin/true\"]\n"
        );
        crate::config::load(&text).unwrap().vips.remove(0)
    }

    fn report(probed: bool, usable: u16, probe_epoch: u64) -> [ProxyServing; 1] {
        [ProxyServing {
            probed,
            usable,
            probe_epoch,
        }]
    }

    fn health(board: &Board, vip: &Vip, standing: Standing) -> (bool, bool, u64) {
        let health = board.node_health(vip, standing, &[Some(true)]);
        (health.known, health.can_serve, health.probe_epoch)
    }

    #[test]
    fn nothing_is_known_before_the_servers_are_probed() {
        let vip = vip("");
        let mut board = Board::new(1);
        assert_eq!(health(&board, &vip, Standing::Unknown), (false, false, 0));
        board.report(&report(false, 1, 0), false);
        assert_eq!(health(&board, &vip, Standing::Unknown), (false, false, 0));
        board.report(&report(true, 1, 1), false);
        assert_eq!(health(&board, &vip, Standing::Fine), (true, true, 1));
        board.report(&report(true, 0, 1), false);
        assert_eq!(health(&board, &vip, Standing::Fine), (true, false, 1));
    }

    #[test]
    fn a_lost_proxy_cannot_serve_whatever_it_said_last() {
        let vip = vip("");
        let mut board = Board::new(1);
        board.report(&report(true, 1, 1), false);
        assert_eq!(health(&board, &vip, Standing::Lost), (true, false, 1));
    }

    #[test]
    fn a_fresh_process_that_has_not_probed_yet_leaves_the_last_word_standing() {
        let vip = vip("");
        let mut board = Board::new(1);
        board.report(&report(true, 1, 9), false);
        board.new_process();
        board.report(&report(false, 0, 0), false);
        assert_eq!(health(&board, &vip, Standing::Fine), (true, true, 9));
        board.report(&report(true, 1, 2), false);
        assert_eq!(health(&board, &vip, Standing::Fine), (true, true, 11));
        board.report(&report(false, 0, 2), true);
        assert_eq!(health(&board, &vip, Standing::Fine), (true, false, 11));
    }

    #[test]
    fn a_count_of_probes_beyond_all_bounds_stays_a_count() {
        let vip = vip("");
        let mut board = Board::new(1);
        board.report(&report(true, 1, 9), false);
        board.new_process();
        board.report(&report(true, 1, u64::MAX), false);
        let most = NodeHealth::NO_PROBE - 1;
        assert_eq!(health(&board, &vip, Standing::Fine), (true, true, most));
    }

    #[test]
    fn a_router_that_tracks_no_proxy_waits_for_no_probe() {
        let vip = vip("track = [\"script:s\"]");
        let board = Board::new(1);
        let expected = (true, true, NodeHealth::NO_PROBE);
        assert_eq!(health(&board, &vip, Standing::Lost), expected);
    }

    #[test]
    fn a_weighted_script_moves_the_priority_and_not_the_verdict() {
        let vip = vip("track = [\"proxy:p\", \"script:s:-20\"]");
        let mut board = Board::new(1);
        board.report(&report(true, 1, 1), false);
        let health = board.node_health(&vip, Standing::Fine, &[Some(false)]);
        assert_eq!((health.can_serve, health.weight), (true, -20));
        let names = Names {
            proxies: &["p".into()],
            scripts: &["s".into()],
        };
        let tracks = board.tracks(&vip.track, Standing::Fine, &[Some(false)], &names);
        assert_eq!(tracks[1].name, "script:s");
        assert_eq!((tracks[1].ok, tracks[1].weight), (Some(false), Some(-20)));
    }
}
