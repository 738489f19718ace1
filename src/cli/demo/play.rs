//! The plot: the pair starts, serves, loses its active node, heals; and what the client says.

use std::io;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::client::{Client, Habits};
use super::history::History;
use super::lab::Lab;
use super::plan::Plan;
use super::show::{Mark, NodeView, Screen, View};
use super::tally::Tally;
use crate::net::clock;

/// A new connection each.
const INTERVAL: Duration = Duration::from_millis(10);
/// A client gives up before its first SYN would be repeated.
const TIMEOUT: Duration = Duration::from_millis(800);
/// Long-lived connections, as of kubelets.
const HELD: usize = 10;
/// How often a long-lived connection asks.
const HELD_INTERVAL: Duration = Duration::from_millis(100);
/// How often the picture is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// How often a node is asked about itself.
const ASK: Duration = Duration::from_millis(500);
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
        what: String,
        /// How long was waited for it.
        bound: Duration,
    },
    /// A node's program ended by itself.
    #[error("lbd on {node} ended by itself")]
    NodeEnded {
        /// Which node.
        node: String,
    },
    /// The kernel, or the terminal.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the failover looked like.
#[derive(Debug, Clone)]
pub struct Failover {
    /// The node that was killed.
    pub killed: usize,
    /// When.
    pub at: Instant,
    /// Who holds the VIP in its place.
    pub successor: usize,
    /// How long the killed node's address stayed.
    pub address_stayed: Duration,
}

/// A running play.
#[derive(Debug)]
pub struct Play<'a> {
    plan: &'a Plan,
    config: &'a str,
    lab: &'a Lab,
    screen: &'a mut Screen,
    interrupted: &'a AtomicBool,
    /// Started when there is somebody to talk to.
    client: Option<Client>,
    start: Instant,
    nodes: Vec<Option<Child>>,
    says: Vec<Option<String>>,
    asked: Option<Instant>,
}

impl<'a> Play<'a> {
    /// The play before its first scene.
    #[must_use]
    pub fn new(
        plan: &'a Plan,
        config: &'a str,
        lab: &'a Lab,
        screen: &'a mut Screen,
        interrupted: &'a AtomicBool,
    ) -> Self {
        Self {
            plan,
            config,
            lab,
            screen,
            interrupted,
            client: None,
            start: clock::now(),
            nodes: lab.nodes.iter().map(|_| None).collect(),
            says: vec![None; lab.nodes.len()],
            asked: None,
        }
    }

