//! Files as people have them who don't follow a guide: what comes out is faithful, and what can't
//! be is said with its place. What HAProxy 2.6 and keepalived 2.2.7 make of such lines was tried.

use lbd::config::model::Config;
use lbd::import::{Fate, Input, Node, Outcome, Source, import, render, render_json};

fn haproxy(text: &str) -> Outcome {
    import(&Input {
        haproxy: Some(Source {
            name: "haproxy.cfg",
            text,
        }),
        ..Input::default()
    })
}

fn keepalived(texts: &[&str]) -> Outcome {
    let names = ["lb1.conf", "lb2.conf"];
    import(&Input {
        haproxy: None,
        keepalived: names
            .iter()
            .zip(texts)
            .map(|(name, text)| Source { name, text })
            .collect(),
        nodes: Vec::new(),
    })
}

/// What became of the line that begins so.
fn fate(outcome: &Outcome, start: &str) -> Fate {
    let found = outcome.entries.iter().find(|e| e.text.starts_with(start));
    found
        .unwrap_or_else(|| panic!("no {start}: {outcome:?}"))
        .fate
}

fn lost(outcome: &Outcome) -> Vec<&str> {
    let lost = outcome.entries.iter().filter(|e| e.fate == Fate::Lost);
    lost.map(|e| e.text.as_str()).collect()
}

/// The configuration, of which nothing was lost.
fn whole(outcome: &Outcome) -> Config {
    assert_eq!(lost(outcome), [""; 0], "{}", render(outcome, true));
    assert!(outcome.accepted, "{:?}\n{}", outcome.problems, outcome.text);
    lbd::config::parse(&outcome.text).config.unwrap()
}

#[track_caller]
fn has(outcome: &Outcome, line: &str) {
    let found = outcome.text.lines().any(|l| l.starts_with(line));
    assert!(found, "no {line} in\n{}", outcome.text);
}

#[track_caller]
fn hasnt(outcome: &Outcome, part: &str) {
    assert!(!outcome.text.contains(part), "{part} in\n{}", outcome.text);
}

/// A proxy that can run, with lines of one's own in `defaults`, the frontend and the backend.
fn proxy(defaults: &str, front: &str, back: &str) -> String {
    format!(
        "defaults\n mode tcp\n timeout connect 3s\n timeout client 10m\n timeout server 10m\n{defaults}\n\
         frontend in\n bind 10.0.0.1:6443\n default_backend out\n{front}\n\
         backend out\n server a 10.0.1.1:6443 check\n{back}\n"
    )
}

/// An instance of a pair by unicast; `more` stands inside of it.
fn instance(own: u8, other: u8, priority: u8, more: &str) -> String {
    format!(
        "vrrp_instance V {{\n interface eth0\n virtual_router_id 7\n priority {priority}\n\
         unicast_src_ip 10.0.0.{own}\n virtual_ipaddress {{\n  10.0.0.9/24\n }}\n\
         unicast_peer {{\n  10.0.0.{other}\n }}\n{more}\n}}\n"
    )
}

fn pair(more: &str) -> Outcome {
    keepalived(&[&instance(2, 3, 100, more), &instance(3, 2, 90, more)])
}

#[test]
fn a_comment_that_ends_with_a_backslash_hides_no_line() {
    let text = proxy(
        "# logs in C:\\",
        "# here \\\n maxconn 77 # and \\",
        " # x\\\n retries 5",
    );
    let outcome = haproxy(&text);
    whole(&outcome);
    has(&outcome, "max-connections = 77");
    has(&outcome, "retries = 5");
    let outcome = pair("! x \\\n advert_int 3 # y \\\n preempt_delay 20");
    whole(&outcome);
    has(&outcome, "advert-interval = \"3s\"");
    has(&outcome, "preempt = \"20s\"");
}

#[test]
fn defaults_take_what_the_defaults_they_are_from_say() {
    let outcome = haproxy(
        "defaults base\n mode tcp\n timeout connect 4s\n timeout client 20m\n timeout server 20m\n retries 7\n\
         defaults short from base\n retries 1\n\
         defaults nobody\n timeout client 9s\n\
         frontend in from short\n bind :6443\n default_backend out\n\
         backend out from base\n server a 10.0.1.1:6443 check\n\
         frontend two from base\n bind :6444\n default_backend out\n",
    );
    let config = whole(&outcome);
    assert_eq!(config.proxies.len(), 2);
    has(&outcome, "connect-timeout = \"4s\"");
    has(&outcome, "idle-timeout = \"20m\"");
    hasnt(&outcome, "9s");
    // Two [proxy] have these servers.
    assert_eq!(fate(&outcome, "backend out"), Fate::Changed);
}

