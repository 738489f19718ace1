//! Every metric of lbd, and how it is read out of a status. `docs/metrics.md` lists the same; a
//! test compares the two.

use crate::ipc::message::{
    ChannelStatus, RouteStatus, RouterView, TrackStatus, VipStatus, VrrpState, VrrpStatus,
};
use crate::metrics::spans::Spans;
use crate::metrics::{Families, Family, Kind};

use super::compat;
use super::status::{DiscoveryStatus, ProxyStatus, Status};

mod server;

macro_rules! families {
    ($($ident:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(const $ident: Family =
            Family { name: $name, kind: Kind::$kind, labels: &$labels, help: $help };)*

        /// Every family, in the order of the documentation.
        pub const ALL: &[Family] = &[$($ident),*];
    };
}

families! {
    BUILD = Gauge "lbd_build_info" ["version"], "Always 1; the version is a label.";
    UPTIME = Gauge "lbd_process_uptime_seconds" [], "Time since the proxy process began.";
    STARTED = Gauge "lbd_process_start_time_seconds" [], "When the proxy process began, seconds since 1970.";
    SERVING = Gauge "lbd_process_serving" [], "Whether the proxy process accepts connections.";
    READY = Gauge "lbd_process_ready" [], "Whether this node could serve clients (/readyz).";
    CONNECTIONS = Gauge "lbd_process_connections" [], "Client connections.";
    CONNECTIONS_LIMIT = Gauge "lbd_process_connections_limit" [], "The most client connections at once.";
    WORKERS = Gauge "lbd_process_workers" [], "Worker threads.";
    WORKERS_PINNED = Gauge "lbd_process_workers_pinned" [], "Worker threads that stay on a CPU of their own.";
    SHORTAGES = Counter "lbd_process_shortages_total" ["resource"], "Times the data path ran out of something, by what it was (files, system-files, memory, ports).";
    KEEPER_CONNECTED = Gauge "lbd_keeper_connected" [], "Whether the keeper has spoken within 2 s.";
    KEEPER_REALTIME = Gauge "lbd_keeper_realtime" [], "Whether the keeper runs under real-time scheduling.";
    PROXY_STARTS = Counter "lbd_keeper_proxy_starts_total" [], "Proxy processes started by this keeper.";
    PROXY_STARVED = Counter "lbd_keeper_proxy_starved_total" [], "Times this keeper found the proxy runnable but without CPU.";
    PROXY_HUNG = Counter "lbd_keeper_proxy_hung_total" [], "Times this keeper found the proxy hung.";
    CONFIG_RELOADS = Counter "lbd_config_reloads_total" ["result"], "Reloads of the configuration, by what came of them (applied, refused, failed).";
    CONFIG_SUCCESS = Gauge "lbd_config_last_reload_success_timestamp_seconds" [], "When the configuration that counts was taken, seconds since 1970.";
    CONFIG_INFO = Gauge "lbd_config_info" ["hash"], "Always 1; the digest of the configuration's text is a label, the same on every node with the same file.";
    LOG_DROPPED = Counter "lbd_log_lines_dropped_total" ["log"], "Log lines that could not be delivered, by log (messages, access).";
    VRRP_STATE = Gauge "lbd_vrrp_state" ["vip", "state"], "1 for the state of the virtual router, 0 for the others.";
    VRRP_HOLDS = Gauge "lbd_vrrp_holds_address" ["vip"], "Whether the addresses are on this node's interface.";
    VRRP_STATE_AGE = Gauge "lbd_vrrp_state_age_seconds" ["vip"], "Time in the present state.";
    VRRP_PRIORITY = Gauge "lbd_vrrp_priority" ["vip"], "Priority with tracks applied.";
    VRRP_BASE_PRIORITY = Gauge "lbd_vrrp_base_priority" ["vip"], "Configured priority.";
    VRRP_INTERVAL = Gauge "lbd_vrrp_advert_interval_seconds" ["vip"], "Advert interval in force.";
    VRRP_SENT = Counter "lbd_vrrp_adverts_sent_total" ["vip"], "Adverts sent, one per destination.";
    VRRP_RECEIVED = Counter "lbd_vrrp_adverts_received_total" ["vip"], "Adverts accepted.";
    VRRP_REJECTED = Counter "lbd_vrrp_packets_rejected_total" ["vip", "reason"], "Packets rejected, by reason.";
    VRRP_GARPS = Counter "lbd_vrrp_garps_sent_total" ["vip"], "Gratuitous ARP frames sent.";
    VRRP_BECAME = Counter "lbd_vrrp_became_active_total" ["vip"], "Times this node became Active.";
    VRRP_LEFT = Counter "lbd_vrrp_left_active_total" ["vip"], "Times this node left Active.";
    VRRP_RESIGNS_SENT = Counter "lbd_vrrp_resigns_sent_total" ["vip"], "Priority-0 adverts sent.";
    VRRP_RESIGNS_RECEIVED = Counter "lbd_vrrp_resigns_received_total" ["vip"], "Priority-0 adverts accepted.";
    VRRP_FAILOVER = Histogram "lbd_vrrp_failover_seconds" ["vip", "cause"], "From the last advert of a node that failed (silent) or gave up (resigned) until this node held its addresses.";
    VRRP_RESTORED = Counter "lbd_vrrp_addresses_restored_total" ["vip"], "Times the address vanished and was put back.";
    VRRP_ERRORS = Counter "lbd_vrrp_errors_total" ["vip"], "Errors of the kernel while sending or changing the address.";
    VRRP_HELD_BACK = Gauge "lbd_vrrp_held_back" ["vip"], "Whether this node preempts nobody after a failover by command.";
    ROUTE_ANNOUNCED = Gauge "lbd_route_announced" ["vip"], "Whether the address is there for routing daemons to see.";
    ROUTE_AGE = Gauge "lbd_route_age_seconds" ["vip"], "Time since the address was announced or withdrawn.";
    ROUTE_ANNOUNCEMENTS = Counter "lbd_route_announcements_total" ["vip"], "Times the address was announced.";
    ROUTE_WITHDRAWALS = Counter "lbd_route_withdrawals_total" ["vip"], "Times the address was withdrawn.";
    ROUTE_RESTORED = Counter "lbd_route_addresses_restored_total" ["vip"], "Times somebody else removed the address and it was put back.";
    ROUTE_ERRORS = Counter "lbd_route_errors_total" ["vip"], "Errors of the kernel while changing the address.";
    PEER_AGE = Gauge "lbd_vrrp_peer_last_advert_age_seconds" ["vip", "peer"], "Time since the node's last accepted advert; absent: never.";
    PEER_PRIORITY = Gauge "lbd_vrrp_peer_priority" ["vip", "peer"], "Priority in the node's last advert.";
    PEER_ADVERTS = Counter "lbd_vrrp_peer_adverts_total" ["vip", "peer"], "Adverts accepted from the node.";
    PEER_JITTER = Gauge "lbd_vrrp_peer_advert_jitter_seconds" ["vip", "peer", "percentile"], "Deviation of the node's adverts from their usual spacing, recent ones, at the percentiles 50 and 99.";
    PEER_DEVIATION = Histogram "lbd_vrrp_peer_advert_deviation_seconds" ["vip", "peer"], "By how much each of the node's adverts deviated from their usual spacing.";
    PEER_REJECTED = Counter "lbd_vrrp_peer_packets_rejected_total" ["vip", "peer", "reason"], "The node's packets that were rejected, by reason.";
    WIRE_SILENT = Gauge "lbd_vrrp_wire_silent" ["vip"], "Whether the active node of a sync-group is heard on other wires but not on this one.";
    CONFLICT = Gauge "lbd_vrrp_address_conflict" ["vip"], "Whether another host answers by ARP for an address that this node holds.";
    PEER_ALIVE = Gauge "lbd_vrrp_peer_alive_but_unheard" ["vip", "peer"], "Whether the node was active, fell silent, and still answers by ARP.";
    TRACK_OK = Gauge "lbd_track_ok" ["vip", "track"], "Whether what is tracked succeeds; absent: no result yet.";
    CHANNEL_KEYS = Gauge "lbd_peer_keys" [], "Keys of the peer channel in force; 0: it is out of order.";
    CHANNEL_SENT = Counter "lbd_peer_messages_sent_total" [], "Messages sent to other nodes.";
    CHANNEL_FAILED = Counter "lbd_peer_messages_failed_total" [], "Messages to other nodes that the kernel did not take.";
    CHANNEL_RECEIVED = Counter "lbd_peer_messages_received_total" [], "Messages of other nodes that were believed.";
    CHANNEL_REJECTED = Counter "lbd_peer_messages_rejected_total" ["reason"], "Messages that were not believed, by reason.";
    CHANNEL_CLIENTS = Gauge "lbd_peer_clients_shared" [], "Client connections of this node that the others are told of.";
    CHANNEL_TICKLES = Counter "lbd_peer_tickles_sent_total" [], "Packets sent to wake clients of a node that fell silent.";
    NODE_REACHABLE = Gauge "lbd_peer_reachable" ["peer"], "Whether the node has spoken lately.";
    NODE_AGE = Gauge "lbd_peer_last_message_age_seconds" ["peer"], "Time since the node's last message; absent: never.";
    NODE_INFO = Gauge "lbd_peer_info" ["peer", "version"], "Always 1; the node's version is a label.";
    NODE_SERVES = Gauge "lbd_peer_can_serve" ["peer"], "Whether the node says that it can serve clients.";
    NODE_CLIENTS = Gauge "lbd_peer_clients_known" ["peer"], "Client connections of the node that this one knows of.";
    VIEW_STATE = Gauge "lbd_peer_vip_state" ["peer", "vip", "state"], "1 for the state that the node says it is in, 0 for the others.";
    VIEW_PRIORITY = Gauge "lbd_peer_vip_priority" ["peer", "vip"], "The node's priority with tracks applied.";
    VIEW_SILENCE = Gauge "lbd_peer_vip_silence_seconds" ["peer", "vip"], "Time for which the node has listened and heard no advert of this one.";
    VIEW_UNHEARD = Gauge "lbd_peer_vip_unheard" ["peer", "vip"], "Whether adverts of this node to that one are lost: this node is Active and not heard.";
    PROXY_CONNECTIONS = Gauge "lbd_proxy_connections" ["proxy"], "Client connections, queued ones included.";
    PROXY_LIMIT = Gauge "lbd_proxy_connections_limit" ["proxy"], "The most client connections at once; absent: only the process's limit.";
    PROXY_ABLE = Gauge "lbd_proxy_able_servers" ["proxy"], "Servers that could take connections, as far as checks and the operator say.";
    PROXY_USABLE = Gauge "lbd_proxy_usable_servers" ["proxy"], "Servers that may take new connections.";
    PROXY_PANIC = Gauge "lbd_proxy_panic" ["proxy"], "Whether servers are used that are held back, for want of others.";
    PROXY_PROBED = Gauge "lbd_proxy_probed" ["proxy"], "Whether every server has a verdict.";
    PROXY_QUEUE = Gauge "lbd_proxy_queue_connections" ["proxy"], "Connections that wait for a server.";
    PROXY_QUEUE_LIMIT = Gauge "lbd_proxy_queue_limit" ["proxy"], "How many connections may wait.";
    PROXY_ACCEPTED = Counter "lbd_proxy_accepted_total" ["proxy"], "Connections accepted.";
    PROXY_FINISHED = Counter "lbd_proxy_finished_total" ["proxy"], "Connections that ended without any fault.";
    PROXY_FAILED = Counter "lbd_proxy_failed_total" ["proxy", "reason"], "Connections that ended with a fault, by what it was.";
    PROXY_QUEUED = Counter "lbd_proxy_queued_total" ["proxy"], "Connections that waited and got a server.";
    PROXY_QUEUE_TIME = Histogram "lbd_proxy_queue_seconds" ["proxy"], "How long those waited.";
    PROXY_BYTES_IN = Counter "lbd_proxy_received_bytes_total" ["proxy"], "Bytes from clients.";
    PROXY_BYTES_OUT = Counter "lbd_proxy_sent_bytes_total" ["proxy"], "Bytes to clients.";
    PROXY_SPLICED = Counter "lbd_proxy_spliced_bytes_total" ["proxy"], "Bytes of both kinds that went through splice(2).";
    PROXY_HELPED = Counter "lbd_proxy_helped_total" ["proxy"], "Connections that a worker accepted for another one that was busy.";
    PROXY_HEADERS = Counter "lbd_proxy_headers_accepted_total" ["proxy"], "PROXY headers that were believed.";
    PROXY_LIMITED = Counter "lbd_proxy_limit_reached_total" ["proxy"], "Times listeners rested because a limit was reached.";
    PROXY_LEAVING = Gauge "lbd_proxy_leaving_connections" ["proxy"], "Connections to servers that were removed.";
    PROXY_SOURCES = Gauge "lbd_proxy_sources" ["proxy"], "Client sources (IPv4 addresses, IPv6 /64 networks) that have a connection; absent without per-source.";
    PROXY_SOURCE_MAX = Gauge "lbd_proxy_source_connections_max" ["proxy"], "Connections of the source that has most; absent without per-source.";
    DISCOVERY_OK = Gauge "lbd_discovery_ok" ["proxy", "kind", "source"], "Whether the source's last word was a good one; absent: none yet.";
    DISCOVERY_SERVERS = Gauge "lbd_discovery_servers" ["proxy", "kind", "source"], "Servers that the source found last.";
    DISCOVERY_AGE = Gauge "lbd_discovery_heard_age_seconds" ["proxy", "kind", "source"], "Time since the source's last good word (a file: since it was read); absent: never.";
    DISCOVERY_FAILURES = Counter "lbd_discovery_failures_total" ["proxy", "kind", "source"], "Words of the source that were no good.";
    SERVER_STATE = Gauge "lbd_server_state" ["proxy", "server", "state"], "1 for the state of the server, 0 for the others.";
    SERVER_STATE_AGE = Gauge "lbd_server_state_age_seconds" ["proxy", "server"], "Time since checks last changed their verdict.";
    SERVER_VERDICT = Gauge "lbd_server_verdict" ["proxy", "server", "verdict"], "1 for what the checks make of the server (ready, not-ready, unresponsive), 0 for the others; absent: no verdict yet.";
    SERVER_USABLE = Gauge "lbd_server_usable" ["proxy", "server"], "Whether the server may take new connections.";
    SERVER_BACKUP = Gauge "lbd_server_backup" ["proxy", "server"], "Whether the server is used only when no other one is usable.";
    SERVER_DOWNS = Counter "lbd_server_downs_total" ["proxy", "server"], "Times the server went down.";
    SERVER_DOWN_TIME = Counter "lbd_server_down_seconds_total" ["proxy", "server"], "How long the server was down, in sum.";
    SERVER_SHARE = Gauge "lbd_server_weight_share_ratio" ["proxy", "server"], "Part of its weight that the server has; less than 1 during slowstart.";
    SERVER_EJECTED = Gauge "lbd_server_ejected" ["proxy", "server"], "Whether the server is out of service for what real traffic told.";
    SERVER_DAMPED = Gauge "lbd_server_damped" ["proxy", "server"], "Whether the server is up and not believed yet, after many outages.";
    SERVER_SUSPICIONS = Counter "lbd_server_suspicions_total" ["proxy", "server"], "Times real traffic made the server suspect.";
    SERVER_EJECTIONS = Counter "lbd_server_ejections_total" ["proxy", "server"], "Times the server was ejected.";
    SERVER_WEIGHT = Gauge "lbd_server_weight" ["proxy", "server"], "Configured weight.";
    SERVER_CONNECTIONS = Gauge "lbd_server_connections" ["proxy", "server"], "Connections to the server.";
    SERVER_LIMIT = Gauge "lbd_server_connections_limit" ["proxy", "server"], "The most connections at once, slowstart applied; absent: unlimited.";
    SERVER_RATE_LIMIT = Gauge "lbd_server_connects_per_second_limit" ["proxy", "server"], "The most new connections in a second; absent: as they come.";
    SERVER_CONNECTED = Counter "lbd_server_connected_total" ["proxy", "server"], "Connections the server has accepted.";
    SERVER_CONNECT_TIME = Histogram "lbd_server_connect_seconds" ["proxy", "server"], "How long those connects took.";
    SERVER_ATTEMPTS = Counter "lbd_server_connect_attempts_total" ["proxy", "server"], "Connects begun.";
    SERVER_CONNECT_FAILED = Counter "lbd_server_connect_failed_total" ["proxy", "server", "reason"], "Connects that failed, by reason (refused, timeout).";
    SERVER_RETRIES = Counter "lbd_server_retries_total" ["proxy", "server"], "Failed connects after which the connection tried again.";
    SERVER_REDISPATCHED = Counter "lbd_server_redispatched_total" ["proxy", "server"], "Failed connects after which the connection went elsewhere.";
    SERVER_HEDGED = Counter "lbd_server_hedged_total" ["proxy", "server"], "Connects without an answer that got a second one beside them, on another server.";
    SERVER_HEDGES_WON = Counter "lbd_server_hedges_won_total" ["proxy", "server"], "Second connects that the server answered first.";
    SERVER_REBALANCED = Counter "lbd_rebalanced_connections_total" ["proxy", "server"], "Connections closed to be served elsewhere, because other servers have fewer than their share.";
    SERVER_ASKED = Counter "lbd_server_asked_total" ["proxy", "server"], "Connections whose first bytes from the client were delivered.";
    SERVER_ANSWERED = Counter "lbd_server_answered_total" ["proxy", "server"], "Connections that got a first byte from the server.";
    SERVER_ANSWER_TIME = Counter "lbd_server_answer_seconds_total" ["proxy", "server"], "Time those had waited for it, in sum.";
    SERVER_UNANSWERED = Counter "lbd_server_unanswered_total" ["proxy", "server"], "Connections that ended without a byte from the server after the client had asked.";
    SERVER_ENDED = Counter "lbd_server_ended_total" ["proxy", "server"], "Connections that ended.";
    SERVER_LIFE = Counter "lbd_server_connection_seconds_total" ["proxy", "server"], "How long those had lasted, in sum.";
    SERVER_CLIENT_ABORTS = Counter "lbd_server_client_aborts_total" ["proxy", "server"], "Connections that clients broke off.";
    SERVER_ABORTS = Counter "lbd_server_aborts_total" ["proxy", "server"], "Connections the server broke off.";
    SERVER_BYTES_IN = Counter "lbd_server_sent_bytes_total" ["proxy", "server"], "Bytes to the server.";
    SERVER_BYTES_OUT = Counter "lbd_server_received_bytes_total" ["proxy", "server"], "Bytes from the server.";
    HEALTH_CHECKS = Counter "lbd_health_checks_total" ["proxy", "server"], "Probes finished.";
    HEALTH_FAILURES = Counter "lbd_health_check_failures_total" ["proxy", "server"], "Probes that were no success.";
    HEALTH_TRANSITIONS = Counter "lbd_health_transitions_total" ["proxy", "server"], "Changes of verdict.";
    HEALTH_LAST = Gauge "lbd_health_last_check" ["proxy", "server", "verdict"], "1 for what the last probe found (ready, not-ready, unresponsive), 0 for the others; absent: none yet.";
    HEALTH_TIME = Histogram "lbd_health_check_seconds" ["proxy", "server"], "How long probes took.";
    HEALTH_DURATION = Gauge "lbd_health_check_duration_seconds" ["proxy", "server"], "How long the last probe took.";
}

/// The text of `/metrics`, with the names of other exporters if the status says so.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = Families::new();
    process(&mut out, status);
    let keeper_speaks = status.keeper_speaks();
    out.add(&KEEPER_CONNECTED, &[], flag(keeper_speaks));
    // A silent keeper's last word is no measurement.
    if let Some(vrrp) = status.vrrp.as_ref().filter(|_| keeper_speaks) {
        keeper(&mut out, vrrp);
    }
    for one in &status.proxies {
        proxy(&mut out, one);
    }
    if status.process.measures.compat {
        compat::add(&mut out, status);
    }
    out.encode()
}

