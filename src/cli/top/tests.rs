//! What `lbd top` shows, cell by cell, and what its keys do. The pictures lie in `golden/`; rewrite
//! them with `LBD_UPDATE=1`, and look at what changed.

use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::draw::draw;
use super::rates::{Counter, Of, Rates, curve, short_rate};
use super::state::{Act, Key, Order, Said, Top};
use crate::admin::protocol::Command;
use crate::admin::servers::{ServerName, Servers};
use crate::admin::status::{
    ProcessStatus, ProxyStatus, ProxyTotals, ServerStanding, ServerState, ServerStatus, Status,
};
use crate::ipc::command::{Failover, ReleaseHold};
use crate::ipc::event::{Event, EventKind};
use crate::ipc::message::{
    ChannelStatus, HeldBack, NodeView, RouterView, VipStatus, VrrpState, VrrpStatus,
};

fn server(number: u64, state: ServerState, seconds: u64) -> ServerStatus {
    ServerStatus {
        name: format!("kube-apiserver-{number}"),
        address: format!("172.16.0.{}:6443", number + 3),
        state,
        since_ms: 7_262_000,
        check_micros: Some(2_130),
        weight: 100,
        connections: 70 + number,
        max_connections: Some(250),
        connected: 9_000 + number * seconds * 4,
        bytes_in: number * seconds * 1_000,
        bytes_out: number * seconds * 50_000,
        ..ServerStatus::default()
    }
}

fn vip() -> VipStatus {
    VipStatus {
        name: "haproxy-vip".into(),
        since_ms: 7_262_000,
        tracks: Vec::new(),
        ..crate::admin::tests::vip(VrrpState::Backup)
    }
}

fn channel() -> ChannelStatus {
    ChannelStatus {
        keys: 1,
        nodes: vec![NodeView {
            name: "lb2".into(),
            address: "172.16.0.3".into(),
            reachable: true,
            heard_ms: Some(80),
            version: "0.1.0".into(),
            can_serve: true,
            clients: 198,
            routers: vec![RouterView {
                vip: "haproxy-vip".into(),
                state: VrrpState::Active,
                priority: 110,
                silence_ms: 0,
                unheard: false,
            }],
        }],
        ..ChannelStatus::default()
    }
}

/// lb1, in backup, after so many seconds.
fn node(seconds: u64) -> Status {
    let vrrp = VrrpStatus {
        vips: vec![vip()],
        keeper_pid: 5,
        proxy_starts: 1,
        realtime: true,
        keeper_version: "0.1.0".to_owned(),
        draining: 0,
        upgrade: None,
        channel: Some(channel()),
        ..VrrpStatus::default()
    };
    Status {
        process: ProcessStatus {
            version: "0.1.0".into(),
            pid: 7,
            name: Some("lb1".into()),
            uptime_ms: 7_200_000 + seconds * 1_000,
            serving: true,
            keeper_heard_ms: Some(100),
            connections: 216,
            max_connections: 4_000,
            ..ProcessStatus::default()
        },
        vrrp: Some(vrrp),
        proxies: vec![ProxyStatus {
            name: "kube-apiserver".into(),
            probed: true,
            usable: 3,
            totals: ProxyTotals {
                accepted: 20_000 + seconds * 24,
                ..ProxyTotals::default()
            },
            servers: (1..=3)
                .map(|number| server(number, ServerState::Up, seconds))
                .collect(),
            ..ProxyStatus::default()
        }],
        ..Status::default()
    }
    .judged()
}

fn event(seq: u64, kind: EventKind, from: &str, to: &str, reason: &str) -> Event {
    Event {
        seq,
        at_ms: 1_795_361_109_123 + seq * 1_000,
        kind,
        vip: (kind == EventKind::State).then(|| "haproxy-vip".to_owned()),
        subject: None,
        from: Some(from.to_owned()).filter(|word| !word.is_empty()),
        to: Some(to.to_owned()).filter(|word| !word.is_empty()),
        reason: reason.into(),
        cause: None,
    }
}