#[test]
fn a_disabled_proxy_is_left_out() {
    let text = proxy("", "", "") + "listen old\n disabled\n bind :81\n server x 10.0.1.9:81\n";
    let outcome = haproxy(&text);
    assert_eq!(whole(&outcome).proxies.len(), 1);
    hasnt(&outcome, "10.0.1.9");
    assert_eq!(fate(&outcome, "listen old"), Fate::Changed);
}

#[test]
fn an_offset_is_no_port_and_no_port_is_that_of_the_client() {
    let outcome = haproxy(&proxy(
        "",
        "",
        " server b 10.0.1.2:+1000 check\n server c 10.0.1.3 check",
    ));
    assert_eq!(lost(&outcome), ["server b 10.0.1.2:+1000 check"]);
    has(&outcome, "c = \"10.0.1.3:6443\"");
    let outcome = haproxy(&proxy("", " bind :7000-7001", " server c 10.0.1.3 check"));
    assert_eq!(lost(&outcome), ["server c 10.0.1.3 check"]);
}

#[test]
fn variables_are_put_in_or_said_to_be_missing() {
    let text = "global\n setenv PORT 6443\n".to_owned()
        + &proxy(
            "",
            " bind \"10.0.0.2:${PORT}\"",
            " server b \"$HOST:6443\" check",
        );
    let outcome = haproxy(&text);
    has(&outcome, "listen = [\"10.0.0.1:6443\", \"10.0.0.2:6443\"]");
    assert_eq!(lost(&outcome), ["server b \"$HOST:6443\" check"]);
    assert_eq!(outcome.placeholders, ["$HOST"]);
    // Single quotes keep it as it is.
    let outcome = haproxy(&proxy("", " description 'costs $5'", ""));
    whole(&outcome);
}

/// Each doubles what the next puts in: without a bound the last would have gigabytes.
#[test]
fn variables_that_double_end_where_a_line_ends() {
    let doubled = " setenv A \"$A$A\"\n".repeat(26);
    let text = format!("global\n setenv A xxxxxxxxxxxxxxxx\n{doubled}")
        + &proxy("", " description \"$A\"", "");
    let outcome = haproxy(&text);
    // 16 bytes can be doubled nine times; nobody knows the variable then.
    assert_eq!(lost(&outcome).len(), 18, "{:?}", lost(&outcome));
    assert!(outcome.entries.iter().all(|entry| entry.text.len() < 1_000));
}

#[test]
fn what_haproxy_refuses_or_keeps_is_not_read_as_something_else() {
    let outcome = haproxy(&proxy("", "", " option httpchk GET /re\\.adyz"));
    hasnt(&outcome, "/re.adyz");
    let broken = [" timeout queue \"2s", " server b 10.0.1.2:6443 name \\xzz"];
    let outcome = haproxy(&proxy("", "", &broken.join("\n")));
    assert_eq!(lost(&outcome), broken.map(str::trim));
    hasnt(&outcome, "10.0.1.2");
    // What follows such a section is never the one's before it.
    let outcome = haproxy(&(proxy("", "", "") + "backend \"two\n server c 10.0.1.3:6443 check\n"));
    assert_eq!(fate(&outcome, "backend \"two"), Fate::Lost);
    hasnt(&outcome, "10.0.1.3");
}

