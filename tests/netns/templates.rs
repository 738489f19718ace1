//! Every template of tests/data/import, imported and run: by lbd alone, and beside keepalived and
//! HAProxy that still have the template's own files.

use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::Signal;

use super::lab::cases::Case;
use super::template_lab::{Hosts, Template};

pub const CASES: &[Case] = &[(
    "every_template_s_imported_file_serves_fails_over_and_understands_its_keepalived",
    &["keepalived", "haproxy"],
    all,
)];

/// In each the last node is the preferred one.
static TEMPLATES: &[Template] = &[
    Template {
        folder: "kubesphere",
        nodes: &[
            ("lb1.conf", "lb1", "172.16.0.2"),
            ("lb2.conf", "lb2", "172.16.0.3"),
        ],
        told: false,
        interface: "eth0",
        priorities: &[110],
        vips: &["172.16.0.10"],
        targets: &["172.16.0.10:6443"],
        servers: &["172.16.0.4:6443", "172.16.0.5:6443"],
        deaf: "172.16.0.6:6443",
        found_out: false,
        client: "172.16.0.100",
        metrics: "127.0.0.1:9633",
        scripts: &[],
    },
    Template {
        folder: "kubeadm",
        nodes: &[
            ("lb2.conf", "lb2", "192.168.0.3"),
            ("lb1.conf", "lb1", "192.168.0.2"),
        ],
        told: true,
        interface: "eth0",
        priorities: &[101],
        vips: &["192.168.0.40"],
        targets: &["192.168.0.40:8443"],
        servers: &["192.168.0.11:6443", "192.168.0.12:6443"],
        deaf: "192.168.0.13:6443",
        found_out: true,
        client: "192.168.0.100",
        metrics: "127.0.0.1:9633",
        scripts: &["check_apiserver.sh"],
    },
    Template {
        folder: "kubespray",
        nodes: &[("", "worker", "10.3.0.50")],
        told: false,
        interface: "eth0",
        priorities: &[],
        vips: &[],
        targets: &["127.0.0.1:6443"],
        servers: &["10.3.0.1:6443", "10.3.0.2:6443"],
        deaf: "10.3.0.3:6443",
        found_out: true,
        client: "10.3.0.100",
        metrics: "127.0.0.1:8081",
        scripts: &[],
    },
    Template {
        // Its virtual address is that of a registry, which runs beside it.
        folder: "kubekey",
        nodes: &[
            ("lb1.conf", "lb1", "172.16.0.2"),
            ("lb2.conf", "lb2", "172.16.0.3"),
        ],
        told: true,
        interface: "ens3",
        priorities: &[50],
        vips: &["172.16.0.20"],
        targets: &["127.0.0.1:6443"],
        servers: &["172.16.0.11:6443", "172.16.0.12:6443"],
        deaf: "172.16.0.13:6443",
        found_out: true,
        client: "172.16.0.100",
        metrics: "127.0.0.1:8081",
        scripts: &["healthcheck.sh"],
    },
    Template {
        folder: "k3s",
        nodes: &[
            ("lb-2.conf", "lb-2", "10.10.10.99"),
            ("lb-1.conf", "lb-1", "10.10.10.98"),
        ],
        told: true,
        interface: "eth1",
        priorities: &[200],
        vips: &["10.10.10.100"],
        targets: &["10.10.10.100:6443", "10.10.10.100:9345"],
        servers: &[
            "10.10.10.50:6443",
            "10.10.10.51:6443",
            "10.10.10.50:9345",
            "10.10.10.51:9345",
        ],
        deaf: "10.10.10.52:6443",
        found_out: false,
        client: "10.10.10.101",
        metrics: "127.0.0.1:9633",
        scripts: &[],
    },
    Template {
        folder: "openshift",
        nodes: &[
            ("master-0.conf", "master-0", "192.168.111.20"),
            ("master-1.conf", "master-1", "192.168.111.21"),
            ("master-2.conf", "master-2", "192.168.111.22"),
        ],
        told: false,
        interface: "br-ex",
        priorities: &[65, 70],
        vips: &["192.168.111.5", "192.168.111.4"],
        targets: &["192.168.111.5:9445"],
        servers: &["192.168.111.20:6443", "192.168.111.22:6443"],
        deaf: "192.168.111.21:6443",
        found_out: true,
        client: "192.168.111.100",
        metrics: "127.0.0.1:9444",
        scripts: &[
            "chk_ocp_script.sh",
            "chk_ocp_script_both.sh",
            "chk_default_ingress.sh",
        ],
    },
];

