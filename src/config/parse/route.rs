//! `[vip.NAME]` with `announce = "route"`: an address without an election.

use std::time::Duration;

use super::Tracked;
use super::fields::Fields;
use super::given::Sink;
use super::{track, vip};
use crate::config::model::{RouteVip, VipAddress};
use crate::config::problem::Problem;

/// Routing daemons find addresses on it by default, and it never goes down.
const LOOPBACK: &str = "lo";
/// More than routers on the same LAN take to hear of a withdrawal, with some retransmissions.
const GRACE: Duration = Duration::from_secs(5);

/// Whether a `[vip.NAME]` asks for no election. One that does is refused what only the other kind
/// has.
pub(super) fn is_route(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> bool {
    if fields.word("announce", sink) == "route" {
        return true;
    }
    if fields.has("withdraw-grace") {
        let span = fields.span_of("withdraw-grace");
        // What it says is of no interest, but has been read.
        fields.time("withdraw-grace", sink);
        sink.push(
            Problem::error(
                "E0109",
                format!("`{}.withdraw-grace` has no meaning here", fields.name()),
            )
            .at(&span, "only `announce = \"route\"` uses it")
            .help("in an election the node that leaves waits for its successor by itself"),
        );
    }
    false
}

/// One address that every able node has; `None` when something in it is wrong.
pub(super) fn route(
    mut fields: Fields<'_, '_>,
    proxies: &[String],
    tracked: &mut Tracked,
    sink: &mut Sink,
) -> Option<RouteVip> {
    let before = sink.errors();
    let name = fields.own_name().to_owned();
    let addresses = vip::addresses(&mut fields, sink);
    host_addresses(&fields, &addresses, sink);
    let interface = vip::interface(&mut fields, sink);
    let lease = vip::lease(&mut fields, sink);
    let grace = fields.time_given("withdraw-grace", sink);
    let tracks = track::tracks(&mut fields, proxies, tracked, sink);
    if tracks.iter().any(|track| track.weight.is_some()) {
        sink.push(
            Problem::error(
                "E0109",
                format!("a weight in `{}.track` has no meaning here", fields.name()),
            )
            .at(
                &fields.span_of("track"),
                "a weight decides elections, and a route has none",
            )
            .help("without a weight a failure withdraws the route of this node"),
        );
    }
    fields.refuse_unread("`announce = \"route\"`", sink);
    (sink.errors() == before).then(|| RouteVip {
        name,
        addresses,
        interface: interface.unwrap_or_else(|| LOOPBACK.to_owned()),
        lease,
        grace: grace.unwrap_or(GRACE),
        track: tracks,
    })
}

fn host_addresses(fields: &Fields<'_, '_>, addresses: &[VipAddress], sink: &mut Sink) {
    for address in addresses {
        let whole = if address.ip.is_ipv4() { 32 } else { 128 };
        if address.prefix == whole {
            continue;
        }
        let name = fields.name();
        sink.push(
            Problem::error(
                "E0250",
                format!("`{name}.address`: a route needs a host address"),
            )
            .at(
                &fields.span_of("address"),
                format!("{address} would claim its whole subnet on every node"),
            )
            .help(format!("write \"{}/{whole}\"", address.ip)),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load;

    #[test]
    fn a_route_has_its_defaults_and_both_families_without_a_split() {
        let text = "[vip.any]\nannounce = \"route\"\naddress = [\"10.1.1.10\", \"fd00:1::10\"]\n\
                    [proxy.p]\nlisten = \":6443\"\nbackends = [\"172.16.0.4:6443\"]\n";
        let config = load(text).unwrap();
        assert_eq!(config.vips, []);
        let [route] = config.routes.as_slice() else {
            panic!("{:?}", config.routes);
        };
        let addresses: Vec<String> = route.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.1.1.10/32", "fd00:1::10/128"]);
        assert_eq!(route.interface, "lo");
        assert_eq!(route.lease.map(|lease| lease.as_secs()), Some(2));
        assert_eq!(route.grace.as_secs(), 5);
        assert_eq!(route.track.len(), 1);
        let text = text.replace("[proxy.p]", "withdraw-grace = \"off\"\n[proxy.p]");
        assert!(load(&text).unwrap().routes[0].grace.is_zero());
    }
}
