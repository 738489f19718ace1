//! Runs cases under callgrind and reads what it counted.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cases::Case;

/// Cases measured at once: valgrind runs one thread at a time.
const AT_ONCE: usize = 2;

/// Instructions per operation of each case.
pub(crate) fn count(
    cases: &[Case],
    profiles: Option<&Path>,
) -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
    if let Some(dir) = profiles {
        std::fs::create_dir_all(dir)?;
    }
    let mut counts = BTreeMap::new();
    let overhead = run(&Case::NOTHING, Case::NOTHING.times, None)?.wait()?;
    let overhead = overhead / u64::from(Case::NOTHING.times);
    for batch in cases.chunks(AT_ONCE) {
        let mut running = Vec::new();
        for case in batch {
            let empty = run_empty(case)?;
            running.push((case, run(case, case.times, profiles)?, empty));
        }
        for (case, whole, empty) in running {
            let empty = empty.map_or(Ok(0), Run::wait)?;
            let inside = whole.wait()?.saturating_sub(empty);
            let operations = u64::from(case.times - case.empty);
            let spent = if case.empty == 0 { overhead } else { 0 };
            let each = (inside + operations / 2) / operations;
            counts.insert(case.name.to_owned(), each.saturating_sub(spent));
        }
    }
    Ok(counts)
}

/// The same case with hardly any operations, where more than those is counted.
fn run_empty(case: &Case) -> Result<Option<Run>, Box<dyn Error>> {
    if case.empty == 0 {
        return Ok(None);
    }
    run(case, case.empty, None).map(Some)
}

struct Run {
    name: &'static str,
    child: Child,
}

fn run(case: &Case, times: u32, profiles: Option<&Path>) -> Result<Run, Box<dyn Error>> {
    let out = profiles.map_or_else(
        || PathBuf::from("/dev/null"),
        |dir| {
            dir.join(format!(
                "{}.callgrind",
                case.name.replace([' ', ':', ','], "-")
            ))
        },
    );
    let child = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect={}", case.counted))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--run", case.name, "--times", &times.to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("valgrind does not start (Debian's package valgrind): {error}"))?;
    Ok(Run {
        name: case.name,
        child,
    })
}

impl Run {
    /// The instructions that were collected.
    fn wait(self) -> Result<u64, Box<dyn Error>> {
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let collected = said
            .lines()
            .find_map(|line| line.split_once("Collected :"))
            .and_then(|(_, count)| count.trim().parse().ok());
        match collected {
            Some(count) if output.status.success() && count > 0 => Ok(count),
            _failed => Err(format!("{}: nothing was counted:\n{said}", self.name).into()),
        }
    }
}
