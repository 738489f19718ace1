//! Two nodes and a client on one segment, in network namespaces that have names, so that real lbds
//! can be started in them. Needs root and iproute2; without them it says so.

#![allow(
    clippy::allow_attributes,
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of this"
)]

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;

/// Two nodes and a client on one segment, in network namespaces.
pub struct Segment {
    prefix: String,
    names: Vec<String>,
}

impl Segment {
    /// `None`, with the reason printed, where namespaces can't be made.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            println!("skipped: network namespaces need root");
            return None;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            println!("skipped: iproute2 is not installed");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut all = Self {
            prefix: format!("lbd{}-{count}", std::process::id()),
            names: Vec::new(),
        };
        let switch = all.namespace("sw");
        all.ip(&format!("-n {switch} link add br0 type bridge"));
        all.ip(&format!("-n {switch} link set br0 up"));
        for (name, address) in [("lb1", "10.9.0.1"), ("lb2", "10.9.0.2"), ("cl", "10.9.0.9")] {
            let node = all.namespace(name);
            all.ip(&format!(
                "link add eth0 netns {node} type veth peer name v{name} netns {switch}"
            ));
            all.ip(&format!("-n {switch} link set v{name} master br0 up"));
            all.ip(&format!("-n {node} addr add {address}/24 dev eth0"));
            all.ip(&format!("-n {node} link set eth0 up"));
        }
        Some(all)
    }

    fn namespace(&mut self, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        self.ip(&format!("netns add {full}"));
        self.names.push(full.clone());
        self.ip(&format!("-n {full} link set lo up"));
        full
    }

    /// `ip`, which must succeed.
    pub fn ip(&self, line: &str) {
        let done = Command::new("ip").args(line.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{}: ip {line}: {said}", self.prefix);
    }

    /// `ip` on a node.
    pub fn on(&self, node: &str, line: &str) {
        self.ip(&format!("-n {} {line}", self.name(node)));
    }

    /// The namespace of a node.
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.prefix)
    }

    /// Whether the VIP is on that node's interface.
    pub fn holds(&self, short: &str) -> bool {
        let name = self.name(short);
        let args = ["-n", &name, "-o", "addr", "show", "dev", "eth0"];
        let shown = Command::new("ip").args(args).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).contains("10.9.0.100/")
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        for name in &self.names {
            drop(Command::new("ip").args(["netns", "del", name]).output());
        }
    }
}

/// Moves this thread into a namespace.
pub fn enter(namespace: &str) {
    let file = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}