fn process(out: &mut Families, status: &Status) {
    let process = &status.process;
    out.add(&BUILD, &[&process.version], 1.0);
    out.add(&UPTIME, &[], seconds_from_ms(process.uptime_ms));
    out.add(&STARTED, &[], number(process.measures.started));
    out.add(&SERVING, &[], flag(process.serving));
    out.add(&READY, &[], flag(status.not_ready().is_none()));
    out.add(&CONNECTIONS, &[], number(process.connections));
    out.add(&CONNECTIONS_LIMIT, &[], number(process.max_connections));
    out.add(&WORKERS, &[], number(process.workers));
    let pinned = u64::try_from(process.worker_cpus.len()).unwrap_or(u64::MAX);
    out.add(&WORKERS_PINNED, &[], number(pinned));
    for (resource, count) in &process.shortages {
        out.add(&SHORTAGES, &[resource], number(*count));
    }
    out.add(&LOG_DROPPED, &["messages"], number(process.log_dropped));
    out.add(
        &LOG_DROPPED,
        &["access"],
        number(process.access_log_dropped),
    );
}

fn keeper(out: &mut Families, vrrp: &VrrpStatus) {
    out.add(&KEEPER_REALTIME, &[], flag(vrrp.realtime));
    out.add(&PROXY_STARTS, &[], f64::from(vrrp.proxy_starts));
    out.add(&PROXY_STARVED, &[], number(vrrp.proxy_starved));
    out.add(&PROXY_HUNG, &[], number(vrrp.proxy_hung));
    let reload = &vrrp.reload;
    for (result, count) in [
        ("applied", reload.applied),
        ("refused", reload.refused),
        ("failed", reload.failed),
    ] {
        out.add(&CONFIG_RELOADS, &[result], number(count));
    }
    let seconds = number(reload.success_at_ms / 1_000);
    out.add(&CONFIG_SUCCESS, &[], seconds);
    out.add(&CONFIG_INFO, &[&format!("{:016x}", reload.digest)], 1.0);
    for vip in &vrrp.vips {
        virtual_router(out, vip);
        neighbours(out, vip);
    }
    for of_route in &vrrp.routes {
        route(out, of_route);
    }
    if let Some(status) = &vrrp.channel {
        channel(out, status);
    }
}