#[test]
fn a_variable_that_a_condition_decides_is_not_what_it_was() {
    for branch in [
        "global\n setenv PORT 7000\n.if feature(Q)\n setenv PORT 8443\n.endif\n",
        "global\n setenv PORT 7000\n.if feature(Q)\n unsetenv PORT\n.endif\n",
        "global\n setenv PORT 7000\n.if feature(Q)\n x\n.else\n resetenv\n.endif\n",
        "global\n setenv PORT 7000\n.if feature(Q)\nglobal\n.endif\n setenv PORT 8443\n",
        "global\n setenv PORT 7000\n\n setenv PORT \"$ELSE\"\n",
    ] {
        let outcome = haproxy(&(branch.to_owned() + &proxy("", " bind \"*:${PORT}\"", "")));
        hasnt(&outcome, "7000\"");
        let bind = outcome
            .entries
            .iter()
            .find(|e| e.text == "bind \"*:${PORT}\"");
        let bind = bind.expect("the line is entered");
        let decides = if branch.contains(".if") { 3 } else { 4 };
        let why = format!("haproxy.cfg:{decides} decides what `${{PORT}}` stands for");
        assert_eq!(
            (bind.fate, bind.notes.as_slice()),
            (Fate::Lost, [why].as_slice()),
            "{branch}"
        );
    }
    let text =
        "global\n setenv PORT 7000\n.if feature(Q)\n setenv PORT 1\n.endif\n setenv PORT 7001\n";
    let outcome = haproxy(&(text.to_owned() + &proxy("", " bind \"*:${PORT}\"", "")));
    assert_eq!(fate(&outcome, "bind \"*"), Fate::Exact);
    has(&outcome, "listen = [\"10.0.0.1:6443\", \"0.0.0.0:7001\"]");
}

#[test]
fn a_listener_for_an_exporter_is_the_metrics_listener() {
    let exporter = "frontend prom\n mode http\n bind *:8404\n http-request use-service prometheus-exporter if { path /metrics }\n stats enable\n stats uri /stats\n stats refresh 10s\n";
    let outcome = haproxy(&(proxy("", "", "") + exporter));
    whole(&outcome);
    has(&outcome, "listen = \"0.0.0.0:8404\"");
    // Who may not read it could, then.
    let guarded = exporter.to_owned() + " http-request deny if { src 10.9.0.0/16 }\n";
    let outcome = haproxy(&(proxy("", "", "") + &guarded));
    assert_eq!(lost(&outcome), ["http-request deny if { src 10.9.0.0/16 }"]);
}

#[test]
fn listeners_of_both_families_are_one() {
    let outcome = haproxy(&proxy("", " bind *:7443\n bind :::7443 v6only", ""));
    whole(&outcome);
    has(&outcome, "listen = [\"10.0.0.1:6443\", \":7443\"]");
    assert_eq!(fate(&outcome, "bind :::7443"), Fate::Changed);
}

#[test]
fn three_failures_take_a_server_down_where_the_file_says_nothing() {
    let outcome = haproxy(&proxy("", "", ""));
    has(&outcome, "check = { type = \"tcp\", fall = 3 }");
    let outcome = haproxy(&proxy(" default-server inter 4s fall 5", "", ""));
    has(
        &outcome,
        "check = { type = \"tcp\", interval = \"4s\", fall = 5 }",
    );
}

#[test]
fn a_server_above_a_default_keeps_its_own_weight() {
    let back = " server b 10.0.1.2:6443 check weight 3\n default-server weight 50\n server c 10.0.1.3:6443 check";
    let outcome = haproxy(&proxy("", "", back));
    whole(&outcome);
    has(&outcome, "backend-defaults = { weight = 50 }");
    has(&outcome, "a = { address = \"10.0.1.1:6443\", weight = 1 }");
    has(&outcome, "b = { address = \"10.0.1.2:6443\", weight = 3 }");
    has(&outcome, "c = \"10.0.1.3:6443\"");
}

#[test]
fn servers_by_name_share_what_the_first_says() {
    let back = " server n one.example:6443 check weight 7 maxconn 9\n server m two.example:6443 check weight 8 maxconn 9";
    let outcome = haproxy(&proxy("", "", back));
    whole(&outcome);
    has(
        &outcome,
        "backend-defaults = { max-connections = 9, weight = 7 }",
    );
    has(&outcome, "a = { address = \"10.0.1.1:6443\", weight = 1 }");
    let other = outcome
        .entries
        .iter()
        .find(|e| e.text.starts_with("server m"));
    let notes = &other.unwrap().notes;
    assert!(
        notes.contains(&"`weight` holds for all host names: that of haproxy.cfg:13".to_owned()),
        "{notes:?}"
    );
}

