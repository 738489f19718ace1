//! What `lbd top` shows and what keys do to it. Pure: answers, keys and outcomes come in, what is
//! to be ordered goes out.

use super::rates::{Counter, Of, Rates};
use crate::admin::protocol::Command;
use crate::admin::servers::{ServerName, Servers};
use crate::admin::status::{ProxyStatus, ServerState, ServerStatus, Status};
use crate::ipc::command::{Failover, ReleaseHold};
use crate::ipc::event::Event;
use crate::ipc::message::{VipStatus, VrrpState};
use crate::ipc::note::AdminWord;

/// A key, as far as it means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    BackTab,
    Enter,
    Escape,
    /// Ctrl-C.
    Interrupt,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Quit,
    Order(Order),
}

/// Something to be ordered, by who carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Keeper(Command),
    Servers(Command),
}

/// What the arrows move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    Vips,
    Servers,
    Events,
}

/// The order of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// As in lb.toml.
    File,
    Name,
    /// The ill ones first.
    State,
    Connections,
    /// New connections a second.
    Rate,
}

impl Sort {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Name => "name",
            Self::State => "state",
            Self::Connections => "connections",
            Self::Rate => "rate",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::File => Self::Name,
            Self::Name => Self::State,
            Self::State => Self::Connections,
            Self::Connections => Self::Rate,
            Self::Rate => Self::File,
        }
    }
}

/// What lies over the panels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dialog {
    Help,
    /// A question, and the order that yes gives.
    Confirm {
        question: String,
        warning: Option<String>,
        order: Order,
    },
}

/// What became of something, until the next key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) good: bool,
}

/// Nobody answers any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) why: String,
    pub(super) for_ms: u64,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) status: Status,
    /// Oldest first.
    pub(super) events: Vec<Event>,
    pub(super) rates: Rates,
    pub(super) trouble: Option<Trouble>,
    pub(super) panel: Panel,
    pub(super) sort: Sort,
    pub(super) dialog: Option<Dialog>,
    pub(super) said: Option<Said>,
    /// An order is under way.
    pub(super) busy: bool,
    pub(super) color: bool,
    /// Events above the newest that are scrolled over.
    pub(super) back: usize,
    server: Option<(String, String)>,
    vip: Option<String>,
}

impl Top {
    /// Begins with a first answer.
    pub(super) fn new(status: Status, events: Vec<Event>, color: bool) -> Self {
        let mut top = Self {
            status: Status::default(),
            events: Vec::new(),
            rates: Rates::default(),
            trouble: None,
            panel: Panel::Servers,
            sort: Sort::File,
            dialog: None,
            said: None,
            busy: false,
            color,
            back: 0,
            server: None,
            vip: None,
        };
        top.answered(status, events);
        top
    }

    /// One more answer.
    pub(super) fn answered(&mut self, status: Status, events: Vec<Event>) {
        self.rates.take(&status);
        self.status = status;
        // Who reads the past goes on reading the same lines.
        if self.back > 0 {
            let last = self.events.last().map(|event| event.seq);
            let newer = events.iter().filter(|event| Some(event.seq) > last).count();
            self.back += newer;
        }
        self.back = self.back.min(events.len().saturating_sub(1));
        self.events = events;
        self.trouble = None;
    }

    /// No answer, for so long.
    pub(super) fn unanswered(&mut self, why: String, for_ms: u64) {
        self.trouble = Some(Trouble { why, for_ms });
    }

    /// What became of an order.
    pub(super) fn done(&mut self, said: Said) {
        self.busy = false;
        self.said = Some(said);
    }

    /// Servers in the order shown, each with its proxy.
    pub(super) fn servers(&self) -> Vec<(&ProxyStatus, &ServerStatus)> {
        let mut all: Vec<_> = self
            .status
            .proxies
            .iter()
            .flat_map(|proxy| proxy.servers.iter().map(move |server| (proxy, server)))
            .collect();
        match self.sort {
            Sort::File => {}
            Sort::Name => all.sort_by(|a, b| a.1.name.cmp(&b.1.name)),
            Sort::State => all.sort_by_key(|(_, server)| illness(server)),
            Sort::Connections => {
                all.sort_by_key(|(_, server)| std::cmp::Reverse(server.connections));
            }
            Sort::Rate => all.sort_by_key(|(proxy, server)| {
                let counter = Counter::of_server(&proxy.name, &server.name, Of::Connections);
                std::cmp::Reverse(self.rates.last(&counter))
            }),
        }
        all
    }