fn events() -> Vec<Event> {
    vec![
        event(1, EventKind::Keeper, "", "", "started"),
        event(2, EventKind::State, "initialize", "backup", "start"),
        event(3, EventKind::Track, "ok", "failed", "exit code 3"),
    ]
}

fn top() -> Top {
    let mut top = Top::new(node(0), events(), false);
    for seconds in 1..=5 {
        top.answered(node(seconds), events());
    }
    top
}

/// What stands on a screen of this size, without what is behind the last letter of each line.
fn shown(top: &Top, columns: u16, lines: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| draw(frame, top)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let rows = buffer.content().chunks(usize::from(columns));
    let lines = rows.map(|row| {
        let text: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn golden(name: &str, top: &Top, columns: u16, lines: u16) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/top/golden")
        .join(name);
    let shown = shown(top, columns, lines);
    if std::env::var_os("LBD_UPDATE").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == shown, "{name} looks otherwise:\n{shown}");
}

fn press(top: &mut Top, keys: &str) -> Option<Act> {
    let mut act = None;
    for key in keys.chars() {
        act = top.key(Key::Char(key));
    }
    act
}

fn named(server: &str) -> Servers {
    Servers {
        servers: vec![ServerName {
            proxy: Some("kube-apiserver".into()),
            server: server.into(),
        }],
    }
}

#[test]
fn a_node_in_backup_shows_who_holds_the_vip_and_why() {
    golden("backup.txt", &top(), 80, 24);
    golden("backup-wide.txt", &top(), 130, 30);
}

#[test]
fn a_server_that_is_down_and_one_that_is_drained_stand_out() {
    let mut top = top();
    let mut status = node(6);
    let servers = &mut status.proxies[0].servers;
    servers[2].state = ServerState::Down;
    servers[2].reason = Some("connection refused".into());
    servers[2].since_ms = 12_300;
    servers[1].state = ServerState::Drain;
    servers[0].standing = ServerStanding {
        ejected_ms: Some(400),
        ..ServerStanding::default()
    };
    top.answered(status.judged(), events());
    top.key(Key::End);
    golden("ill.txt", &top, 80, 24);
    press(&mut top, "ss");
    let first = shown(&top, 80, 24);
    let line = first.lines().position(|line| line.contains("DOWN"));
    let other = first.lines().position(|line| line.contains(" drain "));
    assert!(line < other, "{first}");
}

#[test]
fn the_help_and_the_questions_fit_on_the_smallest_terminal() {
    let mut top = top();
    press(&mut top, "?");
    golden("help.txt", &top, 80, 24);
    press(&mut top, "xd");
    golden("drain.txt", &top, 80, 24);
}

#[test]
fn a_daemon_that_does_not_answer_is_called_that_and_its_numbers_old() {
    let mut top = top();
    let why = "no lbd answers at /run/lbd/admin.sock: connection refused";
    top.unanswered(why.into(), 3_200);
    golden("silent.txt", &top, 80, 24);
    top.answered(node(9), events());
    assert!(!shown(&top, 80, 24).contains("NO ANSWER"));
}

#[test]
fn without_the_channel_the_other_node_is_what_its_adverts_tell() {
    let mut top = top();
    let mut status = node(6);
    status.vrrp.as_mut().unwrap().channel = None;
    top.answered(status, events());
    let shown = shown(&top, 80, 24);
    assert!(shown.contains("what adverts tell; more with [peer] in lb.toml"));
    assert!(
        shown.contains("lb2              active (MASTER) 110      –"),
        "{shown}"
    );
}

#[test]
fn a_file_with_proxies_alone_has_neither_vips_nor_nodes() {
    let mut status = node(0);
    status.vrrp = None;
    let mut top = Top::new(status, Vec::new(), false);
    let shown = shown(&top, 80, 24);
    assert!(
        !shown.contains("VIPs ") && !shown.contains("Nodes"),
        "{shown}"
    );
    assert!(shown.contains("nothing has happened yet"));
    top.key(Key::Tab);
    top.key(Key::Tab);
    press(&mut top, "f");
    assert_eq!(top.said.map(|said| said.good), Some(false));
}

#[test]
fn every_size_of_terminal_is_survived() {
    let mut top = top();
    top.answered(
        node(6),
        (0..300)
            .map(|n| event(n, EventKind::State, "a", "b", "c"))
            .collect(),
    );
    for columns in (1..160).step_by(23) {
        for lines in (1..50).step_by(3) {
            shown(&top, columns, lines);
        }
    }
    press(&mut top, "?");
    for columns in (1..90).step_by(4) {
        shown(&top, columns, 1 + columns % 30);
    }
    assert!(shown(&top, 39, 24).starts_with("lbd top needs 40 columns"));
}

#[test]
fn words_from_outside_cannot_move_the_cursor() {
    let mut top = top();
    let mut status = node(6);
    status.proxies[0].servers[0].name = "evil\x1b[2Jname".into();
    top.answered(
        status,
        vec![event(4, EventKind::State, "a", "b\r\n", "\x07bell")],
    );
    let shown = shown(&top, 130, 30);
    assert!(shown.contains("evil\\u{1b}[2Jname"), "{shown}");
    assert!(!shown.contains(['\x1b', '\x07', '\r']));
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    let colours = |color| {
        let mut top = top();
        top.color = color;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &top)).unwrap();
        let buffer = terminal.backend().buffer();
        buffer
            .content()
            .iter()
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
            .count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 20);
}