/// Each of a few kilobytes, and of gigabytes or minutes without a bound.
#[test]
fn what_keepalived_s_definitions_multiply_is_bounded_in_lines_bytes_and_time() {
    let body = "a \\\n".repeat(1_000);
    let uses = "$A\n".repeat(1_000);
    for (text, why) in [
        (
            format!("$A=x \\\n{body}\n{uses}"),
            "with all that is put in",
        ),
        (
            format!("~SEQ(I,1,4000) {}\n", "word ".repeat(4_000)),
            "is longer than the 4096 bytes",
        ),
        (
            format!("~SEQ(I,1,4000) {}\n", "word ".repeat(800)),
            "with all that is put in",
        ),
        (
            format!("$A={}\n{}", "word ".repeat(800), "x $A\n".repeat(9_000)),
            "with all that is put in",
        ),
        (format!("$A=${{A}}\n{uses}"), "with all that is put in"),
        (format!("x {}\n", "{{}}".repeat(8_000)), "is longer than"),
        (format!("x {}\n", "{{".repeat(16_000)), "is longer than"),
        (
            format!("~LST({{{}N}}{})  x\n", "N,".repeat(400), ",{}".repeat(800)),
            "lbd repeats no line more than 4096 times",
        ),
        (
            "~SEQ(I,1,5000) x\n".to_owned(),
            "lbd repeats no line more than 4096 times",
        ),
    ] {
        let began = lbd::net::clock::now();
        let outcome = keepalived(&[&text]);
        let elapsed = lbd::net::clock::now() - began;
        let start: String = text.chars().take(30).collect();
        assert!(elapsed.as_secs() < 10, "{start}: {elapsed:?}");
        let said = |entry: &lbd::import::Entry| entry.notes.iter().any(|n| n.contains(why));
        assert!(outcome.entries.iter().any(said), "{start}: {why}");
        assert!(outcome.entries.len() < 10_000, "{start}");
    }
    // Placeholders in lines that are short enough, in a file as long as may be.
    for part in ["{{}}", "{{", "{% ", "${", "}{"] {
        let text = format!("x {}\n", part.repeat(4_000 / part.len())).repeat(16);
        let began = lbd::net::clock::now();
        keepalived(&[&text]);
        assert!(
            (lbd::net::clock::now() - began).as_secs() < 10,
            "{part}: {:?}",
            (lbd::net::clock::now() - began)
        );
    }
}

#[test]
fn no_password_is_shown() {
    let text = proxy("", "", "") + "userlist l\n user root insecure-password hunter2\n";
    let report = render(&haproxy(&text), true);
    assert!(
        report.contains("user root insecure-password ****"),
        "{report}"
    );
}

#[test]
fn no_secret_is_shown_however_it_is_put_together() {
    let back = " option httpchk\n http-check send uri /x hdr Authorization \"Bearer $TOKEN\" hdr X-Auth-Token \"hush 1\"\n stats auth \"admin:$B\"";
    let text = "global\n setenv TOKEN hush2\n setenv A hush3\n setenv B \"x$A\"\n setenv UNUSEDPASS hush4\n presetenv P hush5\n.if feature(Q)\n setenv PASS hush6\n.endif\n"
        .to_owned()
        + &proxy("", "", back);
    let mut outcomes = vec![haproxy(&text)];
    for (head, auth) in [
        ("$P=auth_pass hush\n", "$P"),
        ("$P=auth_pass\n", "$P hush"),
        ("$PASSWORD=hush\n@lb2 $PASS=hush\n", "auth_pass ${PASSWORD}"),
        ("", "~LST(Q, hush, hush) auth_pass ${Q}"),
        ("$P=auth_pass\n", "~LST(Q, hush, hush) $P ${Q}"),
        ("$P=auth_pass\n$V= \\\nhush \\\n\n", "$P $V"),
        ("", "\"auth_pass\" hush"),
    ] {
        let auth = format!(" authentication {{\n  auth_type PASS\n  {auth}\n }}");
        outcomes.push(keepalived(&[
            &(head.to_owned() + &instance(2, 3, 100, &auth))
        ]));
    }
    for outcome in outcomes {
        let (report, json) = (render(&outcome, true), render_json(&outcome, false));
        assert!(!report.contains("hush"), "{report}");
        assert!(!json.contains("hush"), "{json}");
        assert!(report.contains("****"), "{report}");
        let comments = outcome.text.lines().filter_map(|line| line.split_once('#'));
        for (_, comment) in comments {
            assert!(!comment.contains("hush"), "{comment}");
        }
    }
    let report = render(&haproxy(&text), true);
    for line in [
        "setenv TOKEN ****",
        "presetenv P ****",
        "setenv UNUSEDPASS ****",
    ] {
        assert!(report.contains(line), "{line} in {report}");
    }
}