fn channel(out: &mut Families, channel: &ChannelStatus) {
    out.add(&CHANNEL_KEYS, &[], f64::from(channel.keys));
    out.add(&CHANNEL_SENT, &[], number(channel.sent));
    out.add(&CHANNEL_FAILED, &[], number(channel.failed));
    out.add(&CHANNEL_RECEIVED, &[], number(channel.received));
    for (reason, count) in &channel.rejected {
        out.add(&CHANNEL_REJECTED, &[reason], number(*count));
    }
    out.add(&CHANNEL_CLIENTS, &[], number(channel.clients));
    out.add(&CHANNEL_TICKLES, &[], number(channel.tickles));
    for node in &channel.nodes {
        let name = node.name.as_str();
        out.add(&NODE_REACHABLE, &[name], flag(node.reachable));
        // What it said last is no measurement once it is silent.
        let Some(age) = node.heard_ms else { continue };
        out.add(&NODE_AGE, &[name], seconds_from_ms(age));
        out.add(&NODE_INFO, &[name, &node.version], 1.0);
        if node.reachable {
            out.add(&NODE_SERVES, &[name], flag(node.can_serve));
            out.add(&NODE_CLIENTS, &[name], number(node.clients));
            node.routers.iter().for_each(|view| seen(out, name, view));
        }
    }
}

