//! `lbd failover`: hands virtual IPs over to another node, and waits until that has happened.

use std::time::Duration;

use clap::Args;

use super::reach::{FAILURE, Reach, complain};
use super::status::Output;
use super::{Exit, out, talk};
use crate::admin::protocol::{self, Command, ask_status};
use crate::admin::status::short_time;
use crate::config;
use crate::ipc::command::{Failover, Outcome, ReleaseHold, VipOutcome, VipResult};
use crate::ipc::message::VrrpStatus;
use crate::log::escape;

/// What an answer may take beyond the election itself.
const SLACK: Duration = Duration::from_secs(5);
/// The longest `--for`: what lasts longer is better written in lb.toml.
const HOLD_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Each node announces for itself.
const NO_ELECTION: &str = "an address announced as a route is moved by no election: stop lbd on \
                           this node, or have something it tracks fail, to withdraw it here";

const EXAMPLES: &str = "\
The node goes on serving until another one has taken over, and then resets what is left. Afterwards
it takes the VIP back only when the other node fails, when --for is over, or after --cancel; `lbd
status` shows it as held back. When nobody comes it stays active and the exit code is 1.

Examples:
  lbd failover              hand over everything this node is active for
  lbd failover kube         hand over [vip.kube]
  lbd failover --for 30m    hand over, and don't take it back for half an hour
  lbd failover --cancel     take part in elections as before

Exit codes: 0 done, 1 not done, 2 no such VIP, 69 no daemon, 77 not root or the daemon's user.";

/// Arguments of `lbd failover`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FailoverArgs {
    /// Names of [vip.NAME] [default: all that this node is active for]
    #[arg(value_name = "VIP")]
    vips: Vec<String>,
    /// How long this node doesn't take the VIP back by itself, e.g. 10m
    #[arg(long = "for", value_name = "TIME", value_parser = hold_time)]
    hold: Option<Duration>,
    /// End what an earlier failover left behind: preempt again
    #[arg(long, conflicts_with = "hold")]
    cancel: bool,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

fn hold_time(text: &str) -> Result<Duration, String> {
    match config::plain_duration(text) {
        Some(time) if (Duration::from_secs(1)..=HOLD_MAX).contains(&time) => Ok(time),
        Some(_) => Err("from 1s to 720h".to_owned()),
        None => Err("write a whole number and a unit, s, m or h: 30s, 10m, 2h".to_owned()),
    }
}

/// Orders, waits, prints, and says with which code to exit.
pub(super) fn run(args: &FailoverArgs) -> u8 {
    let path = match args.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let status = match ask_status(&path) {
        Ok(status) => status,
        Err(error) => return complain("lbd failover", &error),
    };
    let vrrp = match status.vrrp {
        Some(vrrp) if !vrrp.vips.is_empty() => vrrp,
        Some(vrrp) => {
            let why = match vrrp.routes.as_slice() {
                [] => "this node has no [vip]: there is nothing to hand over",
                [_, ..] => NO_ELECTION,
            };
            talk(&format!("error: {why}"));
            return FAILURE;
        }
        None => {
            talk("error: the keeper has not said anything yet: try again in a second");
            return FAILURE;
        }
    };
    let is_route = |name: &String| vrrp.routes.iter().any(|route| route.name == *name);
    if args.vips.iter().any(is_route) {
        talk(&format!("error: {NO_ELECTION}"));
        return FAILURE;
    }
    if let Some(why) = unknown_name(&args.vips, &vrrp) {
        talk(&format!("error: {why}"));
        return Exit::Usage.code();
    }
    let outcome = match protocol::order(&path, command(args), patience(&vrrp)) {
        Ok(outcome) => outcome,
        Err(error) => return complain("lbd failover", &error),
    };
    let text = match args.output {
        Output::Json => match serde_json::to_string_pretty(&outcome) {
            Ok(text) => text + "\n",
            Err(_unprintable) => return FAILURE,
        },
        Output::Table => render(&outcome, args),
    };
    if out(&text).is_err() {
        return FAILURE;
    }
    verdict(&outcome, args.vips.is_empty())
}

fn command(args: &FailoverArgs) -> Command {
    let vips = args.vips.clone();
    if args.cancel {
        return Command::ReleaseHold(ReleaseHold { vips });
    }
    let hold_ms = args
        .hold
        .and_then(|hold| u64::try_from(hold.as_millis()).ok());
    Command::Failover(Failover { vips, hold_ms })
}

/// Waiting for a successor takes Active_Down_Interval of the lowest priority and one interval more.
fn patience(vrrp: &VrrpStatus) -> Duration {
    let intervals = vrrp.vips.iter().map(|vip| vip.advert_interval_ms);
    Duration::from_millis(intervals.max().unwrap_or_default().into()) * 5 + SLACK
}

/// The complaint about a name that no VIP of this node has.
fn unknown_name(names: &[String], vrrp: &VrrpStatus) -> Option<String> {
    let known = || vrrp.vips.iter().map(|vip| vip.name.as_str());
    let unknown = names
        .iter()
        .find(|name| known().all(|known| known != name.as_str()))?;
    let help = match config::nearest(unknown, known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known().collect::<Vec<_>>().join(", ")),
    };
    Some(format!("no [vip.{}] on this node: {help}", escape(unknown)))
}

