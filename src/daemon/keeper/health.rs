//! What proxy, scripts, files and interfaces say, as each virtual router needs it. Pure.

use crate::config::model::{Config, Track, TrackTarget, Vip};
use crate::daemon::judge::Seen;
use crate::daemon::supervise::Standing;
use crate::ipc::message::{ProxyServing, TrackStatus};
use crate::track::verdict::{self, Entry, Found};
use crate::vrrp::fsm::NodeHealth;

/// The last word of each proxy of the file.
#[derive(Debug)]
pub(super) struct Board {
    proxies: Vec<Proxy>,
}

#[derive(Debug, Clone, Default)]
struct Proxy {
    /// How many usable servers it has; `None`: not probed yet.
    usable: Option<u16>,
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

    /// What is known of the proxies at their positions in another file.
    pub(super) fn carry(&mut self, old: &Config, new: &Config) {
        let mut before = std::mem::take(&mut self.proxies);
        let known = |proxy: &crate::config::model::Proxy| {
            let was = old.proxies.iter().position(|one| one.name == proxy.name);
            let known = was.and_then(|was| before.get_mut(was));
            known.map(std::mem::take).unwrap_or_default()
        };
        self.proxies = new.proxies.iter().map(known).collect();
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
                proxy.usable = Some(report.usable);
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
            Standing::Unknown | Standing::Fine => {
                self.proxies.get(index)?.usable.map(|usable| usable > 0)
            }
        }
    }

    /// One track with its present result.
    pub(super) fn entry(&self, track: &Track, standing: Standing, results: &Results<'_>) -> Entry {
        let of = |list: &[Option<bool>], index| {
            let ok: Option<bool> = list.get(index).copied().flatten();
            ok.map(Found::Ok)
        };
        let found = match track.target {
            TrackTarget::Proxy(index) => self.proxy_ok(index, standing).map(Found::Ok),
            TrackTarget::Script(index) => of(results.scripts, index),
            TrackTarget::Interface(index) => of(results.interfaces, index),
            TrackTarget::File(index) => results.files.get(index).copied().flatten(),
        };
        Entry {
            found,
            weight: track.weight,
        }
    }

    /// What the judge of a virtual router needs to know of one track.
    pub(super) fn seen(&self, track: &Track, results: &Results<'_>) -> Seen {
        match track.target {
            TrackTarget::Proxy(index) => {
                let proxy = self.proxies.get(index);
                Seen::Proxy {
                    usable: proxy.and_then(|proxy| proxy.usable),
                    epoch: proxy.map_or(0, |proxy| proxy.epoch),
                }
            }
            TrackTarget::Script(_) | TrackTarget::Interface(_) | TrackTarget::File(_) => {
                Seen::Result(self.entry(track, Standing::Fine, results).found)
            }
        }
    }

    /// Whether this node can serve by a list without weights; `None`: that isn't known yet.
    pub(super) fn can_serve(
        &self,
        list: &[Track],
        standing: Standing,
        results: &Results<'_>,
    ) -> Option<bool> {
        let entries = list.iter().map(|track| Entry {
            weight: None,
            ..self.entry(track, standing, results)
        });
        let verdict = verdict::reduce(entries);
        verdict.known.then_some(verdict.can_serve)
    }

    /// The same for people.
    pub(super) fn tracks(
        &self,
        list: &[Track],
        standing: Standing,
        results: &Results<'_>,
        names: Names<'_>,
    ) -> Vec<TrackStatus> {
        let status = |track: &Track| TrackStatus {
            name: names.of_track(track.target),
            ok: self.entry(track, standing, results).ok(),
            weight: track.weight.map(crate::units::TrackWeight::get),
        };
        list.iter().map(status).collect()
    }
}

/// The proxies that `vip` tracks, by position.
pub(super) fn tracked_proxies(vip: &Vip) -> impl Iterator<Item = usize> + '_ {
    vip.track.iter().filter_map(|track| match track.target {
        TrackTarget::Proxy(index) => Some(index),
        TrackTarget::Script(_) | TrackTarget::Interface(_) | TrackTarget::File(_) => None,
    })
}

/// The present results of everything but proxies, by position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Results<'a> {
    pub(super) scripts: &'a [Option<bool>],
    pub(super) files: &'a [Option<Found>],
    pub(super) interfaces: &'a [Option<bool>],
}

/// What tracks are called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a>(&'a Config);

impl<'a> Names<'a> {
    pub(super) fn of(config: &'a Config) -> Self {
        Self(config)
    }

