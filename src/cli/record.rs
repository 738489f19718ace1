//! `lbd record`: has the daemon write down what its state machines were told of late.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::reach::{FAILURE, Reach, complain};
use super::status::Output;
use super::{out, talk};
use crate::admin::protocol::{Command, order};
use crate::ipc::command::Outcome;
use crate::log::escape;

/// Some megabytes are written, then the daemon answers.
const PATIENCE: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
The recording holds about the last ten minutes: for each virtual router every advert, timer and
verdict with its time, and what the daemon made of it; the same for each server's probes, for what
is tracked, and for the watch over the proxy. No key and no password is in it. The tapes of the
proxy process that ended last are in it, too.

The daemon writes one by itself a few seconds after a VIP has moved and after its proxy hung, and
when its proxy process ended. All lie in recorder/ of its state directory: the newest 16, and
beside them the newest 4 of proxy processes that ended.

Examples:
  lbd record                         write one, and say where it is
  lbd record --output failover.rec   and copy it here
  lbd replay failover.rec            what happened, by the same state machines

Exit codes: 0 done, 1 not done, 2 usage, 69 no daemon, 77 not root or the daemon's user.";

/// Arguments of `lbd record`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RecordArgs {
    /// Copy the recording to this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the answer looks
    #[arg(short = 'o', long = "format", value_enum, default_value_t = Output::Table)]
    format: Output,
    #[command(flatten)]
    reach: Reach,
}

/// Gives the order. Exit codes: 0, 1, 69 or 77.
pub(super) fn run(args: &RecordArgs) -> u8 {
    let path = match args.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let written = match order(&path, Command::Record, PATIENCE) {
        Ok(Outcome::Recorded(written)) => written,
        Ok(Outcome::Refused(why) | Outcome::Unknown(why)) => {
            talk(&format!("lbd record: {}", escape(&why)));
            return FAILURE;
        }
        Ok(Outcome::Vips(_) | Outcome::Reload(_) | Outcome::Log(_) | Outcome::Upgrading(_)) => {
            talk("lbd record: the daemon answers another question");
            return FAILURE;
        }
        Err(error) => return complain("lbd record", &error),
    };
    let shown = match &args.output {
        None => written,
        Some(target) => match copy(Path::new(&written), target) {
            Ok(()) => target.display().to_string(),
            Err(error) => {
                let target = target.display();
                talk(&format!(
                    "lbd record: {written} cannot be copied to {target}: {error}"
                ));
                return FAILURE;
            }
        },
    };
    let text = match args.format {
        Output::Table => format!("{}\n", escape(&shown)),
        Output::Json => format!("{}\n", serde_json::json!({ "file": shown })),
    };
    out(&text).map_or(FAILURE, |()| 0)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut source = std::fs::File::open(from)?;
    let mut target = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(to)?;
    std::io::copy(&mut source, &mut target).map(|_bytes| ())
}
