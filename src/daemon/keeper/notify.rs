//! Telling programs of the virtual routers' changes: `notifier` says what is next, the runner runs
//! it, nothing here waits for it.

use std::time::{Duration, Instant};

use super::Keeper;
use super::events::plain;
use super::notifier::{Notifier, Slot, Start, Told};
use crate::config::local::LocalVip;
use crate::config::model::{Config, Node, Notify, RunAs, Vip};
use crate::ipc::event::EventKind;
use crate::ipc::message::VrrpState;
use crate::ipc::runner::{Job, Outcome, Program, Run, ToRunner};

/// One notifier for each virtual router.
#[derive(Debug)]
pub(super) struct Notifiers {
    pub(super) all: Vec<Notifier<Facts>>,
    /// This node as each virtual router calls it.
    pub(super) nodes: Vec<String>,
}

/// What a program is told, beside the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    seq: u64,
    priority: u8,
    interface: String,
    addresses: String,
    reason: &'static str,
}

impl Notifiers {
    pub(super) fn new(locals: &[LocalVip]) -> Self {
        let node = |local: &LocalVip| {
            let node = local.vip.nodes.get(local.me);
            node.map_or_else(String::new, Node::label)
        };
        Self {
            all: locals.iter().map(|_| Notifier::default()).collect(),
            nodes: locals.iter().map(node).collect(),
        }
    }

    /// The runner is gone, and what it ran.
    pub(super) fn lost(&mut self) {
        for notifier in &mut self.all {
            notifier.lost();
        }
    }

    pub(super) fn are_idle(&self) -> bool {
        self.all.iter().all(Notifier::is_idle)
    }

    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        let all = self.all.iter().zip(&config.vips);
        let due = |(notifier, vip): (&Notifier<Facts>, &Vip)| {
            notifier.deadline(vip.notify.as_ref()?.timeout)
        };
        all.filter_map(due).min()
    }
}

/// The programs of a `notify` table by name, for messages.
pub(super) fn programs(config: &Config) -> Vec<Program> {
    let mut found = Vec::new();
    for script in &config.scripts {
        found.extend(program(
            format!("track.script.{}", script.name),
            &script.command,
            script.user.as_ref(),
        ));
    }
    for vip in &config.vips {
        let Some(notify) = &vip.notify else { continue };
        for (key, command) in [
            ("active", &notify.active),
            ("backup", &notify.backup),
            ("fault", &notify.fault),
            ("stop", &notify.stop),
            ("any", &notify.any),
        ] {
            let name = format!("vip.{}.notify.{key}", vip.name);
            found.extend(program(name, command, notify.user.as_ref()));
        }
    }
    found
}

fn program(name: String, command: &[String], user: Option<&RunAs>) -> Option<Program> {
    Some(Program {
        name,
        program: command.first()?.clone(),
        user: user.cloned(),
    })
}

/// The program for a state: who gives none for the end is told as a Backup.
fn command(notify: &Notify, state: Told, slot: Slot) -> &[String] {
    match (slot, state) {
        (Slot::Any, _) => &notify.any,
        (Slot::Own, Told::Active) => &notify.active,
        (Slot::Own, Told::Backup) => &notify.backup,
        (Slot::Own, Told::Fault) => &notify.fault,
        (Slot::Own, Told::Stop) if notify.stop.is_empty() => &notify.backup,
        (Slot::Own, Told::Stop) => &notify.stop,
    }
}

const fn word(state: Told) -> &'static str {
    match state {
        Told::Active => "active",
        Told::Backup => "backup",
        Told::Fault => "fault",
        Told::Stop => "stop",
    }
}

/// keepalived's words.
const fn familiar(state: Told) -> &'static str {
    match state {
        Told::Active => "MASTER",
        Told::Backup => "BACKUP",
        Told::Fault => "FAULT",
        Told::Stop => "STOP",
    }
}