fn seen(out: &mut Families, peer: &str, view: &RouterView) {
    let vip = view.vip.as_str();
    for (state, word) in STATES {
        out.add(&VIEW_STATE, &[peer, vip, word], flag(view.state == state));
    }
    out.add(&VIEW_PRIORITY, &[peer, vip], f64::from(view.priority));
    out.add(
        &VIEW_SILENCE,
        &[peer, vip],
        seconds_from_ms(view.silence_ms),
    );
    out.add(&VIEW_UNHEARD, &[peer, vip], flag(view.unheard));
}

/// How metrics name the states.
const STATES: [(VrrpState, &str); 4] = [
    (VrrpState::Initialize, "initialize"),
    (VrrpState::Backup, "backup"),
    (VrrpState::Active, "active"),
    (VrrpState::Leaving, "leaving"),
];

fn route(out: &mut Families, route: &RouteStatus) {
    let counters = route.counters;
    let single = [
        (&ROUTE_ANNOUNCED, flag(route.announced)),
        (&ROUTE_AGE, seconds_from_ms(route.since_ms)),
        (&ROUTE_ANNOUNCEMENTS, number(counters.announced)),
        (&ROUTE_WITHDRAWALS, number(counters.withdrawn)),
        (&ROUTE_RESTORED, number(counters.restored)),
        (&ROUTE_ERRORS, number(counters.errors)),
    ];
    for (family, value) in single {
        out.add(family, &[&route.name], value);
    }
    tracks(out, &route.name, &route.tracks);
}

