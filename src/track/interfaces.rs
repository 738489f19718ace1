//! The interfaces that virtual routers track: which are there and up. Pure.

use serde::{Deserialize, Serialize};

/// What the kernel says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// An interface is called so and is up or not; it may have been called otherwise.
    Link {
        /// Its number.
        index: u32,
        /// Its name.
        name: String,
        /// Whether it is up and has carrier.
        up: bool,
    },
    /// One is gone.
    Removed {
        /// Its number.
        index: u32,
    },
    /// These are all there are, of those that are tracked.
    All(Vec<(u32, String, bool)>),
}

/// All of them, in the order of `Config::track_interfaces`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interfaces {
    tracked: Vec<Interface>,
    ok: Vec<Option<bool>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Interface {
    name: String,
    /// `None`: there is no interface of that name.
    index: Option<u32>,
}

impl Interfaces {
    /// Of these names none is there.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        let tracked = names.iter().map(|name| Interface {
            name: name.clone(),
            index: None,
        });
        Self {
            tracked: tracked.collect(),
            ok: vec![Some(false); names.len()],
        }
    }

    /// Whether each is there, up and has carrier.
    #[must_use]
    pub fn ok(&self) -> &[Option<bool>] {
        &self.ok
    }

    /// Whether one of that name is tracked.
    #[must_use]
    pub fn tracks(&self, name: &str) -> bool {
        self.tracked.iter().any(|interface| interface.name == name)
    }

    /// Whether what happens to that number or name can make a difference.
    #[must_use]
    pub fn concerns(&self, index: u32, name: Option<&str>) -> bool {
        let is_it = |one: &Interface| one.index == Some(index) || Some(one.name.as_str()) == name;
        self.tracked.iter().any(is_it)
    }

    /// Names of those that are not there.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let all = self.tracked.iter().filter(|one| one.index.is_none());
        all.map(|one| one.name.as_str())
    }

    /// Names of those that are not up.
    pub fn down(&self) -> impl Iterator<Item = &str> {
        let all = self.tracked.iter().zip(&self.ok);
        let down = all.filter(|(_, ok)| **ok != Some(true));
        down.map(|(one, _)| one.name.as_str())
    }

    /// Takes an event in; whether anything changed.
    pub fn take(&mut self, event: &Event) -> bool {
        let mut changed = false;
        for (interface, ok) in self.tracked.iter_mut().zip(&mut self.ok) {
            let before = (interface.index, *ok);
            let now = match event {
                Event::Link { index, name, up } if *name == interface.name => {
                    (Some(*index), Some(*up))
                }
                Event::Link { index, .. } | Event::Removed { index }
                    if interface.index == Some(*index) =>
                {
                    (None, Some(false))
                }
                Event::Link { .. } | Event::Removed { .. } => before,
                Event::All(links) => {
                    let found = links.iter().find(|(_, name, _)| *name == interface.name);
                    let index = found.map(|(index, _, _)| *index);
                    (index, Some(found.is_some_and(|(_, _, up)| *up)))
                }
            };
            (interface.index, *ok) = now;
            changed |= now != before;
        }
        changed
    }
}
