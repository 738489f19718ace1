//! What a text becomes, value by value.

use super::*;
use crate::config::model::*;
use crate::config::render;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

const MINIMAL: &str = include_str!("../../../conf/lb.toml");
const SEED: &str = include_str!("../../../conf/kubesphere.toml");

pub(super) fn sound(text: &str) -> Config {
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
    assert_eq!(vip.advert_spacing, Duration::from_millis(200));
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
    assert_eq!(proxy.hedge_after, HedgeAfter::Auto);
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
            skip_empty: true,
            sample: 1
        })
    );
    assert_eq!(
        config.limits.max_connections.map(NonZeroU32::get),
        Some(4000)
    );
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
    assert_eq!(
        proxy.servers[2].max_connections.map(NonZeroU32::get),
        Some(250)
    );
    assert!(proxy.client_first);
    assert_eq!(proxy.slowstart, Duration::from_secs(60));
}

/// The minimal file with `extra` in the VIP and `more` in the proxy.
fn with(extra: &str, more: &str) -> String {
    MINIMAL.replace("\n[proxy", &format!("{extra}\n\n[proxy")) + more
}

pub(super) fn codes(text: &str) -> Vec<&'static str> {
    parse(text)
        .problems
        .iter()
        .map(|problem| problem.code)
        .collect()
}