#[test]
fn a_check_s_request_is_kept_with_its_host() {
    let back = " option httpchk\n http-check connect ssl sni kube.example\n http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host kube.example\n http-check expect status 200";
    let outcome = haproxy(&proxy("", "", back));
    has(
        &outcome,
        "check = { type = \"https\", path = \"/readyz\", host = \"kube.example\", verify = false, server-name = \"kube.example\", fall = 3 }",
    );
    let outcome = haproxy(&proxy(
        "",
        "",
        " option httpchk GET /readyz HTTP/1.1\\r\\nHost:\\ kube.example",
    ));
    has(
        &outcome,
        "check = { type = \"http\", path = \"/readyz\", host = \"kube.example\", fall = 3 }",
    );
    let outcome = haproxy(&proxy(
        "",
        "",
        " option httpchk\n http-check send uri / hdr Host \"a b\"",
    ));
    assert_eq!(lost(&outcome), ["http-check send uri / hdr Host \"a b\""]);
}

#[test]
fn what_routes_by_content_is_lost_line_by_line() {
    let front = " tcp-request inspect-delay 5s\n acl hello req.ssl_hello_type 1\n tcp-request content accept if hello\n acl office src 10.0.0.0/8\n tcp-request connection reject if !office\n use_backend other if { req.ssl_sni -i a.example }";
    let back = " stick-table type ip size 1m expire 30m\n stick on src\n server-template w 1-3 w.example:6443 check resolvers dns";
    let text = proxy("", front, back)
        + "resolvers dns\n nameserver a 10.0.0.53:53\n hold valid 10s\n\
           peers mine\n peer a 10.0.0.1:1024\nprogram api\n command /usr/bin/dataplane -x\n\
           ring buf\n size 1000\n.if feature(OPENSSL)\nglobal\n tune.x 1\n.else\nbackend y\n.endif\n";
    let outcome = haproxy(&text);
    let lost = lost(&outcome);
    for line in text.lines().map(str::trim) {
        let said = [
            "tcp-request",
            "acl",
            "use_backend",
            "stick",
            "resolvers",
            "nameserver",
            "hold",
            "peer",
            "program",
            "command",
            "ring",
            "size",
            ".if",
            ".else",
            ".endif",
            "tune.x",
            "backend y",
        ];
        if said.iter().any(|start| line.starts_with(start)) {
            assert!(lost.contains(&line), "{line} isn't lost: {lost:?}");
        }
    }
    // The servers of a name are there, and so is their change.
    assert_eq!(fate(&outcome, "server-template w"), Fate::Changed);
    let report = render(&outcome, true);
    assert!(
        report.contains("haproxy.cfg:15 use_backend other"),
        "{report}"
    );
}

#[test]
fn a_longer_name_is_no_shorter_one_and_an_unknown_one_is_said() {
    let text = "$IF=eth0\n".to_owned() + &instance(2, 3, 100, "").replace("eth0", "$IFACE");
    let outcome = keepalived(&[&text]);
    assert_eq!(outcome.placeholders, ["$IFACE"]);
    assert_eq!(lost(&outcome), ["interface $IFACE"]);
    let text = "$NET=10.0.0\n$VIP=${NET}.9/24\n".to_owned()
        + &instance(2, 3, 100, "").replace("10.0.0.9/24", "$VIP");
    let outcome = keepalived(&[&text]);
    whole(&outcome);
    has(&outcome, "address = \"10.0.0.9/24\"");
    // A shell's own are left alone.
    let script = "vrrp_script c {\n script \"/bin/sh -c 'test $USER'\"\n}\n";
    let more = instance(2, 3, 100, " track_script {\n  c\n }");
    let outcome = keepalived(&[&(script.to_owned() + &more)]);
    assert_eq!(outcome.placeholders, [""; 0]);
}

#[test]
fn the_least_ttl_of_a_peer_is_that_of_the_node() {
    let far = |own, other, priority| {
        let text = instance(own, other, priority, "");
        text.replace(
            &format!("  10.0.0.{other}\n }}"),
            &format!("  10.0.0.{other} min_ttl 253\n }}"),
        )
    };
    let outcome = keepalived(&[&far(2, 3, 100), &far(3, 2, 90)]);
    whole(&outcome);
    has(
        &outcome,
        "  { name = \"lb1\", address = \"10.0.0.2\", priority = 100, min-ttl = 253 }",
    );
    has(
        &outcome,
        "  { name = \"lb2\", address = \"10.0.0.3\", priority = 90, min-ttl = 253 }",
    );
    let outcome = keepalived(&[&far(2, 3, 100)]);
    has(
        &outcome,
        "  { address = \"10.0.0.3\", priority = 100, min-ttl = 253 }",
    );
}

