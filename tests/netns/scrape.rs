//! Debian's Prometheus scrapes the pair with the shipped rules, while a node dies: every query of
//! the shipped dashboard is understood, other exporters' names arrive, and the alerts say what
//! happened.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::lab::cases::Case;
use super::lab::{self, LB1, LB2, Pair, Role, SEED};

pub const CASES: &[Case] = &[(
    "prometheus_sees_a_node_die_and_every_query_of_the_dashboard_is_answered",
    &["prometheus", "promtool"],
    watched,
)];

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Scrapes each second take a moment to be seen.
const SOON: u64 = 20_000;

/// A Prometheus on the client's host; ended and its files removed when dropped.
struct Prometheus<'a> {
    pair: &'a Pair,
    child: Child,
    directory: PathBuf,
}

impl<'a> Prometheus<'a> {
    fn start(pair: &'a Pair) -> Self {
        let directory = std::env::temp_dir().join(format!("lbd-scrape-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for Prometheus");
        let shipped = fs::read_to_string(Path::new(ROOT).join("conf/prometheus/prometheus.yml"))
            .expect("the shipped example");
        // The shipped example, but quicker, and with the rules where they are.
        let config = shipped
            .replace("15s", "1s")
            .replace(
                "- rules.yml",
                &format!("- {ROOT}/conf/prometheus/rules.yml"),
            )
            .replace(
                "- alerts.yml",
                &format!("- {ROOT}/conf/prometheus/alerts.yml"),
            );
        let file = directory.join("prometheus.yml");
        fs::write(&file, config).expect("its configuration can be written");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"])
            .stdin(Stdio::null());
        let child = pair.lab.client.spawn(&mut command);
        Self {
            pair,
            child: child.expect("Prometheus starts"),
            directory,
        }
    }

    /// The samples that a query yields, labels and value; `None` while nobody answers.
    fn ask(&self, query: &str) -> Option<Result<Vec<(Value, String)>, String>> {
        let path = format!("/api/v1/query?query={}", encoded(query));
        let answer = self.pair.lab.client.run(|| get(&path)).ok()?.ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let body: Value = serde_json::from_str(body).ok()?;
        if body["status"] != "success" {
            return Some(Err(body["error"].to_string()));
        }
        let samples = body["data"]["result"].as_array()?.iter();
        let sample = |sample: &Value| {
            let value = sample["value"][1].as_str().unwrap_or_default();
            (sample["metric"].clone(), value.to_owned())
        };
        Some(Ok(samples.map(sample).collect()))
    }

    /// The values that a query yields.
    fn values(&self, query: &str) -> Vec<String> {
        let samples = self.ask(query).and_then(Result::ok).unwrap_or_default();
        samples.into_iter().map(|(_, value)| value).collect()
    }

    fn until(&self, query: &str, expected: &[&str]) {
        self.pair.until(query, SOON, |_| {
            std::thread::sleep(Duration::from_millis(100));
            self.values(query) == expected
        });
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn get(path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9090")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn encoded(query: &str) -> String {
    let bytes = query.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    bytes.collect()
}

/// Every query of the shipped dashboard, for all that there is.
fn queries() -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join("conf/grafana/lbd.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let all = ["job", "instance", "vip", "proxy", "server"];
    targets
        .map(|target| {
            let text = target["expr"]
                .as_str()
                .unwrap()
                .replace("$__rate_interval", "1m");
            let text = all.iter().fold(text, |text, name| {
                text.replace(&format!("\"${name}\""), "\".*\"")
            });
            assert!(!text.contains('$'), "{text}");
            text
        })
        .collect()
}

fn watched() {
    let config = format!(
        "[metrics]\nlisten = \"0.0.0.0:9633\"\n{}",
        lab::config(SEED)
    );
    let pair = Pair::of_lbd(&config);
    let prometheus = Prometheus::start(&pair);
    prometheus.until("sum(up{job=\"lbd\"})", &["2"]);
    prometheus.until("vip:lbd_vrrp_active_nodes:sum", &["1"]);
    prometheus.until("sum(rate(lbd_proxy_accepted_total[1m])) > bool 1", &["1"]);
    assert_eq!(
        prometheus.values("ALERTS{alertname=\"LbdNoActiveNode\"}"),
        [""; 0]
    );

    pair.signal(LB2, Role::All, Signal::SIGKILL);
    pair.until("lb1 alone holds the VIP", 6_000, |pair| {
        pair.only_holder() == Some(LB1)
    });
    // Its last advert came up to a second before it died; three intervals and Skew_Time later the
    // other one took over.
    let lb1 = "{instance=\"172.16.0.2:9633\",cause=\"silent\"}";
    prometheus.until(&format!("lbd_vrrp_failover_seconds_count{lb1}"), &["1"]);
    let took: f64 = prometheus.values(&format!("lbd_vrrp_failover_seconds_sum{lb1}"))[0]
        .parse()
        .unwrap();
    println!("    take-over, as lb1 measured it: {took:.3} s");
    assert!((3.0..4.5).contains(&took), "{took}");
    let resigned = lb1.replace("silent", "resigned");
    assert_eq!(
        prometheus.values(&format!("lbd_vrrp_failover_seconds_count{resigned}")),
        ["0"]
    );
    prometheus.until(
        "ALERTS{alertname=\"LbdFailover\",alertstate=\"firing\"}",
        &["1"],
    );
    prometheus.until("ALERTS{alertname=\"LbdDown\"}", &["1"]);

    every_query_is_answered(&prometheus);
    other_exporters_names_arrive(&prometheus);
    the_page_is_well_formed(&pair);
}

fn every_query_is_answered(prometheus: &Prometheus<'_>) {
    let mut empty = Vec::new();
    let all = queries();
    assert!(all.len() > 40, "{}", all.len());
    for query in &all {
        match prometheus.ask(query).expect("Prometheus answers") {
            Ok(samples) if samples.is_empty() => empty.push(query.as_str()),
            Ok(_) => {}
            Err(error) => panic!("{query}: {error}"),
        }
    }
    println!(
        "    queries: {}, without a sample: {}",
        all.len(),
        empty.len()
    );
    // Nothing of it was there: faults, a peer channel, sources that are counted.
    let of_nobody = ["> 0", "lbd_peer_", "lbd_proxy_source"];
    let wrong: Vec<_> = empty
        .into_iter()
        .filter(|query| !of_nobody.iter().any(|part| query.contains(part)))
        .collect();
    assert_eq!(wrong, [""; 0]);
}

fn other_exporters_names_arrive(prometheus: &Prometheus<'_>) {
    let names = prometheus
        .ask("count by (__name__) ({__name__=~\"haproxy_.*|keepalived_.*\"})")
        .and_then(Result::ok)
        .expect("Prometheus answers");
    let missing: Vec<_> = lbd::admin::compat::all()
        .into_iter()
        .map(|family| family.name)
        .filter(|name| !names.iter().any(|(labels, _)| labels["__name__"] == **name))
        .collect();
    assert_eq!(missing, [""; 0]);
    let state =
        "keepalived_vrrp_state{iname=\"haproxy-vip\",ip_address=\"172.16.0.10\",vrid=\"60\"}";
    prometheus.until(state, &["2"]);
    prometheus.until("sum(haproxy_server_status{state=\"UP\"})", &["3"]);
}

/// By the linter of Prometheus: lbd's own names have nothing to complain about.
fn the_page_is_well_formed(pair: &Pair) {
    let answer = pair.metrics(LB1).expect("lb1 answers");
    let (_, page) = answer.split_once("\r\n\r\n").unwrap();
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // 3: parsed, with remarks. Other exporters' names are as they are.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let remarks: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("lbd_"))
        .collect();
    assert_eq!(remarks, [""; 0]);
    let samples = page.lines().filter(|line| !line.starts_with('#')).count();
    println!("    samples on the page: {samples}, {} bytes", page.len());
}
