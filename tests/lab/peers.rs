//! keepalived and HAProxy with the files of the users' guide.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{LB1, LB2, Pair};

/// How keepalived's file differs from the guide's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Not at all: version 2 with the password.
    V2,
    /// Version 3, which has no password.
    V3,
}

/// The program, if it is installed.
pub fn installed(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists())
}

impl Pair {
    /// keepalived and HAProxy on both nodes, lb2 in charge and quiet for half a second.
    pub fn of_rivals() -> Self {
        let mut pair = Self::new();
        for node in [LB2, LB1] {
            pair.start_haproxy_master(node);
            pair.start_keepalived(node, Version::V2);
        }
        pair.settle();
        pair
    }

    /// keepalived with an advert each second.
    pub fn start_keepalived(&mut self, node: usize, version: Version) {
        self.start_keepalived_at(node, version, Duration::from_secs(1));
    }

    /// keepalived with an advert each `interval`; real-time where that is short, as its users do.
    pub fn start_keepalived_at(&mut self, node: usize, version: Version, interval: Duration) {
        // A killed one leaves them, and the next believes them as long as its predecessor's
        // processes are not buried.
        let stale = ["/run/keepalived.pid", "/run/vrrp.pid"];
        let host = &self.lab.nodes[node].host;
        let removed = host.run(|| stale.map(std::fs::remove_file));
        drop(removed.expect("the host can be entered"));
        let text = keepalived_conf(node, version, interval);
        self.start_peer(node, "keepalived.conf", &text, |path| {
            let mut command = Command::new("keepalived");
            command.args(["-n", "-l", "-D", "-f", path]);
            command.args(["-p", "/run/keepalived.pid", "-r", "/run/vrrp.pid"]);
            command
        });
    }

    /// Edits keepalived's file; it reads it again on SIGHUP.
    pub fn rewrite_keepalived(&self, node: usize, from: &str, to: &str) {
        let path = "/run/lbd/keepalived.conf";
        let rewritten = self.lab.nodes[node].host.run(|| {
            let text = std::fs::read_to_string(path)?;
            assert!(text.contains(from), "{from}");
            std::fs::write(path, text.replace(from, to))
        });
        rewritten
            .and_then(|written| written)
            .expect("the host's files can be written");
    }

    pub fn start_haproxy(&mut self, node: usize) {
        self.start_peer(node, "haproxy.cfg", HAPROXY_CFG, |path| {
            let mut command = Command::new("haproxy");
            command.args(["-db", "-f", path]);
            command
        });
    }

    /// A master and its worker, as Debian's unit starts them.
    pub fn start_haproxy_master(&mut self, node: usize) {
        self.start_peer(node, "haproxy.cfg", HAPROXY_CFG, |path| {
            let mut command = Command::new("haproxy");
            command.args(["-Ws", "-f", path]);
            command
        });
    }

    fn start_peer(
        &mut self,
        node: usize,
        file: &str,
        text: &str,
        command: impl FnOnce(&str) -> Command,
    ) {
        let path = format!("/run/lbd/{file}");
        let host = &self.lab.nodes[node].host;
        let log = host
            .run(|| {
                std::fs::create_dir_all("/run/lbd")?;
                std::fs::write(&path, text)?;
                File::options()
                    .create(true)
                    .append(true)
                    .open("/run/lbd/log")
            })
            .and_then(|log| log)
            .expect("the host's files can be written");
        let errors = log.try_clone().expect("a descriptor is left");
        let mut command = command(&path);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = host.spawn(&mut command).expect("the peer starts");
        self.own(node, child);
    }
}

fn keepalived_conf(node: usize, version: Version, interval: Duration) -> String {
    let (state, priority, own, peer) = if node == LB1 {
        ("BACKUP", 100, "172.16.0.2", "172.16.0.3")
    } else {
        ("MASTER", 110, "172.16.0.3", "172.16.0.2")
    };
    let (global, auth) = match version {
        Version::V2 => (
            "",
            "authentication {\n    auth_type PASS\n    auth_pass 1111\n  }",
        ),
        Version::V3 => ("vrrp_version 3", ""),
    };
    let urgent = if interval < Duration::from_millis(100) {
        "vrrp_rt_priority 50"
    } else {
        ""
    };
    let interval = interval.as_secs_f64();
    format!(
        "global_defs {{
  notification_email {{
  }}
  router_id LVS_DEVEL
  vrrp_skip_check_adv_addr
  vrrp_garp_interval 0
  vrrp_gna_interval 0
  {global}
  {urgent}
}}

vrrp_script chk_haproxy {{
  script \"killall -0 haproxy\"
  interval 2
  weight 2
}}

vrrp_instance haproxy-vip {{
  state {state}
  priority {priority}
  interface eth0
  virtual_router_id 60
  advert_int {interval}
  {auth}
  unicast_src_ip {own}
  unicast_peer {{
    {peer}
  }}

  virtual_ipaddress {{
    172.16.0.10/24
  }}

  track_script {{
    chk_haproxy
  }}
}}
"
    )
}

pub const HAPROXY_CFG: &str = "global
    log /dev/log  local0 warning
    chroot      /var/lib/haproxy
    pidfile     /var/run/haproxy.pid
    maxconn     4000
    user        haproxy
    group       haproxy
    daemon

   stats socket /var/lib/haproxy/stats

defaults
  log global
  option  httplog
  option  dontlognull
        timeout connect 5000
        timeout client 50000
        timeout server 50000

frontend kube-apiserver
  bind *:6443
  mode tcp
  option tcplog
  default_backend kube-apiserver

backend kube-apiserver
    mode tcp
    option tcplog
    option tcp-check
    balance roundrobin
    default-server inter 10s downinter 5s rise 2 fall 2 slowstart 60s maxconn 250 maxqueue 256 weight 100
    server kube-apiserver-1 172.16.0.4:6443 check
    server kube-apiserver-2 172.16.0.5:6443 check
    server kube-apiserver-3 172.16.0.6:6443 check
";
