//! `global_defs`: what holds for a whole file.

use super::super::Work;
use super::super::ledger::Fate;
use super::super::words;
use super::{MAIL, Said, all, lex, lost};

/// What the instances of a file take from `global_defs`.
#[derive(Debug, Clone, Default)]
pub(super) struct Globals {
    pub(super) version: Option<Said<u64>>,
    pub(super) garp: Vec<(&'static str, Said<String>)>,
    pub(super) interface: Option<Said<String>>,
}

/// Reads a block.
pub(super) fn read(node: &lex::Node, globals: &mut Globals, work: &mut Work) {
    work.ledger.mark(node.id, Fate::NotNeeded, "");
    for inner in node.inside() {
        if let Some((fate, note)) = known(inner) {
            all(inner, fate, note, work);
            continue;
        }
        let id = inner.id;
        match inner.word(0) {
            "notification_email" if inner.inside().is_empty() => {
                work.ledger.mark(id, Fate::NotNeeded, "");
            }
            "notification_email" => all(inner, Fate::Changed, MAIL, work),
            "vrrp_version" => {
                globals.version = inner.word(1).parse().ok().map(|v| Said::new(v, id));
            }
            "default_interface" => {
                globals.interface = Some(Said::new(inner.word(1).to_owned(), id));
            }
            "vrrp_mcast_group4" if inner.word(1) == "224.0.0.18" => {
                work.ledger.mark(id, Fate::Default, "");
            }
            name => match garp_key(name.strip_prefix("vrrp_").unwrap_or(name)) {
                Some(key) => garp(key, inner, &mut globals.garp, work),
                None => lost(inner, "lbd knows nothing like it", work),
            },
        }
    }
}

fn known(node: &lex::Node) -> Option<(Fate, &'static str)> {
    Some(match node.word(0) {
        "router_id"
        | "lvs_id"
        | "process_names"
        | "max_auto_priority"
        | "use_symlink_paths"
        | "notification_email_from"
        | "smtp_server"
        | "smtp_connect_timeout"
        | "smtp_helo_name"
        | "vrrp_iptables"
        | "vrrp_ipsets"
        | "nftables"
        | "nftables_counters"
        | "vrrp_priority"
        | "vrrp_rt_priority"
        | "vrrp_rlimit_rtime"
        | "vrrp_rlimit_rttime"
        | "vrrp_no_swap"
        | "vrrp_cpu_affinity"
        | "vrrp_process_name"
        | "bfd_process_name"
        | "umask"
        | "data_use_instance"
        | "vrrp_min_garp"
        | "vrrp_netlink_cmd_rcv_bufs"
        | "vrrp_netlink_monitor_rcv_bufs"
        | "reload_check_config"
        | "json_version"
        | "config_save_dir"
        | "tmp_config_directory"
        | "startup_script_timeout"
        | "vrrp_garp_lower_prio_delay"
        | "vrrp_garp_lower_prio_repeat" => (Fate::NotNeeded, ""),
        word if word.starts_with("checker_") || word.starts_with("bfd_") => (Fate::NotNeeded, ""),
        "smtp_alert" | "smtp_alert_vrrp" | "smtp_alert_checker" => (Fate::Changed, MAIL),
        "enable_script_security" => (
            Fate::Default,
            "programs that others can change are not run as root",
        ),
        "script_user" => (
            Fate::Changed,
            "programs run as lbd's own user; or write `user`",
        ),
        "vrrp_skip_check_adv_addr" | "vrrp_check_unicast_src" | "dynamic_interfaces" => {
            (Fate::Default, "")
        }
        "vrrp_strict" => (
            Fate::Changed,
            "lbd checks every advert, and adds no firewall rules",
        ),
        "enable_snmp_vrrp"
        | "enable_snmp_keepalived"
        | "enable_snmp_rfc"
        | "enable_snmp_checker"
        | "enable_snmp_rfcv2"
        | "enable_snmp_rfcv3"
        | "enable_traps"
        | "snmp_socket" => (Fate::Changed, "lbd has metrics for Prometheus"),
        "lvs_sync_daemon" | "lvs_flush" | "lvs_flush_onstop" | "lvs_timeouts" => {
            (Fate::Lost, "lbd doesn't use IPVS")
        }
        _ => return None,
    })
}

/// The key of `garp` that a directive is.
pub(super) fn garp_key(name: &str) -> Option<&'static str> {
    Some(match name {
        "garp_master_delay" => "delay",
        "garp_master_repeat" => "repeat",
        "garp_master_refresh" => "refresh",
        "garp_interval" | "gna_interval" => "interval",
        "garp_master_refresh_repeat" => "refresh-repeat",
        _ => return None,
    })
}

/// One directive about gratuitous ARP, as lb.toml writes it.
pub(super) fn garp(
    key: &'static str,
    node: &lex::Node,
    found: &mut Vec<(&'static str, Said<String>)>,
    work: &mut Work,
) {
    let id = node.id;
    let value = match key {
        "repeat" => node
            .word(1)
            .parse::<u64>()
            .ok()
            .map(|n| n.clamp(1, 100).to_string()),
        "refresh-repeat" => {
            let fate = if node.word(1) == "1" {
                Fate::Default
            } else {
                Fate::Changed
            };
            work.ledger.mark(id, fate, "one frame per refresh");
            return;
        }
        "interval" => words::seconds(node.word(1)).map(|ms| words::duration(ms.min(1_000))),
        "delay" => words::seconds(node.word(1)).map(|ms| off(ms.min(60_000))),
        _ => words::seconds(node.word(1)).map(|ms| off(ms.min(3_600_000))),
    };
    let Some(value) = value else {
        work.ledger.mark(id, Fate::Lost, "not a number");
        return;
    };
    if key == "interval" && value == "\"0s\"" {
        work.ledger.mark(id, Fate::Default, "");
        return;
    }
    work.ledger.mark(id, Fate::Exact, "");
    found.push((key, Said::new(value, id)));
}

fn off(ms: u64) -> String {
    if ms == 0 {
        "\"off\"".to_owned()
    } else {
        words::duration(ms)
    }
}
