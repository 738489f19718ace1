//! How fast things go: rates, averages and times since, made of counters that only grow by looking
//! at them once a second. For metrics by the names of other exporters, whose dashboards expect
//! readings in place of counters. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::proxy::farm::{FarmStats, ServerStats};

/// Averages are over this many of the latest connections, as HAProxy's are.
const AVERAGED: u64 = 1024;

/// Readings of a proxy or a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Connections in the last second.
    pub rate: u64,
    /// The most connections in a second.
    pub rate_max: u64,
    /// Time since the last one, milliseconds; `None`: there was none.
    pub last_ms: Option<u64>,
    /// Average wait for a server, microseconds.
    pub wait: u64,
    /// Average time to connect, microseconds.
    pub connect: u64,
    /// Average time to the first byte of an answer, microseconds.
    pub answer: u64,
    /// Average life of a connection, microseconds.
    pub life: u64,
    /// How often the last usable server was lost.
    pub downs: u64,
    /// Time without a usable server, milliseconds.
    pub down_ms: u64,
    /// Time since the first usable server came or the last one went, milliseconds.
    pub turned_ms: u64,
}

/// How often, and for how many microseconds in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum(u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    connections: u64,
    waits: Sum,
    connects: Sum,
    answers: Sum,
    lives: Sum,
}

impl Sums {
    fn of_server(stats: &ServerStats) -> Self {
        let totals = &stats.totals;
        Self {
            connections: totals.connected,
            waits: Sum::default(),
            connects: Sum(totals.connected, totals.connect_micros),
            answers: Sum(totals.answered, totals.answer_micros),
            lives: Sum(totals.ended, totals.total_micros),
        }
    }

    fn of_proxy(stats: &FarmStats) -> Self {
        let servers = stats.servers.iter().map(Self::of_server);
        let all = servers.fold(Self::default(), |sums, server| Self {
            connects: sums.connects.and(server.connects),
            answers: sums.answers.and(server.answers),
            lives: sums.lives.and(server.lives),
            ..sums
        });
        Self {
            connections: stats.totals.accepted,
            waits: Sum(stats.totals.queued, stats.totals.queue_micros),
            ..all
        }
    }
}

impl Sum {
    const fn and(self, other: Self) -> Self {
        Self(
            self.0.saturating_add(other.0),
            self.1.saturating_add(other.1),
        )
    }

