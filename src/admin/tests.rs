//! Goldens of what users read, and the judgement behind them.

use super::measures::{ProcessMeasures, ProxyMeasures, ServerMeasures};
use super::pace::Pace;
use super::status::*;
use super::{families, protocol, table};
use crate::ipc::command::{LogLevel, LogState};
use crate::ipc::message::{
    ChannelStatus, HeldBack, NodeView, PeerStatus, RouteCounters, RouteStatus, RouterView,
    SpanCounts, TrackStatus, VipStatus, VrrpCounters, VrrpState, VrrpStatus,
};

use crate::metrics::spans::Spans;

type Change<'a> = &'a dyn Fn(&mut Status);

fn server(name: &str, state: ServerState) -> ServerStatus {
    ServerStatus {
        name: name.to_owned(),
        address: "172.16.0.4:6443".to_owned(),
        state,
        since_ms: 11_000_000,
        verdict: Some("ready".to_owned()),
        counter: (2, 2),
        checked_ms: Some(300),
        check_micros: Some(1_860),
        checks: 900,
        weight: 100,
        connections: 12,
        max_connections: Some(250),
        connected: 3_400,
        connect_micros: 1_500_000,
        measures: ServerMeasures {
            usable: true,
            share_percent: 100,
            connections_most: 40,
            connects_per_second: Some(500),
            attempts: 3_410,
            downs: 1,
            down_ms: 42_000,
            connects: Spans::of(&[1, 1, 1, 0, 1], 1_500_000),
            checks: Spans::of(&[900], 90_000),
            pace: Pace {
                rate: 5,
                rate_max: 31,
                last_ms: Some(2_900),
                connect: 440,
                ..Pace::default()
            },
            ..ServerMeasures::default()
        },
        bytes_in: 1_000,
        bytes_out: 5_368_709_120,
        standing: ServerStanding {
            verdict: Some("ready".to_owned()),
            ..ServerStanding::default()
        },
        ..ServerStatus::default()
    }
}

fn down() -> ServerStatus {
    ServerStatus {
        since_ms: 12_400,
        verdict: Some("unresponsive".to_owned()),
        reason: Some("connection refused".to_owned()),
        connections: 0,
        connect_errors: 4,
        standing: ServerStanding {
            verdict: Some("unresponsive".to_owned()),
            ..ServerStanding::default()
        },
        ..server("kube-apiserver-3", ServerState::Down)
    }
}

fn route(announced: bool, draining_ms: Option<u64>) -> RouteStatus {
    RouteStatus {
        name: "anycast".to_owned(),
        interface: "lo".to_owned(),
        addresses: vec!["10.1.1.10/32".to_owned()],
        announced,
        draining_ms,
        reason: "why".to_owned(),
        since_ms: 12_000,
        tracks: Vec::new(),
        counters: RouteCounters::default(),
    }
}

pub(crate) fn vip(state: VrrpState) -> VipStatus {
    VipStatus {
        name: "kube".to_owned(),
        sync_group: None,
        vrid: 60,
        version: 2,
        interface: "eth0".to_owned(),
        addresses: vec!["172.16.0.10/24".to_owned()],
        state,
        reason: "a stronger node is active".to_owned(),
        since_ms: 182_000,
        holds: state == VrrpState::Active,
        base_priority: 100,
        effective_priority: 100,
        advert_interval_ms: 1_000,
        active: Some("172.16.0.3".parse().unwrap()),
        held_back: None,
        silent: false,
        conflict: None,
        peers: vec![PeerStatus {
            name: Some("lb2".to_owned()),
            address: "172.16.0.3".parse().unwrap(),
            last_advert_age_ms: Some(412),
            priority: Some(110),
            adverts: 182,
            jitter_p50_us: Some(180),
            jitter_p99_us: Some(2_303),
            deviations: SpanCounts {
                counts: vec![180, 1],
                micros: 9_000,
            },
            alive_unheard: false,
            rejected: vec![("interval".to_owned(), 2)],
        }],
        tracks: vec![TrackStatus {
            name: "proxy:kube-apiserver".to_owned(),
            ok: Some(true),
            weight: None,
        }],
        counters: VrrpCounters {
            became_active: 1,
            left_active: 1,
            rejected: vec![("ttl".to_owned(), 3), ("checksum".to_owned(), 0)],
            after_silence: SpanCounts {
                counts: [[0; 15].as_slice(), &[1]].concat(),
                micros: 3_610_000,
            },
            ..VrrpCounters::default()
        },
    }
}