    /// The chosen one's place among [`Top::servers`]; the first where none is chosen.
    pub(super) fn chosen_server(&self) -> usize {
        let is_it = |(proxy, server): &(&ProxyStatus, &ServerStatus)| {
            let chosen = self.server.as_ref();
            chosen.is_some_and(|(of, name)| *of == proxy.name && *name == server.name)
        };
        self.servers().iter().position(is_it).unwrap_or_default()
    }

    /// The virtual routers.
    pub(super) fn vips(&self) -> &[VipStatus] {
        self.status.vrrp.as_ref().map_or(&[], |vrrp| &vrrp.vips)
    }

    /// The chosen one's place among [`Top::vips`].
    pub(super) fn chosen_vip(&self) -> usize {
        let is_it = |vip: &VipStatus| Some(&vip.name) == self.vip.as_ref();
        self.vips().iter().position(is_it).unwrap_or_default()
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: Key) -> Option<Act> {
        if key == Key::Interrupt {
            return Some(Act::Quit);
        }
        self.said = None;
        match self.dialog.take() {
            Some(Dialog::Help) => return None,
            Some(Dialog::Confirm {
                question,
                warning,
                order,
            }) => return self.answer(key, question, warning, order),
            None => {}
        }
        match key {
            Key::Char('q') | Key::Escape => return Some(Act::Quit),
            Key::Char('?' | 'h') => self.dialog = Some(Dialog::Help),
            Key::Tab => self.panel = self.panel.next(self.vips().is_empty()),
            Key::BackTab => self.panel = self.panel.previous(self.vips().is_empty()),
            Key::Up | Key::Char('k') => self.step(-1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::PageUp => self.step(-10),
            Key::PageDown => self.step(10),
            Key::Home | Key::Char('g') => self.step(isize::MIN),
            Key::End | Key::Char('G') => self.step(isize::MAX),
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Char('d') => self.ask_about_server(AdminWord::Drain),
            Key::Char('r') => self.ask_about_server(AdminWord::Ready),
            Key::Char('m') => self.ask_about_server(AdminWord::Maint),
            Key::Char('f') => self.ask_about_failover(),
            Key::Char('c') => self.ask_about_hold(),
            Key::Char(_) | Key::Enter | Key::Interrupt => {}
        }
        None
    }

    fn answer(
        &mut self,
        key: Key,
        question: String,
        warning: Option<String>,
        order: Order,
    ) -> Option<Act> {
        match key {
            Key::Char('y' | 'Y') => {
                self.busy = true;
                Some(Act::Order(order))
            }
            Key::Char('n' | 'N' | 'q') | Key::Escape => {
                self.said = Some(Said {
                    text: "nothing was changed".to_owned(),
                    good: true,
                });
                None
            }
            // A stray key neither does it nor takes the question away.
            Key::Char(_)
            | Key::Up
            | Key::Down
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End
            | Key::Tab
            | Key::BackTab
            | Key::Enter
            | Key::Interrupt => {
                self.dialog = Some(Dialog::Confirm {
                    question,
                    warning,
                    order,
                });
                None
            }
        }
    }

    fn step(&mut self, by: isize) {
        let moved = |from: usize, count: usize| {
            let last = count.saturating_sub(1);
            from.saturating_add_signed(by).min(last)
        };
        match self.panel {
            Panel::Servers => {
                let servers = self.servers();
                let to = servers.get(moved(self.chosen_server(), servers.len()));
                self.server = to.map(|(proxy, server)| (proxy.name.clone(), server.name.clone()));
            }
            Panel::Vips => {
                let vips = self.vips();
                let to = vips.get(moved(self.chosen_vip(), vips.len()));
                self.vip = to.map(|vip| vip.name.clone());
            }
            // The newest stand on top: up is towards the present.
            Panel::Events => self.back = moved(self.back, self.events.len()),
        }
    }

    fn refuse(&mut self, text: &str) {
        self.said = Some(Said {
            text: text.to_owned(),
            good: false,
        });
    }

    fn is_free(&mut self) -> bool {
        if self.busy {
            self.refuse("an order is under way: wait for what becomes of it");
        }
        !self.busy
    }

    fn ask_about_server(&mut self, word: AdminWord) {
        if !self.is_free() {
            return;
        }
        let servers = self.servers();
        let Some((proxy, server)) = servers.get(self.chosen_server()) else {
            return self.refuse("there is no server");
        };
        let named = Servers {
            servers: vec![ServerName {
                proxy: Some(proxy.name.clone()),
                server: server.name.clone(),
            }],
        };
        let (what, order) = match word {
            AdminWord::Drain => ("Drain", Command::Drain(named)),
            AdminWord::Ready => ("Put back into service:", Command::Ready(named)),
            AdminWord::Maint => ("Take out of service:", Command::Maint(named)),
        };
        let question = format!("{what} {}/{}?", proxy.name, server.name);
        let is_last = proxy.usable == 1 && server.state == ServerState::Up;
        let warning = match word {
            AdminWord::Ready => None,
            AdminWord::Drain | AdminWord::Maint if is_last => {
                Some("It is the last one that takes connections!".to_owned())
            }
            AdminWord::Drain | AdminWord::Maint => Some(format!(
                "Its connections ({}) go on; new ones go elsewhere.",
                server.connections
            )),
        };
        self.dialog = Some(Dialog::Confirm {
            question,
            warning,
            order: Order::Servers(order),
        });
    }

    fn ask_about_failover(&mut self) {
        if !self.is_free() {
            return;
        }
        let vips = self.vips();
        let held: Vec<&VipStatus> = match self.panel {
            Panel::Vips => vips.get(self.chosen_vip()).into_iter().collect(),
            Panel::Servers | Panel::Events => vips.iter().collect(),
        };
        let held = held.into_iter().filter(|vip| is_held(vip));
        let names: Vec<String> = held.map(|vip| vip.name.clone()).collect();
        if names.is_empty() {
            return self.refuse("this node does not hold it: only the one that does can hand over");
        }
        let question = format!("Hand over {} to another node?", names.join(", "));
        let warning = "This node takes it back only when the other fails, or after c (cancel).";
        self.dialog = Some(Dialog::Confirm {
            question,
            warning: Some(warning.to_owned()),
            order: Order::Keeper(Command::Failover(Failover {
                vips: names,
                hold_ms: None,
            })),
        });
    }

    fn ask_about_hold(&mut self) {
        if !self.is_free() {
            return;
        }
        let held = self.vips().iter().filter(|vip| vip.held_back.is_some());
        let names: Vec<String> = held.map(|vip| vip.name.clone()).collect();
        if names.is_empty() {
            return self.refuse("nothing is held back after a failover");
        }
        self.dialog = Some(Dialog::Confirm {
            question: format!("Let this node take {} back?", names.join(", ")),
            warning: None,
            order: Order::Keeper(Command::ReleaseHold(ReleaseHold { vips: names })),
        });
    }
}

impl Panel {
    const fn next(self, no_vips: bool) -> Self {
        match self {
            Self::Servers => Self::Events,
            Self::Events if no_vips => Self::Servers,
            Self::Events => Self::Vips,
            Self::Vips => Self::Servers,
        }
    }

    const fn previous(self, no_vips: bool) -> Self {
        match self {
            Self::Servers if no_vips => Self::Events,
            Self::Servers => Self::Vips,
            Self::Vips => Self::Events,
            Self::Events => Self::Servers,
        }
    }
}

const fn is_held(vip: &VipStatus) -> bool {
    match vip.state {
        VrrpState::Active => true,
        VrrpState::Initialize | VrrpState::Backup | VrrpState::Leaving => false,
    }
}

/// The ill ones first.
const fn illness(server: &ServerStatus) -> u8 {
    match server.state {
        ServerState::Down => 0,
        ServerState::Unknown => 1,
        ServerState::Maint => 2,
        ServerState::Drain => 3,
        ServerState::Up => 4,
    }
}
