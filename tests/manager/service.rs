//! A small service manager for one service on one host of the laboratory. It does with the unit
//! file what systemd does, as far as `unit::OBEYED` goes: starts the main process as the unit's
//! (unprivileged) user with the unit's capabilities, listens to its notifications, keeps descriptors
//! for its next start, restarts it when it ends, stops feeding the watchdog or is told to be restarted,
//! and touches no other process (KillMode=process).

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lbd::net::clock;
use lbd::net::netns::Namespace;
use lbd::net::seqpacket::{Connection, Received};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use nix::unistd::Pid;

use super::sandbox;
use super::unit::Unit;

/// Where the manager listens, in the host's own /run.
const NOTIFY: &str = "/run/notify";
/// The unit's program.
const PROGRAM: &str = "/run/bin/lbd";
const CONFIG: &str = "/run/lb.toml";
/// Where `Pair::report` looks for it.
const LOG: &str = "/run/lbd/log";
/// The unit's user: any without rights will do.
const NOBODY: u32 = 65_534;

/// What happened to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A main process was started.
    Started(Pid),
    /// The main process said this.
    Said(String),
    /// It did not feed the watchdog in time: it was aborted.
    Starved,
    /// It ended: exit code, or signal.
    Ended(Option<i32>, Option<i32>),
}

#[derive(Debug, Default)]
struct Shared {
    events: Vec<(Instant, Event)>,
    main: Option<Pid>,
    stopping: bool,
    /// To be started again after it has stopped.
    restarting: bool,
    /// It was told to stop, or may not be restarted.
    over: bool,
}

/// Names and descriptors of the fd store.
type Kept = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// A service under management. Dropping it kills the main process, for good.
pub struct Service {
    shared: Arc<Mutex<Shared>>,
    host: Arc<Namespace>,
    kept: Kept,
    thread: Option<JoinHandle<()>>,
    stop_timeout: Duration,
}

impl Service {
    /// Starts the shipped unit on a host with this lb.toml.
    pub fn start(host: &Arc<Namespace>, config: &str) -> Self {
        let unit = Unit::shipped();
        let socket = host
            .run(|| prepare(&unit, config))
            .expect("the host can be entered");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stop_timeout = unit.span("TimeoutStopSec");
        let (theirs, kept) = (Arc::clone(&shared), Kept::default());
        let manager = Manager {
            unit,
            host: Arc::clone(host),
            socket,
            shared: theirs,
            kept: Arc::clone(&kept),
        };
        let thread = thread::spawn(move || manager.run());
        Self {
            shared,
            host: Arc::clone(host),
            kept,
            thread: Some(thread),
            stop_timeout,
        }
    }