/// The order for the runner.
fn order(index: usize, vip: &Vip, notify: &Notify, node: &str, start: &Start<'_, Facts>) -> Run {
    let facts = start.facts;
    let mut argv = command(notify, start.state, start.slot).to_vec();
    if start.slot == Slot::Any && notify.keepalived_arguments {
        let state = familiar(start.state);
        let priority = facts.priority.to_string();
        argv.extend(["INSTANCE", &vip.name, state, &priority].map(str::to_owned));
    }
    let env = [
        ("LBD_VIP", vip.name.clone()),
        ("LBD_VRID", vip.vrid.to_string()),
        ("LBD_STATE", word(start.state).to_owned()),
        (
            "LBD_PREVIOUS_STATE",
            start.previous.map_or("", word).to_owned(),
        ),
        ("LBD_PRIORITY", facts.priority.to_string()),
        ("LBD_REASON", facts.reason.to_owned()),
        ("LBD_ADDRESSES", facts.addresses.clone()),
        ("LBD_INTERFACE", facts.interface.clone()),
        ("LBD_NODE", node.to_owned()),
        ("LBD_SEQ", facts.seq.to_string()),
    ];
    Run {
        job: Job::Notify(u16::try_from(index).unwrap_or(u16::MAX)),
        run: start.run,
        command: argv,
        timeout_ms: u64::try_from(notify.timeout.as_millis()).unwrap_or(u64::MAX),
        env: env.map(|(name, value)| (name.to_owned(), value)).into(),
        user: notify.user.clone(),
    }
}

impl Keeper {
    /// A virtual router has changed its state, and each member of a sync-group with it.
    pub(super) fn router_changed(
        &mut self,
        now: Instant,
        router: usize,
        (from, to): (VrrpState, VrrpState),
        reason: &'static str,
    ) {
        let state = match to {
            VrrpState::Active => Some(Told::Active),
            VrrpState::Backup => Some(Told::Backup),
            VrrpState::Initialize if self.stopping.is_some() => Some(Told::Stop),
            VrrpState::Initialize => Some(Told::Fault),
            // It still has the addresses.
            VrrpState::Leaving => None,
        };
        if VrrpState::Active == to || VrrpState::Active == from {
            self.recorder.note(now, "vip-move");
        }
        let status = self.routers.status(now);
        for index in self.routers.members(router).to_vec() {
            let Some(vip) = self.args.config.vips.get(index) else {
                continue;
            };
            let (name, notify) = (vip.name.clone(), vip.notify.is_some());
            let change = Some((plain(from), plain(to)));
            let status = status.iter().find(|status| status.name == name);
            let cause = self.cause_of_move(&name, reason, status);
            let about = (Some(name.as_str()), None);
            let seq = self.record_caused(EventKind::State, about, change, (reason, cause));
            let notifier = self.notifiers.all.get_mut(index);
            let (Some(state), Some(status), Some(notifier)) = (state, status, notifier) else {
                continue;
            };
            if notify {
                let facts = Facts {
                    seq,
                    priority: status.effective_priority,
                    interface: status.interface.clone(),
                    addresses: status.addresses.join(" "),
                    reason,
                };
                notifier.news(state, facts);
            }
        }
    }

    /// Has the programs started that are next.
    pub(super) fn drive_notify(&mut self, now: Instant) {
        if !self.scripts.has_runner() {
            return;
        }
        for index in 0..self.notifiers.all.len() {
            let Some(run) = self.next_notify(now, index) else {
                continue;
            };
            // Who doesn't take the order is gone, and the run with it.
            if !self.tell_runner(now, &ToRunner::Run(run)) {
                return;
            }
        }
    }

    fn next_notify(&mut self, now: Instant, index: usize) -> Option<Run> {
        let vip = self.args.config.vips.get(index)?;
        let notify = vip.notify.as_ref()?;
        let notifier = self.notifiers.all.get_mut(index)?;
        let start = notifier.next(now, |state, slot| !command(notify, state, slot).is_empty())?;
        let node = self.notifiers.nodes.get(index).map_or("", String::as_str);
        Some(order(index, vip, notify, node, &start))
    }

