//! What a run is made of and holds for: the programs found on this machine, and the lines that
//! stand above the results.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::Lab;
use crate::options::Options;
use crate::targets::{Kind, Program};

/// The programs that were asked for and are there; what is left out, and why.
pub(crate) fn programs(options: &Options) -> (Vec<Program>, Vec<String>) {
    let (mut programs, mut notes) = (Vec::new(), Vec::new());
    for kind in options.targets() {
        match kind {
            Kind::Direct => programs.push(program(kind, Path::new(""))),
            Kind::Haproxy | Kind::HaproxySplice | Kind::HaproxyLog => {
                for path in &options.haproxy {
                    let mut next = program(kind, path);
                    next.version = haproxy_version(&said(path, "-v"));
                    if programs.iter().any(|other| other.name == next.name) {
                        let (major, minor) = next.version;
                        next.name = format!("{}-{major}.{minor}", next.name);
                    }
                    programs.push(next);
                }
            }
            Kind::Nginx => match nginx_lacks(&options.nginx) {
                None => programs.push(program(kind, &options.nginx)),
                Some(reason) => notes.push(format!("nginx is left out: {reason}")),
            },
            Kind::Lbd | Kind::LbdLog => {
                let path = fs::canonicalize(&options.lbd);
                let path = path.unwrap_or_else(|_| options.lbd.clone());
                programs.push(program(kind, &path));
            }
            // Not to be chosen: `--extra` adds it.
            Kind::Extra => {}
        }
    }
    for extra in &options.extra {
        let mut next = program(Kind::Extra, &extra.path);
        next.name.clone_from(&extra.name);
        next.arguments.clone_from(&extra.arguments);
        programs.push(next);
    }
    (programs, notes)
}

fn program(kind: Kind, path: &Path) -> Program {
    Program {
        kind,
        name: kind.name().to_owned(),
        path: path.to_path_buf(),
        arguments: Vec::new(),
        version: (0, 0),
    }
}

/// What the numbers hold for.
pub(crate) fn lines(options: &Options, lab: &Lab, programs: &[Program]) -> Vec<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or("").trim_start_matches([' ', '\t', ':']);
    let cpus = lab.cpus.count;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let place = match lab.is_isolated() {
        true => "three network namespaces over veth",
        false => "loopback of this host (not root: no namespaces)",
    };
    let mut lines = versions(programs);
    lines.extend([
        format!(
            "kernel {} | {cpus} × {model} | load average at start {load}",
            kernel.trim()
        ),
        place.to_owned(),
        format!(
            "medians of up to {} rounds of {} ms; × = median (min–max) of the ratios to haproxy within a round",
            options.rounds(),
            options.sizes(u64::MAX).window.as_millis()
        ),
    ]);
    lines
}

/// Where the processes of one number of threads run.
pub(crate) fn pinning(lab: &Lab) -> String {
    match lab.cpus.proxy.is_empty() {
        true => "everybody shares all CPUs".to_owned(),
        false => format!(
            "proxy on CPU {:?}, client {:?}, servers {:?}",
            lab.cpus.proxy, lab.cpus.client, lab.cpus.backend
        ),
    }
}

fn versions(programs: &[Program]) -> Vec<String> {
    let told = |program: &Program| {
        let text = match program.kind {
            Kind::Haproxy => said(&program.path, "-v"),
            Kind::Nginx => said(&program.path, "-v"),
            Kind::Lbd => said(&program.path, "--version"),
            Kind::Direct | Kind::HaproxySplice | Kind::HaproxyLog | Kind::LbdLog | Kind::Extra => {
                return None;
            }
        };
        let line = text.lines().next().unwrap_or("no version").to_owned();
        Some(format!("{}: {line}", program.name))
    };
    programs.iter().filter_map(told).collect()
}

/// Both outputs: nginx tells its version on standard error.
fn said(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else {
        return String::new();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// From `HAProxy version 3.4.0-…`; zeros when it says something else.
fn haproxy_version(text: &str) -> (u32, u32) {
    let version = text.split_whitespace().nth(2).unwrap_or("");
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn nginx_lacks(nginx: &Path) -> Option<&'static str> {
    let text = said(nginx, "-V");
    if text.is_empty() {
        return Some("not installed (Debian: nginx-light and libnginx-mod-stream)");
    }
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let built_in = text.contains("--with-stream ");
    (!built_in && !Path::new(module).exists())
        .then_some("it has no stream module (Debian: libnginx-mod-stream)")
}
