//! What this node may claim for one virtual router: the judge of what its tracks found, its proxies
//! can serve and its proxy process is worth. What comes of it is what the election is told: whether
//! the node can serve, what its priority gains or loses, and how fresh that is. Pure.
//!
//! `recorded` is the judge with its tape.

pub mod recorded;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::model::Vip;
use crate::daemon::supervise::Standing;
use crate::track::servers::Servers;
use crate::track::verdict::{self, Entry, Found};
use crate::units::TrackWeight;
use crate::vrrp::fsm::NodeHealth;

/// What is known of one track of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Of a proxy of the file.
    Proxy {
        /// Servers that may take connections; `None`: not probed yet.
        usable: Option<u16>,
        /// Counts successful probes.
        epoch: u64,
    },
    /// Of anything else: its last result; `None`: there is none yet.
    Result(Option<Found>),
}

/// All that counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Look<'a> {
    /// The proxy process.
    pub proxy: Standing,
    /// Whether this node holds the addresses.
    pub holds: bool,
    /// In the order of the list.
    pub tracks: &'a [Seen],
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tracked {
    /// As in the file: `script:check`.
    name: String,
    weight: Option<TrackWeight>,
}

/// One virtual router's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judge {
    tracks: Vec<Tracked>,
    /// What each usable server adds to the priority.
    per_server_weight: u8,
    /// How long a change of their number must last where it could move the address for nothing.
    #[serde(with = "crate::recorder::time::span")]
    delay: Duration,
    servers: Servers,
    /// What counted at the last look, and what was answered.
    proxy: Standing,
    holds: bool,
    seen: Vec<Seen>,
    answer: Option<NodeHealth>,
}

impl Seen {
    fn found(self, proxy: Standing) -> Option<Found> {
        match (self, proxy) {
            (Self::Proxy { .. }, Standing::Lost) => Some(Found::Ok(false)),
            (Self::Proxy { usable, .. }, Standing::Unknown | Standing::Fine) => {
                usable.map(|usable| Found::Ok(usable > 0))
            }
            (Self::Result(found), _) => found,
        }
    }
}

impl Judge {
    /// Nothing is known yet. `name` says what a track is called; `delay` is the longest check
    /// interval of the tracked proxies.
    #[must_use]
    pub fn new(vip: &Vip, names: impl Fn(usize) -> String, delay: Duration) -> Self {
        let tracks = vip.track.iter().enumerate().map(|(at, track)| Tracked {
            name: names(at),
            weight: track.weight,
        });
        Self {
            seen: Vec::with_capacity(vip.track.len()),
            proxy: Standing::Unknown,
            holds: false,
            tracks: tracks.collect(),
            per_server_weight: vip.per_server_weight,
            delay,
            servers: Servers::default(),
            answer: None,
        }
    }

    /// What the node may claim.
    pub fn look(&mut self, now: Instant, look: &Look<'_>) -> NodeHealth {
        let all = || self.tracks.iter().zip(look.tracks);
        let verdict = verdict::reduce(all().map(|(track, seen)| Entry {
            found: seen.found(look.proxy),
            weight: track.weight,
        }));
        // With several proxies the one probed least decides: all of them have to be fit.
        let probed = all().filter_map(|(track, seen)| match seen {
            Seen::Proxy { epoch, .. } if track.weight.is_none() => Some(*epoch),
            Seen::Proxy { .. } | Seen::Result(_) => None,
        });
        let probe_epoch = probed.min().unwrap_or(NodeHealth::NO_PROBE);
        let servers = self.servers_weight(now, look);
        let health = NodeHealth {
            can_serve: verdict.can_serve,
            known: verdict.known,
            weight: verdict.weight.saturating_add(servers),
            probe_epoch,
        };
        self.answer = Some(health);
        self.proxy = look.proxy;
        self.holds = look.holds;
        self.seen.clear();
        self.seen.extend_from_slice(look.tracks);
        health
    }

    /// What it would answer, where it has looked at the same before and time alone changes nothing.
    #[must_use]
    pub fn same(&self, now: Instant, look: &Look<'_>) -> Option<NodeHealth> {
        let due = self.deadline().is_some_and(|due| now >= due);
        let looked = (self.proxy, self.holds) == (look.proxy, look.holds);
        let same = looked && self.seen == look.tracks && !due;
        self.answer.filter(|_| same)
    }

    /// What the usable servers add to the priority.
    fn servers_weight(&mut self, now: Instant, look: &Look<'_>) -> i32 {
        if self.per_server_weight == 0 {
            return 0;
        }
        let mut usable = 0_u16;
        for seen in look.tracks {
            match seen {
                // Not before all of them are probed.
                Seen::Proxy { usable: None, .. } => return 0,
                Seen::Proxy {
                    usable: Some(more), ..
                } => usable = usable.saturating_add(*more),
                Seen::Result(_) => {}
            }
        }
        let counted = self.servers.count(now, usable, look.holds, self.delay);
        i32::from(counted) * i32::from(self.per_server_weight)
    }

    /// When the answer may change by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.servers.deadline()
    }

    /// What it said last.
    #[must_use]
    pub fn answer(&self) -> Option<NodeHealth> {
        self.answer
    }

    /// What is not well, for people; empty: nothing.
    #[must_use]
    pub fn complaints(&self) -> String {
        let mut all = Vec::new();
        if self.proxy == Standing::Lost {
            all.push("the proxy does not serve".to_owned());
        }
        for (track, seen) in self.tracks.iter().zip(&self.seen) {
            let entry = Entry {
                found: seen.found(self.proxy),
                weight: track.weight,
            };
            match (entry.ok(), track.weight) {
                (Some(true), _) => {}
                (Some(false), None) => all.push(format!("{} failed", track.name)),
                (Some(false), Some(weight)) => {
                    all.push(format!("{} failed ({})", track.name, weight.get()));
                }
                (None, _) => all.push(format!("{} not known", track.name)),
            }
        }
        all.join(", ")
    }
}

#[cfg(test)]
mod tests;