fn status() -> Status {
    Status {
        process: ProcessStatus {
            version: "0.1.0".to_owned(),
            pid: 4_243,
            node: Some("lb1".to_owned()),
            config_path: "/etc/lbd/lb.toml".to_owned(),
            generation: 1,
            uptime_ms: 273_600_000,
            serving: true,
            keeper_heard_ms: Some(120),
            connections: 24,
            max_connections: 4_000,
            workers: 2,
            worker_cpus: vec![0, 2],
            measures: ProcessMeasures {
                started: 1_795_000_000,
                compat: false,
            },
            shortages: vec![("files".to_owned(), 0), ("ports".to_owned(), 7)],
            ..ProcessStatus::default()
        },
        vrrp: Some(VrrpStatus {
            vips: vec![vip(VrrpState::Backup)],
            keeper_pid: 4_242,
            proxy_starts: 1,
            proxy_starved: 0,
            proxy_hung: 0,
            realtime: true,
            ..VrrpStatus::default()
        }),
        proxies: vec![ProxyStatus {
            name: "kube-apiserver".to_owned(),
            listen: vec!["0.0.0.0:6443".to_owned()],
            probed: true,
            usable: 3,
            connections: 24,
            max_queue: 768,
            measures: ProxyMeasures {
                connections_most: 70,
                queue_most: 3,
                waits: Spans::of(&[2], 200),
                ..ProxyMeasures::default()
            },
            sources: Some(SourcesStatus {
                known: 9,
                connected: 4,
                top: vec![TalkerStatus {
                    source: "172.16.0.21".to_owned(),
                    connections: 12,
                    accepted: 90,
                    refused: 0,
                }],
            }),
            totals: ProxyTotals {
                accepted: 6_800,
                finished: 6_700,
                bytes_in: 2_048,
                bytes_out: 1_572_864,
                failed: vec![("client-abort".to_owned(), 7), ("no-server".to_owned(), 0)],
                ..ProxyTotals::default()
            },
            servers: vec![
                server("kube-apiserver-1", ServerState::Up),
                server("kube-apiserver-2", ServerState::Up),
                server("kube-apiserver-3", ServerState::Up),
            ],
            ..ProxyStatus::default()
        }],
        ..Status::default()
    }
}

fn channel() -> ChannelStatus {
    ChannelStatus {
        fault: None,
        keys: 2,
        sent: 400,
        failed: 3,
        received: 390,
        rejected: vec![("forged".to_owned(), 4), ("replayed".to_owned(), 0)],
        clients: 24,
        tickles: 20,
        nodes: vec![NodeView {
            name: "lb2".to_owned(),
            address: "172.16.0.3".to_owned(),
            reachable: true,
            heard_ms: Some(60),
            version: "0.1.0".to_owned(),
            can_serve: true,
            clients: 7,
            routers: vec![RouterView {
                vip: "kube".to_owned(),
                state: VrrpState::Active,
                priority: 110,
                silence_ms: 9_300,
                unheard: false,
            }],
        }],
    }
}

pub(in crate::admin) fn ill() -> Status {
    let mut status = status();
    status.vrrp.as_mut().unwrap().channel = Some(channel());
    status.proxies[0].servers[2] = down();
    status.proxies[0].usable = 2;
    status.judged()
}

#[test]
fn the_headline_of_a_healthy_node_says_who_holds_the_address() {
    let status = status().judged();
    assert_eq!(status.problems, Vec::<String>::new());
    assert_eq!(
        status.headline,
        "VIP 172.16.0.10 held by lb2 (172.16.0.3) because its priority 110 beats ours 100; \
         kube-apiserver 3 of 3 servers up"
    );
    assert_eq!(status.not_ready(), None);
}

#[test]
fn the_headline_names_few_of_many_ill_servers() {
    let mut status = ill();
    status.proxies[0].servers = vec![down(); 60];
    let headline = status.judged().headline;
    assert!(headline.ends_with("connection refused, and 52 more"));
    assert_eq!(headline.matches("kube-apiserver-3 down").count(), 8);
}

