//! What a text becomes, value by value.

use super::*;
use crate::config::model::*;
use crate::config::render;
use std::time::Duration;

const MINIMAL: &str = include_str!("../../../conf/lb.toml");
const SEED: &str = include_str!("../../../conf/kubesphere.toml");

fn sound(text: &str) -> Config {
    let parsed = parse(text);
    let shown = render(&parsed.problems, "lb.toml", text, false);
    parsed.config.unwrap_or_else(|| panic!("{shown}"))
}

#[test]
fn the_minimal_file_has_the_documented_defaults() {
    let config = sound(MINIMAL);
    let vip = &config.vips[0];
    assert_eq!(vip.name, "kube");
    assert_eq!(vip.addresses[0].to_string(), "172.16.0.10/24");
    assert_eq!(vip.vrid.get(), 10);
    assert_eq!(vip.version.get(), 3);
    assert_eq!(vip.advert_interval.centiseconds(), 100);
    assert_eq!(vip.preempt, Preempt::After(Duration::from_secs(10)));
    assert_eq!(vip.lease, Some(Duration::from_secs(2)));
    let priorities: Vec<u8> = vip.nodes.iter().map(|node| node.priority.get()).collect();
    assert_eq!(priorities, [200, 190]);
    assert_eq!(vip.track[0].target, TrackTarget::Proxy(0));
    assert_eq!(vip.garp.repeat, 5);
    let proxy = &config.proxies[0];
    assert_eq!(proxy.listen, [Listen::Any(6443)]);
    assert!(proxy.client_first);
    assert_eq!(proxy.first_byte_timeout, Some(Duration::from_secs(10)));
    assert_eq!(proxy.idle_timeout, Duration::from_secs(3600));
    assert_eq!(proxy.connect_timeout, Duration::from_secs(1));
    assert_eq!(proxy.max_queue, MaxQueue::Total(1024));
    assert_eq!(proxy.check.interval, Duration::from_secs(1));
    assert_eq!(proxy.check.fast_interval, Duration::from_millis(250));
    assert_eq!(proxy.check.timeout, Duration::from_millis(500));
    assert_eq!(proxy.servers.len(), 3);
    assert_eq!(proxy.servers[1].name, "172.16.0.5:6443");
    assert_eq!(
        config.metrics.listen,
        Some("127.0.0.1:9633".parse().unwrap())
    );
    assert_eq!(config.log.level, Level::Info);
    assert_eq!(config.log.facility, Facility(3));
    assert_eq!(config.access_log, None);
}

#[test]
fn the_seed_s_pair_is_read_value_by_value() {
    let config = sound(SEED);
    assert_eq!(config.log.level, Level::Warning);
    assert_eq!(config.log.target, LogTarget::Syslog);
    assert_eq!(config.log.facility, Facility(16));
    assert_eq!(
        config.access_log,
        Some(AccessLog {
            format: AccessFormat::Tcplog,
            skip_empty: true
        })
    );
    assert_eq!(config.limits.max_connections.map(|n| n.get()), Some(4000));
    let vip = &config.vips[0];
    assert_eq!(vip.vrid.get(), 60);
    assert_eq!(vip.version.get(), 2);
    assert_eq!(vip.auth, Auth::Pass(Password(*b"1111\0\0\0\0")));
    assert_eq!(vip.interface.as_deref(), Some("eth0"));
    assert_eq!(vip.nodes[1].label(), "lb2");
    assert_eq!(vip.nodes[1].priority.get(), 110);
    let proxy = &config.proxies[0];
    assert_eq!(proxy.check.kind, CheckKind::Tcp);
    assert_eq!(proxy.check.interval, Duration::from_secs(10));
    assert_eq!(proxy.check.fast_interval, Duration::from_millis(2500));
    assert_eq!(proxy.check.down_interval, Duration::from_secs(5));
    assert_eq!(proxy.max_queue, MaxQueue::PerServer(256));
    assert_eq!(proxy.servers[2].name, "kube-apiserver-3");
    assert_eq!(proxy.servers[2].weight.get(), 100);
    assert_eq!(proxy.servers[2].max_connections.map(|n| n.get()), Some(250));
    assert!(proxy.client_first);
    assert_eq!(proxy.slowstart, Duration::from_secs(60));
}
