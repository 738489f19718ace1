//! `lbd upgrade`: has the running daemon change to the program on disk, and waits until that is done.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::reach::{FAILURE, Reach, complain};
use super::status::Output;
use super::{out, talk};
use crate::admin::protocol::{self, AskError, Command, ask_status};
use crate::ipc::command::Outcome;
use crate::ipc::message::{UpgradeStage, UpgradeStatus, VrrpStatus};
use crate::log::escape;
use crate::net::clock;

/// The first proxy of the new program may take 30 s, the hand-over of addresses 5 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked how far it has come.
const ASK_EVERY: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
A proxy process of the program on disk starts beside the present one and takes
over once it serves; the present one's connections go on in it until they end.
Then the keeper replaces itself, in the same process: virtual IPs stay where
they are. Nothing is refused or reset. lb.toml is not read again. If the new
program does not come up, what ran before goes on, and the exit code is 1.
SIGUSR2 to the main process does the same without waiting.

Examples:
  lbd upgrade             after the package was upgraded
  lbd upgrade -o json     the same for a program: {\"number\":…,\"stage\":\"done\",…}

Exit codes: 0 done, 1 what ran before goes on, 69 no daemon, 77 not root or the
daemon's user.";

/// Arguments of `lbd upgrade`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UpgradeArgs {
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

/// Orders, waits, prints, and says with which code to exit.
pub(super) fn run(args: &UpgradeArgs) -> u8 {
    let path = match args.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let began = clock::now();
    let number = match protocol::order(&path, Command::Upgrade, PATIENCE) {
        Ok(Outcome::Upgrading(number)) => number,
        Ok(Outcome::Refused(why)) => {
            talk(&format!("error: refused: {}", escape(&why)));
            return FAILURE;
        }
        Ok(
            Outcome::Vips(_)
            | Outcome::Reload(_)
            | Outcome::Log(_)
            | Outcome::Recorded(_)
            | Outcome::Unknown(_),
        ) => {
            talk("error: nobody knows whether it was begun: see `lbd status`");
            return FAILURE;
        }
        Err(error) => return complain("lbd upgrade", &error),
    };
    let ended = wait(number, began, || {
        ask_status(&path).map(|status| status.vrrp)
    });
    match ended {
        Ok((upgrade, vrrp)) => report(args.output, &upgrade, &vrrp, clock::now() - began),
        Err(Some(error)) => complain("lbd upgrade", &error),
        Err(None) => {
            talk("error: it takes too long: `lbd events` says how far it has come");
            FAILURE
        }
    }
}

/// Asks until the upgrade has ended. That nobody answers for a while belongs to it.
fn wait(
    number: u64,
    began: Instant,
    ask: impl Fn() -> Result<Option<VrrpStatus>, AskError>,
) -> Result<(UpgradeStatus, VrrpStatus), Option<AskError>> {
    loop {
        let answer = ask();
        if let Ok(Some(vrrp)) = &answer
            && let Some(upgrade) = vrrp.upgrade.clone().filter(|last| last.number >= number)
        {
            match upgrade.stage {
                UpgradeStage::Done | UpgradeStage::Failed => return Ok((upgrade, vrrp.clone())),
                UpgradeStage::Proxy | UpgradeStage::HandOver | UpgradeStage::Keeper => {}
            }
        }
        if clock::now().saturating_duration_since(began) >= PATIENCE {
            return Err(answer.err());
        }
        thread::sleep(ASK_EVERY);
    }
}

fn report(output: Output, upgrade: &UpgradeStatus, vrrp: &VrrpStatus, took: Duration) -> u8 {
    let done = upgrade.stage == UpgradeStage::Done;
    let text = match output {
        Output::Json => match serde_json::to_string_pretty(upgrade) {
            Ok(text) => text + "\n",
            Err(_unprintable) => return FAILURE,
        },
        Output::Table => render(upgrade, vrrp, took),
    };
    if out(&text).is_err() || !done {
        return FAILURE;
    }
    0
}

fn render(upgrade: &UpgradeStatus, vrrp: &VrrpStatus, took: Duration) -> String {
    if upgrade.stage != UpgradeStage::Done {
        return format!("{}\n", escape(&upgrade.reason));
    }
    let (from, to) = (escape(&upgrade.from), escape(&vrrp.keeper_version));
    let ms = took.as_millis();
    let draining = match vrrp.draining {
        0 => String::new(),
        1 => "\nthe process before goes on until its connections end".to_owned(),
        more => format!("\n{more} processes before go on until their connections end"),
    };
    format!("upgraded from {from} to {to} in {ms} ms{draining}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(number: u64, stage: UpgradeStage) -> VrrpStatus {
        VrrpStatus {
            keeper_version: "0.2.0".into(),
            draining: 1,
            upgrade: Some(UpgradeStatus {
                number,
                stage,
                from: "0.1.0".into(),
                reason: "upgrade failed: it ended".into(),
            }),
            ..VrrpStatus::default()
        }
    }

    #[test]
    fn the_end_of_an_earlier_upgrade_is_not_the_end_of_this_one() {
        let answers = std::cell::RefCell::new(vec![
            status(9, UpgradeStage::Done),
            status(9, UpgradeStage::Proxy),
            status(8, UpgradeStage::Failed),
        ]);
        let ask = || Ok(answers.borrow_mut().pop());
        let (upgrade, _) = wait(9, clock::now(), ask).unwrap();
        assert_eq!(upgrade.stage, UpgradeStage::Done);
        assert!(answers.borrow().is_empty());
    }

    #[test]
    fn it_says_from_what_to_what_or_why_not() {
        let shown = |stage| {
            let status = status(1, stage);
            let upgrade = status.upgrade.clone().unwrap();
            render(&upgrade, &status, Duration::from_millis(120))
        };
        assert_eq!(
            shown(UpgradeStage::Done),
            "upgraded from 0.1.0 to 0.2.0 in 120 ms\nthe process before goes on until its \
             connections end\n"
        );
        assert_eq!(shown(UpgradeStage::Failed), "upgrade failed: it ended\n");
    }
}
