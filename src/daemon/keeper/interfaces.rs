//! The interfaces that virtual routers track, kept up to date by the kernel's events.

use std::io;
use std::time::Instant;

use crate::net::link::LinkEvent;
use crate::net::netlink::{Link, Netlink};
use crate::track::interfaces::{Event, Interfaces as Tracked};
use crate::track::recorded::RecordedInterfaces;

/// All of them, in the order of `Config::track_interfaces`.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    /// `None`: nobody tracks any.
    tracked: Option<RecordedInterfaces>,
}

impl Interfaces {
    /// Their state at the start; one that is not there is down, and that is said.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub(super) fn open(names: &[String], netlink: &mut Netlink, now: Instant) -> io::Result<Self> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        let mut tracked = RecordedInterfaces::new(Tracked::new(names), now);
        tracked.take(now, &all(&netlink.links()?, &tracked));
        for interface in tracked.missing() {
            tracing::warn!(
                interface,
                "tracked interface is not there: it counts as down"
            );
        }
        Ok(Self {
            tracked: Some(tracked),
        })
    }

    /// Whether each is there, up and has carrier.
    pub(super) fn ok(&self) -> &[Option<bool>] {
        self.tracked.as_ref().map_or(&[], |tracked| tracked.ok())
    }

    /// What was heard of them of late.
    pub(super) fn tape(&self, now: Instant) -> Option<Vec<u8>> {
        Some(self.tracked.as_ref()?.tape(now))
    }

    /// Takes an event in.
    pub(super) fn on_link(&mut self, event: &LinkEvent, now: Instant) {
        let Some(tracked) = &mut self.tracked else {
            return;
        };
        let event = match event {
            LinkEvent::Link {
                index, name, up, ..
            } if tracked.concerns(*index, Some(name)) => Event::Link {
                index: *index,
                name: name.clone(),
                up: *up,
            },
            LinkEvent::Removed { index } => Event::Removed { index: *index },
            LinkEvent::Link { .. }
            | LinkEvent::AddressThere { .. }
            | LinkEvent::AddressGone { .. } => return,
            LinkEvent::Lost => match Netlink::open().and_then(|mut netlink| netlink.links()) {
                Ok(links) => all(&links, tracked),
                Err(error) => {
                    tracing::error!(%error, "tracked interfaces cannot be read");
                    return;
                }
            },
        };
        tracked.take(now, &event);
    }
}

/// Those of all that are tracked.
fn all(links: &[Link], tracked: &Tracked) -> Event {
    let known = links.iter().filter(|link| tracked.tracks(&link.name));
    Event::All(
        known
            .map(|link| (link.index, link.name.clone(), link.up))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> LinkEvent {
        LinkEvent::Link {
            index,
            name: name.into(),
            up,
            mac: None,
        }
    }

    #[test]
    fn an_interface_counts_while_it_is_there_and_up() {
        let names = ["lo".to_owned(), "uplink0".to_owned()];
        let mut netlink = Netlink::open().unwrap();
        let now = crate::net::clock::now();
        let mut interfaces = Interfaces::open(&names, &mut netlink, now).unwrap();
        assert_eq!(interfaces.ok()[1], Some(false));
        let steps = [
            (link(77, "uplink0", true), true),
            (link(78, "other", false), true),
            (link(77, "uplink0", false), false),
            (link(77, "uplink0", true), true),
            // Renamed, and another one takes its name.
            (link(77, "old", true), false),
            (link(79, "uplink0", true), true),
            (LinkEvent::Removed { index: 77 }, true),
            (LinkEvent::Removed { index: 79 }, false),
            (link(80, "uplink0", true), true),
            // Read anew: there is none on this machine.
            (LinkEvent::Lost, false),
        ];
        for (event, expected) in steps {
            interfaces.on_link(&event, now);
            assert_eq!(interfaces.ok()[1], Some(expected), "{event:?}");
        }
    }
}