#[test]
fn the_chosen_server_stays_chosen_when_the_order_changes() {
    let mut top = top();
    top.key(Key::Down);
    top.key(Key::Down);
    let chosen = |top: &Top| top.servers()[top.chosen_server()].1.name.clone();
    assert_eq!(chosen(&top), "kube-apiserver-3");
    // By connections, most first: 3, 2, 1.
    press(&mut top, "sss");
    assert_eq!(top.chosen_server(), 0);
    assert_eq!(chosen(&top), "kube-apiserver-3");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &top)).unwrap();
    let rows = terminal.backend().buffer().content().chunks(80);
    let reversed: Vec<String> = rows
        .filter(|row| row[40].modifier.contains(Modifier::REVERSED))
        .map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect())
        .collect();
    assert_eq!(reversed.len(), 1);
    assert!(reversed[0].starts_with("kube-apiserver-3 "), "{reversed:?}");
}

#[test]
fn nothing_is_ordered_before_a_clear_yes() {
    let mut top = top();
    top.key(Key::Down);
    assert_eq!(press(&mut top, "d"), None);
    for key in [Key::Enter, Key::Tab, Key::Char('x'), Key::Down] {
        assert_eq!(top.key(key), None);
        assert!(top.dialog.is_some());
    }
    assert_eq!(top.key(Key::Escape), None);
    assert!(top.dialog.is_none());
    let drain = Command::Drain(named("kube-apiserver-2"));
    assert_eq!(
        press(&mut top, "dy"),
        Some(Act::Order(Order::Servers(drain)))
    );
    // One at a time.
    assert_eq!(press(&mut top, "my"), None);
    top.done(Said {
        text: "kube-apiserver/kube-apiserver-2: ready → drain".into(),
        good: true,
    });
    assert!(shown(&top, 80, 24).ends_with("kube-apiserver/kube-apiserver-2: ready → drain\n"));
    let maint = Command::Maint(named("kube-apiserver-2"));
    assert_eq!(
        press(&mut top, "my"),
        Some(Act::Order(Order::Servers(maint)))
    );
}

