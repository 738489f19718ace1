//! The runner with real scripts, over a real socket.

use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use crate::config::model::RunAs;
use crate::ipc::runner::Reading;

/// A runner in a thread of its own, and the keeper's end of its socket.
fn runner() -> (Connection, std::thread::JoinHandle<()>) {
    let (ours, theirs) = Connection::pair().unwrap();
    let report = Confinement {
        user: "as it is".into(),
        ..Confinement::default()
    };
    let said = report.clone();
    let thread = std::thread::spawn(move || serve(theirs, said).unwrap());
    assert_eq!(next(&ours), FromRunner::Ready(report));
    (ours, thread)
}

/// The next message, within ten seconds.
fn next(keeper: &Connection) -> FromRunner {
    let mut fds = [PollFd::new(keeper.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap(), 1);
    let mut buffer = [0; 4096];
    let received = keeper.receive(&mut buffer).unwrap().unwrap();
    FromRunner::decode(&buffer[..received.len]).unwrap()
}

fn order(keeper: &Connection, run: u64, command: &[&str], timeout_ms: u64) {
    order_as(keeper, run, command, timeout_ms, None);
}

fn order_as(keeper: &Connection, run: u64, command: &[&str], timeout_ms: u64, user: Option<RunAs>) {
    let run = ToRunner::Run(Run {
        job: Job::Script(3),
        run,
        command: command.iter().map(ToString::to_string).collect(),
        timeout_ms,
        env: vec![("LBD_TRACK".into(), "check".into())],
        user,
    });
    keeper.send(&run.encode().unwrap(), &[]).unwrap();
}

fn user(name: &str, group: Option<&str>) -> Option<RunAs> {
    Some(RunAs {
        user: name.into(),
        group: group.map(str::to_owned),
    })
}

fn ended(run: u64, how: Outcome) -> FromRunner {
    FromRunner::Ended {
        job: Job::Script(3),
        run,
        how,
        output: String::new(),
    }
}

/// What a shell script wrote.
fn output(keeper: &Connection, run: u64, script: &str, user: Option<RunAs>) -> String {
    order_as(keeper, run, &["/bin/sh", "-c", script], 5_000, user);
    let FromRunner::Ended { how, output, .. } = next(keeper) else {
        panic!("{script}: no end");
    };
    assert_eq!(how, Outcome::Exited(0), "{script}: {output}");
    output
}

/// A directory of this test alone.
fn folder(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("lbd-runner-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn exit_codes_and_signals_come_back_with_their_run() {
    let (keeper, thread) = runner();
    order(&keeper, 1, &["/bin/sh", "-c", "exit 0"], 5_000);
    assert_eq!(next(&keeper), ended(1, Outcome::Exited(0)));
    order(&keeper, 2, &["/bin/sh", "-c", "exit 3"], 5_000);
    assert_eq!(next(&keeper), ended(2, Outcome::Exited(3)));
    order(&keeper, 3, &["/bin/sh", "-c", "kill -9 $$"], 5_000);
    assert_eq!(next(&keeper), ended(3, Outcome::Signalled(9)));
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn a_script_sees_path_and_lbd_variables_alone() {
    let (keeper, thread) = runner();
    let test = "test \"$LBD_TRACK\" = check && test -n \"$PATH\" && test -z \"$HOME$CARGO$USER\"";
    order(&keeper, 1, &["/bin/sh", "-c", test], 5_000);
    assert_eq!(next(&keeper), ended(1, Outcome::Exited(0)));
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn at_the_timeout_the_whole_group_is_ended() {
    let (keeper, thread) = runner();
    let dir = std::env::temp_dir().join(format!("lbd-runner-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("pids");
    let script = format!(
        "trap '' TERM; sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait; sleep 60",
        file.display()
    );
    let begin = clock::now();
    order(&keeper, 1, &["/bin/sh", "-c", &script], 200);
    assert_eq!(next(&keeper), ended(1, Outcome::TimedOut));
    let took = clock::now() - begin;
    assert!(took >= Duration::from_millis(1_200), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let grandchild: i32 = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let gone = (0..5_000).any(|_| {
        poll(&mut [], PollTimeout::from(1_u16)).unwrap();
        process::thread_state(grandchild, grandchild).is_ok_and(|found| found.state == 'Z')
            || process::thread_state(grandchild, grandchild).is_err()
    });
    assert!(gone);
    std::fs::remove_dir_all(&dir).unwrap();
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn a_program_that_is_not_there_counts_as_a_failed_run() {
    let (keeper, thread) = runner();
    order(&keeper, 1, &["/nonexistent/check"], 5_000);
    let FromRunner::Ended {
        how: Outcome::NotStarted(error),
        ..
    } = next(&keeper)
    else {
        panic!("not refused");
    };
    assert_eq!(error, "there is no such file");
    order(&keeper, 2, &[], 5_000);
    assert!(matches!(next(&keeper), FromRunner::Ended { run: 2, .. }));
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn when_the_keeper_goes_running_scripts_are_ended() {
    let (keeper, thread) = runner();
    order(&keeper, 1, &["/bin/sh", "-c", "sleep 60"], 60_000);
    order(&keeper, 2, &["/bin/true"], 5_000);
    assert_eq!(next(&keeper), ended(2, Outcome::Exited(0)));
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn a_keeper_that_went_without_reading_is_no_failure() {
    let (ours, theirs) = Connection::pair().unwrap();
    let thread = std::thread::spawn(move || serve(theirs, Confinement::default()));
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap(), 1);
    drop(ours);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_keeper_that_speaks_nonsense_ends_the_runner() {
    let (ours, theirs) = Connection::pair().unwrap();
    ours.send(&[0xff; 8], &[]).unwrap();
    let outcome = serve(theirs, Confinement::default());
    assert!(matches!(outcome, Err(RunnerError::Message(_))));
}

#[test]
fn a_program_has_no_capability_gains_none_and_inherits_no_descriptor() {
    let (keeper, thread) = runner();
    // Inheritable on purpose, as a service manager's may be.
    let (inherited, _) = nix::unistd::pipe().unwrap();
    let script = "grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status; pwd; \
                  ls -m /proc/$$/fd";
    let said = output(&keeper, 1, script, None);
    let none = "0000000000000000";
    let expected = format!(
        "CapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t1\n/\n0, 1, 2"
    );
    assert_eq!(said, expected);
    drop(inherited);
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn a_program_may_not_be_real_time_nor_lock_memory_nor_outlive_a_shortage_of_it() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: limits are raised by root");
        return;
    }
    // What the unit gives the keeper, or its like.
    let limits = [
        (Resource::RLIMIT_RTPRIO, 10),
        (Resource::RLIMIT_MEMLOCK, 1 << 40),
    ];
    let before = limits.map(|(limit, _)| (limit, getrlimit(limit).unwrap()));
    for (limit, most) in limits {
        if setrlimit(limit, most, most).is_err() {
            println!("not permitted here: {limit:?}");
        }
    }
    let score = std::fs::read("/proc/self/oom_score_adj").unwrap();
    let spared = std::fs::write("/proc/self/oom_score_adj", "-500").is_ok();
    println!("spared when memory runs out: {spared}");
    let (keeper, thread) = runner();
    let script = "ulimit -H -r; ulimit -H -l; cat /proc/self/oom_score_adj";
    let bash = ["/bin/bash", "-c", script];
    order(&keeper, 1, &bash, 5_000);
    let FromRunner::Ended { output, .. } = next(&keeper) else {
        panic!("no end");
    };
    std::fs::write("/proc/self/oom_score_adj", score).unwrap();
    for (limit, (soft, hard)) in before {
        setrlimit(limit, soft, hard).unwrap();
    }
    assert_eq!(output, "0\n64\n0");
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn what_a_program_writes_comes_back_however_much_it_is() {
    let (keeper, thread) = runner();
    let said = output(&keeper, 1, "echo out; echo err >&2", None);
    assert_eq!(said, "out\nerr");
    // More than a pipe holds: nobody is held up.
    let script = "i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done";
    let said = output(&keeper, 2, script, None);
    assert!(said.ends_with("line 39998\nline 39999"), "{said}");
    assert!(said.len() <= 1024);
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn a_program_runs_as_its_user_with_that_users_groups_alone() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: another user takes root");
        return;
    }
    let (keeper, thread) = runner();
    let found = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (found.uid, found.gid);
    let script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr '\\t' ' '";
    let said = output(&keeper, 1, script, user("nobody", None));
    let expected =
        format!("Uid: {uid} {uid} {uid} {uid}\nGid: {gid} {gid} {gid} {gid}\nGroups: {gid}");
    assert_eq!(said, expected);
    let said = output(&keeper, 2, "id -g -n", user("nobody", Some("daemon")));
    assert_eq!(said, "daemon");
    // Ended with its group, though it belongs to somebody else.
    let overstays = ["/bin/sh", "-c", "trap '' TERM; sleep 60; sleep 60"];
    order_as(&keeper, 3, &overstays, 200, user("nobody", None));
    assert_eq!(next(&keeper), ended(3, Outcome::TimedOut));
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn a_user_or_group_that_is_not_there_is_a_failed_run() {
    let (keeper, thread) = runner();
    for (run, user, expected) in [
        (
            1,
            user("lbd-no-such-user", None),
            "no such user: lbd-no-such-user",
        ),
        (
            2,
            user("root", Some("lbd-no-such-group")),
            "no such group: lbd-no-such-group",
        ),
    ] {
        order_as(&keeper, run, &["/bin/true"], 5_000, user);
        let how = Outcome::NotStarted(expected.into());
        assert_eq!(next(&keeper), ended(run, how));
    }
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn root_runs_no_program_that_others_can_change() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root must not");
        return;
    }
    let dir = folder("changeable");
    let inner = dir.join("inner");
    std::fs::create_dir_all(&inner).unwrap();
    let script = inner.join("check");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let modes = |directory: u32, file: u32| {
        let mode = std::fs::Permissions::from_mode;
        std::fs::set_permissions(&inner, mode(directory)).unwrap();
        std::fs::set_permissions(&script, mode(file)).unwrap();
    };
    let (keeper, thread) = runner();
    let path = script.to_str().unwrap();
    let changeable = |place: &Path| {
        Outcome::NotStarted(format!(
            "refused as root: others can change {}",
            place.display()
        ))
    };
    let table = [
        (0o755, 0o755, Outcome::Exited(0)),
        (0o755, 0o757, changeable(&script)),
        (0o757, 0o755, changeable(&inner)),
        // As /tmp: nobody can replace what is root's.
        (0o1777, 0o755, Outcome::Exited(0)),
        (
            0o755,
            0o644,
            Outcome::NotStarted("not an executable file".into()),
        ),
    ];
    for (run, (directory, file, expected)) in (1..).zip(table) {
        modes(directory, file);
        order(&keeper, run, &[path], 5_000);
        assert_eq!(
            next(&keeper),
            ended(run, expected),
            "{directory:o} {file:o}"
        );
    }
    // Another user's program may be what that user likes.
    modes(0o777, 0o777);
    std::os::unix::fs::chown(&script, Some(65_534), None).unwrap();
    order_as(&keeper, 9, &[path], 5_000, user("nobody", None));
    assert_eq!(next(&keeper), ended(9, Outcome::Exited(0)));
    order(&keeper, 10, &[path], 5_000);
    assert_eq!(next(&keeper), ended(10, changeable(&script)));
    drop(keeper);
    thread.join().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn programs_are_examined_without_being_run() {
    let (keeper, thread) = runner();
    let program = |name: &str, program: &str| Program {
        name: name.into(),
        program: program.into(),
        user: None,
    };
    let programs = vec![
        program("track.script.a", "/bin/true"),
        program("vip.v.notify.any", "/nonexistent/notify"),
    ];
    let order = ToRunner::Examine(programs).encode().unwrap();
    keeper.send(&order, &[]).unwrap();
    let expected = FromRunner::Trouble {
        name: "vip.v.notify.any".into(),
        trouble: "there is no such file".into(),
    };
    assert_eq!(next(&keeper), expected);
    drop(keeper);
    thread.join().unwrap();
}

#[test]
fn a_watched_file_is_told_of_at_once_and_whenever_it_changes() {
    let (keeper, thread) = runner();
    let dir = folder("watch");
    let (drain, odd) = (dir.join("drain"), dir.join("odd"));
    std::fs::create_dir(&odd).unwrap();
    let paths = [&drain, &odd].map(|path| path.to_str().unwrap().to_owned());
    let order = ToRunner::Watch(paths.to_vec()).encode().unwrap();
    keeper.send(&order, &[]).unwrap();
    let is = |file, number| FromRunner::File {
        file,
        reading: Reading::Number(number),
    };
    assert_eq!(next(&keeper), is(0, 0));
    let unreadable = FromRunner::File {
        file: 1,
        reading: Reading::Failed("not a regular file".into()),
    };
    assert_eq!(next(&keeper), unreadable);
    let began = clock::now();
    std::fs::write(&drain, "").unwrap();
    assert_eq!(next(&keeper), is(0, 1));
    // Another file of the same directory is nobody's business; 0 written in place is.
    std::fs::write(dir.join("other"), "7").unwrap();
    std::fs::write(dir.join("new"), "0\n").unwrap();
    std::fs::rename(dir.join("new"), &drain).unwrap();
    assert_eq!(next(&keeper), is(0, 0));
    std::fs::remove_file(&drain).unwrap();
    std::fs::write(&drain, "-3").unwrap();
    // The look may fall between creation and content.
    let last = (0..2)
        .map(|_| next(&keeper))
        .find(|news| *news == is(0, -3));
    assert!(last.is_some() || next(&keeper) == is(0, -3));
    // By inotify: the slow look comes after five seconds.
    assert!(clock::now() - began < Duration::from_secs(4));
    std::fs::remove_dir_all(&dir).unwrap();
    drop(keeper);
    thread.join().unwrap();
}
