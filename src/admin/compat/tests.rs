//! What other exporters' dashboards ask for, and what they get.

use crate::admin::families;
use crate::admin::status::{DiscoveryStatus, ServerState, Status};
use crate::admin::tests::ill;
use crate::ipc::message::{RouteCounters, RouteStatus, TrackStatus, VrrpState};

/// Lists of metrics and labels: `name label label=value`.
const DASHBOARDS: [&str; 3] = [
    include_str!("../../../tests/data/dashboards/haproxy-12693.txt"),
    include_str!("../../../tests/data/dashboards/haproxy-mixin.txt"),
    include_str!("../../../tests/data/dashboards/keepalived-exporter.txt"),
];

fn sample() -> Status {
    let mut status = ill();
    status.process.measures.compat = true;
    status
}

fn asked() -> impl Iterator<Item = &'static str> {
    let lines = DASHBOARDS.iter().flat_map(|list| list.lines());
    lines.filter(|line| !line.starts_with('#'))
}

/// The names that docs/metrics.md says are not answered.
fn unanswered() -> Vec<&'static str> {
    let document = include_str!("../../../docs/metrics.md");
    let (_, section) = document.split_once("### Not answered\n").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap_or("").split('`'));
    names.filter(|name| name.contains('_')).collect()
}

/// Whether a sample of that name has these labels, with these values where one is named.
fn has(text: &str, name: &str, labels: &[&str]) -> bool {
    let samples = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    let fits = |line: &str, label: &str| match label.split_once('=') {
        Some((label, value)) => line.contains(&format!("{label}=\"{value}\"")),
        None => line.contains(&format!("{label}=\"")),
    };
    let mut samples = samples;
    samples.any(|line| labels.iter().all(|label| fits(line, label)))
}

#[test]
fn every_query_of_the_dashboards_is_answered_or_listed_with_the_reason() {
    let text = families::render(&sample());
    let unanswered = unanswered();
    let mut wrong = Vec::new();
    let mut answered = 0;
    for line in asked() {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let labels: Vec<&str> = words.collect();
        let there = has(&text, name, &labels);
        answered += usize::from(there);
        if there == unanswered.contains(&name) {
            wrong.push(line);
        }
    }
    assert_eq!(wrong, [""; 0], "neither answered nor listed, or both");
    // 143 + 53 + 20 metrics are asked for.
    assert_eq!((asked().count(), answered), (216, 160));
    let asked: Vec<&str> = asked().filter_map(|line| line.split(' ').next()).collect();
    let idle: Vec<_> = unanswered
        .iter()
        .filter(|name| !asked.contains(name))
        .collect();
    assert_eq!(idle, Vec::<&&str>::new(), "listed, but nobody asks");
}

#[test]
fn other_names_are_left_out_if_the_file_says_so() {
    let mut status = sample();
    status.process.measures.compat = false;
    let text = families::render(&status);
    assert!(!text.contains("haproxy_") && !text.contains("keepalived_"));
}

#[test]
fn every_family_appears_once_with_its_labels() {
    let text = families::render(&sample());
    for family in super::all() {
        let heads = text.matches(&format!("# TYPE {} ", family.name)).count();
        assert_eq!(heads, 1, "{}", family.name);
        assert!(has(&text, family.name, family.labels), "{}", family.name);
    }
}

#[test]
fn values_are_those_of_the_status() {
    let mut status = sample();
    let vip = &mut status.vrrp.as_mut().unwrap().vips[0];
    vip.state = VrrpState::Active;
    vip.counters.rejected.push(("hmac-replay".to_owned(), 2));
    let text = families::render(&status);
    let server = "proxy=\"kube-apiserver\",server=\"kube-apiserver-1\"";
    let lines = [
        "haproxy_process_start_time_seconds 1795000000".to_owned(),
        "haproxy_process_uptime_seconds 273600".to_owned(),
        "haproxy_process_max_connections 4000".to_owned(),
        "haproxy_frontend_sessions_total{proxy=\"kube-apiserver\"} 6800".to_owned(),
        "haproxy_frontend_limit_sessions{proxy=\"kube-apiserver\"} NaN".to_owned(),
        "haproxy_frontend_max_sessions{proxy=\"kube-apiserver\"} 70".to_owned(),
        "haproxy_frontend_status{proxy=\"kube-apiserver\",state=\"UP\"} 1".to_owned(),
        "haproxy_backend_client_aborts_total{proxy=\"kube-apiserver\"} 7".to_owned(),
        "haproxy_backend_max_queue{proxy=\"kube-apiserver\"} 3".to_owned(),
        "haproxy_backend_connection_errors_total{proxy=\"kube-apiserver\"} 4".to_owned(),
        format!("haproxy_server_sessions_total{{{server}}} 3400"),
        format!("haproxy_server_bytes_out_total{{{server}}} 5368709120"),
        format!("haproxy_server_limit_sessions{{{server}}} 250"),
        format!("haproxy_server_current_throttle{{{server}}} NaN"),
        format!("haproxy_server_check_duration_seconds{{{server}}} 0.00186"),
        format!("haproxy_server_downtime_seconds_total{{{server}}} 42"),
        format!("haproxy_server_last_session_seconds{{{server}}} 2"),
        format!("haproxy_server_connect_time_average_seconds{{{server}}} 0.00044"),
        format!("haproxy_server_status{{{server},state=\"UP\"}} 1"),
        format!("haproxy_server_status{{{server},state=\"DOWN\"}} 0"),
        "keepalived_up 1".to_owned(),
        "keepalived_vrrp_state{iname=\"kube\",intf=\"eth0\",vrid=\"60\",ip_address=\"172.16.0.10\"} 2"
            .to_owned(),
        "keepalived_ip_ttl_errors_total{iname=\"kube\",intf=\"eth0\",vrid=\"60\"} 3".to_owned(),
        "keepalived_authentication_failure_total{iname=\"kube\",intf=\"eth0\",vrid=\"60\"} 2"
            .to_owned(),
        "keepalived_script_status{name=\"proxy:kube-apiserver\"} 1".to_owned(),
    ];
    for line in lines {
        assert!(
            text.lines().any(|present| present == line),
            "{line}\n{text}"
        );
    }
}