#[test]
fn the_headline_of_an_ill_node_says_what_is_wrong_since_when_and_why() {
    assert_eq!(
        ill().headline,
        "VIP 172.16.0.10 held by lb2 (172.16.0.3) because its priority 110 beats ours 100; \
         kube-apiserver 2 of 3 servers up: kube-apiserver-3 down 12s: connection refused"
    );
}

#[test]
fn each_trouble_is_named() {
    let problems = |change: Change<'_>| {
        let mut status = status();
        change(&mut status);
        status.judged().problems
    };
    let table: [(Change<'_>, &str); 10] = [
        (
            &|s| s.process.keeper_heard_ms = None,
            "keeper not connected: this node takes no part in the election",
        ),
        (
            &|s| s.process.keeper_heard_ms = Some(2_500),
            "keeper silent for 2.5s",
        ),
        (
            &|s| s.process.serving = false,
            "not accepting connections yet",
        ),
        (
            &|s| s.process.connections = 4_000,
            "connection limit of 4000 reached",
        ),
        (
            &|s| s.proxies[0].queue = 5,
            "kube-apiserver: 5 connections wait for a server",
        ),
        (
            &|s| s.proxies[0].servers[0].state = ServerState::Unknown,
            "kube-apiserver 2 of 3 servers up: kube-apiserver-1 not probed yet",
        ),
        (
            &|s| {
                s.proxies[0].usable = 0;
                for server in &mut s.proxies[0].servers {
                    server.state = ServerState::Maint;
                }
            },
            "kube-apiserver: no usable server",
        ),
        (
            &|s| s.vrrp.as_mut().unwrap().vips[0].tracks[0].ok = Some(false),
            "track proxy:kube-apiserver of VIP kube fails",
        ),
        (
            &|s| s.vrrp.as_mut().unwrap().vips[0].peers[0].last_advert_age_ms = Some(4_001),
            "no advert from lb2 (172.16.0.3) in time",
        ),
        (
            &|s| {
                let vip = &mut s.vrrp.as_mut().unwrap().vips[0];
                (vip.state, vip.holds) = (VrrpState::Active, false);
            },
            "VIP 172.16.0.10 is not on eth0",
        ),
    ];
    for (change, expected) in table {
        assert_eq!(problems(change), [expected]);
    }
}

#[test]
fn a_node_that_just_left_does_not_miss_its_successors_adverts() {
    let missed = |since_ms| {
        let mut status = status();
        let vip = &mut status.vrrp.as_mut().unwrap().vips[0];
        vip.since_ms = since_ms;
        vip.peers[0].last_advert_age_ms = Some(60_000);
        status.judged().problems
    };
    assert_eq!(missed(4_000), [""; 0]);
    assert_eq!(missed(4_001), ["no advert from lb2 (172.16.0.3) in time"]);
}

#[test]
fn troubles_of_the_peer_channel_are_named() {
    let problems = |change: &dyn Fn(&mut ChannelStatus)| {
        let mut status = status();
        let mut channel = channel();
        change(&mut channel);
        status.vrrp.as_mut().unwrap().channel = Some(channel);
        status.judged().problems
    };
    assert_eq!(problems(&|_| {}), [""; 0]);
    assert_eq!(
        problems(&|c| c.nodes[0].routers[0].unheard = true),
        ["adverts of VIP kube to lb2 are lost: one-way"]
    );
    assert_eq!(
        problems(&|c| (c.nodes[0].reachable, c.nodes[0].heard_ms) = (false, Some(12_000))),
        ["lb2 silent on the peer channel for 12s"]
    );
    let never = |c: &mut ChannelStatus| (c.nodes[0].reachable, c.nodes[0].heard_ms) = (false, None);
    assert_eq!(problems(&never), [""; 0]);
    assert_eq!(
        problems(&|c| c.fault = Some("key file: no key in it".to_owned())),
        ["peer channel out of order: key file: no key in it"]
    );
}

#[test]
fn a_silent_node_s_last_word_about_itself_is_no_measurement() {
    let mut status = status();
    let mut channel = channel();
    channel.nodes[0].reachable = false;
    status.vrrp.as_mut().unwrap().channel = Some(channel);
    let text = families::render(&status);
    assert!(text.contains("lbd_peer_reachable{peer=\"lb2\"} 0"));
    assert!(text.contains("lbd_peer_last_message_age_seconds"));
    assert!(!text.contains("lbd_peer_vip_"));
}

