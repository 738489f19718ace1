//! Where each lint begins and where it ends.

use super::proxy::overlap;
use super::vip::in_subnet;
use super::*;
use crate::config::local::InterfaceFacts;
use crate::config::model::{Listen, VipAddress};
use crate::config::{examine, parse};

const PAIR: &str = include_str!("../../../conf/kubesphere.toml");

/// Codes of the pair with `changes`, beside those that it always gets.
fn codes(changes: &[(&str, &str)]) -> Vec<&'static str> {
    let mut text = PAIR.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let found = parse(&text)
        .problems
        .into_iter()
        .map(|problem| problem.code);
    found
        .filter(|code| !["W0211", "W0304", "W0305"].contains(code))
        .collect()
}

#[test]
fn a_weight_decides_from_one_more_than_the_gap() {
    let with = |weight: &str| {
        let track = format!("\"proxy:kube-apiserver\", \"script:x:{weight}\"");
        codes(&[
            ("\"proxy:kube-apiserver\"", track.as_str()),
            (
                "[limits]",
                "[track.script.x]\ncommand = [\"/bin/true\"]\n\n[limits]",
            ),
        ])
    };
    // 100 and 110: the gap is 10, and a tie moves nothing.
    for (weight, expected) in [
        ("-11", 0),
        ("-10", 1),
        ("-1", 1),
        ("11", 0),
        ("10", 1),
        ("253", 0),
        ("-253", 0),
    ] {
        let found = with(weight).iter().filter(|code| **code == "W0208").count();
        assert_eq!(found, expected, "{weight}: {:?}", with(weight));
    }
}

#[test]
fn an_idle_timeout_disappoints_below_five_minutes() {
    for (time, warned) in [("299s", true), ("5m", false), ("1h", false), ("50s", true)] {
        let text = PAIR.replace("\"50s\"", &format!("\"{time}\""));
        let found = parse(&text)
            .problems
            .iter()
            .any(|problem| problem.code == "W0304");
        assert_eq!(found, warned, "{time}");
    }
}

#[test]
fn a_tcp_check_disappoints_only_in_front_of_api_servers() {
    let warned = |name: &str, port: u16| {
        let text = format!("[proxy.{name}]\nlisten = \":80\"\nbackends = [\"10.0.0.1:{port}\"]\n");
        parse(&text)
            .problems
            .iter()
            .any(|problem| problem.code == "W0305")
    };
    assert!(warned("web", 6443) && warned("k8s", 443) && warned("kube-apiserver", 443));
    assert!(!warned("web", 443));
}

#[test]
fn a_subnet_is_what_the_prefix_says() {
    let subnet = |text: &str, prefix| VipAddress {
        ip: text.parse().unwrap(),
        prefix,
    };
    for (base, prefix, ip, inside) in [
        ("172.16.0.10", 24, "172.16.0.255", true),
        ("172.16.0.10", 24, "172.16.1.0", false),
        ("172.16.0.10", 31, "172.16.0.11", true),
        ("172.16.0.10", 31, "172.16.0.12", false),
        ("172.16.0.10", 32, "172.16.0.10", true),
        ("172.16.0.10", 32, "172.16.0.11", false),
        ("10.0.0.1", 1, "127.0.0.1", true),
        ("10.0.0.1", 1, "128.0.0.1", false),
    ] {
        assert_eq!(
            in_subnet(subnet(base, prefix), ip.parse().unwrap()),
            inside,
            "{base}/{prefix} {ip}"
        );
    }
}

#[test]
fn listeners_overlap_when_one_socket_would_get_the_other_s_clients() {
    let at = |text: &str| match text.strip_prefix(':') {
        Some(port) => Listen::Any(port.parse().unwrap()),
        None => Listen::Addr(text.parse().unwrap()),
    };
    for (one, other, expected) in [
        (":80", ":80", true),
        (":80", ":81", false),
        (":80", "10.0.0.1:80", true),
        (":80", "[::1]:80", true),
        ("0.0.0.0:80", "10.0.0.1:80", true),
        ("0.0.0.0:80", "[::1]:80", false),
        ("10.0.0.1:80", "10.0.0.2:80", false),
        ("10.0.0.1:80", "10.0.0.1:81", false),
    ] {
        assert_eq!(overlap(at(one), at(other)), expected, "{one} {other}");
        assert_eq!(overlap(at(other), at(one)), expected, "{other} {one}");
    }
}

