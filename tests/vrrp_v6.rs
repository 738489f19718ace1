//! Virtual routers over IPv6 on real sockets in namespaces: two of lbd's, a pair of both families,
//! and one beside keepalived. Needs root; says so when it skips.
#![cfg(test)]

#[path = "lab/forged.rs"]
mod forged;
#[path = "lab/keepalived.rs"]
mod keepalived;
#[path = "lab/routers.rs"]
mod routers;

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use forged::Forged;
use keepalived::{Instance, Keepalived, SECRET, SIGNS, version};
use lbd::ipc::message::VrrpState;
use lbd::net::clock::now;
use lbd::net::netns::wire::Wire;
use routers::{Host, lan, secs, turn, within};

const VIP: &str = "fd00:16::10";
const VIP_V4: &str = "10.16.0.10";
const PORT: u16 = 6443;

/// Two hosts and a client on one wire.
struct Net {
    a: Host,
    b: Host,
    client: Host,
    wire: Wire,
}

/// The addresses of a host by its number: global and link-local. Without duplicate detection, so
/// that they can be used at once.
fn own(number: u8) -> [String; 2] {
    [
        format!("fd00:16::{number}/64"),
        format!("fe80::{number}/64"),
    ]
}

fn add_own(host: &Host, number: u8) {
    for address in own(number) {
        host.run(&format!("ip address replace {address} dev eth0 nodad"));
    }
}

fn net() -> Net {
    let hosts = [
        ("a", "10.16.0.2"),
        ("b", "10.16.0.3"),
        ("client", "10.16.0.9"),
    ];
    let ([a, b, client], wire) = lan(hosts);
    for (host, number) in [(&a, 2), (&b, 3), (&client, 9)] {
        add_own(host, number);
    }
    Net { a, b, client, wire }
}

/// A router with its nodes, priorities by order.
fn text(mode: &str, nodes: [&str; 2], more: &str) -> String {
    format!(
        "[vip.six]\naddress = \"{VIP}/64\"\nvrid = 60\nmode = \"{mode}\"\npreempt = true\n\
         nodes = [{{ name = \"lb1\", address = \"{}\" }}, {{ name = \"lb2\", address = \"{}\" }}]\n\
         advert-interval = \"100ms\"\n{more}",
        nodes[0], nodes[1]
    )
}

/// The line that makes a router sign.
fn signature() -> String {
    format!("auth = {{ type = \"hmac\", keys = [{{ id = 1, key = \"{SECRET}\" }}] }}\n")
}

const GLOBAL: [&str; 2] = ["fd00:16::2", "fd00:16::3"];
const LOCAL: [&str; 2] = ["fe80::2", "fe80::3"];

fn unicast() -> String {
    text("unicast", GLOBAL, "")
}

/// Forgets the routers without any farewell, as a killed keeper does.
fn kill(host: &Host) {
    host.with(|inside| inside.routers.clear());
}

fn has(host: &Host, vip: &str) -> bool {
    host.has(&[vip]) == [true]
}

fn one_holder(what: &str, good: &Host, other: &Host, limit: Duration) -> Duration {
    within(what, limit, || has(good, VIP) && !has(other, VIP))
}

fn is_backup(host: &Host) -> bool {
    host.state() == Some(VrrpState::Backup)
}

/// What accepts connections on every address of a host while it lives.
fn serve(host: &Host) -> TcpListener {
    host.with(|_| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap())
}

/// Whether a client reaches the address.
fn reaches(client: &Host, vip: &str) -> bool {
    let target = SocketAddr::new(vip.parse().unwrap(), PORT);
    client.with(move |_| TcpStream::connect_timeout(&target, secs(0.2)).is_ok())
}

fn is_advertisement(frame: &[u8], vip: &str) -> bool {
    let vip: Ipv6Addr = vip.parse().unwrap();
    frame.len() == 86 && frame[54] == 136 && frame[62..78] == vip.octets()
}

fn counters(host: &Host) -> lbd::ipc::message::VrrpCounters {
    host.status()[0].counters.clone()
}