#[test]
fn each_state_of_a_server_has_haproxys_word() {
    let mut status = sample();
    let mut word = |state, ejected_ms| {
        let server = &mut status.proxies[0].servers[0];
        server.state = state;
        server.standing.ejected_ms = ejected_ms;
        let text = families::render(&status);
        let start =
            "haproxy_server_status{proxy=\"kube-apiserver\",server=\"kube-apiserver-1\",state=";
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(start));
        lines
            .find_map(|line| line.strip_suffix("} 1"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(word(ServerState::Unknown, None), "\"DOWN\"");
    assert_eq!(word(ServerState::Down, None), "\"DOWN\"");
    assert_eq!(word(ServerState::Up, None), "\"UP\"");
    assert_eq!(word(ServerState::Up, Some(3)), "\"NOLB\"");
    assert_eq!(word(ServerState::Drain, Some(3)), "\"DRAIN\"");
    assert_eq!(word(ServerState::Maint, None), "\"MAINT\"");
}

#[test]
fn a_backend_is_weighed_by_the_servers_in_use() {
    let weights = |change: &dyn Fn(&mut Status)| {
        let mut status = sample();
        for server in &mut status.proxies[0].servers {
            server.measures.usable = true;
            server.measures.share_percent = 100;
        }
        change(&mut status);
        let text = families::render(&status);
        ["weight", "uweight", "active_servers", "backup_servers"].map(|name| {
            let start = format!("haproxy_backend_{name}{{proxy=\"kube-apiserver\"}} ");
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(&start));
            lines.next().unwrap().to_owned()
        })
    };
    assert_eq!(weights(&|_| {}), ["300", "300", "3", "0"]);
    let ramp = |status: &mut Status| {
        status.proxies[0].servers[0].measures.share_percent = 33;
        status.proxies[0].servers[2].measures.usable = false;
    };
    assert_eq!(weights(&ramp), ["133", "200", "2", "0"]);
    let backup = |status: &mut Status| status.proxies[0].servers[1].measures.backup = true;
    assert_eq!(weights(&backup), ["200", "200", "2", "1"]);
    let only_backup = |status: &mut Status| {
        backup(status);
        for place in [0, 2] {
            status.proxies[0].servers[place].measures.usable = false;
        }
    };
    assert_eq!(weights(&only_backup), ["100", "100", "0", "1"]);
}

#[test]
fn a_silent_keeper_is_keepalived_down_and_nothing_else_of_it_is_known() {
    let mut status = sample();
    status.process.keeper_heard_ms = Some(2_000);
    let text = families::render(&status);
    let samples: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("keepalived_"))
        .collect();
    assert_eq!(samples, ["keepalived_up 0"]);
}

/// The value of the only sample with this name and these labels.
fn value(status: &Status, sample: &str) -> String {
    let text = families::render(status);
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(sample));
    lines.next().unwrap_or("absent").trim().to_owned()
}

#[test]
fn a_weight_in_slowstart_is_never_0_and_the_highest_rate_is_of_one_proxy() {
    let mut status = sample();
    status.proxies.truncate(1);
    let mut other = status.proxies[0].clone();
    other.name = "other".into();
    status.proxies.push(other);
    status.proxies[0].servers[0].weight = 1;
    status.proxies[0].servers[0].measures.share_percent = 30;
    status.proxies[0].measures.pace.rate_max = 30;
    status.proxies[1].measures.pace.rate_max = 70;
    let (proxy, server) = (&status.proxies[0].name, &status.proxies[0].servers[0].name);
    let weight = format!("haproxy_server_weight{{proxy=\"{proxy}\",server=\"{server}\"}}");
    assert_eq!(value(&status, &weight), "1");
    assert_eq!(value(&status, "haproxy_process_max_connection_rate "), "70");
}

#[test]
fn only_name_servers_fail_to_resolve_and_only_networks_are_denied() {
    let mut status = sample();
    status.proxies.truncate(1);
    let source = |kind: &str, failures| DiscoveryStatus {
        kind: kind.into(),
        source: "x".into(),
        servers: 0,
        heard_ms: None,
        changed_ms: None,
        error: None,
        failures,
    };
    status.proxies[0].discovery = vec![source("dns", 3), source("kubernetes", 5)];
    status.proxies[0].totals.failed = vec![("denied".into(), 2), ("source-rate".into(), 7)];
    let denied = format!(
        "haproxy_frontend_denied_connections_total{{proxy=\"{}\"}}",
        status.proxies[0].name
    );
    assert_eq!(value(&status, "haproxy_process_failed_resolutions "), "3");
    assert_eq!(value(&status, &denied), "2");
}

#[test]
fn what_a_route_tracks_is_a_script_too() {
    let mut status = sample();
    let vrrp = status.vrrp.as_mut().unwrap();
    vrrp.routes = vec![RouteStatus {
        name: "any".into(),
        interface: "lo".into(),
        addresses: Vec::new(),
        announced: true,
        draining_ms: None,
        reason: String::new(),
        since_ms: 0,
        tracks: vec![TrackStatus {
            name: "script:uplink".into(),
            ok: Some(false),
            weight: None,
        }],
        counters: RouteCounters::default(),
    }];
    let uplink = "keepalived_script_status{name=\"script:uplink\"}";
    assert_eq!(value(&status, uplink), "0");
}
