//! The runner with real scripts, over a real socket.

use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// A runner in a thread of its own, and the keeper's end of its socket.
fn runner() -> (Connection, std::thread::JoinHandle<()>) {
    let (ours, theirs) = Connection::pair().unwrap();
    let thread = std::thread::spawn(move || serve(theirs, "as it is".into()).unwrap());
    assert_eq!(next(&ours), FromRunner::Ready("as it is".into()));
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
    let run = ToRunner::RunScript(RunScript {
        script: 3,
        run,
        command: command.iter().map(ToString::to_string).collect(),
        timeout_ms,
        env: vec![("LBD_TRACK".into(), "check".into())],
    });
    keeper.send(&run.encode().unwrap(), &[]).unwrap();
}

fn ended(run: u64, how: Outcome) -> FromRunner {
    FromRunner::ScriptEnded {
        script: 3,
        run,
        how,
    }
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
    let FromRunner::ScriptEnded {
        how: Outcome::NotStarted(error),
        ..
    } = next(&keeper)
    else {
        panic!("not refused");
    };
    assert!(error.contains("No such file"), "{error}");
    order(&keeper, 2, &[], 5_000);
    assert!(matches!(
        next(&keeper),
        FromRunner::ScriptEnded { run: 2, .. }
    ));
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
    let thread = std::thread::spawn(move || serve(theirs, "unread".into()));
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap(), 1);
    drop(ours);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_keeper_that_speaks_nonsense_ends_the_runner() {
    let (ours, theirs) = Connection::pair().unwrap();
    ours.send(&[0xff; 8], &[]).unwrap();
    let outcome = serve(theirs, String::new());
    assert!(matches!(outcome, Err(RunnerError::Message(_))));
}