    /// Starts the pair, kills the active node, waits for the other, brings the first one back.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn run(&mut self) -> Result<Failover, Ended> {
        for node in 0..self.nodes.len() {
            self.start_node(node)?;
        }
        let names: Vec<&str> = self.lab.nodes.iter().map(|n| n.name.as_str()).collect();
        self.tell(&format!(
            "lbd starts on {} with the same file",
            names.join(" and ")
        ))?;
        let bound = self.plan.take_over + Duration::from_secs(12);
        self.until("one node holds the VIP", bound, |play| {
            play.holder().is_some()
        })?;
        let Some(active) = self.holder() else {
            return Err(self.not_in_time("one node holds the VIP", bound));
        };
        self.tell(&format!(
            "{} holds {}",
            self.name(active),
            self.plan.target.ip()
        ))?;
        let since = clock::now();
        self.start_client()?;
        self.until("the client is served", Duration::from_secs(10), |play| {
            play.client(|tally| tally.first_served(since)).is_some()
        })?;
        self.tell(&format!(
            "a client that knows only {} is served: a new TLS connection each {} ms, and {HELD} \
             long-lived ones",
            self.plan.target,
            INTERVAL.as_millis()
        ))?;
        self.watch(Duration::from_millis(3500))?;
        let Some(active) = self.holder() else {
            return Err(self.not_in_time("one node holds the VIP", bound));
        };
        let failover = self.kill(active)?;
        self.watch(Duration::from_secs(1))?;
        self.start_node(active)?;
        self.tell(&format!("lbd starts on {} again", self.name(active)))?;
        self.watch(Duration::from_secs(3))?;
        Ok(failover)
    }

    /// Shows the pair until Ctrl-C, below these lines.
    ///
    /// # Errors
    /// [`Ended::Interrupted`], or another [`Ended`].
    pub fn keep_up(&mut self, summary: &[String], hints: &[String]) -> Result<(), Ended> {
        self.screen.print(summary)?;
        self.screen.print(hints)?;
        let mut last = self.holder();
        loop {
            self.watch(FRAME)?;
            let holder = self.holder();
            if holder.is_some() && holder != last {
                let name = holder.map(|node| self.name(node)).unwrap_or_default();
                self.tell(&format!("{name} holds the VIP"))?;
            }
            last = holder.or(last);
        }
    }

    /// What the client and the watcher saw, as lines.
    #[must_use]
    pub fn summary(&self, failover: &Failover) -> Vec<String> {
        let now = clock::now();
        let at = failover.at;
        let gap = self.client(|tally| tally.longest_gap(at, now));
        let counts = self.client(|tally| tally.counts(self.start, now));
        let after = self.client(|tally| tally.counts(at, now));
        let lost = self.client(|tally| tally.lost_since(at));
        let double = self.history(|history| history.longest_double(at, now));
        let holder = self
            .holder()
            .map_or("nobody".into(), |node| self.name(node));
        let mut lines = vec![
            String::new(),
            format!(
                "  {} was killed (kill -9, all its processes)",
                self.name(failover.killed)
            ),
            format!(
                "  client gap         {} ms without an answer",
                gap.as_millis()
            ),
            format!(
                "  connections        {} tried, {} answered; after the kill {} failed ({} refused, \
                 {} cut, {} unanswered)",
                counts.tried,
                counts.served,
                after.failed(),
                after.refused,
                after.cut,
                after.timed_out
            ),
            format!("  long-lived         {lost} of {HELD} lost, and made again"),
            format!(
                "  VIP                {holder} holds it; on {} the kernel removed it after {} ms",
                self.name(failover.killed),
                failover.address_stayed.as_millis()
            ),
            format!("  two holders        {} ms", double.as_millis()),
        ];
        let answers = self.client(Tally::by_server);
        for (number, (name, count)) in self.lab.server_names.iter().zip(answers).enumerate() {
            let title = if number == 0 { "answers" } else { "" };
            lines.push(format!("  {title:<18} {name} {count}"));
        }
        lines
    }

    fn kill(&mut self, active: usize) -> Result<Failover, Ended> {
        let host = Arc::clone(&self.node(active)?.host);
        let at = clock::now();
        let killed = host.signal(Signal::SIGKILL)?;
        if let Some(mut child) = self.nodes.get_mut(active).and_then(Option::take) {
            child.wait()?;
        }
        self.tell(&format!(
            "kill -9: all {killed} processes of {} are gone",
            self.name(active)
        ))?;
        let bound = self.plan.take_over + Duration::from_secs(5);
        self.until("another node holds the VIP", bound, |play| {
            play.history(|history| {
                let mut others = history.holders().iter().enumerate();
                others.any(|(node, holds)| *holds && node != active)
            })
        })?;
        let successor = self.history(|history| {
            let mut others = history.holders().iter().enumerate();
            others.find_map(|(node, holds)| (*holds && node != active).then_some(node))
        });
        let successor =
            successor.ok_or_else(|| self.not_in_time("another node holds the VIP", bound))?;
        let taken = clock::now();
        self.tell(&format!(
            "{} holds {}, {} ms after the kill",
            self.name(successor),
            self.plan.target.ip(),
            taken.duration_since(at).as_millis()
        ))?;
        self.until(
            "the client is served again",
            Duration::from_secs(5),
            |play| play.client(|tally| tally.first_served(taken)).is_some(),
        )?;
        let gap = self.client(|tally| tally.longest_gap(at, clock::now()));
        self.tell(&format!(
            "the client is served again: it had no answer for {} ms",
            gap.as_millis()
        ))?;
        if let Some(lease) = self.plan.lease {
            let bound = lease + Duration::from_secs(2);
            self.until("the dead node's address is gone", bound, |play| {
                play.history(|history| history.holders().get(active) == Some(&false))
            })?;
        }
        let stayed = self.history(|history| history.held_after(active, at, clock::now()));
        let address_stayed = stayed.unwrap_or_default();
        if self.plan.lease.is_some() {
            self.tell(&format!(
                "on {} nobody is left to remove the address: the kernel did, {} ms after the kill",
                self.name(active),
                address_stayed.as_millis()
            ))?;
        }
        Ok(Failover {
            killed: active,
            at,
            successor,
            address_stayed,
        })
    }

    fn start_client(&mut self) -> io::Result<()> {
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

    fn start_node(&mut self, node: usize) -> Result<(), Ended> {
        let program = Path::new("/proc/self/exe");
        let child = self.node(node)?.start_lbd(program, self.config)?;
        if let Some(slot) = self.nodes.get_mut(node) {
            *slot = Some(child);
        }
        Ok(())
    }

    fn watch(&mut self, time: Duration) -> Result<(), Ended> {
        let end = clock::now() + time;
        while clock::now() < end {
            self.breathe()?;
        }
        Ok(())
    }

    fn until(
        &mut self,
        what: &str,
        bound: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), Ended> {
        let end = clock::now() + bound;
        while !condition(self) {
            if clock::now() > end {
                return Err(self.not_in_time(what, bound));
            }
            self.breathe()?;
        }
        Ok(())
    }

    /// One frame: look after the nodes, draw, rest.
    fn breathe(&mut self) -> Result<(), Ended> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Ended::Interrupted);
        }
        for (child, node) in self.nodes.iter_mut().zip(&self.lab.nodes) {
            if let Some(child) = child
                && child.try_wait()?.is_some()
            {
                let node = node.name.clone();
                return Err(Ended::NodeEnded { node });
            }
        }
        let now = clock::now();
        if self
            .asked
            .is_none_or(|asked| now.duration_since(asked) > ASK)
        {
            self.asked = Some(now);
            self.says = self.lab.nodes.iter().map(super::ask::says).collect();
        }
        let view = self.view(now);
        self.screen.draw(&view)?;
        thread::sleep(FRAME / 4);
        Ok(())
    }

    fn view(&self, now: Instant) -> View {
        let holders = self.history(|history| history.holders().to_vec());
        let nodes = self.lab.nodes.iter().zip(holders).zip(&self.says);
        let nodes = nodes.map(|((node, holds), says)| NodeView {
            name: node.name.clone(),
            address: node.ip.to_string(),
            holds,
            says: says.clone(),
        });
        let answers = self.client(Tally::by_server);
        let servers = self.plan.servers.iter().zip(answers);
        let second = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        View {
            elapsed: now.duration_since(self.start),
            title: format!("lbd demo   {}   {}", self.plan.target, self.plan.about),
            nodes: nodes.collect(),
            servers: servers
                .map(|(server, count)| (server.name.clone(), server.address.to_string(), count))
                .collect(),
            last_second: self.client(|tally| tally.counts(second, now)),
            total: self.client(|tally| tally.counts(self.start, now)),
            strip: self.client(|tally| strip(tally, now)),
        }
    }

    fn tell(&mut self, text: &str) -> io::Result<()> {
        let elapsed = clock::now().duration_since(self.start);
        self.screen.tell(elapsed, text)
    }

    fn node(&self, node: usize) -> io::Result<&super::lab::Node> {
        let node = self.lab.nodes.get(node);
        node.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn name(&self, node: usize) -> String {
        let node = self.lab.nodes.get(node);
        node.map(|node| node.name.clone()).unwrap_or_default()
    }

    fn holder(&self) -> Option<usize> {
        self.history(History::only_holder)
    }

    fn history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        self.lab.history(look)
    }

    fn client<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        match &self.client {
            Some(client) => client.tally(look),
            None => look(&Tally::new(self.plan.servers.len())),
        }
    }

    fn not_in_time(&self, what: &str, bound: Duration) -> Ended {
        Ended::NotInTime {
            what: what.to_owned(),
            bound,
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
