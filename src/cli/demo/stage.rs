//! The laboratory while a play runs on it: its nodes' programs, the client, the picture.

use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::ask::Asker;
use super::client::{Client, Habits};
use super::history::History;
use super::lab::{Lab, Node};
use super::plan::Plan;
use super::show::{Mark, NodeView, Screen, View};
use super::tally::Tally;
use crate::net::clock;

/// A new connection each.
pub const INTERVAL: Duration = Duration::from_millis(10);
/// Long-lived connections, as of kubelets.
pub const HELD: usize = 10;
/// A client gives up before its first SYN would be repeated.
const TIMEOUT: Duration = Duration::from_millis(800);
/// How often a long-lived connection asks.
const HELD_INTERVAL: Duration = Duration::from_millis(100);
/// How often the picture is drawn and conditions are looked at.
const FRAME: Duration = Duration::from_millis(25);
/// Tenths of a second in the client's strip.
const STRIP: u32 = 60;

/// Why the play ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Something that had to happen did not.
    #[error("not within {} s: {what}", bound.as_secs())]
    NotInTime {
        /// What.
        what: &'static str,
        /// How long was waited for it.
        bound: Duration,
    },
    /// A node's program ended by itself.
    #[error("lbd on {node} ended by itself: {status}")]
    NodeEnded {
        /// Which node.
        node: String,
        /// How.
        status: ExitStatus,
    },
    /// The kernel, or the terminal.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The stage.
#[derive(Debug)]
pub struct Stage<'a> {
    /// What was built.
    pub plan: &'a Plan,
    /// The laboratory.
    pub lab: &'a Lab,
    /// When it began.
    pub start: Instant,
    config: &'a str,
    screen: &'a mut Screen,
    interrupted: &'a AtomicBool,
    /// Started when there is somebody to talk to.
    client: Option<Client>,
    nodes: Vec<Option<Child>>,
    asker: Asker,
}

impl<'a> Stage<'a> {
    /// An empty stage: nothing runs on the nodes.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(
        plan: &'a Plan,
        config: &'a str,
        lab: &'a Lab,
        screen: &'a mut Screen,
        interrupted: &'a AtomicBool,
    ) -> io::Result<Self> {
        Ok(Self {
            plan,
            config,
            lab,
            screen,
            interrupted,
            client: None,
            start: clock::now(),
            nodes: lab.nodes.iter().map(|_| None).collect(),
            asker: Asker::start(&lab.nodes, &plan.admin_socket)?,
        })
    }

    /// Starts the client.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_client(&mut self) -> io::Result<()> {
        let habits = Habits {
            target: self.plan.target,
            interval: INTERVAL,
            timeout: TIMEOUT,
            held: HELD,
            held_interval: HELD_INTERVAL,
            servers: self.lab.server_names.clone(),
        };
        let tls = Arc::clone(&self.lab.tls.client);
        self.client = Some(Client::start(&self.lab.client, habits, tls)?);
        Ok(())
    }

    /// Starts lbd on a node.
    ///
    /// # Errors
    /// What fork(2) and execve(2) say.
    pub fn start_node(&mut self, node: usize) -> io::Result<()> {
        let program = Path::new("/proc/self/exe");
        let child = self.node(node)?.start_lbd(program, self.config)?;
        if let Some(slot) = self.nodes.get_mut(node) {
            *slot = Some(child);
        }
        Ok(())
    }

    /// A node's program is about to be killed: its end is no surprise.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn bury(&mut self, node: usize) -> io::Result<()> {
        if let Some(mut child) = self.nodes.get_mut(node).and_then(Option::take) {
            child.wait()?;
        }
        Ok(())
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn watch(&mut self, time: Duration) -> Result<(), Ended> {
        let end = clock::now() + time;
        while clock::now() < end {
            self.breathe()?;
        }
        Ok(())
    }

    /// Lets time pass until there is something.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn until<T>(
        &mut self,
        what: &'static str,
        bound: Duration,
        look: impl Fn(&Self) -> Option<T>,
    ) -> Result<T, Ended> {
        let end = clock::now() + bound;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if clock::now() > end {
                return Err(Ended::NotInTime { what, bound });
            }
            self.breathe()?;
        }
    }

    /// Tells the audience.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn tell(&mut self, text: &str) -> io::Result<()> {
        let elapsed = clock::now().duration_since(self.start);
        self.screen.tell(elapsed, text)
    }

    /// Prints lines that stay.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn print(&mut self, lines: &[String]) -> io::Result<()> {
        self.screen.print(lines)
    }

    /// A node.
    ///
    /// # Errors
    /// When there is none with this number.
    pub fn node(&self, node: usize) -> io::Result<&Node> {
        let node = self.lab.nodes.get(node);
        node.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A node's name.
    #[must_use]
    pub fn name(&self, node: usize) -> String {
        self.node(node)
            .map_or_else(|_| String::new(), |node| node.name.clone())
    }

    /// Who alone holds the VIP.
    #[must_use]
    pub fn holder(&self) -> Option<usize> {
        self.history(History::only_holder)
    }

    /// Looks at who held the VIP when.
    pub fn history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        self.lab.history(look)
    }

    /// Looks at the client's record.
    pub fn tally<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        match &self.client {
            Some(client) => client.tally(look),
            None => look(&Tally::new(self.plan.servers.len())),
        }
    }

    /// One frame: look after the nodes, draw, rest.
    fn breathe(&mut self) -> Result<(), Ended> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Ended::Interrupted);
        }
        for (child, node) in self.nodes.iter_mut().zip(&self.lab.nodes) {
            if let Some(child) = child
                && let Some(status) = child.try_wait()?
            {
                let node = node.name.clone();
                return Err(Ended::NodeEnded { node, status });
            }
        }
        let view = self.view(clock::now());
        self.screen.draw(&view)?;
        thread::sleep(FRAME);
        Ok(())
    }

    fn view(&self, now: Instant) -> View {
        let holders = self.history(|history| history.holders().to_vec());
        let nodes = self.lab.nodes.iter().zip(holders).enumerate();
        let nodes = nodes.map(|(number, (node, holds))| NodeView {
            name: node.name.clone(),
            address: node.ip.to_string(),
            holds,
            says: self.asker.word(number),
        });
        let answers = self.tally(Tally::by_server);
        let servers = self.plan.servers.iter().zip(answers);
        let second = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        View {
            elapsed: now.duration_since(self.start),
            title: format!("lbd demo   {}   {}", self.plan.target, self.plan.about),
            nodes: nodes.collect(),
            servers: servers
                .map(|(server, count)| (server.name.clone(), server.address.to_string(), count))
                .collect(),
            last_second: self.tally(|tally| tally.counts(second, now)),
            total: self.tally(|tally| tally.counts(self.start, now)),
            strip: self.tally(|tally| strip(tally, now)),
        }
    }
}

fn strip(tally: &Tally, now: Instant) -> Vec<Mark> {
    let tenth = Duration::from_millis(100);
    let mut marks = Vec::new();
    for back in (1..=STRIP).rev() {
        let Some(from) = now.checked_sub(tenth * back) else {
            continue;
        };
        let counts = tally.counts(from, from + tenth);
        marks.push(match (counts.tried, counts.served) {
            (0, _) => Mark::Nothing,
            (tried, served) if tried == served => Mark::Served,
            (_, 0) => Mark::Failed,
            (_, _) => Mark::Partly,
        });
    }
    marks
}