#[test]
fn two_routers_elect_one_by_unicast_and_by_multicast() {
    let Some(_turn) = turn() else { return };
    let signed = signature();
    let signed = signed.as_str();
    for (mode, nodes, auth) in [
        ("unicast", GLOBAL, ""),
        ("unicast", LOCAL, signed),
        ("multicast", LOCAL, ""),
        ("multicast", LOCAL, signed),
    ] {
        let net = net();
        let (a, b) = (&net.a, &net.b);
        let _servers = [serve(a), serve(b)];
        let ear = net.client.ear(0x86dd);
        let config = text(mode, nodes, auth);
        b.open(&config, false);
        a.open(&config, false);
        one_holder("lb1 active", a, b, secs(5.0));
        within("lb2 a Backup", secs(2.0), || is_backup(b));
        within("reachable", secs(1.0), || reaches(&net.client, VIP));
        let mut heard = ear.frames();
        within("advertisements on the wire", secs(1.0), || {
            heard.extend(ear.frames());
            heard
                .iter()
                .filter(|frame| is_advertisement(frame, VIP))
                .count()
                >= 5
        });
        if mode == "multicast" {
            // Only what goes to the group reaches a third host.
            let adverts: Vec<_> = heard.iter().filter(|frame| frame[20] == 112).collect();
            let group: Ipv6Addr = "ff02::12".parse().unwrap();
            let last = adverts.last().unwrap();
            // Traffic class 0xc0, hop limit 255, to the group.
            assert_eq!((last[14], last[15] >> 4, last[21]), (0x6c, 0, 255));
            assert_eq!(last[38..54], group.octets());
        }
        kill(a);
        let took = within("lb2 takes over", secs(1.5), || has(b, VIP));
        assert!(took < secs(0.7), "{mode}: took {took:?}");
        let gap = within("reachable at lb2", secs(1.0), || reaches(&net.client, VIP));
        let gone = one_holder("the kernel ends the lease", b, a, secs(3.2));
        println!(
            "{mode} {nodes:?}: taken over after {took:?}, reached {gap:?} later, lease ended after {gone:?} more"
        );
        // The node's own address and its route are as they were.
        let route = a.run("ip -6 route show fd00:16::/64 proto kernel");
        assert!(
            route.contains("eth0") && !route.contains("expires"),
            "{route}"
        );
        a.open(&config, false);
        one_holder("lb1 preempts", a, b, secs(2.0));
        let rejected = counters(a).rejected;
        assert!(rejected.is_empty(), "{rejected:?}");
    }
}