#[test]
fn what_holds_for_one_node_is_taken_for_it_alone() {
    let outcome =
        pair(" @lb1 nopreempt\n @^lb2 advert_int 2\n @lb2 advert_int 2\n @lb9 priority 3");
    whole(&outcome);
    has(&outcome, "advert-interval = \"2s\"");
    hasnt(&outcome, "priority = 3");
    let block = instance(2, 3, 100, "").replace("unicast_peer", "@lb1 unicast_peer");
    let outcome = keepalived(&[&block]);
    whole(&outcome);
    hasnt(&outcome, "multicast");
}

#[test]
fn scripts_out_of_range_are_said_to_be_changed() {
    let script =
        "vrrp_script c {\n script \"/bin/true\"\n interval 0.01\n weight -254\n fall 300\n}\n";
    let more = instance(2, 3, 100, " track_script {\n  c\n }");
    let outcome = keepalived(&[&(script.to_owned() + &more)]);
    for line in ["interval 0.01", "weight -254", "fall 300"] {
        assert_eq!(fate(&outcome, line), Fate::Changed, "{line}");
    }
}

#[test]
fn groups_of_both_families_move_together() {
    let v6 = |own, other, priority| {
        let text = instance(
            own,
            other,
            priority,
            " version 3\n notify_master \"/etc/x.sh up\" nobody",
        );
        let six = text
            .replace("vrrp_instance V", "vrrp_instance V6")
            .replace("10.0.0.", "fd00::");
        let six = six
            .replace("virtual_router_id 7", "virtual_router_id 8")
            .replace("/24", "/64");
        format!("{text}{six}vrrp_sync_group G {{\n group {{\n  V\n  V6\n }}\n}}\n")
    };
    let outcome = keepalived(&[&v6(2, 3, 100), &v6(3, 2, 90)]);
    let config = whole(&outcome);
    assert_eq!(config.vips.len(), 2);
    has(&outcome, "address = \"fd00::9/64\"");
    has(&outcome, "active = [\"/etc/x.sh\", \"up\"]");
    assert_eq!(outcome.text.matches("sync-group = \"G\"").count(), 2);
}

#[test]
fn what_keepalived_does_beyond_a_virtual_address_is_lost_line_by_line() {
    let more = " virtual_ipaddress_excluded {\n  10.0.0.8/24\n }\n virtual_routes {\n  default via 10.0.0.1\n }\n notify_fifo /run/x\n include /etc/y.conf";
    let tail = "include /etc/keepalived/conf.d/*.conf\n\
         virtual_server 10.0.0.9 443 {\n lb_algo rr\n real_server 10.0.1.1 443 {\n  weight 1\n }\n}\n\
         ~SEQ(N, 1, 2) vrrp_instance X$N {\n interface eth0\n}\n\
         vrrp_track_process web {\n process nginx\n}\nbfd_instance b {\n neighbor_ip 10.0.0.3\n}\n";
    let outcome = keepalived(&[&(instance(2, 3, 100, more) + tail)]);
    let lost = lost(&outcome);
    for line in [
        "virtual_ipaddress_excluded",
        "10.0.0.8/24",
        "virtual_routes",
        "default via 10.0.0.1",
        "notify_fifo /run/x",
        "include /etc/y.conf",
        "include /etc/keepalived/conf.d/*.conf",
        "virtual_server 10.0.0.9 443",
        "lb_algo rr",
        "real_server 10.0.1.1 443",
        "weight 1",
        "~SEQ(N, 1, 2) vrrp_instance X$N",
        "vrrp_track_process web",
        "process nginx",
        "bfd_instance b",
        "neighbor_ip 10.0.0.3",
    ] {
        assert!(lost.contains(&line), "{line} isn't lost: {lost:?}");
    }
}

#[test]
fn a_mark_in_front_of_a_file_is_no_word() {
    let outcome = haproxy(&format!(
        "\u{feff}{}",
        proxy("", "", "").replace('\n', "\r\n")
    ));
    whole(&outcome);
    let conf = format!("\u{feff}{}", instance(2, 3, 100, "").replace('\n', "\r\n"));
    whole(&keepalived(&[&conf]));
}

