//! How each program is configured: the same listeners, servers, checks, limits and number of
//! threads for all.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::{Kind, Program, Programs};

/// Where Debian's libnginx-mod-stream puts the module.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Writes the configuration into `folder`; returns what to run.
pub(super) fn command_line(
    program: &Program,
    folder: &Path,
    listen: SocketAddr,
    servers: &[SocketAddr],
    programs: &Programs,
) -> io::Result<Vec<OsString>> {
    let executable = program.path.clone().into_os_string();
    Ok(match program.kind {
        Kind::Direct => Vec::new(),
        Kind::Extra => {
            let addresses = std::iter::once(&listen).chain(servers);
            let addresses = addresses.map(|addr| addr.to_string().into());
            let arguments = program.arguments.iter().cloned().chain(addresses);
            std::iter::once(executable).chain(arguments).collect()
        }
        Kind::Haproxy | Kind::HaproxySplice | Kind::HaproxyLog => {
            let path = folder.join("haproxy.cfg");
            fs::write(&path, haproxy_cfg(program, listen, servers, programs))?;
            vec![executable, "-db".into(), "-f".into(), path.into()]
        }
        Kind::Nginx => {
            let path = folder.join("nginx.conf");
            fs::write(&path, nginx_conf(folder, listen, servers, programs))?;
            let prefix = folder.as_os_str().to_owned();
            let errors = folder.join("nginx-errors").into_os_string();
            vec![
                executable,
                "-e".into(),
                errors,
                "-p".into(),
                prefix,
                "-c".into(),
                path.into(),
            ]
        }
        Kind::Lbd | Kind::LbdLog => {
            let path = folder.join("lb.toml");
            fs::write(&path, lb_toml(program.kind, listen, servers, programs))?;
            let runtime = folder.join("run");
            fs::create_dir_all(&runtime)?;
            vec![
                executable,
                "--config".into(),
                path.into(),
                "--runtime-dir".into(),
                runtime.into(),
            ]
        }
    })
}

/// The seed's haproxy.cfg, but for the limits, the log socket and the daemon's user.
fn haproxy_cfg(
    program: &Program,
    listen: SocketAddr,
    servers: &[SocketAddr],
    programs: &Programs,
) -> String {
    let (max, threads) = (programs.max_connections, programs.threads);
    let splicing = program.kind == Kind::HaproxySplice;
    // HAProxy 2 decides about `splice-auto` only when it looks at the stream as a whole, which a
    // steady transfer gives it no reason for: it then never splices. Its unconditional options do.
    let splice = match (splicing, program.version.0 >= 3) {
        (false, _) => "",
        (true, true) => "    option splice-auto\n",
        (true, false) => {
            "    option splice-auto\n    option splice-request\n    option splice-response\n"
        }
    };
    let pipes = if splicing { "    maxpipes 64\n" } else { "" };
    let (log, logging) = match program.kind == Kind::HaproxyLog {
        true => (
            "    log stderr format raw local0\n",
            "    log global\n    option tcplog\n",
        ),
        false => ("", ""),
    };
    let mut text = format!(
        "global\n    maxconn {max}\n    nbthread {threads}\n{pipes}{log}\
         defaults\n    mode tcp\n    option dontlognull\n{splice}{logging}\
         \x20   timeout connect 5000\n    timeout client 50000\n    timeout server 50000\n\
         frontend bench-in\n    bind {listen}\n    maxconn {max}\n    default_backend bench\n\
         backend bench\n    option tcp-check\n    balance roundrobin\n\
         \x20   default-server inter 10s downinter 5s rise 2 fall 2 slowstart 60s \
         maxconn {max} weight 100\n"
    );
    for (index, server) in servers.iter().enumerate() {
        text.push_str(&format!("    server s{index} {server} check\n"));
    }
    text
}

/// Its checks are passive; half-close is off by default, and then it loses data.
fn nginx_conf(
    folder: &Path,
    listen: SocketAddr,
    servers: &[SocketAddr],
    programs: &Programs,
) -> String {
    let (threads, files) = (programs.threads, programs.max_connections * 2 + 100);
    let module = match Path::new(STREAM_MODULE).exists() {
        true => format!("load_module {STREAM_MODULE};\n"),
        false => String::new(),
    };
    let user = match nix::unistd::geteuid().is_root() {
        true => "user root;\n",
        false => "",
    };
    let servers: String = servers
        .iter()
        .map(|server| format!("        server {server} max_fails=0;\n"))
        .collect();
    let folder = folder.display();
    format!(
        "{module}{user}daemon off;\npid {folder}/nginx.pid;\nworker_processes {threads};\n\
         worker_rlimit_nofile {files};\nevents {{\n    worker_connections {files};\n}}\n\
         stream {{\n    upstream bench {{\n{servers}    }}\n    server {{\n\
         \x20       listen {listen} backlog=65535;\n        proxy_pass bench;\n\
         \x20       proxy_connect_timeout 5s;\n        proxy_timeout 50s;\n\
         \x20       proxy_half_close on;\n    }}\n}}\n"
    )
}

fn lb_toml(kind: Kind, listen: SocketAddr, servers: &[SocketAddr], programs: &Programs) -> String {
    let (max, threads) = (programs.max_connections, programs.threads);
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    let servers = servers.join(", ");
    let access_log = match kind {
        Kind::LbdLog => "[access-log]\nformat = \"tcplog\"\nskip-empty = true\n",
        Kind::Direct
        | Kind::Haproxy
        | Kind::HaproxySplice
        | Kind::HaproxyLog
        | Kind::Nginx
        | Kind::Lbd
        | Kind::Extra => "",
    };
    format!(
        "[log]\nlevel = \"warning\"\ntarget = \"stderr\"\n{access_log}\
         [metrics]\nlisten = \"off\"\n\
         [limits]\nmax-connections = {max}\nworkers = {threads}\n\
         [proxy.bench]\nlisten = \"{listen}\"\nbalance = \"round-robin\"\n\
         connect-timeout = \"5s\"\nslowstart = \"60s\"\nclient-first = true\n\
         check = {{ type = \"tcp\", interval = \"10s\", down-interval = \"5s\", rise = 2, fall = 2 }}\n\
         backends = [{servers}]\n"
    )
}
