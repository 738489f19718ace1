//! Which servers a proxy has, each at its *place*: a number that stays the same while the server is
//! a member, and by which dispatcher, counters, health and connections know it. Servers of the file
//! take the first places in file order; others come and go. Pure.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::discovery::FOUND_MAX;
use crate::config::model;
use crate::units::Weight;

/// Places beyond the file's servers, for those that are added at run time.
const SPARE_PLACES: usize = 64;
/// A place whose last connection has ended rests for this long before somebody else may have it:
/// what is still told of that connection (a line of the access log, a finding of the health check)
/// is not told of its successor.
const REST: Duration = Duration::from_secs(1);

/// What a server is to be like.
pub type ServerSpec = model::Server;

/// How many places a proxy has.
#[must_use]
pub const fn places(config: &model::Proxy) -> usize {
    config.servers.len() + SPARE_PLACES + places_for_discovery(config)
}

/// How many of them are for servers that are discovered.
#[must_use]
pub const fn places_for_discovery(config: &model::Proxy) -> usize {
    if config.discovery.is_off() {
        0
    } else {
        FOUND_MAX
    }
}

/// Who made a server a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The file.
    File,
    /// An operator, at run time.
    Operator,
    /// Discovery.
    Discovered,
}

impl Origin {
    /// The word users read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Operator => "operator",
            Self::Discovered => "discovered",
        }
    }
}

/// One server of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    spec: ServerSpec,
    /// The weight it came with.
    own_weight: Weight,
    /// An operator's weight, which stands before its own.
    pub pinned: Option<Weight>,
    /// Who made it a member.
    pub origin: Origin,
    /// Tells it from others of its name and from earlier users of its place; never used twice.
    pub id: u64,
    /// It was removed and keeps its place for the connections it has.
    pub leaving: bool,
}

impl Member {
    /// What it is like at present.
    #[must_use]
    pub const fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// The weight it came with, where an operator's stands before it.
    #[must_use]
    pub fn own_weight(&self) -> Option<Weight> {
        self.pinned.map(|_| self.own_weight)
    }

    /// Whether it is the server that this names: the same name at the same addresses.
    #[must_use]
    pub fn is_at(&self, wanted: &ServerSpec) -> bool {
        self.name == wanted.name
            && self.address == wanted.address
            && self.check_address == wanted.check_address
    }

    /// Whether it is as this wants it, an operator's weight apart.
    #[must_use]
    pub fn is_as(&self, wanted: &ServerSpec) -> bool {
        let mut given = self.spec.clone();
        given.weight = self.own_weight;
        given == *wanted
    }
}

impl Deref for Member {
    type Target = ServerSpec;

    fn deref(&self) -> &ServerSpec {
        &self.spec
    }
}

/// All members at one moment, by place.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    seats: Vec<Option<Arc<Member>>>,
}

impl Roster {
    /// The member at this place, one that is leaving included.
    #[must_use]
    pub fn member(&self, place: usize) -> Option<&Arc<Member>> {
        self.seats.get(place)?.as_ref()
    }

    /// All members and their places, those that are leaving included.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Arc<Member>)> {
        let seats = self.seats.iter().enumerate();
        seats.filter_map(|(place, seat)| Some((place, seat.as_ref()?)))
    }

    /// The members that are not leaving, and their places.
    pub fn present(&self) -> impl Iterator<Item = (usize, &Arc<Member>)> {
        self.all().filter(|(_, member)| !member.leaving)
    }

    /// The place of the member with this name.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        let mut present = self.present();
        Some(present.find(|(_, member)| member.name == name)?.0)
    }
}

/// Why a server can't become a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Every place is taken; those who have one keep it.
    #[error("no room for a further server: all {places} places are taken")]
    Full {
        /// How many there are.
        places: usize,
    },
    /// Another member has this name.
    #[error("there is a server of this name already")]
    NameTaken,
}

/// Where a new member sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seated {
    /// A place that nobody else has.
    Fresh(usize),
    /// It was about to leave: its own place, with the connections it has.
    Again(usize),
}

impl Seated {
    /// The place.
    #[must_use]
    pub const fn place(self) -> usize {
        match self {
            Self::Fresh(place) | Self::Again(place) => place,
        }
    }
}

/// Who sits where, and which places may be given away.
#[derive(Debug)]
pub struct Table {
    roster: Roster,
    places: usize,
    /// Since when a leaving member's place has had no connection.
    empty_since: Vec<Option<Instant>>,
    last_id: u64,
}

impl Table {
    /// The file's servers, in file order, and spare places.
    #[must_use]
    pub fn new(config: &model::Proxy) -> Self {
        let mut table = Self {
            roster: Roster::default(),
            places: places(config),
            empty_since: Vec::new(),
            last_id: 0,
        };
        for server in &config.servers {
            table.seat(table.empty_since.len(), server.clone(), Origin::File);
        }
        table
    }