#[test]
fn nodes_named_by_hand_are_those_of_the_file() {
    let text = instance(2, 3, 100, "").replace(" unicast_src_ip 10.0.0.2\n", "");
    let outcome = import(&Input {
        haproxy: None,
        keepalived: vec![Source {
            name: "keepalived.conf",
            text: &text,
        }],
        nodes: vec![Node {
            name: Some("west".to_owned()),
            address: Some("10.0.0.2".parse().unwrap()),
        }],
    });
    whole(&outcome);
    has(
        &outcome,
        "  { name = \"west\", address = \"10.0.0.2\", priority = 100 }",
    );
}

/// A pair in one file, of all that keepalived has to put lines in or leave them out; what is
/// expected is what keepalived 2.2.7 prints with `-d -i lb1` and `-i lb2`.
const PUT_IN: &str = "\
$IF=eth0
@lb1 $PRIO=150
@lb2 $PRIO=100
$INSTANCE= \\
vrrp_instance VI_${N} { \\
  interface ${IF} \\
  virtual_router_id 6${N} \\
  priority $PRIO \\
  # who \\
  @lb1 unicast_src_ip 10.1.0.11 \\
  @lb2 unicast_src_ip 10.1.0.12 \\
  unicast_peer { \\
    @^lb1 10.1.0.11 \\
    @^lb2 10.1.0.12 \\
  } \\
  virtual_ipaddress { \\
    ~SEQ(H, 1, 2) 10.1.${N}.10${H}/24 \\
  } \\
  authentication { \\
    auth_type PASS \\
    auth_pass $KEY \\
  } \\
}
$KEY=hunter22
~LST(N, 1, 2) $INSTANCE
";

#[test]
fn definitions_lists_and_sequences_are_what_keepalived_makes_of_them() {
    let outcome = keepalived(&[PUT_IN, PUT_IN]);
    whole(&outcome);
    for line in [
        "[vip.VI_1]  # lb1.conf:5 vrrp_instance VI_1",
        "address = [\"10.1.1.101/24\", \"10.1.1.102/24\"]",
        "vrid = 61",
        "[vip.VI_2]",
        "address = [\"10.1.2.101/24\", \"10.1.2.102/24\"]",
        "vrid = 62",
        "interface = \"eth0\"",
        "auth = { type = \"pass\", key = \"hunter22\" }",
        "  { name = \"lb1\", address = \"10.1.0.11\", priority = 150 },",
        "  { name = \"lb2\", address = \"10.1.0.12\", priority = 100 },",
    ] {
        has(&outcome, line);
    }
    assert_eq!(fate(&outcome, "~SEQ(H, 1, 2) 10.1"), Fate::Exact);
    assert_eq!(fate(&outcome, "virtual_router_id 6${N}"), Fate::Exact);
    assert_eq!(fate(&outcome, "@lb2 $PRIO=****"), Fate::NotNeeded);
    // The value of a name that stands for a password is shown nowhere.
    assert!(!render(&outcome, true).contains("hunter22"));
}

#[test]
fn what_the_file_s_own_host_alone_knows_is_lost_with_what_to_do() {
    let more = " notify \"${_PWD}/x.sh\"\n advert_int ${_RANDOM 1 2}\n priority 3 nopreempt \\\n";
    let outcome = keepalived(&[&instance(2, 3, 100, more)]);
    let said: Vec<String> = outcome
        .entries
        .iter()
        .filter(|e| e.fate == Fate::Lost)
        .map(|e| e.notes.join(" "))
        .collect();
    assert!(
        said.contains(&"`${_PWD}` is the folder of this file on its node: write it out".to_owned()),
        "{said:?}"
    );
    assert!(
        said.contains(&"`${_RANDOM}` is another number at each start: write one".to_owned()),
        "{said:?}"
    );
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn names_behind_at_that_are_no_node_s_are_a_trap() {
    let kinds = |outcome: &Outcome| -> Vec<&'static str> {
        outcome.traps.iter().map(|trap| trap.kind).collect()
    };
    let outcome = pair(" @main nopreempt");
    assert!(kinds(&outcome).contains(&"config-id"));
    let block = " @lb1 track_interface {\n eth0\n }";
    let outcome = keepalived(&[&instance(2, 3, 100, block), &instance(3, 2, 90, block)]);
    assert!(kinds(&outcome).contains(&"half-block"));
    let script = "vrrp_script c {\n script /bin/test -e /x\n interval 2 rise 3\n}\n".to_owned();
    let outcome = keepalived(&[&(script + &instance(2, 3, 100, " track_script {\n  c\n }"))]);
    assert!(kinds(&outcome).contains(&"unquoted"));
    has(&outcome, "command = [\"/bin/test\", \"-e\", \"/x\"]");
    hasnt(&outcome, "rise = ");
    assert_eq!(fate(&outcome, "interval 2 rise 3"), Fate::Changed);
}

