//! Servers come and go: what changes in a farm when one is added, removed, or given other qualities.
//! Called by the control thread alone; the data path reads places, and their addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Farm, LeavingStats};
use crate::metrics::spans::Counts;
use crate::proxy::counters::{ProxyTotals, ServerTotals};
use crate::proxy::dispatch::Dispatch;
use crate::proxy::dispatch::slots::Slots;
use crate::proxy::roster::{AddError, Member, Origin, Roster, Seated, ServerSpec, Table};
use crate::proxy::server::{AdminState, Server};
use crate::units::Weight;

/// The table, and what its places' counters were when their present users came.
#[derive(Debug)]
pub(super) struct Seats {
    pub(super) table: Table,
    pub(super) before: Vec<ServerTotals>,
    pub(super) connects_before: Vec<Counts>,
}

/// What [`Farm::reconcile`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Names of new members.
    pub added: Vec<String>,
    /// Names of those that are leaving.
    pub removed: Vec<String>,
    /// Names of those with other qualities than before.
    pub changed: Vec<String>,
    /// Those that found no place.
    pub refused: Vec<(String, AddError)>,
    /// Names of those that are no longer wanted and stay, since without them no server would be
    /// usable: to be asked for again.
    pub held: Vec<String>,
}

impl Reconciled {
    /// Whether the members are those that were wanted.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.refused.is_empty() && self.held.is_empty()
    }
}

impl Farm {
    /// All servers at this moment.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// The server at this place; one that is leaving too.
    #[must_use]
    pub fn member(&self, place: usize) -> Option<Arc<Member>> {
        self.roster.load().member(place).cloned()
    }

    /// Where the server at this place is reached. To be asked by those who hold a slot there: a
    /// place gets another address only when nobody does.
    #[must_use]
    pub(in crate::proxy) fn address(&self, place: usize) -> Option<SocketAddr> {
        self.addresses.get(place).map(Address::get)
    }

    /// Makes a server a member. It gets connections once it was found ready.
    ///
    /// # Errors
    /// [`AddError`]; nothing has changed then.
    pub fn add(&self, spec: &ServerSpec, origin: Origin) -> Result<usize, AddError> {
        let mut seats = self.seats();
        let seated = seats.table.add(spec.clone(), origin)?;
        let place = seated.place();
        match seated {
            Seated::Fresh(_) => self.prepare(&mut seats, place, spec.address),
            Seated::Again(_) => {}
        }
        self.publish(&seats);
        self.change(|dispatch| dispatch.add(place, spec));
        Ok(place)
    }

    /// Makes a server a member in place of the one at `before`, with what is known of it. No moment
    /// is without both.
    pub(super) fn succeed(
        &self,
        before: Option<usize>,
        spec: &ServerSpec,
        origin: Origin,
        known: impl FnOnce(&mut Dispatch, usize),
    ) -> Result<usize, AddError> {
        let mut seats = self.seats();
        let seated = seats.table.succeed(before, spec.clone(), origin)?;
        let place = seated.place();
        match seated {
            Seated::Fresh(_) => self.prepare(&mut seats, place, spec.address),
            Seated::Again(_) => {}
        }
        self.publish(&seats);
        self.judge(|dispatch| {
            dispatch.add(place, spec);
            known(dispatch, place);
            if let Some(before) = before {
                dispatch.remove(before);
            }
        });
        drop(seats);
        if let Some(before) = before {
            self.doubts.clear(before);
            self.tell_server_down(before);
        }
        Ok(place)
    }

    /// Removes a server: no new connections; those it has go on, and those in flight go elsewhere.
    /// Its place is free again once its last connection has ended. `false`: there is none here.
    pub fn remove(&self, place: usize) -> bool {
        let mut seats = self.seats();
        if !seats.table.remove(place) {
            return false;
        }
        self.publish(&seats);
        self.change(|dispatch| dispatch.remove(place));
        drop(seats);
        self.doubts.clear(place);
        self.tell_server_down(place);
        true
    }

    /// Gives a server an operator's weight, which stands before its own; `None`: its own again.
    pub fn set_weight(&self, place: usize, weight: Option<Weight>) -> bool {
        self.alter(place, |table| table.pin(place, weight))
    }

    /// What the administrator says of the server at this place.
    #[must_use]
    pub fn admin(&self, place: usize) -> Option<AdminState> {
        Some(self.dispatch().server(place)?.admin())
    }