#[test]
fn a_drained_server_is_the_operators_will_and_no_problem() {
    let mut status = status();
    status.proxies[0].servers[1].state = ServerState::Drain;
    status.proxies[0].usable = 2;
    assert_eq!(status.judged().problems, Vec::<String>::new());
}

#[test]
fn the_holder_is_named_in_every_state() {
    let holder = |state, active: Option<&str>| {
        let mut status = status();
        let vip = VipStatus {
            reason: "why".to_owned(),
            active: active.map(|a| a.parse().unwrap()),
            ..vip(state)
        };
        status.vrrp.as_mut().unwrap().vips[0] = vip;
        status.proxies.clear();
        status.judged().headline
    };
    let peer = Some("172.16.0.3");
    assert_eq!(
        holder(VrrpState::Active, None),
        "VIP 172.16.0.10 held by this node: why"
    );
    assert_eq!(
        holder(VrrpState::Leaving, peer),
        "VIP 172.16.0.10 is leaving this node: why"
    );
    assert_eq!(
        holder(VrrpState::Backup, None),
        "VIP 172.16.0.10 held by nobody this node hears: why"
    );
    assert_eq!(
        holder(VrrpState::Backup, Some("172.16.0.9")),
        "VIP 172.16.0.10 held by 172.16.0.9 of unknown priority, ours is 100: why"
    );
    assert_eq!(
        holder(VrrpState::Backup, peer),
        "VIP 172.16.0.10 held by lb2 (172.16.0.3) because its priority 110 beats ours 100"
    );
    assert_eq!(
        holder(VrrpState::Initialize, None),
        "VIP 172.16.0.10 not taken part in: why"
    );
}

#[test]
fn a_weaker_holder_is_explained_by_this_nodes_own_reason() {
    let mut status = status();
    let vip = &mut status.vrrp.as_mut().unwrap().vips[0];
    (vip.effective_priority, vip.reason) = (200, "waiting for the preempt delay".to_owned());
    assert_eq!(
        status.judged().headline,
        "VIP 172.16.0.10 held by lb2 (172.16.0.3) with priority 110 against ours 200: waiting for \
         the preempt delay; kube-apiserver 3 of 3 servers up"
    );
}

#[test]
fn what_a_silent_keeper_said_last_is_called_old() {
    let mut status = status();
    status.process.keeper_heard_ms = None;
    let status = status.judged();
    assert_eq!(
        status.headline,
        "keeper not connected: this node takes no part in the election; last known: VIP \
         172.16.0.10 held by lb2 (172.16.0.3) because its priority 110 beats ours 100"
    );
    let text = table::render(&status);
    assert!(
        text.contains("\nLAST KNOWN, the keeper is silent:\nVIP kube "),
        "{text}"
    );
}

#[test]
fn a_node_is_ready_only_when_every_proxy_could_serve() {
    let reason = |change: Change<'_>| {
        let mut status = status();
        change(&mut status);
        status.not_ready()
    };
    assert_eq!(reason(&|_| {}), None);
    assert_eq!(
        reason(&|s| s.process.serving = false).unwrap(),
        "not accepting connections yet"
    );
    assert_eq!(
        reason(&|s| s.proxies[0].probed = false).unwrap(),
        "kube-apiserver: servers are not all probed yet"
    );
    assert_eq!(
        reason(&|s| s.proxies[0].usable = 0).unwrap(),
        "kube-apiserver: no usable server"
    );
}

