//! The status page in a real browser, with a real pair behind it.

use std::process::{Command, Stdio};
use std::sync::Arc;

use lbd::admin::events::Feed;
use lbd::admin::http;
use lbd::admin::status::Status;
use nix::sys::signal::Signal;

use super::Case;
use super::browser::{Browser, PROGRAM};
use super::lab::{LB1, LB2, Pair, Role};

pub const CASES: &[Case] = &[
    (
        "the_status_page_shows_a_failover_live_and_says_when_nobody_answers",
        &[PROGRAM],
        failover_on_the_page,
    ),
    (
        "the_status_page_can_be_read_by_everybody",
        &[PROGRAM],
        readable,
    ),
    (
        "the_status_page_makes_no_markup_of_names_and_asks_nobody_else",
        &[PROGRAM],
        hostile_names,
    ),
];

const PAGE: &str = "http://127.0.0.1:9633/";

/// For each text that is seen: how much it stands out from what is behind it, if that is too little.
const CONTRAST: &str = r#"(() => {
  const parse = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = ([r, g, b]) => {
    const line = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * line(r) + 0.7152 * line(g) + 0.0722 * line(b);
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const wrong = [];
  let checked = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    checked += 1;
    if (ratio < 4.5) wrong.push(element.textContent.slice(0, 30) + ": " + ratio.toFixed(2));
  }
  return { checked, wrong };
})()"#;

fn keep(browser: &mut Browser, name: &str) {
    if let Some(dir) = super::pictures() {
        browser.picture(&dir.join(name));
    }
}

fn browser(pair: &Pair, node: usize) -> Browser {
    let mut browser = Browser::start(&pair.lab.nodes[node].host);
    browser.dress((1_200, 900), "light", false);
    browser.open(PAGE);
    browser.until("it is live", 10_000, |text| {
        text.contains("live") && text.contains("Proxy kube-apiserver on 0.0.0.0:6443")
    });
    browser
}

/// The cells of a row of a table, by the name of the table and the first cell.
fn row(browser: &mut Browser, table: &str, name: &str) -> Vec<String> {
    let expression = format!(
        "(() => {{ const t = [...document.querySelectorAll('table')]
           .find((t) => t.caption.textContent === {table:?});
         const r = t && [...t.tBodies[0].rows].find((r) => r.cells[0].textContent === {name:?});
         return r ? [...r.cells].map((c) => c.textContent) : []; }})()"
    );
    let cells = browser.value(&expression);
    let cells = cells.as_array().expect("a list").iter();
    cells
        .map(|cell| cell.as_str().unwrap_or_default().to_owned())
        .collect()
}