    /// The average of the latest ones, from what it was when the sums were `before`.
    fn average(self, before: Self, average: u64) -> u64 {
        let (Some(fresh), Some(micros)) =
            (self.0.checked_sub(before.0), self.1.checked_sub(before.1))
        else {
            return average;
        };
        if fresh == 0 {
            return average;
        }
        let whole = self.0.min(AVERAGED);
        match whole.checked_sub(fresh) {
            None | Some(0) => micros / fresh,
            Some(rest) => (average.saturating_mul(rest).saturating_add(micros)) / whole,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Track {
    sums: Sums,
    pace: Pace,
    last: Option<Instant>,
}

impl Track {
    fn look(&mut self, sums: Sums, elapsed: Duration, now: Instant) {
        let before = self.sums;
        self.sums = sums;
        let Some(fresh) = sums.connections.checked_sub(before.connections) else {
            // Somebody else has the place now.
            *self = Self {
                sums,
                ..Self::default()
            };
            return;
        };
        if fresh > 0 {
            self.last = Some(now);
        }
        let pace = &mut self.pace;
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        pace.rate = fresh.saturating_mul(1_000) / ms.max(1);
        pace.rate_max = pace.rate_max.max(pace.rate);
        pace.wait = sums.waits.average(before.waits, pace.wait);
        pace.connect = sums.connects.average(before.connects, pace.connect);
        pace.answer = sums.answers.average(before.answers, pace.answer);
        pace.life = sums.lives.average(before.lives, pace.life);
    }

    fn read(&self, now: Instant) -> Pace {
        let since = |at: Instant| millis(now.saturating_duration_since(at));
        Pace {
            last_ms: self.last.map(since),
            ..self.pace
        }
    }
}

/// Whether a proxy has a usable server, and since when.
#[derive(Debug, Clone, Copy)]
struct Serving {
    usable: bool,
    since: Instant,
}

#[derive(Debug, Default)]
struct OfProxy {
    all: Track,
    serving: Option<Serving>,
    /// By place and name.
    servers: HashMap<(usize, String), Track>,
}

/// The readings of all proxies and servers.
#[derive(Debug, Default)]
pub struct Paces {
    looked: Option<Instant>,
    proxies: HashMap<String, OfProxy>,
}

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

impl Paces {
    /// Whether it is time to look.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let old = |looked| now.saturating_duration_since(looked) >= EVERY;
        self.looked.is_none_or(old)
    }

    /// Looks at everything; what is not among `all` is forgotten.
    pub fn look(&mut self, all: &[FarmStats], now: Instant) {
        let looked = self.looked.replace(now);
        let elapsed = looked.map_or(EVERY, |looked| now.saturating_duration_since(looked));
        self.proxies
            .retain(|name, _| all.iter().any(|stats| stats.name == *name));
        for stats in all {
            let proxy = self.proxies.entry(stats.name.clone()).or_default();
            proxy.look(stats, elapsed, now);
        }
    }

    /// A proxy's readings.
    #[must_use]
    pub fn of_proxy(&self, proxy: &str, now: Instant) -> Pace {
        let Some(found) = self.proxies.get(proxy) else {
            return Pace::default();
        };
        let mut pace = found.all.read(now);
        if let Some(serving) = found.serving {
            pace.turned_ms = millis(now.saturating_duration_since(serving.since));
            if !serving.usable {
                pace.down_ms = pace.down_ms.saturating_add(pace.turned_ms);
            }
        }
        pace
    }

    /// A server's readings.
    #[must_use]
    pub fn of_server(&self, proxy: &str, place: usize, server: &str, now: Instant) -> Pace {
        let proxy = self.proxies.get(proxy);
        let track = proxy.and_then(|proxy| proxy.servers.get(&(place, server.to_owned())));
        track.map_or_else(Pace::default, |track| track.read(now))
    }
}

impl OfProxy {
    fn look(&mut self, stats: &FarmStats, elapsed: Duration, now: Instant) {
        self.all.look(Sums::of_proxy(stats), elapsed, now);
        let usable = stats.usable > 0;
        let pace = &mut self.all.pace;
        match self.serving {
            Some(before) if before.usable == usable => {}
            before => {
                if let Some(down) = before.filter(|before| !before.usable) {
                    let down_ms = millis(now.saturating_duration_since(down.since));
                    pace.down_ms = pace.down_ms.saturating_add(down_ms);
                }
                pace.downs += u64::from(before.is_some_and(|before| before.usable));
                self.serving = Some(Serving { usable, since: now });
            }
        }
        let present = |(place, name): &(usize, String)| {
            let mut all = stats.servers.iter();
            all.any(|server| server.place == *place && server.name == *name)
        };
        self.servers.retain(|key, _| present(key));
        for server in &stats.servers {
            let key = (server.place, server.name.clone());
            let track = self.servers.entry(key).or_default();
            track.look(Sums::of_server(server), elapsed, now);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(connections: u64, micros: u64) -> Sums {
        Sums {
            connections,
            connects: Sum(connections, micros),
            ..Sums::default()
        }
    }

    #[test]
    fn a_rate_is_of_the_last_second_and_the_highest_one_stays() {
        let mut now = crate::net::clock::now();
        let mut track = Track::default();
        for (connections, rate) in [(0, 0), (300, 300), (310, 10), (310, 0)] {
            now += EVERY;
            track.look(sums(connections, 0), EVERY, now);
            assert_eq!(track.read(now).rate, rate);
        }
        let pace = track.read(now + Duration::from_millis(500));
        assert_eq!((pace.rate_max, pace.last_ms), (300, Some(1_500)));
        track.look(sums(410, 0), EVERY * 2, now);
        assert_eq!(track.read(now).rate, 50, "a late look is no higher rate");
    }

    #[test]
    fn an_average_is_exact_at_first_and_forgets_old_connections_later() {
        let average = |steps: &[(u64, u64)]| {
            let (mut before, mut value) = (Sum::default(), 0);
            for (count, micros) in steps {
                let next = Sum(before.0 + count, before.1 + micros);
                value = next.average(before, value);
                before = next;
            }
            value
        };
        assert_eq!(average(&[(1, 100), (1, 200)]), 150);
        assert_eq!(average(&[(1, 100), (0, 0)]), 100);
        assert_eq!(average(&[(1_000, 0), (5_000, 5_000_000)]), 1_000);
        // 512 of the last 1024 took 1 ms.
        assert_eq!(average(&[(4_000, 0), (512, 512_000)]), 500);
    }

    /// A proxy with these servers, and whether one of them is usable.
    fn stats(servers: &[&str], usable: bool, now: Instant) -> FarmStats {
        let servers: Vec<String> = (4..)
            .zip(servers)
            .map(|(last, name)| format!("{name} = \"10.0.0.{last}:6443\""))
            .collect();
        let text = format!(
            "[proxy.api]\nlisten = \"127.0.0.1:6443\"\n[proxy.api.backends]\n{}\n",
            servers.join("\n")
        );
        let config = crate::config::load(&text).unwrap();
        let farm = crate::proxy::farm::Farm::new(&config.proxies[0]);
        FarmStats {
            usable: usize::from(usable),
            ..farm.stats(now)
        }
    }

    #[test]
    fn the_time_without_a_usable_server_grows_while_it_lasts_and_stays() {
        let start = crate::net::clock::now();
        let mut paces = Paces::default();
        let mut told = Vec::new();
        for (second, usable) in (0..).zip([false, true, true, false, false, true]) {
            let now = start + EVERY * second;
            paces.look(&[stats(&["a"], usable, now)], now);
            let pace = paces.of_proxy("api", now);
            told.push((pace.downs, pace.down_ms, pace.turned_ms));
        }
        let expected = [
            (0, 0, 0),
            (0, 1_000, 0),
            (0, 1_000, 1_000),
            (1, 1_000, 0),
            (1, 2_000, 1_000),
            (1, 3_000, 0),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let now = crate::net::clock::now();
        let mut paces = Paces::default();
        paces.look(&[stats(&["a", "b"], true, now)], now);
        assert_eq!(paces.proxies["api"].servers.len(), 2);
        paces.look(&[stats(&["a"], true, now)], now);
        assert_eq!(paces.proxies["api"].servers.len(), 1);
        paces.look(&[], now);
        assert!(paces.proxies.is_empty());
    }

    #[test]
    fn counters_that_went_back_belong_to_somebody_else() {
        let now = crate::net::clock::now();
        let mut track = Track::default();
        track.look(sums(1_000, 9_000), EVERY, now);
        track.look(sums(3, 30), EVERY, now + EVERY);
        assert_eq!(track.read(now), Pace::default());
        track.look(sums(4, 40), EVERY, now + EVERY);
        assert_eq!(track.read(now).rate, 1);
    }
}