    /// As in the file: `script:check`.
    pub(super) fn of_track(self, target: TrackTarget) -> String {
        let Self(config) = self;
        let (kind, name) = match target {
            TrackTarget::Proxy(at) => ("proxy", config.proxies.get(at).map(|it| &it.name)),
            TrackTarget::Script(at) => ("script", config.scripts.get(at).map(|it| &it.name)),
            TrackTarget::File(at) => ("file", config.track_files.get(at).map(|it| &it.name)),
            TrackTarget::Interface(at) => ("interface", config.track_interfaces.get(at)),
        };
        format!("{kind}:{}", name.map_or("?", String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::judge::{Judge, Look};

    /// What a judge makes of it.
    fn node_health(board: &Board, vip: &Vip, proxy: Standing, results: &Results<'_>) -> NodeHealth {
        let mut judge = Judge::new(vip, |at| at.to_string(), std::time::Duration::ZERO);
        let seen = |track| board.seen(track, results);
        let tracks: Vec<Seen> = vip.track.iter().map(seen).collect();
        let look = Look {
            proxy,
            holds: false,
            tracks: &tracks,
        };
        judge.look(crate::net::clock::now(), &look)
    }

    fn config(track: &str) -> Config {
        let text = format!(
            "[vip.a]\naddress = \"172.16.0.10/24\"\n\
             nodes = [\"172.16.0.2\", \"172.16.0.3\"]\n{track}\n\
             [proxy.p]\nlisten = \"127.0.0.1:6443\"\nbackends = [\"172.16.0.4:6443\"]\n\
             [track.script.s]\ncommand = [\"/bin/true\"]\n\
             [track.file.f]\npath = \"/nowhere/drain\"\n"
        );
        crate::config::load(&text).unwrap()
    }

    fn vip(track: &str) -> Vip {
        config(track).vips.remove(0)
    }

    /// Every result but those of proxies.
    fn results(
        script: Option<bool>,
        file: Option<Found>,
    ) -> ([Option<bool>; 1], [Option<Found>; 1]) {
        ([script], [file])
    }

    fn report(probed: bool, usable: u16, probe_epoch: u64) -> [ProxyServing; 1] {
        [ProxyServing {
            probed,
            usable,
            probe_epoch,
        }]
    }

    fn health(board: &Board, vip: &Vip, standing: Standing) -> (bool, bool, u64) {
        let (scripts, files) = results(Some(true), Some(Found::Number(0)));
        let results = Results {
            scripts: &scripts,
            files: &files,
            interfaces: &[Some(true)],
        };
        let health = node_health(board, vip, standing, &results);
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
        let config = config("track = [\"proxy:p\", \"script:s:-20\"]");
        let vip = &config.vips[0];
        let mut board = Board::new(1);
        board.report(&report(true, 1, 1), false);
        let (scripts, files) = results(Some(false), None);
        let results = Results {
            scripts: &scripts,
            files: &files,
            interfaces: &[],
        };
        let health = node_health(&board, vip, Standing::Fine, &results);
        assert_eq!((health.can_serve, health.weight), (true, -20));
        let tracks = board.tracks(&vip.track, Standing::Fine, &results, Names::of(&config));
        assert_eq!(tracks[1].name, "script:s");
        assert_eq!((tracks[1].ok, tracks[1].weight), (Some(false), Some(-20)));
    }

    #[test]
    fn a_file_drains_and_an_interface_counts() {
        let config = config("track = [\"proxy:p\", \"file:f\", \"interface:eth7:-30\"]");
        let vip = &config.vips[0];
        let mut board = Board::new(1);
        board.report(&report(true, 1, 1), false);
        // (file, interface) → (known, can serve, weight)
        let table = [
            (None, Some(true), (false, false, 0)),
            (Some(Found::Number(0)), Some(true), (true, true, 0)),
            (Some(Found::Number(1)), Some(true), (true, false, 0)),
            (Some(Found::Ok(false)), Some(true), (true, false, 0)),
            (Some(Found::Number(0)), Some(false), (true, true, -30)),
        ];
        for (file, interface, expected) in table {
            let results = Results {
                scripts: &[],
                files: &[file],
                interfaces: &[interface],
            };
            let health = node_health(&board, vip, Standing::Fine, &results);
            let seen = (health.known, health.can_serve, health.weight);
            assert_eq!(seen, expected, "{file:?} {interface:?}");
        }
        let names = Names::of(&config);
        assert_eq!(names.of_track(vip.track[1].target), "file:f");
        assert_eq!(names.of_track(vip.track[2].target), "interface:eth7");
    }

    #[test]
    fn servers_are_counted_once_all_tracked_proxies_are_probed() {
        let vip = vip("per-server-weight = 10");
        let mut board = Board::new(1);
        let weight = |board: &Board| {
            let (scripts, files) = results(None, None);
            let results = Results {
                scripts: &scripts,
                files: &files,
                interfaces: &[],
            };
            node_health(board, &vip, Standing::Fine, &results).weight
        };
        assert_eq!(weight(&board), 0);
        board.report(&report(true, 3, 1), false);
        assert_eq!(weight(&board), 30);
        board.report(&report(false, 0, 1), false);
        assert_eq!(weight(&board), 30);
    }

    #[test]
    fn what_is_known_of_a_proxy_follows_it_to_its_place_in_another_file() {
        let proxy = |name: &str| {
            format!(
                "[proxy.{name}]\nlisten = \"127.0.0.1:{}\"\nbackends = [\"127.0.0.1:1\"]\n",
                name.len() + 7_000
            )
        };
        let file = |names: &[&str]| {
            let text: String = names.iter().map(|name| proxy(name)).collect();
            crate::config::load(&text).unwrap()
        };
        let (old, new) = (file(&["a", "bb", "ccc"]), file(&["dddd", "ccc", "a"]));
        let mut board = Board::new(3);
        let report = |usable, probe_epoch| ProxyServing {
            probed: true,
            usable,
            probe_epoch,
        };
        board.report(&[report(1, 7), report(0, 8), report(3, 9)], false);
        board.carry(&old, &new);
        let known: Vec<_> = board
            .proxies
            .iter()
            .map(|one| (one.usable, one.epoch))
            .collect();
        assert_eq!(known, [(None, 0), (Some(3), 9), (Some(1), 7)]);
    }
}