fn until_state(browser: &mut Browser, node: &str, state: &str) {
    let end = lbd::net::clock::now() + std::time::Duration::from_secs(10);
    loop {
        let cells = row(browser, "Nodes", node);
        if cells.get(1).is_some_and(|cell| cell == state) {
            return;
        }
        assert!(
            lbd::net::clock::now() < end,
            "{node} is not {state}: {cells:?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn failover_on_the_page() {
    let pair = super::pair();
    let mut browser = browser(&pair, LB1);
    until_state(&mut browser, "lb1", "backup");
    until_state(&mut browser, "lb2", "active (MASTER)");
    // On a busy machine a check may be too slow for a moment.
    browser.until("all is well", 20_000, |text| text.contains("✔ all is well"));
    assert_eq!(
        row(&mut browser, "Virtual IPs", "haproxy-vip")[3],
        "lb2 (172.16.0.3)"
    );
    keep(&mut browser, "page-before.png");
    // Marks the page: it must be the same one to the end.
    browser.value("window.same = true");

    let mut failover = Command::new(env!("CARGO_BIN_EXE_lbd"));
    failover.arg("failover").stdout(Stdio::null());
    let host = &pair.lab.nodes[LB2].host;
    assert!(host.spawn(&mut failover).unwrap().wait().unwrap().success());
    until_state(&mut browser, "lb1", "active (MASTER)");
    until_state(&mut browser, "lb2", "backup");
    assert_eq!(
        row(&mut browser, "Virtual IPs", "haproxy-vip")[3],
        "this node"
    );
    let text = browser.until("the event is told", 5_000, |text| {
        text.contains("backup → active")
    });
    assert!(text.contains("VIP 172.16.0.10 held by this node"), "{text}");
    // Who can't see hears of it, once.
    let said = browser.value("document.getElementById('announce').textContent");
    assert_eq!(
        said,
        "VIP haproxy-vip held by this node. kube-apiserver: all servers up"
    );
    keep(&mut browser, "page-after.png");

    super::kill_keeper(&pair, LB1);
    browser.until("the keeper is missed", 10_000, |text| {
        text.contains("keeper not connected: this node takes no part in the election")
    });
    pair.signal(LB1, Role::Proxy, Signal::SIGSTOP);
    let text = browser.until("nobody answers", 15_000, |text| {
        text.contains("lbd unreachable: no answer in time. What stands below is old.")
    });
    assert!(text.contains("✖ unreachable"), "{text}");
    keep(&mut browser, "page-unreachable.png");
    pair.signal(LB1, Role::Proxy, Signal::SIGCONT);
    browser.until("it is live again", 20_000, |text| {
        text.contains("live") && !text.contains("unreachable")
    });
    assert_eq!(browser.value("window.same"), true);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

fn readable() {
    let pair = super::pair();
    let mut drain = Command::new(env!("CARGO_BIN_EXE_lbd"));
    drain
        .args(["maint", "kube-apiserver-3"])
        .stdout(Stdio::null());
    let host = &pair.lab.nodes[LB1].host;
    assert!(host.spawn(&mut drain).unwrap().wait().unwrap().success());
    let mut browser = browser(&pair, LB1);
    let looks = [
        ("light", (1_200, 900), false),
        ("dark", (1_200, 900), false),
        ("light", (390, 844), true),
        ("dark", (390, 844), true),
    ];
    for (scheme, size, is_phone) in looks {
        browser.dress(size, scheme, is_phone);
        let name = format!("page-{scheme}{}.png", if is_phone { "-phone" } else { "" });
        keep(&mut browser, &name);
        let contrast = browser.value(CONTRAST);
        assert!(contrast["checked"].as_u64() > Some(60), "{contrast}");
        assert_eq!(
            contrast["wrong"].as_array().map(Vec::len),
            Some(0),
            "{contrast}"
        );
        // Nothing sticks out at the side.
        let wide = browser.value("document.documentElement.scrollWidth <= innerWidth");
        assert_eq!(wide, true, "{name}");
        let roles = browser.roles();
        let count = |role: &str| roles.iter().filter(|one| *one == role).count();
        // VIPs, nodes, servers, events.
        assert_eq!(count("table"), 4, "{roles:?}");
        assert_eq!(count("columnheader"), 8 + 7 + 11 + 5, "{roles:?}");
        assert!(count("rowheader") > 1 + 2 + 3, "{roles:?}");
        for role in ["main", "banner", "contentinfo", "navigation", "status"] {
            assert!(count(role) == 1, "{role}: {roles:?}");
        }
        assert_eq!(count("heading"), 5, "{roles:?}");
    }
    // The keyboard reaches everything, beginning with the way past the head.
    browser.tab();
    assert_eq!(browser.value("document.activeElement.className"), "skip");
    browser.tab();
    assert_eq!(
        browser.value("document.activeElement.getAttribute('aria-label')"),
        "Virtual IPs"
    );
    // An answer comes each second; whoever is reading is not thrown out.
    browser.until("two answers later", 5_000, |text| text.contains("live"));
    browser.value("new Promise((done) => setTimeout(() => done(true), 2500))");
    assert_eq!(
        browser.value("document.activeElement.getAttribute('aria-label')"),
        "Virtual IPs"
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// A stand-in for the daemon, which says what no lb.toml could.
fn hostile_names() {
    let pair = super::pair();
    let host = &pair.lab.nodes[LB1].host;
    let evil = "<img src=http://172.16.0.100/x onerror=window.hit=1>";
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    command
        .args(["status", "-o", "json"])
        .stdout(Stdio::piped());
    let said = host
        .spawn(&mut command)
        .unwrap()
        .wait_with_output()
        .unwrap();
    let mut status: Status = serde_json::from_slice(&said.stdout).unwrap();
    let server = &mut status.proxies[0].servers[0];
    server.name = evil.to_owned();
    server.reason = Some(format!("</script>{evil}"));
    status.proxies[0].name = "__proto__".to_owned();
    status.vrrp.as_mut().unwrap().vips[0].name = evil.to_owned();
    status.problems = vec![evil.to_owned()];
    let listener = host.run(|| http::bind("127.0.0.1:9700".parse().unwrap()));
    let listener = listener.unwrap().unwrap();
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(http::serve(
                listener,
                Arc::new(move || status.clone()),
                Arc::new(Feed::default()),
            ))
    });
    let mut browser = Browser::start(host);
    browser.open("http://127.0.0.1:9700/status");
    let text = browser.until("it is shown", 10_000, |text| {
        text.contains("Proxy __proto__")
    });
    assert!(text.matches(evil).count() >= 3, "{text}");
    assert_eq!(browser.value("document.images.length"), 0);
    assert_eq!(browser.value("window.hit === undefined"), true);
    // Nor does the policy let anything else run that got into the page by another way.
    let added = "(() => { const s = document.createElement('script');
        try { s.text = 'window.hit = 2'; } catch (refused) { return 'refused'; }
        document.body.append(s); return window.hit === undefined ? 'not run' : 'run'; })()";
    let added = browser.value(added);
    assert!(added == "refused" || added == "not run", "{added}");
    let here = |url: &String| url.starts_with("http://127.0.0.1:9700/") || url == "about:blank";
    assert!(browser.requests.iter().all(here), "{:?}", browser.requests);
    assert!(browser.requests.len() >= 3, "{:?}", browser.requests);
}