#[test]
fn a_failover_is_ordered_only_where_the_vip_is_held() {
    let mut top = top();
    assert_eq!(press(&mut top, "fy"), None);
    let mut status = node(6);
    let vip = &mut status.vrrp.as_mut().unwrap().vips[0];
    (vip.state, vip.holds) = (VrrpState::Active, true);
    top.answered(status, events());
    let failover = Command::Failover(Failover {
        vips: vec!["haproxy-vip".into()],
        hold_ms: None,
    });
    assert_eq!(
        press(&mut top, "fy"),
        Some(Act::Order(Order::Keeper(failover)))
    );
    top.busy = false;
    assert_eq!(press(&mut top, "cy"), None);
    let mut status = node(7);
    status.vrrp.as_mut().unwrap().vips[0].held_back = Some(HeldBack { left_ms: None });
    top.answered(status, events());
    let release = Command::ReleaseHold(ReleaseHold {
        vips: vec!["haproxy-vip".into()],
    });
    assert_eq!(
        press(&mut top, "cy"),
        Some(Act::Order(Order::Keeper(release)))
    );
}

#[test]
fn the_last_server_is_not_drained_without_a_warning() {
    let mut top = top();
    let mut status = node(6);
    status.proxies[0].usable = 1;
    top.answered(status, events());
    press(&mut top, "d");
    assert!(shown(&top, 80, 24).contains("It is the last one that takes connections!"));
}

#[test]
fn q_and_ctrl_c_leave_also_while_a_question_stands() {
    let mut top = top();
    assert_eq!(press(&mut top, "q"), Some(Act::Quit));
    press(&mut top, "d");
    assert_eq!(top.key(Key::Interrupt), Some(Act::Quit));
}

#[test]
fn who_reads_old_events_goes_on_reading_the_same_ones() {
    let mut top = top();
    top.key(Key::Tab);
    top.key(Key::Down);
    assert_eq!(top.back, 1);
    let mut more = events();
    more.push(event(4, EventKind::State, "backup", "active", "x"));
    top.answered(node(6), more);
    assert_eq!(top.back, 2);
}

#[test]
fn rates_are_by_the_daemons_own_clock_and_begin_again_with_a_new_process() {
    let mut rates = Rates::default();
    let counter = Counter::of_server("kube-apiserver", "kube-apiserver-2", Of::Connections);
    rates.take(&node(0));
    assert_eq!(rates.last(&counter), None);
    // 8 each second, and the answer came two seconds later.
    rates.take(&node(2));
    assert_eq!(rates.last(&counter), Some(80));
    rates.take(&node(2));
    assert_eq!(rates.recent(&counter, 10), [80]);
    let mut restarted = node(3);
    restarted.process.pid = 8;
    rates.take(&restarted);
    assert_eq!(rates.last(&counter), None);
    let mut without = node(4);
    without.process.pid = 8;
    without.proxies[0].servers.clear();
    rates.take(&without);
    rates.take(&Status {
        process: ProcessStatus {
            pid: 8,
            ..node(5).process
        },
        ..node(5)
    });
    assert_eq!(rates.last(&counter), None);
}

#[test]
fn rates_and_curves_read_well() {
    assert_eq!(short_rate(None), "–");
    assert_eq!(short_rate(Some(0)), "0");
    assert_eq!(short_rate(Some(35)), "3.5");
    assert_eq!(short_rate(Some(1_234)), "123");
    assert_eq!(curve(&[0, 1, 50, 100], 100), "▁▂▅█");
    assert_eq!(curve(&[0, 0], 0), "▁▁");
}

#[test]
fn a_curve_is_of_the_last_minute() {
    let mut rates = Rates::default();
    for seconds in 0..100 {
        rates.take(&node(seconds));
    }
    let counter = Counter::of_server("kube-apiserver", "kube-apiserver-2", Of::Connections);
    assert_eq!(rates.recent(&counter, 1_000), [80; 60]);
}