    /// Nobody probes this server any more: what is known of it says nothing.
    pub fn forget(&self, place: usize, now: Instant) {
        self.change(|dispatch| dispatch.forget(place, now));
    }

    /// Makes the members of one origin those in `wanted`, told apart by their names: adds, removes,
    /// and changes what a member can change without losing its place. One at another address is
    /// another server. A server that is a member for somebody else's sake stays as it is. What is
    /// not wanted any more stays while nobody else is usable.
    pub fn reconcile(&self, origin: Origin, wanted: &[ServerSpec]) -> Reconciled {
        let mut done = Reconciled::default();
        let roster = self.roster();
        let wants = |member: &Member| wanted.iter().find(|spec| member.is_at(spec));
        let stays = |member: &Member| member.origin != origin || wants(member).is_some();
        // Those that are new have not been probed: the former serve until one of them is ready.
        let bare = {
            let dispatch = self.dispatch();
            let usable = |place| dispatch.server(place).is_some_and(Server::usable);
            !roster.present().any(|(at, m)| usable(at) && stays(m))
        };
        for (place, member) in roster.present().filter(|(_, m)| m.origin == origin) {
            match wants(member) {
                None => {
                    // At another address under its name: there is no room for both.
                    let moved = wanted.iter().any(|spec| spec.name == member.name);
                    if bare && !moved && self.is_usable(place) {
                        done.held.push(member.name.clone());
                    } else if self.remove(place) {
                        done.removed.push(member.name.clone());
                    }
                }
                Some(spec) if member.is_as(spec) => {}
                Some(spec) => {
                    if self.update(place, |present| present.clone_from(spec)) {
                        done.changed.push(spec.name.clone());
                    }
                }
            }
        }
        let mut full = None;
        for spec in wanted {
            if let Some(places) = full {
                // There may be thousands, and nothing has become free since.
                let name = spec.name.clone();
                done.refused.push((name, AddError::Full { places }));
                continue;
            }
            let roster = self.roster();
            let there = |member: &Member| {
                member.address == spec.address
                    && (member.name == spec.name || member.origin != origin)
            };
            if roster.present().any(|(_, member)| there(member)) {
                continue;
            }
            match self.add(spec, origin) {
                Ok(_place) => done.added.push(spec.name.clone()),
                Err(error) => {
                    if let AddError::Full { places } = error {
                        full = Some(places);
                    }
                    done.refused.push((spec.name.clone(), error));
                }
            }
        }
        done
    }

    /// A member that is as the file names it, and is one for somebody else's sake, becomes the
    /// file's.
    pub(super) fn adopt(&self, spec: &ServerSpec) {
        let roster = self.roster();
        let mut present = roster.present();
        let found = present.find(|(_, m)| m.origin != Origin::File && m.is_at(spec));
        if let Some((place, _)) = found {
            self.alter(place, |table| table.adopt(place));
        }
    }

    fn is_usable(&self, place: usize) -> bool {
        self.dispatch().server(place).is_some_and(Server::usable)
    }

    /// Frees the places of those that have left.
    pub(super) fn sweep(&self, now: Instant) {
        let mut seats = self.seats();
        let has_none = |place| self.board.slots(place).is_none_or(|s| s.used() == 0);
        if seats.table.sweep(now, has_none) {
            self.publish(&seats);
        }
    }

    pub(super) fn leaving(&self, roster: &Roster) -> Vec<LeavingStats> {
        let leaving = roster.all().filter(|(_, member)| member.leaving);
        let stats = leaving.map(|(place, member)| LeavingStats {
            name: member.name.clone(),
            address: member.address,
            connections: self.board.slots(place).map_or(0, Slots::used),
        });
        stats.filter(|stats| stats.connections > 0).collect()
    }

    /// What was counted for each place since its present user came.
    pub(super) fn totals(&self) -> (ProxyTotals, Vec<ServerTotals>) {
        let seats = self.seats();
        let (proxy, mut servers) = self.sums(seats.before.len());
        for (totals, before) in servers.iter_mut().zip(&seats.before) {
            *totals = totals.since(before);
        }
        (proxy, servers)
    }

    /// By how long they took: waits for a server, and each place's connects since its present user
    /// came.
    pub(super) fn spans(&self) -> (Counts, Vec<Counts>) {
        let seats = self.seats();
        let (waits, mut connects) = self.span_sums(seats.connects_before.len());
        for (counts, before) in connects.iter_mut().zip(&seats.connects_before) {
            for (count, before) in counts.iter_mut().zip(before) {
                *count = count.wrapping_sub(*before);
            }
        }
        (waits, connects)
    }

