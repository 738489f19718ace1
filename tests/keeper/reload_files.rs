//! When another configuration is taken: the file is watched, and orders, signals and upgrades come at
//! once.

use super::node::{Client, Folder, Node, SOON, ask, wait_for};
use super::reload::{GENERAL, lbd, single, text};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

/// Enough of them, one after the other, outlast the pause that a watched file is given.
const LONG_ENOUGH: u32 = 250;

/// As `mv` does it.
fn renamed(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// As `ln -sfn` does it.
fn linked(path: &Path, target: &str) {
    let beside = path.parent().unwrap().join("beside");
    symlink(target, &beside).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// A directory with this file in it, as Kubernetes lays one out for each version of a ConfigMap.
fn version(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let directory = folder.0.join(name);
    fs::create_dir(&directory).unwrap();
    let path = directory.join("lb.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_watched_file_is_taken_however_it_is_replaced_and_never_by_halves() {
    let folder = Folder::new("reload-watch");
    let (address, proxy) = single("p");
    let (other, more) = single("q");
    let unwatched = format!("{GENERAL}{proxy}");
    let one = format!("{GENERAL}[reload]\nwatch = true\n{proxy}");
    let both = format!("{one}{more}");
    let node = Node::start(&folder, "lb", &one, None);
    let served = |yes: bool| {
        wait_for("the other proxy to come or go", SOON, || {
            (ask(other).is_ok() == yes).then_some(())
        });
    };
    let count = |words: &str| node.log().matches(words).count();
    wait_for("an answer", SOON, || ask(address).ok());
    let client = Client::start(address);
    fs::write(&node.config, &both).unwrap();
    served(true);
    renamed(&node.config, &one);
    served(false);
    renamed(&node.config, &both);
    served(true);
    // The first half would be a whole file.
    let taken = |times: usize| {
        wait_for("so many reloads", SOON, || {
            (count("configuration reloaded") == times).then_some(())
        });
    };
    taken(3);
    let mut file = fs::File::create(&node.config).unwrap();
    file.write_all(one.as_bytes()).unwrap();
    client.wait_answers(LONG_ENOUGH);
    assert_eq!(count("configuration reloaded"), 3);
    file.write_all(format!("{more}idle-timeout = \"30m\"\n").as_bytes())
        .unwrap();
    drop(file);
    taken(4);
    // Refused: said with the place, and the old one counts.
    renamed(&node.config, &format!("{both}idle-timeout = 5\n"));
    node.wait_log("mistake in the new configuration");
    assert!(node.log().contains("place="), "{}", node.log());
    fs::remove_file(&node.config).unwrap();
    wait_for("the second refusal", SOON, || {
        (count("new configuration refused") == 2).then_some(())
    });
    served(true);
    let events = text(&lbd(&node, &["events"]).stdout);
    assert!(events.contains("refused"), "{events}");
    // As Kubernetes does it, also after an upgrade.
    version(&folder, "v1", &one);
    version(&folder, "v2", &both);
    symlink("v1", folder.0.join("..data")).unwrap();
    linked(&node.config, "..data/lb.toml");
    served(false);
    linked(&folder.0.join("..data"), "v2");
    served(true);
    let done = lbd(&node, &["upgrade"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    linked(&folder.0.join("..data"), "v1");
    served(false);
    // No longer watched.
    taken(7);
    let last = version(&folder, "v3", &unwatched);
    linked(&folder.0.join("..data"), "v3");
    taken(8);
    fs::write(last, format!("{unwatched}{more}")).unwrap();
    client.wait_answers(LONG_ENOUGH);
    assert!(ask(other).is_err());
    assert_eq!(lbd(&node, &["reload"]).status.code(), Some(0));
    served(true);
    let outcome = client.finish();
    assert_eq!(outcome.failed, [""; 0]);
}

/// All of these at once; their ends.
fn at_once(node: &Node, orders: &[&str]) -> Vec<Output> {
    thread::scope(|scope| {
        let begin = |order: &&str| {
            let order = (*order).to_owned();
            scope.spawn(move || lbd(node, &[&order]))
        };
        let begun: Vec<_> = orders.iter().map(begin).collect();
        let ended = begun.into_iter().map(|order| order.join().unwrap());
        ended.collect()
    })
}

/// It was done, or refused for something that passes.
fn is_fair(done: &Output, passing: &[&str]) {
    let said = text(&done.stdout) + &text(&done.stderr);
    let code = done.status.code();
    let why = passing.iter().any(|why| said.contains(why));
    assert!(code == Some(0) || code == Some(1) && why, "{code:?} {said}");
}

#[test]
fn storms_of_signals_and_orders_at_once_end_with_the_last_file() {
    let folder = Folder::new("reload-storm");
    let (address, proxy) = single("p");
    let (other, more) = single("q");
    let (one, both) = (
        format!("{GENERAL}{proxy}"),
        format!("{GENERAL}{proxy}{more}"),
    );
    let node = Node::start(&folder, "lb", &one, None);
    // The first order comes before it can be obeyed.
    fs::write(&node.config, &both).unwrap();
    wait_for("an order right after the start", SOON, || {
        let done = lbd(&node, &["reload"]);
        let said = text(&done.stdout) + &text(&done.stderr);
        match done.status.code() {
            Some(0) => Some(()),
            Some(69) => None,
            Some(1) if said.contains("starting") => None,
            code => panic!("{code:?} {said}"),
        }
    });
    wait_for("an answer", SOON, || ask(other).ok());
    let client = Client::start(address);
    let proxy_pid = node.proxy();
    for round in 0..100 {
        renamed(&node.config, if round % 2 == 0 { &one } else { &both });
        node.signal_keeper(Signal::SIGHUP);
        thread::sleep(Duration::from_millis(10));
    }
    wait_for("the last file", SOON, || {
        let status = lbd(&node, &["reload", "--dry-run"]);
        text(&status.stdout).contains("nothing").then_some(())
    });
    ask(other).unwrap();
    assert_eq!(node.proxy(), proxy_pid);
    // Two people at once: one of them may be told so. One who comes after a signal waits.
    renamed(&node.config, &one);
    let done = at_once(&node, &["reload", "reload"]);
    assert!(done.iter().any(|done| done.status.success()), "{done:?}");
    for done in &done {
        is_fair(done, &["another reload is under way"]);
    }
    for text in [&both, &one, &both] {
        renamed(&node.config, text);
        node.signal_keeper(Signal::SIGHUP);
        let done = lbd(&node, &["reload"]);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
    }
    // What can't be read.
    fs::remove_file(&node.config).unwrap();
    fs::create_dir(&node.config).unwrap();
    assert_eq!(lbd(&node, &["reload"]).status.code(), Some(78));
    fs::remove_dir(&node.config).unwrap();
    symlink("nowhere", &node.config).unwrap();
    assert_eq!(lbd(&node, &["reload"]).status.code(), Some(78));
    ask(other).unwrap();
    // And while the program is changed.
    renamed(&node.config, &one);
    let done = at_once(&node, &["upgrade", "reload", "reload"]);
    node.signal_keeper(Signal::SIGHUP);
    for done in &done {
        is_fair(
            done,
            &["under way", "being replaced", "starting", "no keeper"],
        );
    }
    wait_for("the last file", SOON, || ask(other).is_err().then_some(()));
    let outcome = client.finish();
    assert_eq!(outcome.failed, [""; 0]);
}
