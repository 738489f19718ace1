//! A running lbd, a client, an echo server: what the tests here share.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Waits until `condition` gives a value, at most `limit`.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let begin = clock::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        let waited = clock::now() - begin;
        assert!(waited < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A hand-off that the other node was too late for is repeated after 10 s.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A folder of this test alone.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lbd-keeper-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("recordings and logs are left in {}", self.0.display());
            return;
        }
        drop(fs::remove_dir_all(&self.0));
    }
}

/// One running lbd. Dropping it kills all its processes.
pub(crate) struct Node {
    pub(crate) keeper: Option<Child>,
    pub(crate) namespace: Option<String>,
    /// What is run.
    pub(crate) program: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) log: PathBuf,
}

impl Node {
    pub(crate) fn start(
        folder: &Folder,
        name: &str,
        config: &str,
        namespace: Option<&str>,
    ) -> Self {
        let mut node = Self::prepare(folder, name, config, namespace);
        node.restart();
        node
    }

    /// Everything but the process.
    pub(crate) fn prepare(
        folder: &Folder,
        name: &str,
        config: &str,
        namespace: Option<&str>,
    ) -> Self {
        let file = |suffix: &str| folder.0.join(format!("{name}{suffix}"));
        fs::write(file(".toml"), config).unwrap();
        Self {
            keeper: None,
            namespace: namespace.map(str::to_owned),
            program: env!("CARGO_BIN_EXE_lbd").into(),
            config: file(".toml"),
            runtime: file(""),
            log: file(".log"),
        }
    }

    pub(crate) fn restart(&mut self) {
        self.keeper = Some(self.launch());
    }

    /// Another lbd with the same arguments.
    pub(crate) fn launch(&self) -> Child {
        let lbd = &self.program;
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(lbd);
                command
            }
            None => Command::new(lbd),
        };
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log);
        let log = log.unwrap();
        command
            .arg("--config")
            .arg(&self.config)
            .arg("--runtime-dir")
            .arg(&self.runtime)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub(crate) fn keeper(&mut self) -> &mut Child {
        self.keeper.as_mut().unwrap()
    }

    /// The exit code, once it has ended.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait_for("the keeper's end", SOON, || {
            self.keeper().try_wait().unwrap()
        })
        .code()
    }

    pub(crate) fn signal_keeper(&self, signal: Signal) {
        let pid = i32::try_from(self.keeper.as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Kills the keeper and waits until it is gone.
    pub(crate) fn kill_keeper(&mut self) {
        self.keeper().kill().unwrap();
        self.keeper().wait().unwrap();
    }

    /// The proxy processes of this node, which have its runtime directory among their arguments.
    pub(crate) fn proxies(&self) -> Vec<i32> {
        self.processes("\0proxy\0")
    }

    /// The runner of the present keeper.
    pub(crate) fn runner(&self) -> Option<i32> {
        let keeper = self.keeper.as_ref()?.id();
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        let children = fs::read_to_string(path).ok()?;
        let mut runners = children.split_whitespace().filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line == b"lbd\0runner\0"
        });
        runners.next()?.parse().ok()
    }

    pub(crate) fn proxy(&self) -> i32 {
        wait_for("one proxy process", SOON, || match self.proxies()[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }

    /// The proxy process that answers questions.
    pub(crate) fn proxy_that_serves(&self) -> i32 {
        wait_for("a status", SOON, || {
            let status = self.status();
            let (_, after) = status.split_once("\"pid\":")?;
            let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        })
    }

    pub(crate) fn processes(&self, word: &str) -> Vec<i32> {
        let runtime = self.runtime.to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pid = |entry: fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&bytes).into_owned();
            (line.contains(word) && line.contains(runtime)).then_some(pid)
        };
        entries.filter_map(pid).collect()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What `lbd status -o json` says, without blanks.
    pub(crate) fn status(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
        let socket = self.runtime.join("admin.sock");
        command
            .args(["status", "-o", "json", "--socket"])
            .arg(socket);
        let said = command.output().unwrap().stdout;
        let text = String::from_utf8_lossy(&said);
        text.split_whitespace().collect()
    }

    pub(crate) fn wait_log(&self, text: &str) {
        wait_for(text, SOON, || self.log().contains(text).then_some(()));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- {}\n{}", self.log.display(), self.log());
        }
        if let Some(keeper) = &mut self.keeper {
            drop(keeper.kill());
            drop(keeper.wait());
        }
        for pid in self.proxies() {
            // It may have ended meanwhile.
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
    }
}

/// An echo server on `listener`'s address until the test ends.
pub(crate) fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// One connection, one byte there and back, within a second.
pub(crate) fn ask(address: SocketAddr) -> std::io::Result<()> {
    ask_within(Duration::from_secs(1), address)
}

/// The same, each step within `limit`.
pub(crate) fn ask_within(limit: Duration, address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

/// A client that asks again and again until it is stopped.
pub(crate) struct Client {
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) outcome: Arc<Mutex<Outcome>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    pub(crate) answered: u32,
    pub(crate) failed: Vec<String>,
    /// The longest time between two answers.
    pub(crate) gap: Duration,
    pub(crate) last: Option<Instant>,
}

impl Client {
    pub(crate) fn start(address: SocketAddr) -> Self {
        Self::patient(Duration::from_secs(1), address)
    }

    /// One that waits so long for an answer.
    pub(crate) fn patient(limit: Duration, address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let (stopped, results) = (Arc::clone(&stop), Arc::clone(&outcome));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let result = ask_within(limit, address);
                let now = clock::now();
                let mut results = results.lock().unwrap();
                match result {
                    Ok(()) => {
                        results.answered += 1;
                        let gap = results.last.map_or(Duration::ZERO, |last| now - last);
                        results.gap = results.gap.max(gap);
                        results.last = Some(now);
                    }
                    Err(error) => results.failed.push(error.to_string()),
                }
                drop(results);
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            stop,
            outcome,
            thread: Some(thread),
        }
    }

    pub(crate) fn so_far(&self) -> Outcome {
        self.outcome.lock().unwrap().clone()
    }

    /// Waits for that many more answers.
    pub(crate) fn wait_answers(&self, count: u32) {
        let goal = self.so_far().answered + count;
        wait_for("answers", SOON, || {
            (self.so_far().answered >= goal).then_some(())
        });
    }

    pub(crate) fn finish(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.so_far()
    }
}

/// Moves this thread into a namespace.
pub(crate) fn enter(namespace: &str) {
    let file = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}