    fn update(&self, place: usize, change: impl FnOnce(&mut ServerSpec)) -> bool {
        self.alter(place, |table| table.update(place, change))
    }

    fn alter(&self, place: usize, change: impl FnOnce(&mut Table) -> bool) -> bool {
        let mut seats = self.seats();
        if !change(&mut seats.table) {
            return false;
        }
        self.publish(&seats);
        if let Some(member) = seats.table.roster().member(place) {
            self.change(|dispatch| dispatch.update(place, member.spec()));
        }
        true
    }

    /// A place's counters start at 0 for its new user.
    fn prepare(&self, seats: &mut Seats, place: usize, address: SocketAddr) {
        if seats.before.len() <= place {
            seats.before.resize(place + 1, ServerTotals::default());
            seats.connects_before.resize(place + 1, Counts::default());
        }
        let (_, sums) = self.sums(seats.before.len());
        if let (Some(before), Some(sum)) = (seats.before.get_mut(place), sums.get(place)) {
            *before = *sum;
        }
        let (_, spans) = self.span_sums(seats.connects_before.len());
        if let (Some(before), Some(sum)) = (seats.connects_before.get_mut(place), spans.get(place))
        {
            *before = *sum;
        }
        if let Some(present) = self.addresses.get(place) {
            present.set(address);
        }
        self.doubts.forget(place);
        self.suspects.forget(place);
        self.board.slots(place).map(Slots::forget);
    }

    fn sums(&self, servers: usize) -> (ProxyTotals, Vec<ServerTotals>) {
        let mut proxy = ProxyTotals::default();
        let mut totals = vec![ServerTotals::default(); servers];
        if let Some(attached) = self.attached.get() {
            for counters in &attached.counters {
                counters.sum_into(&mut proxy, &mut totals);
            }
        }
        (proxy, totals)
    }

    fn span_sums(&self, servers: usize) -> (Counts, Vec<Counts>) {
        let mut waits = Counts::default();
        let mut connects = vec![Counts::default(); servers];
        if let Some(attached) = self.attached.get() {
            for counters in &attached.counters {
                counters.sum_spans(&mut waits, &mut connects);
            }
        }
        (waits, connects)
    }

    fn publish(&self, seats: &Seats) {
        self.roster.store(Arc::new(seats.table.roster().clone()));
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket address that is replaced as a whole while nobody reads it, and read without a lock:
/// whoever takes a slot sees what was written before the slot could be had.
#[derive(Debug, Default)]
pub(super) struct Address {
    high: AtomicU64,
    low: AtomicU64,
    /// Port, family, scope.
    rest: AtomicU64,
}

const V6: u64 = 1 << 16;
const SCOPE_SHIFT: u32 = 32;

impl Address {
    pub(super) fn new(address: SocketAddr) -> Self {
        let cell = Self::default();
        cell.set(address);
        cell
    }

    fn set(&self, address: SocketAddr) {
        let (bits, family) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped().to_bits(), 0),
            SocketAddr::V6(v6) => (
                v6.ip().to_bits(),
                V6 | u64::from(v6.scope_id()) << SCOPE_SHIFT,
            ),
        };
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        self.high.store(half(bits >> 64), Ordering::Relaxed);
        self.low.store(half(bits), Ordering::Relaxed);
        let rest = u64::from(address.port()) | family;
        self.rest.store(rest, Ordering::Relaxed);
    }

    fn get(&self) -> SocketAddr {
        let rest = self.rest.load(Ordering::Relaxed);
        let (high, low) = (&self.high, &self.low);
        let high = u128::from(high.load(Ordering::Relaxed)) << 64;
        let ip = Ipv6Addr::from_bits(high | u128::from(low.load(Ordering::Relaxed)));
        let port = u16::try_from(rest & 0xffff).unwrap_or(0);
        if rest & V6 == 0 {
            return SocketAddr::new(IpAddr::V6(ip).to_canonical(), port);
        }
        let scope = u32::try_from(rest >> SCOPE_SHIFT).unwrap_or(0);
        SocketAddrV6::new(ip, port, 0, scope).into()
    }
}

#[cfg(test)]
mod tests;
