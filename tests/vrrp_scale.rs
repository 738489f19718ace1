//! Sixteen virtual routers of four addresses each at 100 ms adverts: what the keeper costs, and how
//! long a node takes to take all of them over from one that was killed. Needs root; says so when it
//! skips. The limits are what a busy machine and an unoptimised build can bear; run it with
//! `--release -- --nocapture` to read the numbers.
#![cfg(test)]

#[path = "lab/routers.rs"]
mod routers;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lbd::net::clock::now;
use lbd::net::netlink::Netlink;
use nix::sys::signal::Signal;
use routers::{Host, is_possible, lan, secs, within};

const ROUTERS: usize = 16;
const ADDRESSES: usize = 4;
const OBSERVED: Duration = Duration::from_secs(5);

fn config() -> String {
    let mut text = String::from("[metrics]\nlisten = \"off\"\n[log]\ntarget = \"stderr\"\n");
    for router in 1..=ROUTERS {
        let list: Vec<String> = (1..=ADDRESSES)
            .map(|last| format!("\"10.9.{router}.{last}\""))
            .collect();
        let addresses = list.join(", ");
        write!(
            text,
            "[vip.v{router}]\naddress = [{addresses}]\nvrid = {router}\nadvert-interval = \"100ms\"\n\
             nodes = [\"10.1.0.2\", \"10.1.0.3\"]\n"
        )
        .unwrap();
    }
    text
}

/// lbd on a host; ended with the host.
struct Node {
    host: Host,
    child: Child,
}

impl Node {
    fn start(host: Host, folder: &Path, name: &str) -> Self {
        let file = folder.join(format!("{name}.toml"));
        fs::write(&file, config()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
        command.arg("--config").arg(&file).arg("--runtime-dir");
        command.arg(folder.join(name)).stdin(Stdio::null());
        command.stderr(fs::File::create(folder.join(format!("{name}.log"))).unwrap());
        let child = host.namespace.spawn(&mut command).unwrap();
        Self { host, child }
    }

    /// How many of the virtual addresses are there, and which first appeared when is not asked.
    fn held(&self) -> usize {
        self.host.with(|_| {
            let all = Netlink::open().unwrap().addresses().unwrap();
            let ours = all
                .iter()
                .filter(|address| address.address.ip.to_string().starts_with("10.9."));
            ours.count()
        })
    }

    /// CPU time of the keeper's thread so far.
    fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/schedstat", self.child.id());
        let text = fs::read_to_string(path).unwrap();
        let nanoseconds = text.split_whitespace().next().unwrap();
        Duration::from_nanos(nanoseconds.parse().unwrap())
    }

    /// CPU time in a second, over [`OBSERVED`].
    fn load(&self, from: (Instant, Duration)) -> Duration {
        let spent = self.cpu() - from.1;
        spent.div_f64((now() - from.0).as_secs_f64())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What runs inside ends with it; here only the child is to be waited for.
        self.host.namespace.signal(Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }
}

/// A directory that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn sixteen_routers_of_four_addresses_cost_little_and_are_taken_over_together() {
    if !is_possible() {
        return;
    }
    let folder = Folder(std::env::temp_dir().join(format!("lbd-scale-{}", std::process::id())));
    fs::create_dir_all(&folder.0).unwrap();
    let ([a, b], _wire) = lan([("a", "10.1.0.2"), ("b", "10.1.0.3")]);
    a.reach("10.1.0.3");
    let all = ROUTERS * ADDRESSES;
    let a = Node::start(a, &folder.0, "a");
    let took = within("a holds all", secs(20.0), || a.held() == all);
    println!("a holds all {all} addresses after {took:?}");
    let b = Node::start(b, &folder.0, "b");
    let settled = now();
    within("b has settled", secs(10.0), || now() - settled > secs(4.0));
    assert_eq!((a.held(), b.held()), (all, 0));

    let from = [(now(), a.cpu()), (now(), b.cpu())];
    within("a while", OBSERVED * 2, || now() - from[0].0 >= OBSERVED);
    let [active, backup] = [a.load(from[0]), b.load(from[1])];
    println!("keeper's CPU time in a second: active {active:?}, backup {backup:?}");

    let killed = now();
    a.host.namespace.signal(Signal::SIGKILL).unwrap();
    within("the first one", secs(5.0), || b.held() > 0);
    let first = now() - killed;
    within("all of them", secs(5.0), || b.held() == all);
    let last = now() - killed;
    println!("after the kill: first address {first:?}, last {last:?}");
    within("the lease has ended", secs(4.0), || a.held() == 0);
    assert!(active < secs(0.5) && backup < secs(0.5));
    assert!(last < secs(1.5));
}
