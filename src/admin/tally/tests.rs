//! Counts over several processes: none is lost, none counts twice, none goes back.

use super::*;
use crate::admin::status::{ProxyStatus, ServerState, ServerStatus};

const WALL: Duration = Duration::from_secs(1_000);

fn ledger(of: u64) -> Ledger {
    Ledger {
        of,
        ..Ledger::default()
    }
}

/// A process that accepted so many connections and made so many checks.
fn counted(accepted: u64, checks: u64) -> Status {
    let server = ServerStatus {
        name: "a".to_owned(),
        state: ServerState::Up,
        since_ms: 5_000,
        checks,
        connected: accepted,
        ..ServerStatus::default()
    };
    let mut proxy = ProxyStatus {
        name: "kube".to_owned(),
        servers: vec![server],
        ..ProxyStatus::default()
    };
    proxy.totals.accepted = accepted;
    proxy.totals.failed = vec![("denied".to_owned(), accepted / 10)];
    proxy.measures.waits.counts[3] = accepted;
    proxy.measures.connections_most = accepted;
    Status {
        proxies: vec![proxy],
        ..Status::default()
    }
}

/// Accepted, refused, connected, waits, most at once; and checks.
fn shown(ledger: &Ledger, own: Status) -> ([u64; 5], u64) {
    let shown = ledger.show(own, WALL);
    let proxy = &shown.proxies[0];
    let server = &proxy.servers[0];
    let counts = [
        proxy.totals.accepted,
        proxy.totals.failed[0].1,
        server.connected,
        proxy.measures.waits.counts[3],
        proxy.measures.connections_most,
    ];
    (counts, server.checks)
}

fn tell(to: &mut Ledger, pages: &[Page], present: &Status) {
    for page in pages {
        // As it comes over a socket.
        let page = postcard::from_bytes(&postcard::to_stdvec(page).unwrap()).unwrap();
        to.take_in(page, || present.clone());
    }
}

#[test]
fn totals_go_on_from_where_the_process_before_was() {
    let (old, mut new) = (ledger(1), ledger(2));
    let (pages, mut told) = old.hand_over(&counted(100, 50), WALL);
    // It has made two checks of its own meanwhile, and counts no connection.
    tell(&mut new, &pages, &counted(0, 2));
    assert_eq!(shown(&new, counted(0, 2)), ([100, 10, 100, 100, 100], 50));
    assert_eq!(shown(&new, counted(20, 5)), ([120, 12, 120, 120, 100], 53));
    // What the old one goes on to count is counted, its checks are not.
    let pages = old.tell_again(&counted(130, 70), &mut told, false);
    tell(&mut new, &pages, &counted(20, 5));
    assert_eq!(shown(&new, counted(20, 5)), ([150, 15, 150, 150, 100], 53));
    assert!(
        old.tell_again(&counted(130, 75), &mut told, false)
            .is_empty()
    );
}

#[test]
fn what_is_told_twice_late_or_out_of_order_counts_once() {
    let (old, mut new) = (ledger(1), ledger(2));
    let (first, mut told) = old.hand_over(&counted(100, 50), WALL);
    let later = old.tell_again(&counted(140, 50), &mut told, false);
    let last = old.tell_again(&counted(150, 50), &mut told, true);
    tell(&mut new, &later, &counted(0, 0));
    tell(&mut new, &first, &counted(0, 0));
    tell(&mut new, &first, &counted(0, 9));
    assert_eq!(shown(&new, counted(7, 0)).0[0], 147);
    tell(&mut new, &last, &counted(0, 0));
    tell(&mut new, &last, &counted(0, 0));
    tell(&mut new, &later, &counted(0, 0));
    assert_eq!(shown(&new, counted(7, 0)), ([157, 15, 157, 157, 100], 50));
}

