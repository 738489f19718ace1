//! The laboratory and the client, with a TLS server in the place of a node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::client::{Client, Habits};
use super::history::History;
use super::lab::Lab;
use super::plan::{Plan, PlanNode, PlanServer};
use super::server::TlsServer;
use crate::net::clock;
use crate::net::netns::Namespace;

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(172, 16, 0, last))
}

fn node(name: &str, last: u8) -> PlanNode {
    PlanNode {
        name: name.into(),
        ip: ip(last),
        interface: "eth0".into(),
        twin: None,
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = clock::now() + Duration::from_secs(5);
    while !condition() {
        assert!(clock::now() < end, "not within 5 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_client_and_the_watcher_see_an_address_come_and_go() {
    if !nix::unistd::geteuid().is_root() || Namespace::new(&[]).is_err() {
        println!("skipped: making namespaces needs root");
        return;
    }
    let plan = Plan {
        target: SocketAddr::new(ip(10), 6443),
        prefix: 24,
        nodes: vec![node("lb1", 2), node("lb2", 3)],
        servers: vec![PlanServer {
            name: "kube-apiserver-1".into(),
            address: SocketAddr::new(ip(4), 6443),
        }],
        client: ip(100),
        about: String::new(),
        take_over: Duration::from_secs(1),
        admin_socket: "/run/lbd/admin.sock".into(),
        lease: None,
        notes: Vec::new(),
    };
    let lab = Lab::build(&plan).unwrap();
    let lb1 = lab.nodes[0].host.clone();
    let mut rtnl = lb1.rtnl().unwrap();
    let eth0 = rtnl.link_index("eth0").unwrap();
    rtnl.add_address(eth0, ip(10), 24).unwrap();
    let tls = Arc::clone(&lab.tls.server);
    let in_place_of_a_proxy = TlsServer::start(&lb1, plan.target, "kube-apiserver-1", tls).unwrap();
    until("lb1 holds", || lab.history(History::only_holder) == Some(0));
    let habits = Habits {
        target: plan.target,
        interval: Duration::from_millis(5),
        timeout: Duration::from_millis(300),
        held: 2,
        held_interval: Duration::from_millis(20),
        servers: lab.server_names.clone(),
    };
    let client = Client::start(&lab.client, habits, Arc::clone(&lab.tls.client)).unwrap();
    until("answers", || client.tally(|t| t.by_server()[0]) > 20);
    let gone = clock::now();
    rtnl.delete_address(eth0, ip(10), 24).unwrap();
    until("nobody holds", || {
        lab.history(History::only_holder).is_none()
    });
    until("failures", || {
        client.tally(|t| t.counts(gone, clock::now()).failed()) > 5
    });
    assert!(client.tally(|t| t.longest_gap(gone, clock::now())) > Duration::from_millis(200));
    drop(in_place_of_a_proxy);
}