/// For people: a line for each VIP, and what holds from now on.
fn render(outcome: &Outcome, args: &FailoverArgs) -> String {
    let vips = match outcome {
        Outcome::Vips(vips) => vips,
        Outcome::Reload(_) | Outcome::Log(_) => {
            return "the daemon answers another question\n".to_owned();
        }
        Outcome::Refused(why) => return format!("refused: {}\n", escape(why)),
        Outcome::Unknown(why) => {
            return format!("nobody knows how it ended: {}\n", escape(why));
        }
        Outcome::Upgrading(_) | Outcome::Recorded(_) => return String::new(),
    };
    let mut lines: Vec<String> = shown(vips, args.vips.is_empty()).map(line).collect();
    if vips.iter().any(|vip| vip.result == VipResult::TakenOver) {
        let hold = args.hold.map_or_else(String::new, |hold| {
            let ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
            format!("for {} or ", short_time(ms))
        });
        lines.push(format!(
            "this node is held back {hold}until `lbd failover --cancel`, unless the other one fails"
        ));
    }
    lines.join("\n") + "\n"
}

/// Who asks for all doesn't hear of those that were elsewhere anyway, unless that is all there is.
fn shown(vips: &[VipOutcome], all: bool) -> impl Iterator<Item = &VipOutcome> {
    let elsewhere = |vip: &VipOutcome| vip.result == VipResult::NotActive;
    let nothing = vips.iter().all(elsewhere);
    vips.iter()
        .filter(move |vip| !all || nothing || !elsewhere(vip))
}

pub(super) fn line(vip: &VipOutcome) -> String {
    let name = &vip.vip;
    let ms = vip.elapsed_ms;
    let active = match (&vip.node, vip.active) {
        (Some(node), Some(address)) => Some(format!("{node} ({address})")),
        (None, Some(address)) => Some(address.to_string()),
        (_, None) => None,
    };
    let text = match (vip.result, active) {
        (VipResult::TakenOver, Some(node)) => format!("{node} took over in {ms} ms"),
        (VipResult::TakenOver, None) => format!("another node took over in {ms} ms"),
        (VipResult::NobodyTookOver, _) => {
            format!("nobody took over within {ms} ms; still active here")
        }
        (VipResult::NotActive, Some(node)) => format!("not active here, but on {node}"),
        (VipResult::NotActive, None) => "not active here, nor on any node that is heard".to_owned(),
        (VipResult::Interrupted, _) => {
            format!("interrupted after {ms} ms; `lbd status` says what this node does")
        }
        (VipResult::Released, _) => "no longer held back".to_owned(),
        (VipResult::NotHeldBack, _) => "was not held back".to_owned(),
        (VipResult::Unknown, _) => "no such VIP on this node".to_owned(),
    };
    escape(&format!("{name}: {text}")).to_string()
}

fn verdict(outcome: &Outcome, all: bool) -> u8 {
    let vips = match outcome {
        Outcome::Vips(vips) => vips,
        Outcome::Refused(_)
        | Outcome::Unknown(_)
        | Outcome::Reload(_)
        | Outcome::Log(_)
        | Outcome::Upgrading(_)
        | Outcome::Recorded(_) => {
            return FAILURE;
        }
    };
    let mut exit = 0;
    for vip in shown(vips, all) {
        let of_this = match vip.result {
            VipResult::TakenOver | VipResult::Released | VipResult::NotHeldBack => 0,
            VipResult::NobodyTookOver | VipResult::NotActive | VipResult::Interrupted => FAILURE,
            VipResult::Unknown => Exit::Usage.code(),
        };
        exit = exit.max(of_this);
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(result: VipResult) -> VipOutcome {
        VipOutcome {
            vip: "kube".into(),
            result,
            active: Some("172.16.0.3".parse().unwrap()),
            node: Some("lb2".into()),
            elapsed_ms: 12,
        }
    }

    #[test]
    fn each_end_has_its_words_and_its_exit_code() {
        let cases = [
            (
                VipResult::TakenOver,
                "kube: lb2 (172.16.0.3) took over in 12 ms",
                0,
            ),
            (
                VipResult::NobodyTookOver,
                "kube: nobody took over within 12 ms; still active here",
                1,
            ),
            (
                VipResult::NotActive,
                "kube: not active here, but on lb2 (172.16.0.3)",
                1,
            ),
            (VipResult::Released, "kube: no longer held back", 0),
            (VipResult::NotHeldBack, "kube: was not held back", 0),
            (VipResult::Unknown, "kube: no such VIP on this node", 2),
        ];
        for (result, text, exit) in cases {
            let vip = vip(result);
            assert_eq!(line(&vip), text);
            assert_eq!(verdict(&Outcome::Vips(vec![vip]), false), exit);
        }
    }

    #[test]
    fn who_asks_for_all_is_not_told_of_what_was_elsewhere_anyway() {
        let both = vec![vip(VipResult::TakenOver), vip(VipResult::NotActive)];
        assert_eq!(shown(&both, true).count(), 1);
        assert_eq!(verdict(&Outcome::Vips(both.clone()), true), 0);
        assert_eq!(shown(&both, false).count(), 2);
        assert_eq!(verdict(&Outcome::Vips(both), false), 1);
        let elsewhere = vec![vip(VipResult::NotActive), vip(VipResult::NotActive)];
        assert_eq!(shown(&elsewhere, true).count(), 2);
        assert_eq!(verdict(&Outcome::Vips(elsewhere), true), 1);
    }

    #[test]
    fn a_hold_is_a_time_with_a_unit() {
        assert_eq!(hold_time("10m"), Ok(Duration::from_secs(600)));
        assert!(hold_time("10").is_err());
        assert!(hold_time("0s").is_err());
        assert!(hold_time("721h").is_err());
    }
}
