//! Totals go on when another process takes over: they never step back, and in the end everything is
//! counted once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::alone::{single, wait_served};
use super::node::{Client, Folder, Node, SOON, wait_for};
use super::upgrade::{Stream, upgrade};

/// The samples of a page by name and labels.
type Page = std::collections::BTreeMap<String, f64>;

fn scrape(at: SocketAddr) -> Option<Page> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let samples = text.lines().filter(|line| line.starts_with("lbd_"));
    let page: Page = samples
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect();
    (!page.is_empty()).then_some(page)
}

/// Counters and parts of histograms of proxies and servers.
fn is_total(name: &str) -> bool {
    let of_proxy = ["lbd_proxy_", "lbd_server_", "lbd_health_"];
    let word = name.split('{').next().unwrap_or_default();
    let ends = ["_total", "_bucket", "_sum", "_count"];
    of_proxy.iter().any(|start| word.starts_with(start))
        && ends.iter().any(|end| word.ends_with(end))
}

/// Scrapes one page after the other, and notes what stepped back.
struct Scraper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Vec<String>)>,
}

impl Scraper {
    fn start(at: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut before, mut pages, mut back) = (Page::new(), 0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                // Between two processes nobody is there for a moment.
                let Some(page) = scrape(at) else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                pages += 1;
                for (name, was) in before.iter().filter(|(name, _)| is_total(name)) {
                    match page.get(name) {
                        Some(is) if is >= was => {}
                        is => back.push(format!("{name}: {was} to {is:?}")),
                    }
                }
                before = page;
            }
            (pages, back)
        });
        Self { stop, thread }
    }

    fn finish(self) -> (u32, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn totals_never_step_back_over_upgrades_and_count_each_connection_once() {
    let folder = Folder::new("totals");
    let (address, config) = single();
    let metrics = crate::port::held();
    let config = config.replace("listen = \"off\"", &format!("listen = \"{metrics}\""));
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let value = |name: &str| {
        let page = wait_for("a page", SOON, || scrape(metrics));
        page.get(name).copied().unwrap_or(0.0)
    };
    let scraper = Scraper::start(metrics);
    let client = Client::start(address);
    client.wait_answers(50);
    let mut streams: Vec<Stream> = (0..10).map(|_| Stream::open(address)).collect();
    let started = value("lbd_proxy_accepted_total{proxy=\"p\"}");
    for _ in 0..3 {
        let output = upgrade(&node);
        assert!(output.status.success(), "{output:?}\n{}", node.log());
        client.wait_answers(50);
        streams.iter_mut().for_each(Stream::ask);
        streams.push(Stream::open(address));
    }
    assert!(value("lbd_proxy_accepted_total{proxy=\"p\"}") >= started + 150.0);
    // Bytes of streams that the first process has are counted while they flow.
    let received = "lbd_proxy_received_bytes_total{proxy=\"p\"}";
    let outcome = client.finish();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    let quiet = wait_for("the last connection's end", SOON, || {
        let now = value(received);
        let accepted = value("lbd_proxy_accepted_total{proxy=\"p\"}");
        let finished = value("lbd_proxy_finished_total{proxy=\"p\"}");
        (accepted - finished == 13.0).then_some(now)
    });
    streams.iter_mut().for_each(Stream::ask);
    wait_for("13 bytes more", SOON, || {
        let more = value(received) - quiet;
        assert!(more <= 13.0, "{more}");
        (more == 13.0).then_some(())
    });
    // The answers, the first question, and the streams: each once.
    let expected = f64::from(outcome.answered) + 14.0;
    assert_eq!(value("lbd_proxy_accepted_total{proxy=\"p\"}"), expected);
    // Those that end in a process that was succeeded are counted as ended.
    drop(streams);
    wait_for("one process", SOON, || {
        (node.proxies().len() == 1).then_some(())
    });
    wait_for("every end", SOON, || {
        (value("lbd_proxy_finished_total{proxy=\"p\"}") == expected).then_some(())
    });
    assert_eq!(value("lbd_proxy_accepted_total{proxy=\"p\"}"), expected);
    let status = node.status();
    assert!(
        status.contains(&format!("\"accepted\":{expected},")),
        "{status}"
    );
    let (pages, back) = scraper.finish();
    assert!(pages > 50, "{pages}");
    assert!(back.is_empty(), "{back:#?}");
}
