//! What ships for Prometheus and Grafana, and the names that lbd shares with HAProxy's exporter.
//! Needs promtool and HAProxy; what needs a missing one is skipped and says so.

#![allow(
    clippy::allow_attributes,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program"
)]

#[path = "lab/port.rs"]
mod port;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lbd::admin::{compat, families};
use lbd::metrics::{Family, Kind};
use lbd::net::clock;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

const ALERTS: &str = "conf/prometheus/alerts.yml";
const RULES: &str = "conf/prometheus/rules.yml";
const RULES_TEST: &str = "tests/data/prometheus/rules.test.yml";
const DASHBOARD: &str = "conf/grafana/lbd.json";

/// Runs promtool; `None`: it is not installed.
fn promtool(arguments: &[&str]) -> Option<()> {
    let mut command = Command::new("promtool");
    let Ok(output) = command.args(arguments).current_dir(path(".")).output() else {
        println!("skipped: promtool is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(())
}

#[test]
fn the_rules_are_valid_and_each_alert_fires_on_what_it_is_about_alone() {
    promtool(&["check", "rules", ALERTS, RULES]);
    promtool(&["check", "config", "conf/prometheus/prometheus.yml"]);
    promtool(&["test", "rules", RULES_TEST]);
}

/// The words of an expression that are names of metrics of lbd.
fn named(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("lbd_")).collect()
}

/// The names that a page can hold.
fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for family in families::ALL {
        match family.kind {
            Kind::Counter | Kind::Gauge => {
                known.insert(family.name.to_owned());
            }
            Kind::Histogram => {
                for end in ["bucket", "sum", "count"] {
                    known.insert(format!("{}_{end}", family.name));
                }
            }
        }
    }
    known
}

fn dashboard() -> serde_json::Value {
    serde_json::from_str(&text(DASHBOARD)).unwrap()
}

/// All strings under keys of that name.
fn strings<'a>(value: &'a serde_json::Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(map) => {
            found.extend(map.get(key).and_then(|value| value.as_str()));
            map.values().for_each(|value| strings(value, key, found));
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| strings(value, key, found));
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let known = known();
    let (alerts, rules, dashboard) = (text(ALERTS), text(RULES), dashboard());
    let mut expressions: Vec<&str> = alerts.lines().chain(rules.lines()).collect();
    expressions.retain(|line| line.trim_start().starts_with("expr:"));
    assert_eq!(expressions.len(), 52);
    for key in ["expr", "query"] {
        strings(&dashboard, key, &mut expressions);
    }
    let names: BTreeSet<&str> = expressions.into_iter().flat_map(named).collect();
    assert!(names.len() > 60, "{}", names.len());
    let unknown: Vec<_> = names
        .into_iter()
        .filter(|name| !known.contains(*name))
        .collect();
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn every_alert_has_a_severity_words_a_page_and_a_test() {
    let (alerts, tested) = (text(ALERTS), text(RULES_TEST));
    let mut count = 0;
    for rule in alerts.split("\n      - alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let has = |start: &str| {
            rule.lines()
                .any(|line| line.trim_start().starts_with(start))
        };
        let severity = ["critical", "warning", "info"];
        let severity = severity.map(|word| has(&format!("severity: {word}")));
        assert!(severity.contains(&true), "{name}");
        assert!(has("summary: \"") && has("description: \""), "{name}");
        let page = format!("runbook: docs/handbook.md#{}", name.to_lowercase());
        assert!(has(&page), "{name}: {page}");
        let fires = format!("labels: '{{alertname=\"{name}\"}}'");
        assert!(tested.contains(&fires), "{name} is not tested");
        count += 1;
    }
    assert_eq!(count, 42);
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    let panels = dashboard["panels"].as_array().unwrap();
    let number = |panel: &serde_json::Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        let (x, y) = (number(panel, "x"), number(panel, "y"));
        assert!(x + number(panel, "w") <= 24);
        for row in y..y + number(panel, "h") {
            for column in x..x + number(panel, "w") {
                assert!(cells.insert((row, column)), "{} overlaps", panel["title"]);
            }
        }
    }
    let rows = panels.iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.filter_map(|row| row["title"].as_str()).collect();
    assert_eq!(rows, ["Overview", "Address", "Proxy", "Servers"]);
    let mut sources = Vec::new();
    strings(&dashboard["panels"], "uid", &mut sources);
    assert!(sources.iter().all(|uid| *uid == "${datasource}"));
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let mut variables: Vec<_> = variables.filter_map(|v| v["name"].as_str()).collect();
    variables.push("__rate_interval");
    let mut expressions = Vec::new();
    strings(&dashboard, "expr", &mut expressions);
    for expression in expressions {
        for used in expression.split('$').skip(1) {
            let mut parts = used.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let name = parts.next().unwrap();
            assert!(variables.contains(&name), "{name} in {expression}");
        }
    }
}