    fn look<T>(&self, look: impl FnOnce(&mut Shared) -> T) -> T {
        look(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The main process, while there is one.
    pub fn main_pid(&self) -> Option<Pid> {
        self.look(|shared| shared.main)
    }

    /// What happened since then.
    pub fn since(&self, at: Instant) -> Vec<Event> {
        self.look(|shared| {
            let later = shared.events.iter().filter(|(when, _)| *when >= at);
            later.map(|(_, event)| event.clone()).collect()
        })
    }

    /// Main processes started since then.
    pub fn starts_since(&self, at: Instant) -> usize {
        let started = |event: &Event| matches!(event, Event::Started(_));
        self.since(at).iter().filter(|event| started(event)).count()
    }

    /// How often the main process said exactly this since then.
    pub fn said_since(&self, at: Instant, text: &str) -> usize {
        let said = |event: &Event| matches!(event, Event::Said(said) if said == text);
        self.since(at).iter().filter(|event| said(event)).count()
    }

    /// Whether the manager has left the service alone for good.
    pub fn is_over(&self) -> bool {
        self.look(|shared| shared.over)
    }

    /// `systemctl restart`: returns once the next main process was started.
    pub fn restart(&self) {
        let begin = clock::now();
        self.look(|shared| {
            shared.restarting = true;
            shared.stopping = true;
        });
        while self.starts_since(begin) == 0 {
            assert!(
                clock::now() < begin + self.stop_timeout + Duration::from_secs(5),
                "the service is not restarted"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// `systemctl reload` with this lb.toml: what the unit's command answers.
    pub fn reload(&self, config: &str) -> Output {
        let unit = Unit::shipped();
        let mut words = unit.required("ExecReload").split(' ');
        assert_eq!(words.next(), Some("/usr/bin/lbd"));
        let mut command = Command::new(PROGRAM);
        command.args(words);
        let done = self.host.run(|| {
            fs::write(CONFIG, config)?;
            command.output()
        });
        done.expect("the host can be entered").expect("it runs")
    }

    /// Puts this lb.toml in the place of the present one, and says nothing.
    pub fn replace_config(&self, config: &str) {
        let beside = format!("{CONFIG}.new");
        let replaced = self.host.run(|| {
            fs::write(&beside, config)?;
            fs::rename(&beside, CONFIG)
        });
        replaced
            .expect("the host can be entered")
            .expect("/run can be written");
    }

    /// Puts another program in the place of the unit's, as a package manager does: the new file takes
    /// the old one's name.
    pub fn install(&self, program: &Path) {
        let installed = self.host.run(|| install(program));
        installed.expect("the host can be entered");
    }

    /// How many descriptors the manager keeps.
    pub fn kept(&self) -> usize {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// `systemctl stop`; how the main process ended.
    pub fn stop(&self) -> Event {
        self.look(|shared| shared.stopping = true);
        let begin = clock::now();
        while !self.is_over() {
            assert!(
                clock::now() < begin + self.stop_timeout + Duration::from_secs(5),
                "the service does not stop"
            );
            thread::sleep(Duration::from_millis(2));
        }
        let events = self.since(begin);
        let ended = |event: &&Event| matches!(event, Event::Ended(..));
        events.iter().rfind(ended).expect("it ended").clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let main = self.look(|shared| {
            shared.over = true;
            shared.main
        });
        if let Some(pid) = main {
            // It may have ended.
            kill(pid, Signal::SIGKILL).unwrap_or_default();
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn runtime_directory(unit: &Unit) -> String {
    format!("/run/{}", unit.required("RuntimeDirectory"))
}

/// Below /run, which each host has of its own; /var/lib is the machine's.
fn state_directory(unit: &Unit) -> String {
    format!("/run/var-lib/{}", unit.required("StateDirectory"))
}

/// A directory of the service's user.
fn own_directory(directory: &str, mode: &str) {
    fs::create_dir_all(directory).expect("/run can be written");
    let mode = u32::from_str_radix(mode, 8).expect("octal");
    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).expect("it is ours");
    chown(directory, Some(NOBODY), Some(NOBODY)).expect("it is ours");
}

/// The service's directories, the file, and the socket, inside the host.
fn prepare(unit: &Unit, config: &str) -> Connection {
    own_directory(
        &runtime_directory(unit),
        unit.required("RuntimeDirectoryMode"),
    );
    own_directory(&state_directory(unit), unit.required("StateDirectoryMode"));
    fs::write(CONFIG, config).expect("/run can be written");
    fs::set_permissions(CONFIG, fs::Permissions::from_mode(0o644)).expect("it is ours");
    // Room for two of the program: /run has less.
    fs::create_dir("/run/bin").expect("/run can be written");
    let (none, room) = (MsFlags::empty(), Some("mode=755,size=512m"));
    mount(Some("tmpfs"), "/run/bin", Some("tmpfs"), none, room).expect("root may mount");
    install(&super::lab::lbd());
    let own = std::env::current_exe().expect("it has a path");
    fs::copy(own, sandbox::WRAPPER).expect("it can be written");
    let socket = UnixDatagram::bind(NOTIFY).expect("/run can be written");
    fs::set_permissions(NOTIFY, fs::Permissions::from_mode(0o666)).expect("it is ours");
    setsockopt(&socket, sockopt::PassCred, &true).expect("the kernel names senders");
    Connection::from_fd(socket.into()).expect("a socket")
}

/// At a path that the service's user can reach.
fn install(program: &Path) {
    fs::copy(program, "/run/bin/new").expect("it can be written");
    fs::rename("/run/bin/new", PROGRAM).expect("it can be written");
}

struct Manager {
    unit: Unit,
    host: Arc<Namespace>,
    socket: Connection,
    shared: Arc<Mutex<Shared>>,
    kept: Kept,
}

/// One main process.
struct Main {
    child: Child,
    pid: Pid,
    /// When it last showed that it lives; counts from `READY=1`.
    fed: Option<Instant>,
    /// When it is killed because it did not obey.
    kill_at: Option<Instant>,
}

impl Manager {
    fn run(self) {
        let mut main = self.launch();
        loop {
            self.listen(&mut main);
            self.watch(&mut main);
            if let Some(status) = main.child.try_wait().expect("our child") {
                self.listen(&mut main);
                self.note(Event::Ended(status.code(), status.signal()));
                self.look(|shared| shared.main = None);
                let told_to = self.look(|shared| shared.restarting);
                if !self.restarts(status) {
                    self.look(|shared| shared.over = true);
                    return;
                }
                // `systemctl restart` starts it at once.
                if !told_to {
                    thread::sleep(self.unit.span("RestartSec"));
                }
                if self.look(|shared| shared.over) {
                    return;
                }
                main = self.launch();
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn look<T>(&self, look: impl FnOnce(&mut Shared) -> T) -> T {
        look(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, event: Event) {
        self.look(|shared| shared.events.push((clock::now(), event)));
    }

    fn restarts(&self, status: ExitStatus) -> bool {
        let prevented = self.unit.required("RestartPreventExitStatus");
        let mut prevented = prevented.split(' ').filter_map(|code| code.parse().ok());
        let prevented = prevented.any(|code: i32| status.code() == Some(code));
        assert_eq!(self.unit.required("Restart"), "always");
        let told = self.look(|shared| {
            let again = std::mem::take(&mut shared.restarting);
            shared.stopping &= !again;
            shared.stopping || shared.over
        });
        !prevented && !told
    }

    fn launch(&self) -> Main {
        let unit = &self.unit;
        assert_eq!(unit.required("Type"), "notify");
        assert_eq!(unit.required("KillMode"), "process");
        assert_eq!(unit.required("RuntimeDirectoryPreserve"), "yes");
        let log = self
            .host
            .run(|| File::options().create(true).append(true).open(LOG));
        let log = log.and_then(|log| log).expect("the log can be written");
        let errors = log.try_clone().expect("a descriptor is left");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "bash", "-ec", &script(unit), "sh"])
            .args(arguments(unit))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("NOTIFY_SOCKET", NOTIFY)
            .env("RUNTIME_DIRECTORY", runtime_directory(unit))
            .env("STATE_DIRECTORY", state_directory(unit))
            .env(
                "WATCHDOG_USEC",
                unit.span("WatchdogSec").as_micros().to_string(),
            )
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let (name, calls) = sandbox::allowed(unit);
        command.env(name, calls);
        let kept = self.pass_kept(&mut command);
        let child = self.host.spawn(&mut command).expect("the service starts");
        drop(kept);
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        self.note(Event::Started(pid));
        self.look(|shared| shared.main = Some(pid));
        Main {
            child,
            pid,
            fed: None,
            kill_at: None,
        }
    }

    /// What is kept becomes descriptors from 3 on: the shell puts them there, from wherever they are
    /// open in it. They stay open here until it was started.
    fn pass_kept(&self, command: &mut Command) -> Vec<OwnedFd> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let copies: Vec<OwnedFd> = kept
            .iter()
            .map(|(_, fd)| fd.try_clone().expect("a descriptor is left"))
            .collect();
        let words: Vec<String> = copies
            .iter()
            .map(|fd| {
                let flags = FcntlArg::F_SETFD(FdFlag::empty());
                fcntl(fd, flags).expect("it is open");
                fd.as_raw_fd().to_string()
            })
            .collect();
        command.env("KEPT", words.join(" "));
        command.env("KEPT_NAMES", names.join(":"));
        copies
    }

    /// Descriptors that came beside a notification (FDSTORE=1), or are to be dropped.
    fn keep(&self, text: &str, fds: Vec<OwnedFd>) {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let name = field("FDNAME=").unwrap_or("stored").to_owned();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if field("FDSTOREREMOVE=") == Some("1") {
            kept.retain(|(other, _)| *other != name);
        }
        if field("FDSTORE=") == Some("1") {
            let most: usize = self
                .unit
                .required("FileDescriptorStoreMax")
                .parse()
                .unwrap();
            kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
            kept.truncate(most);
        }
    }

    /// Takes what the main process said; nobody else is listened to (NotifyAccess=main).
    fn listen(&self, main: &mut Main) {
        assert_eq!(self.unit.required("NotifyAccess"), "main");
        let mut buffer = [0; 4096];
        loop {
            // Who it was, first. Where there is room for no descriptor none is taken, and nothing is
            // told of the sender of one.
            let mut space = nix::cmsg_space!(UnixCredentials);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
            let fd = self.socket.as_raw_fd();
            let Ok(message) = recvmsg::<()>(fd, &mut parts, Some(&mut space), flags) else {
                return;
            };
            let sender = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| {
                    let ControlMessageOwned::ScmCredentials(who) = one else {
                        return None;
                    };
                    Some(who.pid())
                })
            });
            let message = self.socket.receive(&mut buffer).expect("it is there");
            let Received { len: length, fds } = message.expect("it is there");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let told = sender.or((!fds.is_empty()).then_some(main.pid.as_raw()));
            assert_eq!(
                told,
                Some(main.pid.as_raw()),
                "another process said {text:?}"
            );
            self.keep(&text, fds);
            for line in text.lines() {
                if line == "READY=1" || line == "WATCHDOG=1" && main.fed.is_some() {
                    main.fed = Some(clock::now());
                }
                self.note(Event::Said(line.to_owned()));
            }
        }
    }

    /// Watchdog, and the order to stop.
    fn watch(&self, main: &mut Main) {
        let now = clock::now();
        if let Some(at) = main.kill_at {
            if now >= at {
                signal(main.pid, Signal::SIGKILL);
            }
            return;
        }
        let patience = self.unit.span("WatchdogSec");
        let starved = main.fed.is_some_and(|fed| now > fed + patience);
        let told = self.look(|shared| shared.stopping);
        let first = match (told, starved) {
            (true, _) => Signal::SIGTERM,
            (false, true) => {
                self.note(Event::Starved);
                Signal::SIGABRT
            }
            (false, false) => return,
        };
        signal(main.pid, first);
        signal(main.pid, Signal::SIGCONT);
        main.kill_at = Some(now + self.unit.span("TimeoutStopSec"));
    }
}

fn signal(pid: Pid, signal: Signal) {
    // It may have ended this moment; the loop sees that.
    kill(pid, signal).unwrap_or_default();
}

/// The unit's command line: its program by a path that its user can reach, and our file.
fn arguments(unit: &Unit) -> Vec<String> {
    let mut words = unit.required("ExecStart").split(' ').map(str::to_owned);
    let program = words.next().expect("a program");
    assert_eq!(program, "/usr/bin/lbd");
    let rest = words.map(|word| match word.as_str() {
        "/etc/lbd/lb.toml" => CONFIG.to_owned(),
        _ => word,
    });
    std::iter::once(PROGRAM.to_owned()).chain(rest).collect()
}

/// What happens between fork and exec, in a mount namespace of the service's own.
fn script(unit: &Unit) -> String {
    let hide = unit.required("ProtectProc");
    let subset = unit.required("ProcSubset");
    let capabilities = |key| {
        let names = unit.required(key).split(' ');
        let names = names.map(|name| name.strip_prefix("CAP_").expect("CAP_…").to_lowercase());
        names.fold("-all".to_owned(), |all, name| format!("{all},+{name}"))
    };
    let ambient = capabilities("AmbientCapabilities");
    let bounding = capabilities("CapabilityBoundingSet");
    assert!(unit.flag("NoNewPrivileges"));
    assert_eq!(
        (unit.required("User"), unit.required("Group")),
        ("lbd", "lbd")
    );
    format!(
        "{mounts}mount -t proc -o hidepid={hide},subset={subset} proc /proc\n\
         umask {umask}\n\
         ulimit -n {files} 2>/dev/null || ulimit -n $(ulimit -Hn)\n\
         export WATCHDOG_PID=$$\n\
         if [ -n \"$KEPT\" ]; then\n\
         export LISTEN_PID=$$ LISTEN_FDNAMES=$KEPT_NAMES LISTEN_FDS=0\n\
         for fd in $KEPT; do\n\
         eval \"exec $((3 + LISTEN_FDS))<&$fd $fd<&-\"; LISTEN_FDS=$((LISTEN_FDS + 1)); done; fi\n\
         unset KEPT KEPT_NAMES\n\
         exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --no-new-privs \
         --bounding-set={bounding} --inh-caps={ambient} --ambient-caps={ambient} {wrapper} \"$@\"",
        mounts = sandbox::mounts(unit, &[runtime_directory(unit), state_directory(unit)]),
        wrapper = sandbox::WRAPPER,
        umask = unit.required("UMask"),
        files = unit.required("LimitNOFILE"),
    )
}