fn virtual_router(out: &mut Families, vip: &VipStatus) {
    let name = vip.name.as_str();
    for (state, word) in STATES {
        out.add(&VRRP_STATE, &[name, word], flag(vip.state == state));
    }
    let counters = &vip.counters;
    let single = [
        (&VRRP_HOLDS, flag(vip.holds)),
        (&VRRP_STATE_AGE, seconds_from_ms(vip.since_ms)),
        (&VRRP_PRIORITY, f64::from(vip.effective_priority)),
        (&VRRP_BASE_PRIORITY, f64::from(vip.base_priority)),
        (
            &VRRP_INTERVAL,
            seconds_from_ms(vip.advert_interval_ms.into()),
        ),
        (&VRRP_SENT, number(counters.adverts_sent)),
        (&VRRP_RECEIVED, number(counters.adverts_received)),
        (&VRRP_GARPS, number(counters.garps_sent)),
        (&VRRP_BECAME, number(counters.became_active)),
        (&VRRP_LEFT, number(counters.left_active)),
        (&VRRP_RESIGNS_SENT, number(counters.resigns_sent)),
        (&VRRP_RESIGNS_RECEIVED, number(counters.resigns_received)),
        (&VRRP_RESTORED, number(counters.restored)),
        (&VRRP_ERRORS, number(counters.errors)),
        (&VRRP_HELD_BACK, flag(vip.held_back.is_some())),
        (&WIRE_SILENT, flag(vip.silent)),
        (&CONFLICT, flag(vip.conflict.is_some())),
    ];
    for (family, value) in single {
        out.add(family, &[name], value);
    }
    for (reason, count) in &counters.rejected {
        out.add(&VRRP_REJECTED, &[name, reason], number(*count));
    }
    for (cause, told) in [
        ("silent", &counters.after_silence),
        ("resigned", &counters.after_resignation),
    ] {
        let spans = Spans::of(&told.counts, told.micros);
        out.add_spans(&VRRP_FAILOVER, &[name, cause], &spans);
    }
}

