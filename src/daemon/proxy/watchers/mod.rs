//! The health checks of all servers, one task each: those of the file from the start, those of
//! servers that come and go as the farms' rosters say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::start;
use super::tapes::Lasting;
use crate::config::model::{Config, Proxy};
use crate::health::board::Board;
use crate::health::fsm::Machine;
use crate::health::probe::Probe;
use crate::health::recorded::{Loan, RecordedMachine, Tapes};
use crate::health::task::{Finding, Target, stagger, watch};
use crate::net::clock;
use crate::proxy::farm::Farm;
use crate::proxy::roster::Member;
use crate::proxy::server::AdminState;

/// A check whose files can't be read is tried again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// All checks, by proxy and place.
#[derive(Debug)]
pub(super) struct Watchers {
    findings: mpsc::Sender<Finding>,
    proxies: Vec<Vec<Option<Watcher>>>,
    /// Made before their servers were members.
    prepared: Vec<Prepared>,
    tapes: Tapes,
    /// Where they outlast this process.
    pub(super) lasting: Option<Lasting>,
}

/// A check that is ready to begin when its server is a member.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The farm that the server is to be in.
    pub(super) slot: usize,
    /// The server's name.
    pub(super) server: String,
    /// Where it is checked.
    pub(super) address: SocketAddr,
    pub(super) probe: Probe,
    /// What is known already.
    pub(super) machine: Machine,
}

/// The check of one member.
#[derive(Debug)]
struct Watcher {
    member: u64,
    hurry: Arc<Notify>,
    state: State,
    /// Names of its proxy and server, and what its machine was told.
    name: String,
    machine: RecordedMachine,
}

#[derive(Debug)]
enum State {
    Running(AbortHandle),
    /// A server that is out of service is not probed.
    Off,
    /// It could not be set up.
    Again(Instant),
}

/// One server of one proxy.
#[derive(Debug, Clone, Copy)]
struct Seat<'a> {
    proxy: usize,
    config: &'a Proxy,
    place: usize,
    member: &'a Member,
    in_service: bool,
}

impl Seat<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.config.name, self.member.name)
    }
}

impl Watchers {
    /// The checks of the file's servers begin.
    pub(super) fn begin(
        config: &Config,
        farms: &[Arc<Farm>],
        probes: Vec<Vec<Probe>>,
        machines: Vec<Vec<Machine>>,
        (findings, lasting): (mpsc::Sender<Finding>, Option<Lasting>),
    ) -> Self {
        let mut watchers = Self {
            findings,
            proxies: Vec::with_capacity(farms.len()),
            prepared: Vec::new(),
            tapes: Tapes::within(lasting.as_ref().map(Lasting::black_box)),
            lasting,
        };
        let now = clock::now();
        let proxies = config.proxies.iter().zip(farms).enumerate();
        let prepared = probes.into_iter().zip(machines);
        for ((proxy, (config, farm)), (probes, machines)) in proxies.zip(prepared) {
            let roster = farm.roster();
            let prepared = probes.into_iter().zip(machines).enumerate();
            let of_proxy = prepared.map(|(place, (probe, machine))| {
                let member = roster.member(place).filter(|member| !member.leaving)?;
                let seat = Seat {
                    proxy,
                    config,
                    place,
                    member,
                    in_service: is_in_service(farm, place),
                };
                let loan = watchers.tapes.lend(&seat.name());
                let machine = RecordedMachine::new(machine, loan, now);
                Some(watchers.watcher(seat, Some(probe), machine, now))
            });
            let of_proxy = of_proxy.collect();
            watchers.proxies.push(of_proxy);
        }
        watchers
    }

    /// Has these checks at hand for [`Self::follow`] and [`Self::renew`]; those that were not used
    /// before are dropped.
    pub(super) fn prepare(&mut self, prepared: Vec<Prepared>) {
        self.prepared = prepared;
    }

    /// Checks the servers of one proxy by other rules from here on; their verdicts stay.
    pub(super) fn renew(&mut self, proxy: usize, config: &Proxy, farm: &Farm, now: Instant) {
        let roster = farm.roster();
        let total = roster.present().count();
        for (number, (place, member)) in roster.present().enumerate() {
            let Some(known) = self.watcher_at(proxy, place) else {
                continue;
            };
            if known.member != member.id || matches!(known.state, State::Off) {
                continue;
            }
            let loan = self.end(proxy, place);
            let seat = Seat {
                proxy,
                config,
                place,
                member,
                in_service: true,
            };
            let earlier = stagger(config.check.interval, number, total);
            let mut machine = Machine::new(&config.check, now).staggered(earlier);
            if let Some(health) = farm.health(place) {
                machine.resume(health);
            }
            self.start(seat, (Some(machine), loan), now);
        }
    }

    /// Nobody of this proxy is checked any more.
    pub(super) fn end_all(&mut self, proxy: usize) {
        for place in 0..self.proxies.get(proxy).map_or(0, Vec::len) {
            drop(self.end(proxy, place));
        }
    }