    /// The members as they are.
    #[must_use]
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// How many places there are.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.places
    }

    /// Gives a server a place.
    ///
    /// # Errors
    /// [`AddError`]; nothing has changed then.
    pub fn add(&mut self, spec: ServerSpec, origin: Origin) -> Result<Seated, AddError> {
        if self.roster.place(&spec.name).is_some() {
            return Err(AddError::NameTaken);
        }
        let seated = match self.leaver_like(&spec) {
            Some(place) => Seated::Again(place),
            None => Seated::Fresh(self.free_place()?),
        };
        self.seat(seated.place(), spec, origin);
        Ok(seated)
    }

    /// Gives a server a place, and lets the member at `before` go, whose name it may have.
    ///
    /// # Errors
    /// [`AddError`]; nothing has changed then.
    pub fn succeed(
        &mut self,
        before: Option<usize>,
        spec: ServerSpec,
        origin: Origin,
    ) -> Result<Seated, AddError> {
        let named = self.roster.place(&spec.name);
        if named.is_some() && named != before {
            return Err(AddError::NameTaken);
        }
        let seated = match self.leaver_like(&spec) {
            Some(place) => Seated::Again(place),
            None => Seated::Fresh(self.free_place()?),
        };
        if let Some(before) = before {
            self.remove(before);
        }
        self.seat(seated.place(), spec, origin);
        Ok(seated)
    }

    /// Lets a member go; `false`: there is none here, or it is leaving already.
    pub fn remove(&mut self, place: usize) -> bool {
        let removed = self.change(place, |member| member.leaving = true);
        if removed && let Some(empty_since) = self.empty_since.get_mut(place) {
            *empty_since = None;
        }
        removed
    }

    /// Gives a member other qualities; name and addresses stay.
    pub fn update(&mut self, place: usize, change: impl FnOnce(&mut ServerSpec)) -> bool {
        self.change(place, |member| {
            let (name, address) = (member.spec.name.clone(), member.spec.address);
            let check_address = member.spec.check_address;
            member.spec.weight = member.own_weight;
            change(&mut member.spec);
            member.own_weight = member.spec.weight;
            member.spec.weight = member.pinned.unwrap_or(member.own_weight);
            member.spec.name = name;
            (member.spec.address, member.spec.check_address) = (address, check_address);
        })
    }

    /// From here on the file is why it is a member.
    pub fn adopt(&mut self, place: usize) -> bool {
        self.change(place, |member| member.origin = Origin::File)
    }

    /// Gives a member an operator's weight, or its own one back.
    pub fn pin(&mut self, place: usize, weight: Option<Weight>) -> bool {
        self.change(place, |member| {
            member.pinned = weight;
            member.spec.weight = weight.unwrap_or(member.own_weight);
        })
    }

    /// Frees the places of leavers that have had no connection for long enough; `has_none` says
    /// which have none. Answers whether any came free.
    pub fn sweep(&mut self, now: Instant, has_none: impl Fn(usize) -> bool) -> bool {
        let mut freed = false;
        let seats = self.roster.seats.iter_mut().zip(&mut self.empty_since);
        for (place, (seat, empty_since)) in seats.enumerate() {
            if !seat.as_ref().is_some_and(|member| member.leaving) {
                continue;
            }
            if !has_none(place) {
                *empty_since = None;
                continue;
            }
            let since = *empty_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= REST {
                *seat = None;
                freed = true;
            }
        }
        freed
    }

    fn change(&mut self, place: usize, change: impl FnOnce(&mut Member)) -> bool {
        let seat = self.roster.seats.get_mut(place).and_then(Option::as_mut);
        let Some(member) = seat.filter(|member| !member.leaving) else {
            return false;
        };
        change(Arc::make_mut(member));
        true
    }

    fn leaver_like(&self, spec: &ServerSpec) -> Option<usize> {
        let mut all = self.roster.all();
        let same = |member: &Member| {
            member.leaving
                && member.name == spec.name
                && member.address == spec.address
                && member.check_address == spec.check_address
        };
        Some(all.find(|(_, member)| same(member))?.0)
    }

    fn free_place(&self) -> Result<usize, AddError> {
        let seats = &self.roster.seats;
        let free = seats.iter().position(Option::is_none);
        let place = free.unwrap_or(seats.len());
        if place < self.places {
            Ok(place)
        } else {
            Err(AddError::Full {
                places: self.places,
            })
        }
    }

    fn seat(&mut self, place: usize, spec: ServerSpec, origin: Origin) {
        if self.roster.seats.len() <= place {
            self.roster.seats.resize(place + 1, None);
            self.empty_since.resize(place + 1, None);
        }
        self.last_id += 1;
        if let Some(seat) = self.roster.seats.get_mut(place) {
            *seat = Some(Arc::new(Member {
                own_weight: spec.weight,
                pinned: None,
                spec,
                origin,
                id: self.last_id,
                leaving: false,
            }));
        }
    }
}

#[cfg(test)]
mod tests;