#[test]
fn three_processes_in_a_row_count_everything_once_whoever_ends_when() {
    let (first, mut second, mut third) = (ledger(1), ledger(2), ledger(3));
    let (pages, mut told) = first.hand_over(&counted(100, 10), WALL);
    tell(&mut second, &pages, &counted(0, 1));
    let (pages, mut told_by_second) = second.hand_over(&counted(50, 6), WALL);
    tell(&mut third, &pages, &counted(0, 2));
    assert_eq!(shown(&third, counted(1, 3)), ([151, 15, 151, 151, 100], 16));
    // The first ends first; the second tells once more of the first what it knew.
    let last = first.tell_again(&counted(110, 10), &mut told, true);
    tell(&mut third, &last, &counted(1, 3));
    tell(&mut third, &second.known(&told_by_second), &counted(1, 3));
    assert_eq!(shown(&third, counted(1, 3)).0[0], 161);
    // A fourth hears it from the third, and late words of the second as well.
    let mut fourth = ledger(4);
    let (pages, _) = third.hand_over(&counted(1, 3), WALL);
    tell(&mut fourth, &second.known(&told_by_second), &counted(0, 0));
    tell(&mut fourth, &pages, &counted(0, 0));
    tell(&mut fourth, &second.known(&told_by_second), &counted(0, 0));
    assert_eq!(
        shown(&fourth, counted(0, 0)),
        ([161, 16, 161, 161, 100], 16)
    );
    let last = second.tell_again(&counted(60, 9), &mut told_by_second, true);
    tell(&mut fourth, &last, &counted(0, 0));
    assert_eq!(shown(&fourth, counted(5, 0)).0[0], 176);
}

#[test]
fn a_server_has_been_as_it_is_since_before_this_process() {
    let (old, mut new) = (ledger(1), ledger(2));
    let (pages, _) = old.hand_over(&counted(1, 1), WALL);
    tell(&mut new, &pages, &counted(0, 0));
    let since = |state, transitions| {
        let mut own = counted(0, 0);
        let server = &mut own.proxies[0].servers[0];
        (server.state, server.since_ms, server.transitions) = (state, 300, transitions);
        let shown = new.show(own, WALL + Duration::from_secs(2));
        shown.proxies[0].servers[0].since_ms
    };
    assert_eq!(since(ServerState::Up, 0), 7_000);
    // It went down, or down and up again, here.
    assert_eq!(since(ServerState::Down, 0), 300);
    assert_eq!(since(ServerState::Up, 2), 300);
}

#[test]
fn counts_of_servers_that_are_gone_wait_for_them_and_are_not_handed_on() {
    let (old, mut new) = (ledger(1), ledger(2));
    let (pages, _) = old.hand_over(&counted(100, 0), WALL);
    tell(&mut new, &pages, &counted(0, 0));
    let mut without = counted(3, 0);
    without.proxies[0].servers.clear();
    let seen = new.show(without.clone(), WALL);
    assert_eq!(seen.proxies[0].totals.accepted, 103);
    assert_eq!(shown(&new, counted(3, 0)).0[2], 103);
}

#[test]
fn a_page_stays_below_the_longest_message() {
    use crate::ipc::message::ToKeeper;
    let mut status = counted(u64::MAX, u64::MAX);
    let proxy = &mut status.proxies[0];
    proxy.name = "p".repeat(63);
    for at in 0..200 {
        let mut server = proxy.servers[0].clone();
        server.name = format!("{at}{}", "s".repeat(60));
        server.measures.connects.counts = [u64::MAX; 19];
        server.measures.checks.counts = [u64::MAX; 19];
        (server.bytes_in, server.bytes_out) = (u64::MAX, u64::MAX);
        proxy.servers.push(server);
    }
    let (pages, _) = ledger(1).hand_over(&status, WALL);
    assert_eq!(pages.len(), 9);
    for page in pages {
        assert!(ToKeeper::Tally(page).encode().unwrap().len() < 64 << 10);
    }
}

#[test]
fn a_process_that_is_said_to_have_ended_many_times_is_remembered_once() {
    let mut new = ledger(9);
    let pages = vec![Page::Ended(vec![1, 2]); ENDED_MAX];
    tell(&mut new, &[Page::Ended(vec![3])], &counted(0, 0));
    tell(&mut new, &pages, &counted(0, 0));
    assert_eq!(new.ended, [3, 1, 2]);
}

#[test]
fn the_memory_of_processes_that_never_said_that_they_ended_is_bounded() {
    let mut new = ledger(1_000);
    for of in 1..=100 {
        let (pages, _) = ledger(of).hand_over(&counted(10, 0), WALL);
        tell(&mut new, &pages, &counted(0, 0));
    }
    assert_eq!(new.others.len(), OTHERS_MAX);
    assert_eq!(shown(&new, counted(0, 0)).0[0], 1_000);
}