#[test]
fn the_virtual_address_is_never_a_source_and_never_doubted() {
    let Some(_turn) = turn() else { return };
    let net = net();
    net.a.open(&unicast(), false);
    within("active", secs(5.0), || has(&net.a, VIP));
    let shown = net.a.run(&format!("ip -6 -o address show to {VIP}"));
    for word in [
        "deprecated",
        "nodad",
        "noprefixroute",
        "preferred_lft 0sec",
        "valid_lft 2sec",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let route = net.a.run("ip -6 route get fd00:16::9");
    assert!(route.contains("src fd00:16::2"), "{route}");
}

#[test]
fn an_address_outside_the_node_s_subnets_is_reached_all_the_same() {
    let Some(_turn) = turn() else { return };
    let net = net();
    let _server = serve(&net.a);
    net.a.run("ip address del fd00:16::2/64 dev eth0");
    net.a.open(&text("multicast", LOCAL, ""), false);
    within("active", secs(5.0), || has(&net.a, VIP));
    within("reachable", secs(1.0), || reaches(&net.client, VIP));
    net.a.with(|inside| inside.routers[0].give_up(now()));
    assert!(!has(&net.a, VIP));
    assert_eq!(net.a.run("ip -6 route show fd00:16::/64"), "");
}

#[test]
fn a_deleted_address_is_put_back_without_an_election() {
    let Some(_turn) = turn() else { return };
    let net = net();
    net.a.open(&unicast(), false);
    net.b.open(&unicast(), false);
    one_holder("lb1 active", &net.a, &net.b, secs(5.0));
    let took = net.a.with(|inside| {
        inside.run(&format!("ip address del {VIP}/64 dev eth0"));
        let start = now();
        while inside.status()[0].counters.restored == 0 {
            assert!(now() - start < secs(1.0), "not restored");
            inside.turn(secs(0.003));
        }
        now() - start
    });
    println!("put back after {took:?}");
    assert!(took < secs(0.02), "took {took:?}");
    assert!(has(&net.a, VIP) && is_backup(&net.b));
    assert_eq!(counters(&net.a).became_active, 1);
}

#[test]
fn an_address_that_failed_duplicate_detection_is_made_usable() {
    let Some(_turn) = turn() else { return };
    let net = net();
    let _server = serve(&net.b);
    net.a.open(&unicast(), false);
    net.b.open(&unicast(), false);
    one_holder("lb1 active", &net.a, &net.b, secs(5.0));
    // Somebody adds it on the Backup, where it meets the holder.
    net.b.run(&format!("ip address add {VIP}/64 dev eth0"));
    within("duplicate", secs(5.0), || {
        net.b
            .run("ip -6 address show dev eth0 dadfailed")
            .contains(VIP)
    });
    kill(&net.a);
    net.a.run(&format!("ip address del {VIP}/64 dev eth0"));
    within("lb2 takes over", secs(1.5), || has(&net.b, VIP));
    within("reachable", secs(1.0), || reaches(&net.client, VIP));
    // And on the holder, where the detection that runs makes it unusable at first.
    net.b.run(&format!("ip address del {VIP}/64 dev eth0"));
    net.b.run(&format!("ip address replace {VIP}/64 dev eth0"));
    within("usable again", secs(0.5), || has(&net.b, VIP));
}

#[test]
fn a_link_that_goes_down_takes_the_addresses_along_and_comes_back_to_work() {
    let Some(_turn) = turn() else { return };
    for keep in [0, 1] {
        let net = net();
        let (a, b) = (&net.a, &net.b);
        a.run(&format!(
            "sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down={keep}"
        ));
        a.open(&unicast(), false);
        b.open(&unicast(), false);
        one_holder("lb1 active", a, b, secs(5.0));
        a.run("ip link set eth0 down");
        one_holder("lb2 takes over", b, a, secs(1.0));
        assert_eq!(a.state(), Some(VrrpState::Initialize));
        a.run("ip link set eth0 up");
        if keep == 0 {
            // Nothing to send from: no part in it, and no second holder.
            let calm = now();
            within("a while", secs(2.0), || {
                assert!(!has(a, VIP));
                now() - calm > secs(1.0)
            });
            assert_eq!(a.state(), Some(VrrpState::Initialize));
            a.run("ip address add fd00:16::2/64 dev eth0");
        }
        let took = one_holder("lb1 active again", a, b, secs(6.0));
        println!("addresses kept {keep}: active again {took:?} after");
    }
}

#[test]
fn an_interface_that_is_made_anew_is_taken_up_again() {
    let Some(_turn) = turn() else { return };
    let mut net = net();
    let config = text("multicast", LOCAL, "");
    net.a.open(&config, false);
    net.b.open(&config, false);
    one_holder("lb1 active", &net.a, &net.b, secs(5.0));
    net.a.run("ip link del eth0");
    one_holder("lb2 takes over", &net.b, &net.a, secs(1.0));
    net.a.attach(&mut net.wire, "again", "eth0", "10.16.0.2");
    add_own(&net.a, 2);
    one_holder("lb1 active again", &net.a, &net.b, secs(5.0));
}

const FORGED: Forged = Forged {
    target: GLOBAL[0],
    peer: GLOBAL[1],
    stranger: "fd00:16::77",
    vip: VIP,
};

#[test]
fn forged_adverts_change_nothing_and_are_counted_by_reason() {
    let Some(_turn) = turn() else { return };
    let net = net();
    net.b.run("ip address add fd00:16::77/64 dev eth0 nodad");
    net.a.open(&unicast(), false);
    within("lb1 active", secs(5.0), || has(&net.a, VIP));
    net.b.with(|_| FORGED.send(2000));
    within("each reason counted", secs(2.0), || {
        let rejected = counters(&net.a).rejected;
        ["unknown-sender", "ttl", "vrid", "checksum"]
            .iter()
            .all(|wanted| rejected.iter().any(|(word, _)| word == wanted))
    });
    let counters = counters(&net.a);
    assert_eq!(net.a.state(), Some(VrrpState::Active));
    assert_eq!((counters.became_active, counters.adverts_received), (1, 0));
}

#[test]
fn min_ttl_lets_a_node_in_whose_hop_limit_is_64() {
    let Some(_turn) = turn() else { return };
    let net = net();
    let config = unicast().replace("\"fd00:16::3\"", "\"fd00:16::3\", min-ttl = 64");
    net.a.open(&config, false);
    within("lb1 active", secs(5.0), || has(&net.a, VIP));
    // The first kind of the forged ones is no longer one: priority 255 of a node that may speak.
    net.b.run("ip address add fd00:16::77/64 dev eth0 nodad");
    net.b.with(|_| FORGED.send(1));
    within("lb1 yields", secs(1.0), || !has(&net.a, VIP));
}

#[test]
fn each_of_sixteen_nodes_is_heard() {
    let Some(_turn) = turn() else { return };
    // The two hosts are the first and the last: the ends of the socket filter's list of senders.
    let others: Vec<String> = (20..34)
        .map(|number| format!("\"fd00:16::{number}\""))
        .collect();
    let nodes = format!("[\"fd00:16::2\", {}, \"fd00:16::3\"]", others.join(", "));
    let config = format!(
        "[vip.six]\naddress = \"{VIP}/64\"\nvrid = 60\npreempt = true\n\
         advert-interval = \"100ms\"\nnodes = {nodes}\n"
    );
    let net = net();
    net.b.open(&config, false);
    within("lb16 active", secs(5.0), || has(&net.b, VIP));
    net.a.open(&config, false);
    one_holder("lb1 preempts", &net.a, &net.b, secs(5.0));
    within("each hears the other", secs(2.0), || {
        counters(&net.a).adverts_received > 0 && counters(&net.b).adverts_received > 0
    });
}

#[test]
fn a_pair_of_both_families_moves_together() {
    let Some(_turn) = turn() else { return };
    let net = net();
    let (a, b) = (&net.a, &net.b);
    let config = format!(
        "[vip.both]\naddress = [\"{VIP_V4}/24\", \"{VIP}/64\"]\npreempt = true\n\
         advert-interval = \"100ms\"\n\
         nodes = [[\"10.16.0.2\", \"fd00:16::2\"], [\"10.16.0.3\", \"fd00:16::3\"]]\n"
    );
    let both = [VIP_V4, VIP];
    let only_on = |what: &str, good: &Host, other: &Host, limit| {
        within(what, limit, || {
            good.has(&both) == [true; 2] && other.has(&both) == [false; 2]
        })
    };
    a.open(&config, true);
    b.open(&config, true);
    only_on("lb1 active", a, b, secs(5.0));
    let names: Vec<String> = a.status().into_iter().map(|vip| vip.name).collect();
    assert_eq!(names, ["both", "both-v6"]);
    // What takes one family takes both.
    a.run("ip address del fd00:16::2/64 dev eth0");
    only_on("lb2 takes over", b, a, secs(3.0));
    a.run("ip address add fd00:16::2/64 dev eth0 nodad");
    only_on("lb1 preempts", a, b, secs(3.0));
    // One family that is heard is enough to stay.
    b.run("ip xfrm policy add src fd00:16::2 dst fd00:16::3 dir in action block");
    let calm = now();
    within("a while", secs(3.0), || {
        assert!(!b.has(&both).contains(&true));
        now() - calm > secs(1.5)
    });
    b.run("ip xfrm policy del src fd00:16::2 dst fd00:16::3 dir in");
    kill(a);
    let took = within("both taken over", secs(1.5), || b.has(&both) == [true; 2]);
    println!("both families taken over after {took:?}");
    only_on("the kernel ends both leases", b, a, secs(3.2));
}

/// keepalived as lb2.
fn start(host: &Host, unicast: bool, signed: bool) -> Keepalived {
    // By multicast with a link-local address first, as RFC 9568 wants it.
    let addresses = if unicast {
        format!("{VIP}/64")
    } else {
        format!("fe80::10/64\n{VIP}/64")
    };
    let lines = if unicast {
        "unicast_src_ip fd00:16::3\nunicast_peer {\nfd00:16::2\n}"
    } else {
        "mcast_src_ip fe80::3"
    };
    let instance = Instance {
        version: 3,
        priority: 190,
        interval: Duration::from_millis(100),
        signed,
        lines,
        addresses: &addresses,
    };
    Keepalived::start(host, "v6", &instance)
}

#[test]
fn keepalived_and_lbd_form_a_pair_in_both_roles() {
    let Some(_turn) = turn() else { return };
    let Some(version) = version() else { return };
    let mut kinds = vec![(true, false), (false, false)];
    if version >= SIGNS {
        kinds.extend([(true, true), (false, true)]);
    } else {
        println!("without HMAC: keepalived has it from 2.4.2 on");
    }
    for (unicast, signed) in kinds {
        let label = match (unicast, signed) {
            (true, false) => "unicast",
            (false, false) => "multicast",
            (true, true) => "unicast, signed",
            (false, true) => "multicast, signed",
        };
        let auth = if signed { signature() } else { String::new() };
        let config = if unicast {
            text("unicast", GLOBAL, &auth).replace("\"fd00:16::3\"", "\"fd00:16::3\", min-ttl = 64")
        } else {
            let list = format!("address = [\"fe80::10/64\", \"{VIP}/64\"]");
            let one = format!("address = \"{VIP}/64\"");
            text("multicast", LOCAL, &auth).replace(&one, &list)
        };
        let net = net();
        let (a, b) = (&net.a, &net.b);
        // keepalived starts alone and is Active; lbd, stronger, preempts it.
        let mut keepalived = start(b, unicast, signed);
        within("keepalived active", secs(6.0), || has(b, VIP));
        a.open(&config, false);
        let took = one_holder("lbd preempts keepalived", a, b, secs(6.0));
        println!("{label}: lbd preempts keepalived after {took:?}");
        a.with(|inside| inside.routers[0].resign(now()));
        let took = one_holder("keepalived succeeds lbd", b, a, secs(4.0));
        println!("{label}: keepalived succeeds lbd after {took:?}");
        // lbd comes back as a Backup, weaker now.
        kill(a);
        let weaker = config.replacen("{ name", "{ priority = 150, name", 1);
        a.open(&weaker, false);
        let calm = now();
        within("lbd hears keepalived", secs(6.0), || {
            assert!(!has(a, VIP), "{label}: two holders");
            counters(a).adverts_received >= 3 && now() - calm > secs(1.0)
        });
        keepalived.terminate();
        let took = one_holder("lbd succeeds keepalived", a, b, secs(5.0));
        println!("{label}: lbd succeeds keepalived after {took:?}");
        drop(keepalived);
        let stronger = start(b, unicast, signed);
        let took = one_holder("keepalived preempts lbd", b, a, secs(6.0));
        println!("{label}: keepalived preempts lbd after {took:?}");
        let calm = now();
        within("a while", secs(3.0), || {
            assert!(
                !has(a, VIP) && has(b, VIP),
                "{label}: not exactly one holder"
            );
            now() - calm > secs(1.5)
        });
        drop(stronger);
        let rejected = counters(a).rejected;
        assert!(rejected.is_empty(), "{label}: {rejected:?}");
    }
}