#[test]
fn the_table_reads_from_headline_to_server() {
    let expected = "\
VIP 172.16.0.10 held by lb2 (172.16.0.3) because its priority 110 beats ours 100; kube-apiserver 2 of 3 servers up: kube-apiserver-3 down 12s: connection refused

lbd 0.1.0  /etc/lbd/lb.toml  up 3d4h  pid 4243 (start 1)  keeper pid 4242 (real-time) heard 0.1s ago
connections 24 of 4000  workers 2 (on CPU 0, 2)  log lines lost 0
ran out of: ports 7 times

VIP kube  172.16.0.10/24 on eth0  vrid 60  version 2  advert every 1s
  backup for 3m02s: a stronger node is active
  held by lb2 (172.16.0.3)  priority 100 (configured 100)  moves 2
  PEER              PRIORITY  LAST ADVERT  ADVERTS  JITTER P50  P99    REJECTED
  lb2 (172.16.0.3)  110       0.4s ago     182      0.1ms       2.3ms  interval 2
  TRACK                 STATE  WEIGHT
  proxy:kube-apiserver  ok     –
  rejected packets: ttl 3

PEERS  2 keys  clients shared 24  clients woken 20
  NODE  HEARD     VERSION  SERVES  CLIENTS  VIP   STATE   PRIORITY  HEARS US
  lb2   0.0s ago  0.1.0    yes     7        kube  active  110       9.3s ago
  messages not believed: forged 4

PROXY kube-apiserver  0.0.0.0:6443  connections 24  queue 0 of 768
  accepted 6800  queued 0  in 2.0 KiB  out 1.5 MiB
  failed: client-abort 7
  sources 4 connected, 9 remembered; most has 172.16.0.21: 12
  SERVER            ADDRESS          STATE  FOR    CHECK               WEIGHT  CONNS   TOTAL  IN      OUT      ERRORS
  kube-apiserver-1  172.16.0.4:6443  up     3h03m  ok in 1.8ms         100     12/250  3400   1000 B  5.0 GiB  0
  kube-apiserver-2  172.16.0.4:6443  up     3h03m  ok in 1.8ms         100     12/250  3400   1000 B  5.0 GiB  0
  kube-apiserver-3  172.16.0.4:6443  DOWN   12s    connection refused  100     0/250   3400   1000 B  5.0 GiB  4
";
    assert_eq!(table::render(&ill()), expected);
}

#[test]
fn what_a_server_said_cannot_move_the_cursor() {
    let mut status = ill();
    status.proxies[0].servers[2].reason = Some("\u{1b}[2Jgone\n".to_owned());
    let text = table::render(&status.judged());
    assert!(!text.contains('\u{1b}'));
    assert!(text.contains("\\u{1b}[2Jgone\\n"), "{text}");
}

#[test]
fn the_json_form_reads_back() {
    let status = ill();
    let text = serde_json::to_string(&status).unwrap();
    assert!(text.starts_with("{\"v\":1,\"headline\":\"VIP 172.16.0.10 held by lb2"));
    assert!(text.contains("\"state\":\"backup\"") && text.contains("\"state\":\"down\""));
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), bare(status));
}

/// Without what only metrics show.
fn bare(mut status: Status) -> Status {
    status.process.measures = ProcessMeasures::default();
    for proxy in &mut status.proxies {
        proxy.measures = ProxyMeasures::default();
        for server in &mut proxy.servers {
            server.measures = ServerMeasures::default();
        }
    }
    status
}

#[test]
fn times_and_sizes_are_short() {
    let times = [
        (0, "0.0s"),
        (9_999, "9.9s"),
        (59_999, "59s"),
        (60_000, "1m00s"),
        (3_599_000, "59m59s"),
        (3_600_000, "1h00m"),
        (86_400_000, "1d0h"),
    ];
    for (ms, text) in times {
        assert_eq!(short_time(ms), text);
    }
    let sizes = [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_600, "1.5 KiB"),
        (u64::MAX, "16383.9 PiB"),
    ];
    for (bytes, text) in sizes {
        assert_eq!(short_bytes(bytes), text);
    }
}