    /// Has the checks of one proxy follow its roster, and `board` know of it.
    pub(super) fn follow(
        &mut self,
        proxy: usize,
        config: &Proxy,
        farm: &Farm,
        board: &mut Board,
        now: Instant,
    ) {
        let roster = farm.roster();
        let known = self.proxies.get(proxy).map_or(0, Vec::len);
        let last = roster.all().last().map_or(0, |(place, _)| place + 1);
        for place in 0..known.max(last) {
            let member = roster.member(place).filter(|member| !member.leaving);
            let in_service = is_in_service(farm, place);
            let known = self.watcher_at(proxy, place);
            let same = known.map(|known| known.member) == member.map(|member| member.id);
            if same && known.is_none_or(|known| known.is_right(in_service, now)) {
                continue;
            }
            if same {
                farm.forget(place, now);
            }
            // What was known of the member that stays goes on being known.
            let loan = self.end(proxy, place).filter(|_| same);
            board.remove(proxy, place);
            let Some(member) = member else {
                continue;
            };
            board.add(proxy, place, &member.name, in_service, now);
            let seat = Seat {
                proxy,
                config,
                place,
                member,
                in_service,
            };
            self.start(seat, (None, loan), now);
        }
    }

    /// Probes this server at once.
    pub(super) fn hurry(&self, proxy: usize, place: usize) {
        if let Some(watcher) = self.watcher_at(proxy, place) {
            watcher.hurry.notify_one();
        }
    }

    /// Probes every server at once.
    pub(super) fn hurry_all(&self) {
        for watcher in self.proxies.iter().flatten().flatten() {
            watcher.hurry.notify_one();
        }
    }

    fn watcher_at(&self, proxy: usize, place: usize) -> Option<&Watcher> {
        self.proxies.get(proxy)?.get(place)?.as_ref()
    }

    /// Gives back the tape of what was watched there.
    fn end(&mut self, proxy: usize, place: usize) -> Option<Loan> {
        let watcher = self.proxies.get_mut(proxy)?.get_mut(place)?.take()?;
        if let State::Running(task) = watcher.state {
            task.abort();
        }
        watcher.machine.end()
    }

    /// What each machine was told of late, by the names of proxy and server.
    pub(super) fn tapes(&self, now: Instant) -> impl Iterator<Item = (&str, Vec<u8>)> {
        let all = self.proxies.iter().flatten().flatten();
        all.filter_map(move |watcher| Some((watcher.name.as_str(), watcher.machine.tape(now)?)))
    }

    /// Servers whose checks are recorded nowhere: there are too many.
    pub(super) fn unrecorded(&self) -> usize {
        let all = self.proxies.iter().flatten().flatten();
        all.filter(|watcher| !watcher.machine.is_recorded()).count()
    }

    /// Begins the check of a server, with what is known of it.
    fn start(
        &mut self,
        seat: Seat<'_>,
        (known, loan): (Option<Machine>, Option<Loan>),
        now: Instant,
    ) {
        let is_it = |prepared: &mut Prepared| {
            prepared.slot == seat.proxy
                && prepared.server == seat.member.name
                && prepared.address == seat.member.check_address
        };
        let prepared = self.prepared.extract_if(.., is_it).next();
        let (probe, machine) = match prepared {
            Some(prepared) => (Ok(prepared.probe), Some(prepared.machine)),
            None => (start::probe(seat.config, seat.member), None),
        };
        let new = || Machine::new(&seat.config.check, now);
        let machine = known.or(machine).unwrap_or_else(new);
        let loan = loan.or_else(|| self.tapes.lend(&seat.name()));
        let machine = RecordedMachine::new(machine, loan, now);
        let probe = probe.inspect_err(|error| {
            let (proxy, server) = (&seat.config.name, &seat.member.name);
            tracing::warn!(proxy, server, %error, "check cannot be set up, will try again");
        });
        let watcher = self.watcher(seat, probe.ok(), machine, now);
        while self.proxies.len() <= seat.proxy {
            self.proxies.push(Vec::new());
        }
        let Some(of_proxy) = self.proxies.get_mut(seat.proxy) else {
            return;
        };
        while of_proxy.len() <= seat.place {
            of_proxy.push(None);
        }
        if let Some(place) = of_proxy.get_mut(seat.place) {
            *place = Some(watcher);
        }
    }

    /// `None`: it can't be probed, and is to be tried again.
    fn watcher(
        &self,
        seat: Seat<'_>,
        probe: Option<Probe>,
        machine: RecordedMachine,
        now: Instant,
    ) -> Watcher {
        let hurry: Arc<Notify> = Arc::default();
        let state = match probe {
            None => State::Again(now + RETRY_AFTER),
            Some(_unused) if !seat.in_service => State::Off,
            Some(probe) => {
                let target = Target {
                    proxy: seat.proxy,
                    server: seat.place,
                    proxy_name: seat.config.name.clone(),
                    server_name: seat.member.name.clone(),
                    probe,
                    machine: machine.clone(),
                    hurry: Arc::clone(&hurry),
                };
                let task = tokio::spawn(watch(target, self.findings.clone()));
                State::Running(task.abort_handle())
            }
        };
        Watcher {
            member: seat.member.id,
            hurry,
            state,
            name: seat.name(),
            machine,
        }
    }
}

impl Watcher {
    /// Whether it does what it should.
    fn is_right(&self, in_service: bool, now: Instant) -> bool {
        match self.state {
            State::Again(at) => now < at && in_service,
            State::Running(_) => in_service,
            State::Off => !in_service,
        }
    }
}

fn is_in_service(farm: &Farm, place: usize) -> bool {
    farm.admin(place) != Some(AdminState::Maint)
}

#[cfg(test)]
mod tests;
