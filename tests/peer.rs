//! What rests on the channel between nodes, with real lbds in network namespaces: idle clients of a
//! node that vanishes, adverts lost one way, forged and repeated messages, rolling the key over.
//! Needs root; one case at a time. `cargo test --test peer -- PART_OF_A_NAME` runs some of them.

#![cfg(test)]

#[path = "lab/mod.rs"]
mod lab;

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use lab::cases::Case;
use lab::{LB1, LB2, Pair};
use lbd::net::clock;
use lbd::net::netns::Namespace;
use lbd::net::netns::wire::{Plug, Wire};
use lbd::net::tickle::Tickler;
use socket2::{Domain, Protocol, Socket, Type};

const CASES: &[Case] = &[
    (
        "idle_clients_of_a_node_that_vanishes_notice_within_milliseconds",
        &[],
        clients_are_woken,
    ),
    (
        "without_the_channel_idle_clients_of_a_node_that_vanishes_hang",
        &[],
        clients_hang,
    ),
    (
        "an_active_whose_adverts_are_lost_one_way_yields_and_returns_when_they_are_heard",
        &["nft"],
        one_way,
    ),
    (
        "with_the_channel_blocked_too_the_rules_of_the_rfc_are_what_is_left",
        &["nft"],
        one_way_without_channel,
    ),
    (
        "forged_reflected_and_repeated_messages_have_no_effect_and_are_counted",
        &[],
        forged,
    ),
    (
        "a_flood_of_junk_moves_nothing_and_costs_the_keeper_little",
        &[],
        flood,
    ),
    (
        "an_orphan_is_answered_with_a_reset_in_both_families_whoever_listens",
        &["ip"],
        orphans,
    ),
    (
        "a_key_is_rolled_over_without_a_restart_or_a_lost_message",
        &[],
        roll_over,
    ),
];

const KEY: &str = "0123456789abcdef0123456789abcdef";
const NEXT_KEY: &str = "fedcba9876543210fedcba9876543210";
const PORT: u16 = 9634;
const CLIENTS: usize = 20;
const FAST: &str = "version = 3\nadvert-interval = \"100ms\"\npreempt = true";

fn main() -> ExitCode {
    lab::cases::run("peer", &[CASES])
}

/// The pair, lb2 in charge; with the channel if there is a key.
fn pair(key: Option<&str>) -> Pair {
    let mut config = lab::config(FAST).replace(
        "listen = \"0.0.0.0:6443\"",
        "listen = \"0.0.0.0:6443\"\nfirst-byte-timeout = \"off\"",
    );
    if key.is_some() {
        config.push_str("\n[peer]\nkey-file = \"/run/lbd/peer.key\"\n");
    }
    let mut pair = Pair::new();
    for node in [LB2, LB1] {
        if let Some(key) = key {
            write_key(&pair, node, key);
        }
        pair.start_lbd(node, &config);
    }
    pair.until("lb2 holds the VIP", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    if key.is_some() {
        pair.until("the nodes see each other", 5_000, |pair| {
            (0..2).all(|node| pair.metric(node, "lbd_peer_reachable{") == Some(1))
        });
    }
    pair
}

fn write_key(pair: &Pair, node: usize, keys: &str) {
    let write = || {
        fs::create_dir_all("/run/lbd")?;
        fs::write("/run/lbd/peer.key.new", keys)?;
        fs::set_permissions("/run/lbd/peer.key.new", fs::Permissions::from_mode(0o600))?;
        fs::rename("/run/lbd/peer.key.new", "/run/lbd/peer.key")
    };
    pair.lab.nodes[node].host.run(write).unwrap().unwrap();
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 0, last)
}