#[test]
fn an_address_that_leads_back_is_known_at_run_time_too() {
    for (listen, address, expected) in [
        ("[\":80\", \"10.0.0.9:81\"]", "127.0.0.1:80", true),
        ("[\":80\", \"10.0.0.9:81\"]", "[::ffff:127.0.0.1]:80", true),
        ("[\":80\", \"10.0.0.9:81\"]", "10.0.0.9:81", true),
        ("[\":80\", \"10.0.0.9:81\"]", "127.0.0.1:81", false),
        ("[\":80\", \"10.0.0.9:81\"]", "10.0.0.9:80", false),
        ("\"0.0.0.0:80\"", "127.0.0.2:80", true),
        ("\"127.0.0.1:80\"", "127.0.0.2:80", false),
    ] {
        let text = format!("[proxy.p]\nlisten = {listen}\nbackends = [\"10.0.0.1:80\"]\n");
        let config = crate::config::load(&text).unwrap();
        let proxy = config.proxies.first().unwrap();
        let found = comes_back(&config, proxy, address.parse().unwrap());
        assert_eq!(found, expected, "{listen} {address}");
    }
}

#[test]
fn a_proxy_may_reach_its_own_node_on_another_port() {
    assert_eq!(codes(&[("172.16.0.4:6443", "172.16.0.2:6443")]), ["E0303"]);
    assert_eq!(codes(&[("172.16.0.4:6443", "172.16.0.2:6444")]), [""; 0]);
    assert_eq!(
        codes(&[
            ("172.16.0.4:6443", "172.16.0.2:6443"),
            ("0.0.0.0:6443", "172.16.0.10:6443")
        ]),
        [""; 0]
    );
}

#[test]
fn two_virtual_routers_may_share_a_vrid_on_different_lans() {
    let second = |interface: &str| {
        let text = format!(
            "[vip.a]\naddress = \"10.0.0.9/24\"\nnodes = [\"10.0.0.1\", \"10.0.0.2\"]\ninterface = \"eth0\"\n\
             [vip.b]\naddress = \"10.0.0.8/24\"\nvrid = 9\nnodes = [\"10.0.0.1\", \"10.0.0.2\"]\ninterface = \"{interface}\"\n"
        );
        parse(&text)
            .problems
            .iter()
            .any(|problem| problem.code == "E0212")
    };
    assert!(second("eth0"));
    assert!(!second("eth1"));
}

#[test]
fn what_this_machine_lacks_is_said_only_when_it_is_looked_at() {
    let facts = HostFacts {
        interfaces: vec![InterfaceFacts {
            name: "eth0".to_owned(),
            index: 2,
            up: true,
            addresses: vec![VipAddress {
                ip: "172.16.0.3".parse().unwrap(),
                prefix: 24,
            }],
        }],
    };
    let here = |node| {
        View::Here(Host {
            facts: &facts,
            file_exists: &|_| true,
            key_problem: &|_| None,
            check_flaws: &|_| Vec::new(),
            trouble: &|_, _| None,
            port_held: &|_| false,
            node,
        })
    };
    let refused = |view| examine(PAIR, view).config.is_none();
    assert!(!refused(View::Anywhere));
    assert!(!refused(View::Node("lb1")));
    assert!(refused(View::Node("lb9")));
    assert!(!refused(here(None)));
    assert!(!refused(here(Some("lb2"))));
    assert!(refused(here(Some("lb9"))));
    let elsewhere = PAIR.replace("172.16.0.3", "172.16.0.9");
    assert!(examine(&elsewhere, here(None)).config.is_none());
}
