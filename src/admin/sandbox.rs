//! What `lbd status` says of the rights that lbd's processes have. Pure.

use crate::ipc::confinement::Confinement;

/// One line while nothing is missing, else one for each thing that is.
pub(super) fn lines(processes: &[Confinement]) -> Vec<String> {
    if processes.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> = Vec::new();
    for process in processes {
        for gap in &process.missing {
            let line = format!("sandbox: {}: {}", process.process, gap.what);
            lines.push(line);
        }
    }
    if lines.is_empty() {
        let all: Vec<String> = processes
            .iter()
            .map(|process| format!("{} as {}", process.process, process.user))
            .collect();
        lines.push(format!("sandbox complete: {}", all.join(", ")));
    } else {
        lines.push("`lbd doctor` says what mends it".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str) -> Confinement {
        Confinement {
            process: name.into(),
            user: "lbd".into(),
            no_new_privs: true,
            seccomp: "on".into(),
            landlock: "on".into(),
            ..Confinement::default()
        }
    }

    #[test]
    fn a_complete_sandbox_takes_one_line_and_each_gap_its_own() {
        assert!(lines(&[]).is_empty());
        let all = [process("keeper"), process("runner"), process("proxy")];
        assert_eq!(
            lines(&all),
            ["sandbox complete: keeper as lbd, runner as lbd, proxy as lbd"]
        );
        let mut gap = process("keeper");
        gap.landlock = "off: not in this kernel".into();
        assert_eq!(
            lines(&[gap.judged(None)]),
            [
                "sandbox: keeper: files are not restricted by landlock: not in this kernel",
                "`lbd doctor` says what mends it",
            ]
        );
    }
}