/// A HAProxy with one proxy and its exporter; ended when dropped.
struct HaProxy {
    child: Child,
    file: PathBuf,
    port: u16,
}

impl HaProxy {
    fn start() -> Option<Self> {
        let (proxy, port) = (port::held().port(), port::held().port());
        let config = format!(
            "defaults\n  mode tcp\n  timeout client 5s\n  timeout server 5s\n  timeout connect 1s\n\
             listen api\n  bind 127.0.0.1:{proxy}\n  server s1 127.0.0.1:9 check\n\
             frontend exporter\n  mode http\n  bind 127.0.0.1:{port}\n\
             \x20 http-request use-service prometheus-exporter if {{ path /metrics }}\n"
        );
        let name = format!("lbd-exporter-{}.cfg", std::process::id());
        let file = std::env::temp_dir().join(name);
        fs::write(&file, config).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-q", "-f"]).arg(&file);
        let child = command.stdin(Stdio::null()).spawn();
        let Ok(child) = child else {
            println!("skipped: haproxy is not installed");
            fs::remove_file(&file).unwrap();
            return None;
        };
        Some(Self { child, file, port })
    }

    fn page(&self) -> String {
        let end = clock::now() + Duration::from_secs(20);
        loop {
            let page = get(self.port).unwrap_or_default();
            if page.contains("haproxy_server_status{") {
                return page;
            }
            assert!(clock::now() < end, "no page from HAProxy: {page}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_file(&self.file));
    }
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

#[test]
fn the_names_of_haproxy_have_haproxys_kinds_and_labels() {
    let Some(haproxy) = HaProxy::start() else {
        return;
    };
    let page = haproxy.page();
    let kinds: HashMap<&str, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let labels = |name: &str| -> Option<Vec<&str>> {
        let sample = page.lines().find(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        })?;
        let inside = sample.split_once('{').map_or("", |(_, rest)| rest);
        let pairs = inside.split_once('}').map_or("", |(pairs, _)| pairs);
        let names = pairs.split(',').filter_map(|pair| pair.split_once('='));
        Some(names.map(|(name, _)| name).collect())
    };
    let ours = compat::all();
    let ours: Vec<&Family> = ours
        .iter()
        .filter(|f| f.name.starts_with("haproxy_"))
        .collect();
    let mut shared = 0;
    for family in &ours {
        // Older releases lack a few.
        let Some(kind) = kinds.get(family.name) else {
            continue;
        };
        assert_eq!(
            format!("{:?}", family.kind).to_lowercase(),
            **kind,
            "{}",
            family.name
        );
        if let Some(labels) = labels(family.name) {
            assert_eq!(labels, family.labels, "{}", family.name);
            shared += 1;
        }
    }
    println!("{shared} of {} names compared", ours.len());
    assert!(shared * 10 >= ours.len() * 9, "{shared} of {}", ours.len());
}
