//! The plot: the pair starts, serves, loses its active node, heals; and what the client says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::history::History;
use super::stage::{Ended, HELD, INTERVAL, Stage};
use super::tally::Tally;
use crate::net::clock;

/// What the failover looked like.
#[derive(Debug, Clone)]
pub struct Failover {
    /// The node that was killed.
    pub killed: usize,
    /// When.
    pub at: Instant,
    /// How long its address stayed; `None`: it is still there.
    pub address_stayed: Option<Duration>,
}

/// Starts the pair, kills the active node, waits for the other, brings the first one back.
///
/// # Errors
/// [`Ended`].
pub fn play(stage: &mut Stage<'_>) -> Result<Failover, Ended> {
    open(stage)?;
    stage.watch(Duration::from_millis(3500))?;
    let active = wait_for_holder(stage)?;
    let mut failover = kill(stage, active)?;
    failover.address_stayed = wait_for_lease(stage, &failover)?;
    stage.watch(Duration::from_secs(1))?;
    stage.start_node(active)?;
    stage.tell(&format!("lbd starts on {} again", stage.name(active)))?;
    stage.watch(Duration::from_secs(3))?;
    Ok(failover)
}

/// Shows the pair until Ctrl-C.
///
/// # Errors
/// [`Ended::Interrupted`], or another [`Ended`].
pub fn keep(stage: &mut Stage<'_>) -> Result<(), Ended> {
    let mut last = stage.holder();
    loop {
        stage.watch(Duration::from_millis(100))?;
        let holder = stage.holder();
        if let Some(node) = holder
            && holder != last
        {
            stage.tell(&format!("{} holds the VIP", stage.name(node)))?;
        }
        last = holder.or(last);
    }
}

fn open(stage: &mut Stage<'_>) -> Result<(), Ended> {
    let nodes = stage.lab.nodes.len();
    for node in 0..nodes {
        stage.start_node(node)?;
    }
    let names: Vec<String> = (0..nodes).map(|node| stage.name(node)).collect();
    stage.tell(&format!(
        "lbd starts on {} with the same file",
        names.join(" and ")
    ))?;
    let active = wait_for_holder(stage)?;
    let vip = stage.plan.target.ip();
    stage.tell(&format!("{} holds {vip}", stage.name(active)))?;
    stage.start_client()?;
    wait_for_service(stage, stage.start)?;
    stage.tell(&format!(
        "a client that knows only {} is served: a new TLS connection each {} ms, {HELD} that stay",
        stage.plan.target,
        INTERVAL.as_millis()
    ))?;
    Ok(())
}

fn kill(stage: &mut Stage<'_>, active: usize) -> Result<Failover, Ended> {
    let host = Arc::clone(&stage.node(active)?.host);
    let at = clock::now();
    let killed = host.signal(Signal::SIGKILL)?;
    stage.bury(active)?;
    let (name, vip) = (stage.name(active), stage.plan.target.ip());
    stage.tell(&format!("kill -9 on all {killed} processes of {name}"))?;
    let bound = stage.plan.take_over + Duration::from_secs(5);
    let successor = stage.until("another node holds the VIP", bound, |stage| {
        stage.history(|history| {
            let mut holders = history.holders().iter().enumerate();
            holders.find_map(|(node, holds)| (*holds && node != active).then_some(node))
        })
    })?;
    let taken = stage.history(|history| history.last_change_of(successor));
    let taken = taken.unwrap_or(at);
    stage.tell(&format!(
        "{} holds {vip}, {} ms after the kill",
        stage.name(successor),
        taken.saturating_duration_since(at).as_millis()
    ))?;
    wait_for_service(stage, taken)?;
    let gap = stage.tally(|tally| tally.longest_gap(at, clock::now()));
    stage.tell(&format!(
        "the client is served again: it had no answer for {} ms",
        gap.as_millis()
    ))?;
    Ok(Failover {
        killed: active,
        at,
        address_stayed: None,
    })
}

/// How long the dead node kept its address.
fn wait_for_lease(stage: &mut Stage<'_>, failover: &Failover) -> Result<Option<Duration>, Ended> {
    let Some(lease) = stage.plan.lease else {
        return Ok(None);
    };
    let dead = failover.killed;
    let bound = lease + Duration::from_secs(2);
    stage.until("the dead node's address is gone", bound, |stage| {
        stage.history(|history| (history.holders().get(dead) == Some(&false)).then_some(()))
    })?;
    let (at, now) = (failover.at, clock::now());
    let stayed = stage.history(|history| history.held_after(dead, at, now));
    let stayed = stayed.unwrap_or_default();
    stage.tell(&format!(
        "the kernel had removed the dead node's address after {} ms: it is a lease",
        stayed.as_millis()
    ))?;
    Ok(Some(stayed))
}

fn wait_for_holder(stage: &mut Stage<'_>) -> Result<usize, Ended> {
    let bound = stage.plan.take_over + Duration::from_secs(12);
    stage.until("one node holds the VIP", bound, Stage::holder)
}

fn wait_for_service(stage: &mut Stage<'_>, since: Instant) -> Result<(), Ended> {
    let bound = Duration::from_secs(10);
    stage.until("the client is served", bound, |stage| {
        stage.tally(|tally| tally.first_served(since)).map(drop)
    })
}

/// What the client and the watcher saw, as lines.
#[must_use]
pub fn summary(stage: &Stage<'_>, failover: &Failover) -> Vec<String> {
    let (at, now) = (failover.at, clock::now());
    let killed = stage.name(failover.killed);
    let holder = stage
        .holder()
        .map_or_else(|| "nobody alone".into(), |node| stage.name(node));
    let gap = stage.tally(|tally| tally.longest_gap(at, now));
    let all = stage.tally(|tally| tally.counts(stage.start, now));
    let after = stage.tally(|tally| tally.ended_since(at));
    let lost = stage.tally(|tally| tally.lost_since(at));
    let double = stage.history(|history: &History| history.longest_double(at, now));
    let stayed = failover.address_stayed.map_or_else(
        || format!("{killed} keeps it as well: no lease"),
        |stayed| {
            format!(
                "gone from {killed} {} ms after the kill",
                stayed.as_millis()
            )
        },
    );
    let mut lines = vec![
        String::new(),
        format!("  {killed} was killed: kill -9, every process of it"),
        format!("  gap           {} ms without an answer", gap.as_millis()),
        format!(
            "  connections   {} tried, {} answered, {} failed before the kill",
            all.tried,
            all.served,
            all.failed() - after.failed()
        ),
        format!(
            "                after it {} failed: {} refused, {} cut, {} unanswered",
            after.failed(),
            after.refused,
            after.cut,
            after.timed_out
        ),
        format!("  long-lived    {HELD} at a time, {lost} broke"),
        format!("  VIP           held by {holder}; {stayed}"),
        format!(
            "  two holders   {} ms{}",
            double.as_millis(),
            why_two(stage, double)
        ),
    ];
    let answers = stage.tally(Tally::by_server);
    for (number, (name, count)) in stage.lab.server_names.iter().zip(answers).enumerate() {
        let title = if number == 0 { "answers" } else { "" };
        lines.push(format!("  {title:<13} {name} {count}"));
    }
    lines
}

fn why_two(stage: &Stage<'_>, double: Duration) -> &'static str {
    let outlived = stage.plan.lease.is_some() && double > Duration::from_millis(500);
    if outlived {
        " (adverts so fast that a take-over comes before the dead node's lease ends)"
    } else {
        ""
    }
}