#[test]
fn a_duration_is_a_whole_number_and_a_unit() {
    let ms = |text| plain_duration(text).map(|time| time.as_millis());
    for (text, expected) in [
        ("250ms", 250),
        ("0s", 0),
        ("5s", 5_000),
        ("10m", 600_000),
        ("1h", 3_600_000),
    ] {
        assert_eq!(ms(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "1.5s",
        "-1s",
        "+1s",
        "1 s",
        "1S",
        "1m30s",
        "5µs",
        "99999999999999999999s",
        "18446744073709551615h",
    ] {
        assert_eq!(ms(text), None, "{text}");
    }
}

#[test]
fn a_duration_is_shown_in_the_largest_unit_that_keeps_it_whole() {
    for (ms, text) in [
        (0, "0s"),
        (250, "250ms"),
        (1_500, "1500ms"),
        (90_000, "90s"),
        (3_600_000, "1h"),
    ] {
        assert_eq!(show_duration(Duration::from_millis(ms)), text);
    }
}

#[test]
fn a_listener_is_one_address_or_every_address() {
    let listen = |value: &str| {
        let text = MINIMAL.replace("\":6443\"", value);
        parse(&text)
            .config
            .map(|config| config.proxies[0].listen.clone())
    };
    assert_eq!(listen("\":6443\""), Some(vec![Listen::Any(6443)]));
    let v4: Listen = Listen::Addr("0.0.0.0:6443".parse().unwrap());
    let v6: Listen = Listen::Addr("[fd00::1]:443".parse().unwrap());
    assert_eq!(
        listen("[\"0.0.0.0:6443\", \"[fd00::1]:443\"]"),
        Some(vec![v4, v6])
    );
    for wrong in [
        "\"\"",
        "\":\"",
        "\":0\"",
        "\":65536\"",
        "\":+1\"",
        "\"1.2.3.4\"",
        "\"host:80\"",
        "[]",
        "6443",
        "\"224.0.0.1:80\"",
    ] {
        assert_eq!(listen(wrong), None, "{wrong}");
    }
}

#[test]
fn the_preset_s_long_form_overrides_what_it_names_and_nothing_else() {
    let text = MINIMAL.replace(
        "\"kube-apiserver\"                 ",
        "{ type = \"kube-apiserver\", interval = \"3s\", ca-file = \"/ca.crt\", expect-status = [200, 204] } ",
    );
    let config = sound(&text);
    let check = &config.proxies[0].check;
    assert_eq!(check.interval, Duration::from_secs(3));
    assert_eq!(check.fast_interval, Duration::from_millis(250));
    assert_eq!(check.timeout, Duration::from_millis(500));
    let CheckKind::Https(tls, http) = &check.kind else {
        panic!("{:?}", check.kind);
    };
    assert_eq!(tls.verify, Verify::Required);
    assert_eq!(http.path, "/readyz");
    assert_eq!(http.expect_status, [200, 204]);
    assert!(http.unauthorized_is_ready);
}

#[test]
fn a_plain_https_check_verifies_or_says_that_it_doesn_t() {
    let check = |value: &str| parse(&MINIMAL.replace("\"kube-apiserver\"", value));
    assert_eq!(check("\"https\"").problems[0].code, "E0104");
    assert_eq!(
        check("{ type = \"tls\", verify = true }").problems[0].code,
        "E0104"
    );
    let config = check("{ type = \"https\", verify = false }")
        .config
        .unwrap();
    let CheckKind::Https(tls, http) = &config.proxies[0].check.kind else {
        panic!("not https");
    };
    assert_eq!(tls.verify, Verify::Off);
    assert_eq!(http.path, "/");
    assert!(!http.unauthorized_is_ready);
}

#[test]
fn a_second_connect_comes_when_it_is_told_to() {
    let after = |text| sound(&with("", text)).proxies[0].hedge_after;
    let time = Duration::from_millis(120);
    assert_eq!(after("hedge-after = \"120ms\"\n"), HedgeAfter::After(time));
    assert_eq!(after("hedge-after = \"auto\"\n"), HedgeAfter::Auto);
    assert_eq!(after("hedge-after = \"off\"\n"), HedgeAfter::Never);
    assert_eq!(codes(&with("", "hedge-after = \"1s\"\n")), ["E0109"]);
}

#[test]
fn connections_stay_where_they_are_unless_told_otherwise() {
    let proxy = |text| sound(&with("", text)).proxies[0].clone();
    assert_eq!(proxy("").rebalance, None);
    assert_eq!(proxy("").max_age, None);
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(proxy("max-age = \"1h\"\n").max_age, hour);
    let on = proxy("rebalance = {}\n").rebalance.unwrap();
    assert_eq!((on.above, on.rate.get()), (125, 10));
    assert_eq!(on.quiet, Duration::from_secs(1));
    let text = "rebalance = { above = 150, connections-per-second = 3, quiet = \"5s\" }\n";
    let on = proxy(text).rebalance.unwrap();
    assert_eq!((on.above, on.rate.get()), (150, 3));
    assert_eq!(on.quiet, Duration::from_secs(5));
    for senseless in [
        "balance = \"source-hash\"\n",
        "balance = \"first\"\n",
        "client-first = false\n",
    ] {
        let text = with("", &format!("rebalance = {{}}\n{senseless}"));
        assert_eq!(codes(&text), ["E0109"], "{senseless}");
    }
    assert_eq!(codes(&with("", "rebalance = { above = 100 }\n")), ["E0105"]);
    assert_eq!(codes(&with("", "max-age = \"1ms\"\n")), ["E0105"]);
}

#[test]
fn off_turns_off_what_can_be_turned_off() {
    let text = with(
        "lease = \"off\"\n[vip.kube.garp]\ndelay = \"off\"\nrefresh = \"off\"",
        "keepalive = \"off\"\nuser-timeout = \"off\"\nslowstart = \"off\"\nfirst-byte-timeout = \"off\"\n\n[metrics]\nlisten = \"off\"\n",
    );
    let config = sound(&text);
    assert_eq!(config.vips[0].lease, None);
    assert_eq!(config.vips[0].garp.delay, Duration::ZERO);
    assert_eq!(config.vips[0].garp.refresh, Duration::ZERO);
    let proxy = &config.proxies[0];
    assert_eq!(
        (
            proxy.keepalive,
            proxy.user_timeout,
            proxy.first_byte_timeout
        ),
        (None, None, None)
    );
    assert_eq!(proxy.slowstart, Duration::ZERO);
    assert_eq!(config.metrics.listen, None);
    assert_eq!(codes(&with("", "idle-timeout = \"off\"\n")), ["E0108"]);
}

#[test]
fn backends_inherit_what_they_don_t_say() {
    let text = "[proxy.a]\nlisten = \":80\"\nbackend-defaults = { weight = 7, max-connections = 5 }\n\
        [proxy.a.backends]\none = \"10.0.0.1:80\"\n\
        two = { address = \"10.0.0.2:80\", weight = 0, disabled = true, check-address = \"10.0.0.2:81\" }\n";
    let servers = sound(text).proxies[0].servers.clone();
    assert_eq!(servers[0].weight.get(), 7);
    assert_eq!(servers[0].max_connections.map(NonZeroU32::get), Some(5));
    assert_eq!(servers[0].check_address, servers[0].address);
    assert_eq!(servers[1].weight.get(), 0);
    assert_eq!(servers[1].max_connections.map(NonZeroU32::get), Some(5));
    assert_eq!(servers[1].check_address, "10.0.0.2:81".parse().unwrap());
    assert!(servers[1].disabled);
}

#[test]
fn a_track_s_own_weight_goes_before_the_script_s() {
    let script = "\n[track.script.up]\ncommand = [\"/bin/true\"]\nweight = -60\n";
    let weight = |track: &str| {
        let config = sound(&with(
            &format!("track = [\"proxy:kube-apiserver\", \"{track}\"]"),
            script,
        ));
        let track = config.vips[0].track[1].clone();
        assert_eq!(track.target, TrackTarget::Script(0));
        track.weight.map(TrackWeight::get)
    };
    assert_eq!(weight("script:up"), Some(-60));
    assert_eq!(weight("script:up:-70"), Some(-70));
    for wrong in [
        "script:up:0",
        "script:up:254",
        "script:up:x",
        "script:up:",
        "script",
        "file:x",
        "interface:",
        "interface:a/b",
    ] {
        let text = with(&format!("track = [\"{wrong}\"]"), script);
        assert!(parse(&text).config.is_none(), "{wrong}");
    }
}

#[test]
fn files_and_interfaces_are_tracked_with_and_without_weights() {
    let table = "\n[track.file.drain]\npath = \"/etc/lbd/drain\"\nweight = -3\n";
    let list = "track = [\"file:drain\", \"interface:eth1:20\", \"interface:eth2\"]\n\
                per-server-weight = 7";
    let config = sound(&with(list, table));
    assert_eq!(config.track_interfaces, ["eth1", "eth2"]);
    assert_eq!(config.track_files[0].path, Path::new("/etc/lbd/drain"));
    let vip = &config.vips[0];
    let seen = vip.track.iter().map(|track| {
        let weight = track.weight.map(TrackWeight::get);
        (track.target, weight)
    });
    let expected = [
        (TrackTarget::File(0), Some(-3)),
        (TrackTarget::Interface(0), Some(20)),
        (TrackTarget::Interface(1), None),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert_eq!(vip.per_server_weight, 7);
}

#[test]
fn notify_names_programs_and_who_runs_them() {
    let list = "notify = { active = [\"/bin/a\", \"-x\"], any = [\"/bin/n\"], user = \"ops:adm\", \
                keepalived-arguments = true }";
    let notify = sound(&with(list, "")).vips.remove(0).notify.unwrap();
    assert_eq!(notify.active, ["/bin/a", "-x"]);
    assert_eq!(notify.any, ["/bin/n"]);
    assert!(notify.backup.is_empty() && notify.fault.is_empty() && notify.stop.is_empty());
    assert!(notify.keepalived_arguments);
    assert_eq!(notify.timeout, Duration::from_secs(10));
    let user = notify.user.unwrap();
    assert_eq!(
        (user.user.as_str(), user.group.as_deref()),
        ("ops", Some("adm"))
    );
    assert_eq!(sound(&with("", "")).vips[0].notify, None);
}

#[test]
fn preempt_is_a_choice_or_a_delay() {
    let preempt = |value: &str| sound(&with(&format!("preempt = {value}"), "")).vips[0].preempt;
    assert_eq!(preempt("true"), Preempt::Always);
    assert_eq!(preempt("false"), Preempt::Never);
    assert_eq!(preempt("\"1m\""), Preempt::After(Duration::from_secs(60)));
}

#[test]
fn adverts_are_spaced_by_a_fifth_of_the_interval_or_10_ms_or_as_the_file_says() {
    let spacing = |keys| sound(&with(keys, "")).vips[0].advert_spacing.as_millis();
    assert_eq!(spacing("advert-interval = \"100ms\""), 20);
    assert_eq!(spacing("advert-interval = \"10ms\""), 10);
    assert_eq!(spacing("advert-interval = \"40ms\""), 10);
    assert_eq!(spacing("advert-spacing = \"off\""), 1_000);
    assert_eq!(spacing("advert-spacing = \"1s\""), 1_000);
    assert_eq!(
        spacing("advert-interval = \"50ms\"\nadvert-spacing = \"25ms\""),
        25
    );
    let longer = with("advert-interval = \"50ms\"\nadvert-spacing = \"51ms\"", "");
    assert_eq!(codes(&longer), ["E0105"]);
}

#[test]
fn an_old_word_is_one_complaint_and_not_a_missing_key_too() {
    let text = "[vip.kube]\nvirtual_ipaddress = \"172.16.0.10/24\"\nunicast_peer = [\"172.16.0.2\", \"172.16.0.3\"]\n";
    assert_eq!(codes(text), ["E0101", "E0101"]);
}

#[test]
fn a_file_may_have_only_proxies_or_only_vips() {
    let (vip, proxy) = MINIMAL.split_once("[proxy").unwrap();
    assert_eq!(sound(vip).vips[0].track, []);
    assert_eq!(sound(&format!("[proxy{proxy}")).vips, []);
    assert_eq!(codes(""), ["E0003"]);
}

#[test]
fn sixteen_nodes_have_descending_priorities() {
    let nodes: Vec<String> = (11..27).map(|n| format!("\"172.16.0.{n}\"")).collect();
    let text = MINIMAL.replace("\"172.16.0.2\", \"172.16.0.3\"", &nodes.join(", "));
    let priorities: Vec<u8> = sound(&text).vips[0]
        .nodes
        .iter()
        .map(|n| n.priority.get())
        .collect();
    assert_eq!(priorities.first(), Some(&200));
    assert_eq!(priorities.last(), Some(&50));
}

#[test]
fn every_key_of_a_later_release_is_refused_as_such() {
    for section in schema::SECTIONS {
        for key in section
            .keys
            .iter()
            .filter(|key| key.support == schema::Support::Later)
        {
            let path = section.path.replace("NAME", "x");
            let text = match section.path {
                "" => format!("{} = 1\n", key.name),
                "vip.NAME.nodes" => continue,
                _ => format!("[{path}]\n{} = 1\n", key.name),
            };
            let problems = parse(&text).problems;
            let full = if path.is_empty() {
                key.name.to_owned()
            } else {
                format!("{path}.{}", key.name)
            };
            let message = format!("`{full}` is not supported yet");
            assert!(
                problems.iter().any(|p| p.message == message),
                "{text}: {problems:?}"
            );
        }
    }
}

#[test]
fn every_alias_names_its_key() {
    for section in schema::SECTIONS {
        for key in section.keys {
            let snake = key.name.replace('-', "_");
            for word in key.aliases.iter().copied().chain([snake.as_str()]) {
                assert!(
                    section.key(word).is_none_or(|own| own == key),
                    "{word} is a key itself"
                );
                let meant = section.key_called(word).or_else(|| section.key(word));
                assert_eq!(
                    meant.map(|key| key.name),
                    Some(key.name),
                    "{}.{word}",
                    section.path
                );
            }
        }
    }
}

#[test]
fn the_digest_is_fnv_1a() {
    // Reference values of the algorithm's authors.
    assert_eq!(crate::config::digest(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(crate::config::digest("foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn a_key_that_nobody_reads_is_refused_and_not_ignored() {
    for section in schema::SECTIONS {
        let keys = section
            .keys
            .iter()
            .filter(|key| key.support == schema::Support::Supported);
        for key in keys {
            let text = format!("{} = 1\n", key.name);
            let (tree, _) = DeTable::parse_recoverable(&text);
            let mut sink = Sink::default();
            let name = String::new();
            let fields = Fields::open(
                section.path,
                name.clone(),
                name,
                0..0,
                tree.get_ref(),
                &mut sink,
            );
            fields.finish(&mut sink);
            assert_eq!(sink.errors(), 1, "{}.{}", section.path, key.name);
        }
    }
}

#[test]
fn hmac_keys_are_bytes_or_hexadecimal_and_the_first_signs() {
    let text = with(
        "auth = { type = \"hmac\", keys = [{ id = 7, key = \"abcdefghijklmnopqrstuvwxyz012345\" }, { id = 255, key = \"hex:00Ff000000000000000000000000000000000000000000000000000000000001\" }] }",
        "",
    );
    let vips = parse(&text).config.unwrap().vips;
    let Auth::Hmac(hmac) = &vips[0].auth else {
        panic!("{:?}", vips[0].auth);
    };
    assert_eq!(hmac.mode, HmacMode::Enforce);
    assert_eq!((hmac.keys[0].id, hmac.keys[1].id), (7, 255));
    assert_eq!(hmac.keys[0].secret.0, b"abcdefghijklmnopqrstuvwxyz012345");
    let secret = &hmac.keys[1].secret.0;
    assert_eq!(
        (secret.len(), secret[0], secret[1], secret[31]),
        (32, 0, 0xff, 1)
    );
}

#[test]
fn keepalived_s_words_that_need_more_than_another_name_are_answered() {
    let text = "[vip.v]\naddress = \"10.0.0.9/24\"\nnodes = [\"10.0.0.1\", \"10.0.0.2\"]\n\
        auth_hmac = 1\ntrack_interface = [\"eth1\"]\nnotify_master = \"/bin/x\"\n\
        [vrrp_sync_group.g]\ngroup = [\"v\"]\n[vrrp_track_file.f]\nfile = \"/x\"\n";
    let problems = parse(text).problems;
    let said = |wanted: &str| {
        let labels = problems.iter().flat_map(|problem| &problem.labels);
        let mut texts = labels.map(|label| label.text.as_str());
        assert!(texts.any(|text| text.contains(wanted)), "{wanted}");
    };
    said("keys = [{ id = 1,");
    said("track = [\"interface:NAME\"]");
    said("notify = { active = [");
    said("`sync-group = \"NAME\"` in each");
    said("`[track.file.NAME]`");
    assert_eq!(problems.len(), 5);
}
