//! What an operator reads before and after a reload.

use super::*;
use crate::config::load;

const BASE: &str = "\
[vip.kube]
address = \"10.0.0.10/24\"
nodes = [\"10.0.0.2\", \"10.0.0.3\"]
[vip.kube.auth]
type = \"pass\"
key = \"1111\"
[proxy.api]
listen = \"127.0.0.1:6443\"
idle-timeout = \"60s\"
backends = [\"10.0.0.4:6443\", \"10.0.0.5:6443\"]
";

fn lines(old: &str, new: &str) -> Vec<String> {
    let line = |change: Change| {
        let sign = match change.kind {
            ChangeKind::Added => '+',
            ChangeKind::Changed => '~',
            ChangeKind::Removed => '-',
        };
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let (from, to) = (text(change.from), text(change.to));
        format!("{sign} {} {from} > {to}", change.what)
    };
    diff(old, new).into_iter().map(line).collect()
}

#[test]
fn comments_order_and_another_spelling_of_a_duration_are_no_change() {
    let same = BASE.replace("60s", "1m").replace("[proxy", "# why\n[proxy");
    assert_eq!(lines(BASE, &same), [""; 0]);
}

#[test]
fn a_value_is_told_with_what_held_before_and_a_default_says_so() {
    let new = BASE.replace("idle-timeout = \"60s\"\n", "connect-timeout = \"2s\"\n");
    let expected = [
        "~ proxy.api.connect-timeout 1s (default) > 2s",
        "~ proxy.api.idle-timeout 60s > 1h (default)",
    ];
    assert_eq!(lines(BASE, &new), expected);
}

#[test]
fn servers_are_told_one_by_one_however_they_are_written() {
    let new = BASE.replace(
        "backends = [\"10.0.0.4:6443\", \"10.0.0.5:6443\"]",
        "backends = [{ address = \"10.0.0.4:6443\", weight = 3 }, \"10.0.0.6:6443\"]",
    );
    let expected = [
        "~ proxy.api.backends.10.0.0.4:6443.weight (default) > 3",
        "+ proxy.api.backends.10.0.0.6:6443 - > 10.0.0.6:6443",
        "- proxy.api.backends.10.0.0.5:6443 10.0.0.5:6443 > -",
    ];
    assert_eq!(lines(BASE, &new), expected);
    let removed = diff(BASE, &new).pop().unwrap();
    assert_eq!(
        removed.note,
        Some("no new connections; those it has go on to their end")
    );
}

#[test]
fn whole_proxies_and_vips_come_and_go_as_one_line() {
    let new = "\
[proxy.web]
listen = \":443\"
backends = [\"10.0.0.7:443\"]
";
    let expected = [
        "+ proxy.web - > :443",
        "- proxy.api 127.0.0.1:6443 > -",
        "- vip.kube 10.0.0.10/24 > -",
    ];
    assert_eq!(lines(BASE, new), expected);
}

#[test]
fn a_virtual_router_under_another_name_is_told_of_as_the_same() {
    let other = BASE.replace("vip.kube", "vip.api");
    assert_eq!(lines(BASE, &other), ["~ vip.api kube > api"]);
    let more = other.replace("[vip.api.auth]", "preempt = false\n[vip.api.auth]");
    let expected = [
        "~ vip.api kube > api",
        "~ vip.api.preempt 10s (default) > false",
    ];
    assert_eq!(lines(BASE, &more), expected);
    let elsewhere = other.replace("10.0.0.10", "10.0.0.11");
    let expected = ["+ vip.api - > 10.0.0.11/24", "- vip.kube 10.0.0.10/24 > -"];
    assert_eq!(lines(BASE, &elsewhere), expected);
}

#[test]
fn a_secret_is_told_to_have_changed_and_not_shown() {
    let new = BASE.replace("1111", "2222");
    assert_eq!(
        lines(BASE, &new),
        ["~ vip.kube.auth.key (hidden) > (hidden)"]
    );
    let old = "[vip.a]\nauth = { type = \"pass\", key = \"1111\" }\n";
    let new_kind = "[vip.a]\nauth = { type = \"hmac\", keys = [{ id = 1, key = \"hex:11\" }] }\n";
    let expected = [
        "~ vip.a.auth.type pass > hmac",
        "~ vip.a.auth.keys (default) > (hidden)",
        "~ vip.a.auth.key (hidden) > (default)",
    ];
    assert_eq!(lines(old, new_kind), expected);
    assert_eq!(
        lines(old, "[vip.a]\n"),
        ["~ vip.a.auth { type, key } > (default)"]
    );
    let note = diff(BASE, &new).remove(0).note;
    assert_eq!(
        note,
        Some("the nodes must agree on this: reload the others right after")
    );
}

#[test]
fn what_takes_rights_that_are_gone_takes_a_restart() {
    let auth = "[vip.kube.auth]\ntype = \"pass\"\nkey = \"1111\"\n";
    let with_vip = load(&BASE.replace(auth, "")).unwrap();
    let proxy = "[proxy.a]\nlisten = \"127.0.0.1:1\"\nbackends = [\"127.0.0.1:2\"]\n";
    let alone = load(proxy).unwrap();
    let client = load(&format!("{proxy}source = \"client\"\n")).unwrap();
    assert_eq!(obstacles(Rights::of(&alone), &with_vip).len(), 1);
    assert_eq!(obstacles(Rights::of(&alone), &client).len(), 1);
    assert_eq!(obstacles(Rights::of(&with_vip), &alone).len(), 0);
    assert_eq!(obstacles(Rights::of(&client), &client).len(), 0);
}