fn neighbours(out: &mut Families, vip: &VipStatus) {
    for peer in &vip.peers {
        let address = peer.address.to_string();
        let labels = [vip.name.as_str(), peer.name.as_deref().unwrap_or(&address)];
        if let Some(age) = peer.last_advert_age_ms {
            out.add(&PEER_AGE, &labels, seconds_from_ms(age));
        }
        if let Some(priority) = peer.priority {
            out.add(&PEER_PRIORITY, &labels, f64::from(priority));
        }
        out.add(&PEER_ADVERTS, &labels, number(peer.adverts));
        out.add(&PEER_ALIVE, &labels, flag(peer.alive_unheard));
        let [vip, peer_name] = labels;
        for (percentile, jitter) in [("50", peer.jitter_p50_us), ("99", peer.jitter_p99_us)] {
            if let Some(jitter) = jitter {
                let labels = [vip, peer_name, percentile];
                out.add(&PEER_JITTER, &labels, seconds_from_micros(jitter));
            }
        }
        let spans = Spans::of(&peer.deviations.counts, peer.deviations.micros);
        out.add_spans(&PEER_DEVIATION, &labels, &spans);
        for (reason, count) in &peer.rejected {
            out.add(&PEER_REJECTED, &[vip, peer_name, reason], number(*count));
        }
    }
    tracks(out, &vip.name, &vip.tracks);
}