    /// A program has ended.
    pub(super) fn notify_ended(&mut self, vip: u16, run: u64, how: &Outcome, output: &str) {
        let index = usize::from(vip);
        let notifier = self.notifiers.all.get_mut(index);
        let Some((state, slot)) = notifier.and_then(|notifier| notifier.ended(run)) else {
            return;
        };
        let Some(vip) = self.args.config.vips.get(index) else {
            return;
        };
        let key = match slot {
            Slot::Own => word(state),
            Slot::Any => "any",
        };
        if how.is_ok() {
            tracing::debug!(vip = vip.name, key, "notify program done");
            return;
        }
        tracing::warn!(vip = vip.name, key, reason = %how, "notify program failed");
        tracing::debug!(vip = vip.name, key, output, "notify program wrote");
        let name = vip.name.clone();
        let about = (Some(name.as_str()), Some(key));
        self.record(EventKind::Notify, about, None, &how.to_string());
    }

    /// The runner owes the end of a program for too long.
    pub(super) fn is_notify_overdue(&self, now: Instant) -> bool {
        let due = self.notifiers.deadline(&self.args.config);
        due.is_some_and(|at| now >= at)
    }
}

/// How long lbd's own end waits for programs.
pub(super) const WAIT_AT_STOP: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(notify: &str) -> Vip {
        let text = format!(
            "[vip.kube]\naddress = [\"172.16.0.10/24\", \"172.16.0.11/24\"]\n\
             nodes = [\"172.16.0.2\", \"172.16.0.3\"]\nnotify = {{ {notify} }}\n"
        );
        crate::config::load(&text).unwrap().vips.remove(0)
    }

    fn ordered(vip: &Vip, slot: Slot, state: Told, previous: Option<Told>) -> Run {
        let facts = Facts {
            seq: 42,
            priority: 190,
            interface: "eth0".into(),
            addresses: "172.16.0.10/24 172.16.0.11/24".into(),
            reason: "address owner",
        };
        let start = Start {
            run: 5,
            slot,
            state,
            previous,
            facts: &facts,
        };
        order(0, vip, vip.notify.as_ref().unwrap(), "lb1", &start)
    }

    #[test]
    fn a_program_learns_everything_from_its_environment() {
        let vip = vip("active = [\"/bin/a\", \"-x\"], timeout = \"3s\", user = \"nobody\"");
        let run = ordered(&vip, Slot::Own, Told::Active, Some(Told::Backup));
        assert_eq!(run.command, ["/bin/a", "-x"]);
        assert_eq!((run.run, run.timeout_ms), (5, 3_000));
        assert_eq!(run.user.unwrap().user, "nobody");
        let env: Vec<String> = run.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let expected = [
            "LBD_VIP=kube",
            "LBD_VRID=10",
            "LBD_STATE=active",
            "LBD_PREVIOUS_STATE=backup",
            "LBD_PRIORITY=190",
            "LBD_REASON=address owner",
            "LBD_ADDRESSES=172.16.0.10/24 172.16.0.11/24",
            "LBD_INTERFACE=eth0",
            "LBD_NODE=lb1",
            "LBD_SEQ=42",
        ];
        assert_eq!(env, expected);
    }

    #[test]
    fn the_program_for_all_gets_keepaliveds_arguments_when_asked_for() {
        let vip = vip("any = [\"/bin/n\"], keepalived-arguments = true");
        for (state, expected) in [
            (Told::Active, "MASTER"),
            (Told::Backup, "BACKUP"),
            (Told::Fault, "FAULT"),
            (Told::Stop, "STOP"),
        ] {
            let run = ordered(&vip, Slot::Any, state, None);
            let arguments = ["/bin/n", "INSTANCE", "kube", expected, "190"];
            assert_eq!(run.command, arguments);
            assert_eq!(run.env[3].1, "");
        }
    }

    #[test]
    fn who_gives_no_program_for_the_end_is_told_as_a_backup() {
        let with = vip("backup = [\"/bin/b\"], stop = [\"/bin/s\"]");
        let without = vip("backup = [\"/bin/b\"]");
        let program = |vip: &Vip| ordered(vip, Slot::Own, Told::Stop, None).command;
        assert_eq!(
            (program(&with), program(&without)),
            (vec!["/bin/s".into()], vec!["/bin/b".into()])
        );
    }
}