#[test]
fn an_address_on_another_device_is_not_taken_for_one_on_its_own() {
    let text = "global_defs {\n default_interface ens1\n}\n".to_owned() + &instance(2, 3, 100, "");
    let text = text.replace(" interface eth0\n", "").replace(
        "10.0.0.9/24",
        "10.0.0.9/24\n  10.0.0.8/24 dev lo\n  10.0.0.7/24 dev ens1",
    );
    let outcome = keepalived(&[&text]);
    assert_eq!(lost(&outcome), ["10.0.0.8/24 dev lo"]);
    has(&outcome, "address = [\"10.0.0.9/24\", \"10.0.0.7/24\"]");
}

#[test]
fn conditions_and_variables_of_haproxy_are_decided_where_the_file_can() {
    let text = "global\n setenv NODES \"10.0.0.4 10.0.0.5\"\n setenv OPT \"check inter 7s\"\n presetenv PORT 6443\n\
         defaults\n mode tcp\n timeout connect \"${CONNECT-4s}\"\n timeout client 10m\n timeout server 10m\n\
         .if defined(NODES)\nfrontend api\n.else\nfrontend none\n.endif\n\
         bind \":${PORT}\"\n default_backend b\n\
         backend b\n server a 10.0.0.4:6443 \"${OPT[*]}\"\n\
         .if feature(OPENSSL)\n server b 10.0.0.5:6443 \"${OPT[*]}\"\n.endif\n\
         server c \"10.0.0.6:${PORT}\" \"${OPT[*]} weight\" 3\n";
    let outcome = haproxy(text);
    has(&outcome, "[proxy.api]");
    has(&outcome, "listen = \"0.0.0.0:6443\"");
    has(&outcome, "connect-timeout = \"4s\"");
    assert_eq!(fate(&outcome, "timeout connect"), Fate::Changed);
    assert_eq!(fate(&outcome, "frontend none"), Fate::NotNeeded);
    assert_eq!(
        lost(&outcome),
        [
            ".if feature(OPENSSL)",
            "server b 10.0.0.5:6443 \"${OPT[*]}\"",
            ".endif",
            "server c \"10.0.0.6:${PORT}\" \"${OPT[*]} weight\" 3",
        ]
    );
    has(&outcome, "check = { type = \"tcp\", interval = \"7s\"");
}

#[test]
fn a_proxy_header_goes_to_no_server_that_does_not_expect_it() {
    let outcome = haproxy(&proxy("", "", " server b 10.0.1.2:6443 check send-proxy"));
    assert_eq!(lost(&outcome), ["server b 10.0.1.2:6443 check send-proxy"]);
    hasnt(&outcome, "proxy-protocol");
}

#[test]
fn a_listener_with_nothing_but_a_template_of_servers_serves() {
    let text = "listen api\n mode tcp\n bind :6443\n server-template cp 3 cp.example:6443 check\n";
    let outcome = haproxy(text);
    assert_eq!(whole(&outcome).proxies.len(), 1);
    has(&outcome, "cp = \"cp.example:6443\"");
}

#[test]
fn a_script_that_asks_through_the_proxy_is_not_said_to_see_a_process_alone() {
    let conf = |command: &str| {
        let script = format!("vrrp_script c {{\n script \"{command}\"\n}}\n");
        script + &instance(2, 3, 100, " track_script {\n  c\n }")
    };
    let kinds = |command: &str| -> Vec<&'static str> {
        let outcome = import(&Input {
            haproxy: Some(Source {
                name: "haproxy.cfg",
                text: &proxy("", " bind 127.0.0.1:6443", ""),
            }),
            keepalived: vec![Source {
                name: "lb1.conf",
                text: &conf(command),
            }],
            nodes: Vec::new(),
        });
        outcome.traps.iter().map(|trap| trap.kind).collect()
    };
    let through = "/usr/bin/curl -sfk https://127.0.0.1:6443/livez";
    assert!(!kinds(through).contains(&"process-check"));
    assert!(kinds("killall -0 haproxy").contains(&"process-check"));
}
