//! keepalived beside the hosts of `routers.rs`: one virtual router, in the foreground.

#![allow(
    clippy::allow_attributes,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a part of test programs"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lbd::net::clock::now;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::routers::{Host, secs};

/// The first version that knows `auth_hmac` as it is today.
pub const SIGNS: [u32; 3] = [2, 4, 2];
/// The secret of its key 1.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The virtual router with id 60 on eth0, in keepalived's words.
pub struct Instance<'a> {
    pub version: u8,
    pub priority: u8,
    pub interval: Duration,
    /// Whether it signs with [`SECRET`].
    pub signed: bool,
    /// Other lines: peers, a password.
    pub lines: &'a str,
    /// One a line.
    pub addresses: &'a str,
}

impl Instance<'_> {
    fn text(&self) -> String {
        let (version, priority) = (self.version, self.priority);
        let interval = self.interval.as_secs_f64();
        let (lines, addresses) = (self.lines, self.addresses);
        let auth = if self.signed {
            format!("auth_hmac {{\nkey 1 {SECRET}\nactive_key 1\n}}")
        } else {
            String::new()
        };
        format!(
            "global_defs {{\nvrrp_version {version}\n}}\nvrrp_instance kube {{\nstate BACKUP\n\
             interface eth0\nvirtual_router_id 60\npriority {priority}\nadvert_int {interval}\n\
             {auth}\n{lines}\nvirtual_ipaddress {{\n{addresses}\n}}\n}}\n"
        )
    }
}

/// keepalived in the foreground; ended when dropped.
pub struct Keepalived {
    child: Child,
    dir: PathBuf,
}

impl Keepalived {
    /// Starts it; `program` is the test's own name, one runs at a time in each.
    pub fn start(host: &Host, program: &str, instance: &Instance<'_>) -> Self {
        let unique = format!("lbd-{program}-{}", std::process::id());
        let dir = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("keepalived.conf");
        std::fs::write(&file, instance.text()).unwrap();
        let mut command = Command::new("keepalived");
        command.args(["-n", "-l", "-D", "-P", "-f"]).arg(&file);
        command.arg("-p").arg(dir.join("main.pid"));
        command.arg("-r").arg(dir.join("vrrp.pid"));
        command.stdin(Stdio::null());
        let child = host.namespace.spawn(&mut command).unwrap();
        Self { child, dir }
    }

    pub fn terminate(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let runs = |child: &mut Child| child.try_wait().is_ok_and(|done| done.is_none());
        if runs(&mut self.child) {
            self.terminate();
        }
        let start = now();
        while runs(&mut self.child) {
            if now() - start > secs(5.0) {
                self.child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// The version that is installed; says so if there is none.
pub fn version() -> Option<[u32; 3]> {
    let Ok(output) = Command::new("keepalived").arg("--version").output() else {
        println!("skipped: keepalived is not installed");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let number = text
        .split_once(" v")
        .and_then(|(_, rest)| rest.split_once(' '));
    let mut parts = number.map_or("", |(number, _)| number).split('.');
    Some([(); 3].map(|()| parts.next().and_then(|n| n.parse().ok()).unwrap_or(0)))
}
