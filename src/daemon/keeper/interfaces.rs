//! The interfaces that virtual routers track, kept up to date by the kernel's events.

use std::io;

use crate::net::link::LinkEvent;
use crate::net::netlink::{Link, Netlink};

/// All of them, in the order of `Config::track_interfaces`.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    tracked: Vec<Interface>,
    ok: Vec<Option<bool>>,
}

#[derive(Debug)]
struct Interface {
    name: String,
    /// `None`: there is no interface of that name.
    index: Option<u32>,
}

impl Interfaces {
    /// Their state at the start; one that is not there is down, and that is said.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub(super) fn open(names: &[String], netlink: &mut Netlink) -> io::Result<Self> {
        let tracked = names.iter().map(|name| Interface {
            name: name.clone(),
            index: None,
        });
        let mut interfaces = Self {
            tracked: tracked.collect(),
            ok: vec![Some(false); names.len()],
        };
        if names.is_empty() {
            return Ok(interfaces);
        }
        interfaces.read(&netlink.links()?);
        for interface in &interfaces.tracked {
            if interface.index.is_none() {
                let interface = &interface.name;
                tracing::warn!(
                    interface,
                    "tracked interface is not there: it counts as down"
                );
            }
        }
        Ok(interfaces)
    }

    /// Whether each is there, up and has carrier.
    pub(super) fn ok(&self) -> &[Option<bool>] {
        &self.ok
    }

    /// Takes an event in.
    pub(super) fn on_link(&mut self, event: &LinkEvent) {
        if self.tracked.is_empty() {
            return;
        }
        match event {
            LinkEvent::Link {
                index, name, up, ..
            } => self.is(*index, name, *up),
            LinkEvent::Removed { index } => {
                for (interface, ok) in self.tracked.iter_mut().zip(&mut self.ok) {
                    if interface.index == Some(*index) {
                        interface.index = None;
                        *ok = Some(false);
                    }
                }
            }
            LinkEvent::AddressThere { .. } | LinkEvent::AddressGone { .. } => {}
            LinkEvent::Lost => match Netlink::open().and_then(|mut netlink| netlink.links()) {
                Ok(links) => self.read(&links),
                Err(error) => tracing::error!(%error, "tracked interfaces cannot be read"),
            },
        }
    }

    fn read(&mut self, links: &[Link]) {
        for (interface, ok) in self.tracked.iter_mut().zip(&mut self.ok) {
            let found = links.iter().find(|link| link.name == interface.name);
            interface.index = found.map(|link| link.index);
            *ok = Some(found.is_some_and(|link| link.up));
        }
    }

    /// An interface is called so now and is up or not; it may have been called otherwise.
    fn is(&mut self, index: u32, name: &str, up: bool) {
        for (interface, ok) in self.tracked.iter_mut().zip(&mut self.ok) {
            if interface.name == name {
                interface.index = Some(index);
                *ok = Some(up);
            } else if interface.index == Some(index) {
                interface.index = None;
                *ok = Some(false);
            }
        }
    }
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
        let mut interfaces = Interfaces::open(&names, &mut netlink).unwrap();
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
            interfaces.on_link(&event);
            assert_eq!(interfaces.ok()[1], Some(expected), "{event:?}");
        }
    }
}