/// Idle clients through the VIP, and when each one's read() came back.
fn idle_clients(pair: &Pair) -> Receiver<Instant> {
    let (ended, ends) = sync_channel(CLIENTS);
    let (begun, begins) = sync_channel(CLIENTS);
    for number in 0..CLIENTS {
        let (begun, ended) = (begun.clone(), ended.clone());
        let idle = move || {
            let target = SocketAddr::new(IpAddr::V4(ip(10)), 6443);
            let mut stream = TcpStream::connect(target).unwrap();
            begun.send(()).unwrap();
            let outcome = stream.read(&mut [0]);
            let at = clock::now();
            assert!(outcome.is_err(), "an end of file is no notice");
            // Where nobody listens any more the test is over.
            ended.send(at).is_ok()
        };
        let thread = pair.lab.client.thread(&format!("idle{number}"), idle);
        drop(thread.unwrap());
    }
    for _ in 0..CLIENTS {
        begins.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    ends
}

/// Cuts lb2 off; when that was, and when lb1 was first seen to have the VIP, which is up to a
/// millisecond after it took it.
fn lb2_vanishes(pair: &mut Pair) -> (Instant, Instant) {
    let mut rtnl = pair.lab.nodes[LB1].host.rtnl().unwrap();
    let cut = pair.plug(LB2, false);
    let vip = IpAddr::V4(ip(10));
    while !rtnl.addresses().is_ok_and(|all| all.contains(&vip)) {
        assert!(
            clock::now() - cut < Duration::from_secs(5),
            "{}",
            pair.report()
        );
        thread::sleep(Duration::from_micros(200));
    }
    (cut, clock::now())
}

fn clients_are_woken() {
    let mut pair = pair(Some(KEY));
    let ends = idle_clients(&pair);
    pair.until("lb1 knows of the clients", 10_000, |pair| {
        pair.metric(LB1, "lbd_peer_clients_known{") == Some(20)
    });
    let (cut, moved) = lb2_vanishes(&mut pair);
    let mut noticed: Vec<Duration> = (0..CLIENTS)
        .map(|_| ends.recv_timeout(Duration::from_secs(2)))
        .map(|at| at.unwrap_or_else(|_| panic!("a client hangs\n{}", pair.report())) - cut)
        .collect();
    noticed.sort();
    let (first, last) = (noticed[0], noticed[CLIENTS - 1]);
    let moved = moved - cut;
    println!(
        "peer: the VIP moved {moved:?} after the cut; {CLIENTS} of {CLIENTS} idle clients noticed \
         after {first:?} to {last:?}"
    );
    // Not before the node was missed, and 10 ms after that on a machine with nothing else to do.
    assert!(first > Duration::from_millis(250), "{noticed:?}");
    let bound = moved + pair.bound(Duration::from_millis(100), cut);
    assert!(last < bound, "{noticed:?}");
    pair.until("it is counted", 2_000, |pair| {
        pair.metric(LB1, "lbd_peer_tickles_sent_total") == Some(20)
    });
}

fn clients_hang() {
    let mut pair = pair(None);
    let ends = idle_clients(&pair);
    lb2_vanishes(&mut pair);
    let woken = ends.recv_timeout(Duration::from_secs(3));
    assert!(woken.is_err(), "somebody told a client");
}

/// Runs nft on a node.
fn nft(pair: &Pair, node: usize, arguments: &str) {
    let mut command = Command::new("nft");
    command.arg(arguments).stdin(Stdio::null());
    let mut child = pair.lab.nodes[node].host.spawn(&mut command).unwrap();
    assert!(child.wait().unwrap().success(), "nft {arguments}");
}

/// From here on lb1 gets nothing of this kind.
fn deafen(pair: &Pair, what: &str) -> Instant {
    let rules = format!(
        "add table inet deaf; \
         add chain inet deaf in {{ type filter hook input priority 0; }}; \
         add rule inet deaf in {what} drop"
    );
    nft(pair, LB1, &rules);
    clock::now()
}

fn one_way() {
    let pair = pair(Some(KEY));
    let since = deafen(&pair, "ip protocol 112");
    pair.until("lb1 takes over", 3_000, |pair| pair.holds(LB1));
    pair.until("lb2 yields", 3_000, |pair| pair.only_holder() == Some(LB1));
    let double = pair.double(since);
    println!("peer: one-way loss at 100 ms: two nodes held the VIP for {double:?}");
    // Two intervals, the grace for resets, and what a busy machine adds.
    let bound = pair.bound(Duration::from_millis(300), since);
    assert!(double < bound, "{double:?}, not within {bound:?}");
    let log = pair.lab.nodes[LB2].log().unwrap();
    assert!(log.contains("adverts to peer are lost: one-way"), "{log}");
    pair.until("it is on record", 3_000, |pair| {
        events(pair, LB2).contains("adverts to peer are lost: one-way")
    });
    // It prefers to hold the VIP, but does not try while it would not be heard.
    let calm = clock::now();
    pair.until("some seconds pass", 6_000, |_| {
        clock::now() - calm > Duration::from_secs(5)
    });
    assert_eq!(pair.only_holder(), Some(LB1), "{}", pair.report());
    assert!(pair.double(calm) < pair.bound(Duration::from_millis(300), calm));
    nft(&pair, LB1, "delete table inet deaf");
    pair.until("lb2 is heard and returns", 60_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    println!(
        "peer: heard again and back {:?} after the loss",
        clock::now() - since
    );
}

fn one_way_without_channel() {
    let pair = pair(Some(KEY));
    let since = deafen(&pair, "meta l4proto { 112, udp }");
    pair.until("lb1 takes over", 3_000, |pair| pair.holds(LB1));
    pair.until("both have held it for two seconds", 5_000, |pair| {
        pair.double(since) > Duration::from_secs(2)
    });
    pair.until("the channel is seen to be silent", 2_000, |pair| {
        pair.metric(LB1, "lbd_peer_reachable{") == Some(0)
    });
    nft(&pair, LB1, "delete table inet deaf");
    pair.until("lb2 alone holds it", 3_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
}

/// What `lbd events` says on a node.
fn events(pair: &Pair, node: usize) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    command
        .args(["events", "--socket", "/run/lbd/admin.sock"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let child = pair.lab.nodes[node].host.spawn(&mut command).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Messages of the channel as they pass the switch: source, destination, bytes.
fn overhear(pair: &Pair, most: usize) -> Vec<(IpAddr, IpAddr, Vec<u8>)> {
    let all = Protocol::from(i32::from(0x0003_u16.to_be()));
    let listen = || Socket::new(Domain::PACKET, Type::RAW, Some(all));
    let socket = pair.lab.wire.namespace().run(listen).unwrap().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut found = Vec::new();
    let mut frame = [0; 2048];
    while found.len() < most {
        let length = (&socket).read(&mut frame).unwrap();
        let frame = &frame[..length];
        // IPv4 without options, UDP, to the channel's port.
        if length > 42
            && frame[12..14] == [8, 0]
            && frame[23] == 17
            && frame[36..38] == PORT.to_be_bytes()
        {
            let address = |at: usize| {
                let octets: [u8; 4] = frame[at..at + 4].try_into().unwrap();
                IpAddr::from(octets)
            };
            let message = (address(26), address(30), frame[42..].to_vec());
            // Each one passes several ports.
            if !found.contains(&message) {
                found.push(message);
            }
        }
    }
    found
}

/// A UDP packet of the channel with whatever source.
fn udp(source: IpAddr, to: IpAddr, bytes: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(target)) = (source, to) else {
        panic!("IPv4 only");
    };
    let length = u16::try_from(28 + bytes.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(PORT.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(bytes);
    packet
}

fn send_as(from: &Namespace, source: IpAddr, to: IpAddr, bytes: &[u8]) {
    let packet = udp(source, to, bytes);
    let send = || {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
        raw.send_to(&packet, &SocketAddr::new(to, 0).into())
    };
    from.run(send).unwrap().unwrap();
}

fn rejected(pair: &Pair, node: usize, reason: &str) -> u64 {
    let start = format!("lbd_peer_messages_rejected_total{{reason=\"{reason}\"}}");
    pair.metric(node, &start).unwrap_or_default()
}

fn forged() {
    let mut pair = pair(Some(KEY));
    let messages = overhear(&pair, 40);
    let calm = clock::now();
    // From before lb1's restart, so that it remembers none of them.
    pair.signal(LB1, lab::Role::All, nix::sys::signal::Signal::SIGKILL);
    pair.until("lb1 has ended", 5_000, |pair| pair.ended(LB1));
    let config = pair.lab.nodes[LB1]
        .host
        .run(|| fs::read_to_string("/run/lbd/lb.toml"));
    pair.start_lbd(LB1, &config.unwrap().unwrap());
    pair.until("lb1 is back", 10_000, |pair| {
        pair.metric(LB1, "lbd_peer_reachable{") == Some(1)
    });
    let before: Vec<u64> = (0..2)
        .flat_map(|node| {
            ["forged", "replayed", "unproven", "malformed", "stranger"]
                .map(|r| rejected(&pair, node, r))
        })
        .collect();
    let attacker = std::sync::Arc::clone(&pair.lab.client);
    for (source, to, bytes) in &messages {
        send_as(&attacker, *source, *to, bytes);
        // Reflected.
        send_as(&attacker, *to, *source, bytes);
        // Changed: "I am in fault", or whatever that byte says.
        let mut changed = bytes.clone();
        let at = changed.len() - 40;
        changed[at] ^= 1;
        send_as(&attacker, *source, *to, &changed);
        send_as(&attacker, *source, *to, &bytes[..50]);
        send_as(&attacker, IpAddr::V4(ip(100)), *to, bytes);
    }
    let to_lb2 = messages
        .iter()
        .map(|(_, to, _)| u64::from(*to == IpAddr::V4(ip(3))))
        .sum::<u64>();
    assert!(to_lb2 > 5, "{to_lb2}");
    pair.until("all of them were counted", 5_000, |pair| {
        let more = |reason, at: usize| rejected(pair, LB2, reason) - before[5 + at];
        more("forged", 0) >= 2 * to_lb2 - 1
            && more("replayed", 1) + more("unproven", 2) >= to_lb2
            && more("malformed", 3) >= to_lb2
            && more("stranger", 4) >= to_lb2
    });
    assert_eq!(pair.metric(LB1, "lbd_peer_reachable{"), Some(1));
    assert_eq!(pair.metric(LB2, "lbd_peer_reachable{"), Some(1));
    assert_eq!(pair.metric(LB2, "lbd_peer_vip_unheard{"), Some(0));
    assert_eq!(pair.only_holder(), Some(LB2));
    assert_eq!(pair.double(calm), Duration::ZERO);
}

/// Processor time of lb2's keeper so far.
fn keeper_time(pair: &Pair) -> Duration {
    let keeper = pair.processes(LB2, lab::Role::Keeper)[0];
    let text = fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn flood() {
    let pair = pair(Some(KEY));
    let (_, _, message) = overhear(&pair, 1).remove(0);
    let moves = pair.metric(LB2, "lbd_vrrp_became_active_total");
    let (calm, before) = (clock::now(), keeper_time(&pair));
    let attacker = &pair.lab.client;
    // As if from lb1, looking like a message.
    let packet = udp(IpAddr::V4(ip(2)), IpAddr::V4(ip(3)), &message);
    let shoot = || {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
        let to = SocketAddr::new(IpAddr::V4(ip(3)), 0).into();
        let mut sent = 0_u32;
        while clock::now() - calm < Duration::from_secs(3) {
            for _ in 0..25 {
                sent += u32::from(raw.send_to(&packet, &to).is_ok());
            }
            // About 20,000 a second.
            thread::sleep(Duration::from_millis(1));
        }
        Ok::<_, std::io::Error>(sent)
    };
    let sent = attacker.run(shoot).unwrap().unwrap();
    let spent = keeper_time(&pair) - before;
    println!("peer: {sent} junk messages in 3 s cost the keeper {spent:?} of processor time");
    assert!(sent > 30_000, "{sent}");
    assert!(spent < Duration::from_millis(1_500), "{spent:?}");
    assert_eq!(pair.only_holder(), Some(LB2));
    assert_eq!(pair.double(calm), Duration::ZERO);
    assert_eq!(pair.metric(LB2, "lbd_vrrp_became_active_total"), moves);
    pair.until("the channel works again", 5_000, |pair| {
        pair.metric(LB2, "lbd_peer_reachable{") == Some(1)
    });
}

fn run(host: &Namespace, command: &str) {
    let mut words = command.split(' ');
    let mut program = Command::new(words.next().unwrap());
    program.args(words).stdin(Stdio::null());
    let mut child = host.spawn(&mut program).unwrap();
    assert!(child.wait().unwrap().success(), "{command}");
}

/// A client of a host that is cut off; another host takes the address over and wakes it.
fn orphans() {
    for (vip, listens, cookies) in [
        ("172.16.0.10", true, false),
        ("172.16.0.10", true, true),
        ("172.16.0.10", false, false),
        ("fd00::10", true, false),
        ("fd00::10", true, true),
        ("fd00::10", false, false),
    ] {
        let took = orphan(vip.parse().unwrap(), listens, cookies);
        println!("peer: {vip}, listener {listens}, cookies {cookies}: noticed after {took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}

fn orphan(vip: IpAddr, listens: bool, cookies: bool) -> Duration {
    let mut wire = Wire::new().unwrap();
    let hosts = ["old", "new", "client"].map(|_| Namespace::new(&[]).unwrap());
    for (host, (name, last)) in hosts.iter().zip([("old", 2), ("new", 3), ("client", 100)]) {
        let plug = Plug {
            host: name,
            interface: "eth0",
            ip: IpAddr::V4(ip(last)),
            prefix: 24,
        };
        wire.attach(host, &plug).unwrap();
        run(host, &format!("ip addr add fd00::{last}/64 dev eth0 nodad"));
    }
    let [old, new, client] = &hosts;
    let length = if vip.is_ipv4() { 24 } else { 64 };
    let nodad = if vip.is_ipv4() { "" } else { " nodad" };
    let add = format!("ip addr add {vip}/{length} dev eth0{nodad}");
    run(old, &add);
    let target = SocketAddr::new(vip, 6443);
    let server = old.run(|| TcpListener::bind(target)).unwrap().unwrap();
    let mut stream = client.run(|| TcpStream::connect(target)).unwrap().unwrap();
    let (_accepted, from) = server.accept().unwrap();
    wire.plug("old", false).unwrap();
    run(new, &add);
    // What the announcement does.
    let mut command = Command::new("ip");
    command
        .args(["-o", "link", "show", "eth0"])
        .stdin(Stdio::null());
    let child = new.spawn(command.stdout(Stdio::piped())).unwrap();
    let shown = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let mac = shown.split("link/ether ").nth(1).unwrap();
    let mac = mac.split(' ').next().unwrap();
    run(
        client,
        &format!("ip neigh replace {vip} lladdr {mac} dev eth0"),
    );
    let _heir = listens.then(|| {
        if cookies {
            let on = || fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2");
            new.run(on).unwrap().unwrap();
        }
        let heir = new.run(|| TcpListener::bind(target)).unwrap().unwrap();
        // With cookies on, the kernel takes every ACK for one from here on.
        drop(client.run(|| TcpStream::connect(target)).unwrap().unwrap());
        heir
    });
    let waits = thread::spawn(move || {
        let outcome = stream.read(&mut [0]);
        (clock::now(), outcome.map_err(|error| error.kind()))
    });
    let start = clock::now();
    new.run(|| Tickler::open()?.wake(target, from))
        .unwrap()
        .unwrap();
    let end = start + Duration::from_secs(5);
    while !waits.is_finished() {
        assert!(clock::now() < end, "{target}: the client hangs");
        thread::sleep(Duration::from_micros(200));
    }
    let (at, outcome) = waits.join().unwrap();
    assert_eq!(outcome, Err(std::io::ErrorKind::ConnectionReset));
    at.saturating_duration_since(start)
}

fn roll_over() {
    let pair = pair(Some(KEY));
    let keys = |pair: &Pair, node, count| {
        pair.until("the key file is read again", 5_000, |pair| {
            pair.metric(node, "lbd_peer_keys") == Some(count)
        });
        assert_eq!(pair.metric(node, "lbd_peer_reachable{"), Some(1));
    };
    for node in [LB1, LB2] {
        write_key(&pair, node, &format!("{KEY}\n{NEXT_KEY}\n"));
        keys(&pair, node, 2);
    }
    for node in [LB1, LB2] {
        write_key(&pair, node, &format!("{NEXT_KEY}\n{KEY}\n"));
        let look = clock::now();
        pair.until("the file was looked at", 5_000, |_| {
            clock::now() - look > Duration::from_millis(2_500)
        });
        keys(&pair, node, 2);
    }
    for node in [LB1, LB2] {
        write_key(&pair, node, NEXT_KEY);
        keys(&pair, node, 1);
    }
    let look = clock::now();
    pair.until("a second passes", 5_000, |_| {
        clock::now() - look > Duration::from_secs(1)
    });
    for node in [LB1, LB2] {
        assert_eq!(pair.metric(node, "lbd_peer_reachable{"), Some(1));
        assert_eq!(rejected(&pair, node, "forged"), 0);
    }
    // The old key is worth nothing now.
    write_key(&pair, LB1, KEY);
    pair.until("they lose each other", 10_000, |pair| {
        pair.metric(LB2, "lbd_peer_reachable{") == Some(0)
    });
    assert!(rejected(&pair, LB2, "forged") > 0);
    for (node, key) in [(LB1, KEY), (LB2, NEXT_KEY)] {
        assert!(!pair.lab.nodes[node].log().unwrap().contains(key));
    }
}