fn tracks(out: &mut Families, vip: &str, tracks: &[TrackStatus]) {
    for track in tracks {
        if let Some(ok) = track.ok {
            out.add(&TRACK_OK, &[vip, &track.name], flag(ok));
        }
    }
}

fn proxy(out: &mut Families, proxy: &ProxyStatus) {
    let name = proxy.name.as_str();
    let totals = &proxy.totals;
    let single = [
        (&PROXY_CONNECTIONS, number(proxy.connections)),
        (&PROXY_ABLE, number(proxy.measures.able)),
        (&PROXY_USABLE, number(proxy.usable)),
        (&PROXY_PANIC, flag(proxy.panic)),
        (&PROXY_PROBED, flag(proxy.probed)),
        (&PROXY_QUEUE, number(proxy.queue)),
        (&PROXY_QUEUE_LIMIT, number(proxy.max_queue)),
        (&PROXY_ACCEPTED, number(totals.accepted)),
        (&PROXY_FINISHED, number(totals.finished)),
        (&PROXY_QUEUED, number(totals.queued)),
        (&PROXY_BYTES_IN, number(totals.bytes_in)),
        (&PROXY_BYTES_OUT, number(totals.bytes_out)),
        (&PROXY_SPLICED, number(totals.bytes_spliced)),
        (&PROXY_HELPED, number(totals.helped)),
        (&PROXY_HEADERS, number(totals.headers)),
        (&PROXY_LIMITED, number(totals.limit_reached)),
    ];
    for (family, value) in single {
        out.add(family, &[name], value);
    }
    if let Some(limit) = proxy.max_connections {
        out.add(&PROXY_LIMIT, &[name], number(limit));
    }
    let leaving = proxy.leaving.iter().map(|server| server.connections).sum();
    out.add(&PROXY_LEAVING, &[name], number(leaving));
    out.add_spans(&PROXY_QUEUE_TIME, &[name], &proxy.measures.waits);
    if let Some(sources) = &proxy.sources {
        let most = sources.top.first().map_or(0, |talker| talker.connections);
        out.add(&PROXY_SOURCES, &[name], number(sources.connected));
        out.add(&PROXY_SOURCE_MAX, &[name], number(most));
    }
    for (reason, count) in &totals.failed {
        out.add(&PROXY_FAILED, &[name, reason], number(*count));
    }
    for one in &proxy.servers {
        server::add(out, name, one);
    }
    for one in &proxy.discovery {
        source(out, name, one);
    }
}

fn source(out: &mut Families, proxy: &str, source: &DiscoveryStatus) {
    let labels = [proxy, source.kind.as_str(), source.source.as_str()];
    if source.error.is_some() || source.heard_ms.is_some() {
        out.add(&DISCOVERY_OK, &labels, flag(source.error.is_none()));
    }
    out.add(&DISCOVERY_SERVERS, &labels, number(source.servers));
    if let Some(age) = source.heard_ms {
        out.add(&DISCOVERY_AGE, &labels, seconds_from_ms(age));
    }
    out.add(&DISCOVERY_FAILURES, &labels, number(source.failures));
}

pub(super) fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Exact up to 2⁵³, as far as the text format goes.
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

pub(super) fn seconds_from_ms(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

pub(super) fn seconds_from_micros(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}
