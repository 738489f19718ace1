//! A proxy under strace: lbd's engine in a process of its own, or another program for comparison.
//! Not the whole daemon: its keeper takes a worker that ptrace stops for one that hangs.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lbd::net::{clock, tcp};
use lbd::proxy::engine::{Engine, EngineOptions};
use lbd::proxy::farm::Farm;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::trace::Trace;

/// Names the configuration of [`the_engine_under_test`].
const CONFIG: &str = "LBD_TEST_SYSCALLS_CONFIG";

/// Not a test of its own: the engine that the tests watch is this binary again.
#[test]
fn the_engine_under_test() {
    let Some(path) = std::env::var_os(CONFIG) else {
        return;
    };
    let config = lbd::config::load(&fs::read_to_string(path).unwrap()).unwrap();
    let proxy = &config.proxies[0];
    let farm = Arc::new(Farm::new(proxy));
    for server in 0..proxy.servers.len() {
        farm.set_up(server, true, clock::now());
    }
    let group = tcp::listener_group(proxy.listen[0], 1).unwrap();
    let options = EngineOptions {
        workers: 1,
        max_connections: 1000,
        access: None,
    };
    let _engine = Engine::start(&config, &[farm], vec![vec![group]], options).unwrap();
    // Until it is told to end, by a signal.
    loop {
        thread::park();
    }
}

/// Which program.
#[derive(Debug)]
pub(crate) enum Kind {
    Lbd,
    Haproxy(PathBuf),
    Nginx,
}

impl Kind {
    /// The HAProxy at hand; `LBD_HAPROXY` names another.
    pub(crate) fn haproxy() -> Self {
        Self::Haproxy(std::env::var_os("LBD_HAPROXY").map_or_else(|| "haproxy".into(), Into::into))
    }

    /// The thread that moves the bytes; `None`: there is but one.
    pub(crate) const fn thread(&self) -> Option<&'static str> {
        match self {
            Self::Lbd => Some("lbd-w0"),
            Self::Haproxy(_) | Self::Nginx => None,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Lbd => "lbd",
            Self::Haproxy(_) => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// One thread, three servers, no checks in that thread, no access log.
    fn config(&self, addr: SocketAddr, servers: &[SocketAddr]) -> String {
        let list = |line: &dyn Fn(usize, &SocketAddr) -> String| {
            let lines = servers.iter().enumerate();
            lines.map(|(at, addr)| line(at, addr)).collect::<String>()
        };
        match self {
            Self::Lbd => format!(
                "[limits]\nworkers = 1\n[proxy.test]\nlisten = \"{addr}\"\nclient-first = true\n\
                 [proxy.test.backends]\n{}",
                list(&|at, addr| format!("s{at} = \"{addr}\"\n"))
            ),
            Self::Haproxy(_) => format!(
                "global\n nbthread 1\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n \
                 timeout client 50s\n timeout server 50s\nlisten test\n bind {addr}\n{}",
                list(&|at, addr| format!(" server s{at} {addr}\n"))
            ),
            Self::Nginx => format!(
                "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nerror_log stderr;\n\
                 pid nginx.pid;\ndaemon off;\nmaster_process off;\n\
                 events {{ worker_connections 4000; }}\n\
                 stream {{ upstream test {{ {} }} server {{ listen {addr}; proxy_pass test; }} }}\n",
                list(&|_, addr| format!("server {addr};\n"))
            ),
        }
    }

    fn command(&self, config: &Path, dir: &Path) -> Vec<std::ffi::OsString> {
        match self {
            Self::Lbd => vec![
                std::env::current_exe().unwrap().into(),
                "--exact".into(),
                "program::the_engine_under_test".into(),
            ],
            Self::Haproxy(path) => vec![path.into(), "-db".into(), "-f".into(), config.into()],
            Self::Nginx => vec![
                "nginx".into(),
                "-p".into(),
                dir.into(),
                "-c".into(),
                config.into(),
            ],
        }
    }
}

/// Waits for a condition, within reason.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + Duration::from_secs(30);
    while !condition() {
        assert!(clock::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program that listens, and the strace that watches it.
pub(crate) struct Program {
    pub(crate) addr: SocketAddr,
    strace: Child,
    dir: PathBuf,
}

impl Program {
    /// Starts it; `None`: it or strace is not installed, which CI must not let pass.
    pub(crate) fn start(kind: &Kind, servers: &[SocketAddr]) -> Option<Self> {
        let name = kind.name();
        let dir = std::env::temp_dir().join(format!("lbd-syscalls-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let addr = crate::port::held();
        let config = dir.join("config");
        fs::write(&config, kind.config(addr, servers)).unwrap();
        let command = kind.command(&config, &dir);
        for program in ["strace".as_ref(), command[0].as_os_str()] {
            if !is_installed(program) {
                println!("skipped: {} is not installed", program.display());
                assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped");
                return None;
            }
        }
        let said = fs::File::create(dir.join("said")).unwrap();
        let strace = Command::new("strace")
            .args(["-f", "-ttt", "-s", "16", "-o"])
            .arg(dir.join("trace"))
            .args(command)
            .current_dir(&dir)
            .env(CONFIG, &config)
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let program = Self { addr, strace, dir };
        wait_until("the program serves", || {
            use std::io::{Read, Write};
            let Ok(mut stream) = TcpStream::connect(addr) else {
                return false;
            };
            stream.write_all(&[1; 1056]).is_ok() && matches!(stream.read(&mut [0]), Ok(1))
        });
        Some(program)
    }

    /// Ends it, and reads what it did.
    pub(crate) fn stop(mut self) -> Trace {
        for pid in children(self.strace.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        }
        wait_until("the program ends", || {
            self.strace.try_wait().unwrap().is_some()
        });
        Trace::parse(&fs::read_to_string(self.dir.join("trace")).unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = fs::read_to_string(self.dir.join("said")).unwrap_or_default();
            println!("the program said:\n{said}");
        }
        let mut all = children(self.strace.id());
        let mut at = 0;
        while let Some(pid) = all.get(at).copied() {
            all.extend(children(pid.unsigned_abs()));
            at += 1;
        }
        for pid in all {
            // It may have gone by itself meanwhile.
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                println!("{pid} is gone: {error}");
            }
        }
        drop(self.strace.wait());
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn is_installed(program: &std::ffi::OsStr) -> bool {
    let mut asked = Command::new(program);
    asked.arg("-v").stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok()
}

/// The processes that `pid`'s first thread has started and not outlived.
fn children(pid: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids = list.split_whitespace();
    pids.filter_map(|pid| pid.parse().ok()).collect()
}