/// All at the same time, each on a wire of its own.
fn all() {
    let alone = TEMPLATES
        .iter()
        .map(|template| (template, "alone", alone as fn(&Hosts)));
    let paired = TEMPLATES
        .iter()
        .filter(|template| !template.vips.is_empty());
    let paired = paired.map(|template| (template, "paired", beside_keepalived as fn(&Hosts)));
    let failed: Vec<String> = std::thread::scope(|scope| {
        let run = |(template, how, case): (&'static Template, &str, fn(&Hosts))| {
            let name = format!("{} {how}", template.folder);
            let thread = scope.spawn(move || {
                let start = clock::now();
                case(&Hosts::new(template));
                clock::now() - start
            });
            (name, thread)
        };
        let threads: Vec<_> = alone.chain(paired).map(run).collect();
        let end =
            |(name, thread): (String, std::thread::ScopedJoinHandle<'_, Duration>)| match thread
                .join()
            {
                Ok(took) => {
                    println!("    {name}: {:.1} s", took.as_secs_f32());
                    None
                }
                Err(_panic) => Some(name),
            };
        threads.into_iter().filter_map(end).collect()
    });
    assert_eq!(failed, [""; 0]);
}

/// lbd on every node.
fn alone(hosts: &Hosts) {
    let last = hosts.nodes.len() - 1;
    hosts.start_lbd(last);
    if !hosts.template.vips.is_empty() {
        hosts.until_held_by(last, 30);
    }
    // Where priorities are the same, who is there first keeps it.
    for node in 0..last {
        hosts.start_lbd(node);
    }
    for node in 0..last {
        hears(hosts, node);
        answers(hosts, node);
    }
    hosts.until_served(last);
    answers(hosts, last);
    hosts.until("the preferred node's priority is the file's", 15, || {
        let lines = hosts.metrics(last, "lbd_vrrp_priority{");
        let value = |line: &String| line.rsplit(' ').next().and_then(|word| word.parse().ok());
        let priorities: Vec<u64> = lines.iter().filter_map(value).collect();
        priorities == hosts.template.priorities
    });
    if hosts.template.vips.is_empty() {
        return;
    }
    // Without a word: keeper and proxy at once.
    hosts.signal(last, "lbd", Signal::SIGKILL);
    let moved = hosts.until_left(last, 15);
    hosts.until_served(last - 1);
    println!(
        "    {}: moved in {} ms",
        hosts.template.folder,
        moved.as_millis()
    );
}

/// lbd has heard an advert of each virtual router.
fn hears(hosts: &Hosts, node: usize) {
    hosts.until("lbd hears who holds the VIPs", 20, || {
        let lines = hosts.metrics(node, "lbd_vrrp_adverts_received_total{");
        let heard = lines.iter().filter(|line| !line.ends_with(" 0"));
        heard.count() >= hosts.template.vips.len()
    });
}

/// What the listener for health and metrics says.
fn answers(hosts: &Hosts, node: usize) {
    let template = hosts.template;
    hosts.until("the node is ready", 10, || {
        let page = hosts.page(node, "/healthz").unwrap_or_default();
        page.starts_with("HTTP/1.0 200") || page.starts_with("HTTP/1.1 200")
    });
    let usable = if template.found_out {
        template.servers.len()
    } else {
        template.servers.len() + 1
    };
    hosts.until("the checks find out who is well", 15, || {
        let lines = hosts.metrics(node, "lbd_server_usable{");
        lines.iter().filter(|line| line.ends_with(" 1")).count() == usable
    });
}

/// keepalived and HAProxy on the preferred node, lbd on the first.
fn beside_keepalived(hosts: &Hosts) {
    let (lbd, other) = (0, hosts.nodes.len() - 1);
    hosts.start_haproxy(other);
    hosts.start_keepalived(other);
    hosts.until_held_by(other, 30);
    hosts.start_lbd(lbd);
    hears(hosts, lbd);
    hosts.until_served(other);
    // keepalived leaves, and comes back.
    hosts.signal(other, "keepalived", Signal::SIGTERM);
    hosts.until_held_by(lbd, 15);
    hosts.until_served(lbd);
    hosts.until("keepalived is gone", 10, || {
        hosts.pids(other, "keepalived").is_empty()
    });
    hosts.start_keepalived(other);
    hosts.until("keepalived is there again", 10, || {
        let log = hosts.nodes[other].log().unwrap_or_default();
        let starts = log.matches("Entering BACKUP STATE").count();
        starts >= 2 * hosts.template.vips.len()
    });
    understand(hosts, lbd, other);
    hosts.signal(lbd, "lbd", Signal::SIGKILL);
    hosts.until_held_by(other, 15);
    hosts.until_served(other);
}

/// Neither has rejected a packet of the other.
fn understand(hosts: &Hosts, lbd: usize, other: usize) {
    // A reason that never was has no line.
    let rejected = hosts.metrics(lbd, "lbd_vrrp_packets_rejected_total{");
    let bad = rejected.iter().filter(|line| !line.ends_with(" 0"));
    assert_eq!(bad.collect::<Vec<_>>(), [""; 0]);
    hosts.until("keepalived heard lbd", 10, || {
        hosts.signal(other, "keepalived", Signal::SIGUSR2);
        let host = &hosts.nodes[other].host;
        let stats = host.run(|| std::fs::read_to_string("/tmp/keepalived.stats"));
        heard(
            &stats.unwrap().unwrap_or_default(),
            hosts.template.vips.len(),
        )
    });
}

/// Whether keepalived's statistics have adverts of each instance; there must be no errors.
fn heard(stats: &str, instances: usize) -> bool {
    let mut received = 0;
    let mut topic = "";
    for line in stats.lines() {
        match line.trim().split_once(": ") {
            None => topic = line.trim(),
            Some(("Received", "0")) => {}
            Some(("Received", _)) if topic == "Advertisements:" => received += 1,
            Some((_, "0")) => {}
            Some(error) => assert!(!topic.ends_with("Errors:"), "{topic} {error:?}"),
        }
    }
    received >= instances
}
