//! `keepalived_*` as keepalived-exporter names them: one instance per `[vip.NAME]`.

use std::collections::BTreeMap;

use super::{Row, rows};
use crate::admin::families::{flag, number};
use crate::admin::status::Status;
use crate::ipc::message::{TrackStatus, VipStatus, VrrpState};
use crate::metrics::{Families, Family, Kind};

rows! { ROWS of VipStatus, ["iname", "intf", "vrid"];
    Counter "keepalived_advertisements_received_total" "Adverts accepted." |v| number(v.counters.adverts_received);
    Counter "keepalived_advertisements_sent_total" "Adverts sent, one per destination." |v| number(v.counters.adverts_sent);
    Counter "keepalived_become_master_total" "Times this node became Active." |v| number(v.counters.became_active);
    Counter "keepalived_release_master_total" "Times this node left Active." |v| number(v.counters.left_active);
    Counter "keepalived_priority_zero_received_total" "Priority-0 adverts accepted." |v| number(v.counters.resigns_received);
    Counter "keepalived_priority_zero_sent_total" "Priority-0 adverts sent." |v| number(v.counters.resigns_sent);
    Counter "keepalived_packet_length_errors_total" "Packets of a wrong length." |v| rejected(v, &["ip-header", "truncated", "length"]);
    Counter "keepalived_advertisements_interval_errors_total" "Adverts with an interval that differs." |v| rejected(v, &["interval", "long-interval (accepted)"]);
    Counter "keepalived_ip_ttl_errors_total" "Packets that crossed a router." |v| rejected(v, &["ttl"]);
    Counter "keepalived_invalid_type_received_total" "Packets of another type." |v| rejected(v, &["type"]);
    Counter "keepalived_address_list_errors_total" "Adverts with no address, or with other addresses." |v| rejected(v, &["no-address", "other-addresses (accepted)"]);
    Counter "keepalived_authentication_invalid_total" "Adverts without a valid form of authentication." |v| rejected(v, &["hmac-missing", "hmac-form"]);
    Counter "keepalived_authentication_mismatch_total" "Adverts with another kind of authentication." |v| rejected(v, &["auth-type"]);
    Counter "keepalived_authentication_failure_total" "Adverts with a wrong password or signature." |v| rejected(v, &["auth-data", "hmac-key", "hmac-digest", "hmac-clock", "hmac-replay"]);
}

const UP: Family = Family {
    name: "keepalived_up",
    kind: Kind::Gauge,
    labels: &[],
    help: "Whether the keeper has spoken within 2 s.",
};
const STATE: Family = Family {
    name: "keepalived_vrrp_state",
    kind: Kind::Gauge,
    labels: &["iname", "intf", "vrid", "ip_address"],
    help: "1: backup, 2: master (also while it hands over), 3: fault (takes no part).",
};
const SCRIPT: Family = Family {
    name: "keepalived_script_status",
    kind: Kind::Gauge,
    labels: &["name"],
    help: "Whether what is tracked succeeds, by its name in lb.toml; absent: no result yet.",
};

pub(super) fn add(out: &mut Families, status: &Status) {
    let speaks = status.keeper_speaks();
    out.add(&UP, &[], flag(speaks));
    let Some(vrrp) = status.vrrp.as_ref().filter(|_| speaks) else {
        return;
    };
    let mut tracks = BTreeMap::new();
    for vip in &vrrp.vips {
        let vrid = vip.vrid.to_string();
        let labels = [vip.name.as_str(), vip.interface.as_str(), vrid.as_str()];
        Row::add_all(ROWS, out, &labels, vip);
        let [name, interface, vrid] = labels;
        for address in &vip.addresses {
            let ip = address.split('/').next().unwrap_or(address);
            out.add(&STATE, &[name, interface, vrid, ip], state(vip.state));
        }
        collect(&mut tracks, &vip.tracks);
    }
    for route in &vrrp.routes {
        collect(&mut tracks, &route.tracks);
    }
    for (name, ok) in tracks {
        out.add(&SCRIPT, &[name], flag(ok));
    }
}

pub(super) fn families() -> impl Iterator<Item = Family> {
    let rows = ROWS.iter().map(|row| row.family);
    [UP, STATE].into_iter().chain(rows).chain([SCRIPT])
}

/// What several addresses track is named once.
fn collect<'a>(all: &mut BTreeMap<&'a str, bool>, tracks: &'a [TrackStatus]) {
    for track in tracks {
        if let Some(ok) = track.ok {
            all.insert(&track.name, ok);
        }
    }
}

const fn state(state: VrrpState) -> f64 {
    match state {
        VrrpState::Backup => 1.0,
        VrrpState::Active | VrrpState::Leaving => 2.0,
        VrrpState::Initialize => 3.0,
    }
}

fn rejected(vip: &VipStatus, reasons: &[&str]) -> f64 {
    let all = vip.counters.rejected.iter();
    let these = all.filter(|(reason, _)| reasons.contains(&reason.as_str()));
    number(these.map(|(_, count)| count).sum())
}
