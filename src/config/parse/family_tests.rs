//! What a table with IPv6 addresses, or with addresses of both families, becomes.

use super::tests::{codes, sound};
use super::*;
use crate::config::model::Vip;

#[test]
fn addresses_of_both_families_are_two_routers_of_one_group() {
    let config = sound(
        "[vip.kube]\naddress = [\"10.0.0.10/24\", \"fd00::10/64\", \"10.0.0.11\", \"fe80::10\"]\n\
         nodes = [[\"10.0.0.2\", \"fd00::2\"],\n\
         { name = \"lb2\", address = [\"fd00::3\", \"10.0.0.3\"], min-ttl = 64 }]\n",
    );
    let [one, other] = config.vips.as_slice() else {
        panic!("{:?}", config.vips);
    };
    let shown = |vip: &Vip| {
        let addresses = vip.addresses.iter().map(ToString::to_string);
        let nodes = vip.nodes.iter().map(|node| node.address.to_string());
        (
            vip.name.clone(),
            addresses.collect::<Vec<_>>().join(" "),
            nodes.collect::<Vec<_>>().join(" "),
        )
    };
    let text = |name: &str, addresses: &str, nodes: &str| {
        (name.to_owned(), addresses.to_owned(), nodes.to_owned())
    };
    let four = text("kube", "10.0.0.10/24 10.0.0.11/32", "10.0.0.2 10.0.0.3");
    let six = text("kube-v6", "fd00::10/64 fe80::10/128", "fd00::2 fd00::3");
    assert_eq!((shown(one), shown(other)), (four, six));
    for vip in [one, other] {
        assert_eq!(vip.sync_group.as_deref(), Some("kube"));
        assert_eq!((vip.vrid.get(), vip.nodes[1].min_ttl), (10, 64));
        assert_eq!(vip.node("10.0.0.3"), Some(1));
        assert_eq!(vip.node("fd00::3"), Some(1));
    }
}

#[test]
fn the_first_family_keeps_the_name() {
    let config = sound(
        "[vip.kube]\naddress = [\"fd00::10/64\", \"10.0.0.10/24\"]\nvrid = 7\n\
         nodes = [[\"10.0.0.2\", \"fd00::2\"], [\"10.0.0.3\", \"fd00::3\"]]\n",
    );
    let names: Vec<&str> = config.vips.iter().map(|vip| vip.name.as_str()).collect();
    assert_eq!(names, ["kube", "kube-v4"]);
    assert_eq!(config.vips[0].nodes[0].address.to_string(), "fd00::2");
    assert_eq!(config.vips[1].nodes[0].address.to_string(), "10.0.0.2");
}

#[test]
fn one_family_is_one_router_of_no_group() {
    let config = sound(
        "[vip.kube]\naddress = \"fd00::10/64\"\nvrid = 7\nnodes = [\"fe80::2\", \"fd00::3\"]\n",
    );
    assert_eq!(config.vips.len(), 1);
    assert_eq!(config.vips[0].sync_group, None);
}

/// A refused text, its codes, and the place that the first is marked at.
type Refusal = (String, &'static [&'static str], &'static str);

const BOTH: &str = "[\"10.0.0.10/24\", \"fd00::10/64\"]";
const PAIR: &str = "[[\"10.0.0.2\", \"fd00::2\"], [\"10.0.0.3\", \"fd00::3\"]]";

fn file(address: &str, nodes: &str, more: &str) -> String {
    format!("[vip.kube]\naddress = {address}\nnodes = {nodes}\nvrid = 7\n{more}")
}

/// Nodes that don't fit.
fn of_nodes() -> Vec<Refusal> {
    let old = "[\"10.0.0.2\", \"10.0.0.3\"]";
    let mixed = "[\"10.0.0.2\", \"fd00::3\"]";
    let too_many = "[[\"10.0.0.2\", \"fd00::2\"], \"10.0.0.3\"]";
    let twice = "[[\"10.0.0.2\", \"10.0.0.4\"], [\"10.0.0.3\", \"fd00::3\"]]";
    let virtual_ones = "[[\"10.0.0.10\", \"fd00::10\"], [\"10.0.0.3\", \"fd00::3\"]]";
    let alone = "[[\"10.0.0.2\", \"fd00::2\"]]";
    vec![
        (file(BOTH, old, ""), &["E0240", "E0240"], "\"10.0.0.2\""),
        (file("\"fd00::10\"", mixed, ""), &["E0240"], "\"10.0.0.2\""),
        (
            file("\"10.0.0.9\"", too_many, ""),
            &["E0109"],
            "[\"10.0.0.2\", \"fd00::2\"]",
        ),
        (file(BOTH, twice, ""), &["E0105"], "\"10.0.0.4\""),
        (
            file(BOTH, virtual_ones, ""),
            &["E0206"],
            "[\"10.0.0.10\", \"fd00::10\"]",
        ),
        (
            file(BOTH, alone, ""),
            &["W0217"],
            "[\"10.0.0.2\", \"fd00::2\"]",
        ),
    ]
}

/// Other keys that don't fit.
fn of_keys() -> Vec<Refusal> {
    let six = "[\"fe80::2\", \"fd00::3\"]";
    let namesake = "[vip.kube-v6]\naddress = \"10.0.0.77\"\nnodes = [\"10.0.0.2\", \"10.0.0.3\"]\n";
    let no_vrid = "[vip.kube]\naddress = \"fd00::10\"\nnodes = [\"fd00::2\", \"fd00::3\"]\n";
    vec![
        (file(BOTH, PAIR, "version = 2\n"), &["E0241"], "2"),
        (
            file("\"fd00::10\"", six, "mode = \"multicast\"\n"),
            &["E0242"],
            "\"fd00::3\"",
        ),
        (file(BOTH, PAIR, namesake), &["E0212"], "[vip.kube-v6]"),
        (
            file("\"fe80::1%eth0/64\"", six, ""),
            &["E0108"],
            "\"fe80::1%eth0/64\"",
        ),
        (no_vrid.to_owned(), &["E0201"], "\"fd00::10\""),
    ]
}

#[test]
fn what_does_not_fit_the_families_is_refused_once_and_in_its_place() {
    for (text, expected, marked) in of_nodes().into_iter().chain(of_keys()) {
        assert_eq!(codes(&text), expected, "{text}");
        let problem = &parse(&text).problems[0];
        let label = problem.labels.iter().find(|label| label.primary).unwrap();
        assert_eq!(text.get(label.span.clone()), Some(marked), "{text}");
    }
    let fixed = parse(&file(BOTH, PAIR, "version = 2\n")).problems[0]
        .fix
        .clone();
    assert_eq!(fixed.unwrap().replacement, "3");
}

#[test]
fn virtual_addresses_are_unicast_with_a_prefix_of_their_family() {
    for (address, expected) in [
        ("fd00::10", Some("fd00::10/128")),
        ("fd00::10/1", Some("fd00::10/1")),
        ("fd00::10/129", None),
        ("fd00::10/0", None),
        ("10.0.0.10/33", None),
        ("::/64", None),
        ("::1", None),
        ("ff02::12", None),
        ("::ffff:10.0.0.1", None),
    ] {
        let text = format!(
            "[vip.v]\naddress = \"{address}\"\nvrid = 7\nnodes = [\"fd00::2\", \"fd00::3\"]\n"
        );
        let config = parse(&text).config;
        let read = config.map(|config| config.vips[0].addresses[0].to_string());
        assert_eq!(read.as_deref(), expected, "{address}");
    }
}