#[test]
fn questions_are_understood_or_refused_with_a_reason() {
    let question = protocol::parse(b"{\"v\":1,\"command\":\"status\"}\n").unwrap();
    assert_eq!(question.command, protocol::Command::Status);
    for bad in [
        &b""[..],
        b"status",
        b"{\"v\":1}",
        b"{\"v\":1,\"command\":\"reboot\"}",
        b"{\"v\":1,\"command\":\"status\",\"extra\":1}",
        b"\xff\xfe",
    ] {
        assert!(protocol::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(
        protocol::parse(b"{\"v\":2,\"command\":\"status\"}").unwrap_err(),
        "version 2 is not spoken here, only 1"
    );
}

#[test]
fn metrics_follow_the_status() {
    let text = families::render(&ill());
    for line in [
        "lbd_build_info{version=\"0.1.0\"} 1",
        "lbd_process_connections_limit 4000",
        "lbd_process_ready 1",
        "lbd_keeper_connected 1",
        "lbd_vrrp_state{vip=\"kube\",state=\"backup\"} 1",
        "lbd_vrrp_state{vip=\"kube\",state=\"active\"} 0",
        "lbd_vrrp_packets_rejected_total{vip=\"kube\",reason=\"ttl\"} 3",
        "lbd_vrrp_peer_last_advert_age_seconds{vip=\"kube\",peer=\"lb2\"} 0.412",
        "lbd_peer_reachable{peer=\"lb2\"} 1",
        "lbd_peer_info{peer=\"lb2\",version=\"0.1.0\"} 1",
        "lbd_peer_vip_state{peer=\"lb2\",vip=\"kube\",state=\"active\"} 1",
        "lbd_peer_vip_silence_seconds{peer=\"lb2\",vip=\"kube\"} 9.3",
        "lbd_peer_messages_rejected_total{reason=\"forged\"} 4",
        "lbd_peer_clients_known{peer=\"lb2\"} 7",
        "lbd_track_ok{vip=\"kube\",track=\"proxy:kube-apiserver\"} 1",
        "lbd_proxy_usable_servers{proxy=\"kube-apiserver\"} 2",
        "lbd_proxy_failed_total{proxy=\"kube-apiserver\",reason=\"client-abort\"} 7",
        "lbd_server_state{proxy=\"kube-apiserver\",server=\"kube-apiserver-3\",state=\"down\"} 1",
        "lbd_server_connect_seconds_bucket{proxy=\"kube-apiserver\",server=\"kube-apiserver-1\",le=\"0.000512\"} 3",
        "lbd_server_connect_seconds_sum{proxy=\"kube-apiserver\",server=\"kube-apiserver-1\"} 1.5",
        "lbd_server_connect_seconds_count{proxy=\"kube-apiserver\",server=\"kube-apiserver-1\"} 4",
        "lbd_proxy_queue_seconds_count{proxy=\"kube-apiserver\"} 2",
        "lbd_health_last_check{proxy=\"kube-apiserver\",server=\"kube-apiserver-3\",verdict=\"unresponsive\"} 1",
        "lbd_vrrp_failover_seconds_bucket{vip=\"kube\",cause=\"silent\",le=\"4.194304\"} 1",
        "lbd_vrrp_failover_seconds_sum{vip=\"kube\",cause=\"silent\"} 3.61",
        "lbd_vrrp_failover_seconds_count{vip=\"kube\",cause=\"resigned\"} 0",
        "lbd_vrrp_peer_advert_deviation_seconds_count{vip=\"kube\",peer=\"lb2\"} 181",
        "lbd_health_check_duration_seconds{proxy=\"kube-apiserver\",server=\"kube-apiserver-1\"} 0.00186",
    ] {
        assert!(
            text.lines().any(|present| present == line),
            "{line}\n{text}"
        );
    }
}

#[test]
fn a_silent_keepers_last_word_is_no_measurement() {
    let mut status = status();
    status.process.keeper_heard_ms = Some(2_000);
    let text = families::render(&status);
    assert!(text.contains("lbd_keeper_connected 0"));
    assert!(!text.contains("lbd_vrrp_"));
}

#[test]
fn every_family_is_documented_and_every_documented_one_exists() {
    let document = include_str!("../../docs/metrics.md");
    let documented = |prefixes: &[&str]| -> Vec<&str> {
        let rows = document
            .lines()
            .filter(|line| line.matches(" | ").count() > 2);
        rows.filter(|line| prefixes.iter().any(|prefix| line.starts_with(prefix)))
            .collect()
    };
    let built = |all: &[crate::metrics::Family]| -> Vec<String> {
        let rows = all.iter().map(|family| {
            let kind = format!("{:?}", family.kind).to_lowercase();
            let labels = family.labels.join(", ");
            format!(
                "| `{}` | {kind} | {labels} | {} |",
                family.name, family.help
            )
        });
        rows.collect()
    };
    let differs = "docs/metrics.md differs from families.rs or compat";
    assert_eq!(documented(&["| `lbd_"]), built(families::ALL), "{differs}");
    let of_others = documented(&["| `haproxy_", "| `keepalived_"]);
    assert_eq!(of_others, built(&super::compat::all()), "{differs}");
}

#[test]
fn a_server_that_is_held_back_says_why() {
    let said = |change: &dyn Fn(&mut ServerStanding)| {
        let mut status = ill();
        status.proxies[0].servers =
            vec![server("a", ServerState::Up), server("b", ServerState::Up)];
        status.proxies[0].queue = 0;
        change(&mut status.proxies[0].servers[1].standing);
        let status = status.judged();
        let text = table::render(&status);
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with("b "));
        (line.unwrap().to_owned(), status.problems.join("; "))
    };
    let (line, problems) = said(&|_| {});
    assert!(line.contains("  up  "), "{line}");
    assert!(!problems.contains("b "), "{problems}");
    let (line, problems) = said(&|standing| {
        standing.ejected_ms = Some(2_400);
        standing.ejected_for = Some("connects failed one after the other".to_owned());
    });
    assert!(line.contains("up (ejected 2.4s)"), "{line}");
    let expected = "kube-apiserver: b ejected 2.4s: connects failed one after the other";
    assert!(problems.contains(expected), "{problems}");
    let (line, _) = said(&|standing| standing.missing = 6);
    assert!(
        line.contains("up (not believed yet, 6 checks to go)"),
        "{line}"
    );
}

#[test]
fn every_family_but_those_of_nobody_appears_in_a_scrape() {
    let mut status = ill();
    let vrrp = status.vrrp.as_mut().unwrap();
    vrrp.routes.push(route(true, None));
    status.proxies[0].max_connections = Some(1_000);
    status.proxies[0].discovery.push(DiscoveryStatus {
        heard_ms: Some(1),
        ..DiscoveryStatus::default()
    });
    let text = families::render(&status);
    let missing: Vec<&str> = families::ALL
        .iter()
        .map(|family| family.name)
        .filter(|name| !text.contains(&format!("# TYPE {name} ")))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn a_node_held_back_after_a_failover_says_for_how_long() {
    let shown = |left_ms| {
        let mut status = status();
        let vip = &mut status.vrrp.as_mut().unwrap().vips[0];
        vip.held_back = Some(HeldBack { left_ms });
        table::render(&status)
    };
    let text = shown(Some(581_000));
    let line = "  held back after a failover: 9m41s left, or until `lbd failover --cancel`\n";
    assert!(text.contains(line), "{text}");
    let text = shown(None);
    let line = "  held back after a failover: until `lbd failover --cancel`\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_route_is_shown_with_its_state_and_one_that_is_withdrawn_is_a_problem() {
    let shown = |announced, draining_ms| {
        let mut status = status();
        status.proxies.clear();
        let vrrp = status.vrrp.as_mut().unwrap();
        vrrp.vips.clear();
        vrrp.routes.push(route(announced, draining_ms));
        let status = status.judged();
        (
            status.headline.clone(),
            table::render(&status),
            families::render(&status),
        )
    };
    let (headline, table, metrics) = shown(true, None);
    assert_eq!(headline, "route to 10.1.1.10 announced: why");
    let lines = "VIP anycast  10.1.1.10/32 on lo  announced as a route\n  announced for 12s: why  changes 0\n";
    assert!(table.contains(lines), "{table}");
    assert!(
        metrics.contains("lbd_route_announced{vip=\"anycast\"} 1\n"),
        "{metrics}"
    );
    let (headline, table, metrics) = shown(false, Some(3_000));
    assert_eq!(headline, "route to 10.1.1.10 withdrawn: why");
    let line = "  withdrawn (still serves what arrives) for 12s: why  changes 0\n";
    assert!(table.contains(line), "{table}");
    assert!(
        metrics.contains("lbd_route_announced{vip=\"anycast\"} 0\n"),
        "{metrics}"
    );
}

#[test]
fn a_log_level_by_order_is_shown_with_the_time_that_is_left() {
    let state = LogState {
        level: LogLevel::Debug,
        configured: LogLevel::Info,
        component: Some("health".into()),
        left_ms: Some(598_000),
    };
    let expected = "log level debug for health, 9m58s left (configured: info)";
    assert_eq!(table::log_words(&state), expected);
    let mut status = status();
    assert!(!table::render(&status).contains("log level"));
    if let Some(vrrp) = &mut status.vrrp {
        vrrp.log = Some(state.clone());
    }
    assert!(table::render(&status).contains(&format!("\n{expected}\n")));
    let reset = LogState {
        level: LogLevel::Info,
        component: None,
        left_ms: None,
        ..state
    };
    assert_eq!(table::log_words(&reset), "log level info, as configured");
}
