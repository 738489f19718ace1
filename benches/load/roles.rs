//! The bench's own child processes. The bench runs itself again as: a keeper of a network
//! namespace, a launcher into one, and the first process of a cage. Namespaces have no names, so
//! nothing can outlive the processes that hold them, however those end.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::{Args, Subcommand};
use lbd::net::clock;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use crate::backend::Lie;
use crate::usage::Processes;

/// What a child process is for; not for people.
#[derive(Subcommand)]
pub(crate) enum Role {
    /// Make and hold a network namespace until standard input ends.
    #[command(hide = true)]
    HoldNetwork,
    /// Run a program in the namespace that a process holds, on some CPUs only.
    #[command(hide = true)]
    Within(Within),
    /// Run a program, and end it and all it started when standard input ends.
    #[command(hide = true)]
    Cage { program: Vec<OsString> },
    /// The cage's first process.
    #[command(hide = true)]
    CageInit { program: Vec<OsString> },
    /// The servers.
    #[command(hide = true)]
    Backend {
        #[arg(long, value_enum)]
        lie: Option<Lie>,
        addresses: Vec<std::net::SocketAddr>,
    },
}

#[derive(Args)]
pub(crate) struct Within {
    #[arg(long)]
    holder: Option<i32>,
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    program: Vec<OsString>,
}

/// Does what a child is for.
pub(crate) fn run(role: Role) -> io::Result<()> {
    match role {
        Role::HoldNetwork => {
            die_with_parent()?;
            unshare(CloneFlags::CLONE_NEWNET)?;
            tune_network();
            println!("ready");
            io::stdout().flush()?;
            wait_for_end_of_input()
        }
        Role::Within(within) => run_within(within),
        Role::Cage { program } => cage(&program),
        Role::CageInit { program } => cage_init(&program),
        Role::Backend { addresses, lie } => {
            die_with_parent()?;
            crate::backend::run(&addresses, lie)
        }
    }
}

/// This program again, as `role`.
pub(crate) fn command(role: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role);
    Ok(command)
}

/// A command that runs what its later arguments say inside `holder`'s namespace.
pub(crate) fn within(holder: Option<&Child>, cpus: &[usize]) -> io::Result<Command> {
    let mut command = command("within")?;
    if let Some(holder) = holder {
        command.arg(format!("--holder={}", holder.id()));
    }
    if !cpus.is_empty() {
        let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        command.arg(format!("--cpus={}", cpus.join(",")));
    }
    command.arg("--");
    Ok(command)
}

/// Runs this thread, and what it starts, on `cpus` only.
pub(crate) fn pin(cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// The settings every measurement is made with, on both sides and for every program. What a
/// kernel does not know or does not allow here is left as it is.
pub(crate) fn tune_network() {
    let settings = [
        ("ipv4/tcp_congestion_control", "reno"),
        ("ipv4/ip_local_port_range", "1024 65535"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("ipv4/tcp_max_tw_buckets", "20000"),
        ("ipv4/tcp_max_syn_backlog", "65535"),
        ("core/somaxconn", "65535"),
    ];
    for (name, value) in settings {
        if let Err(error) = fs::write(format!("/proc/sys/net/{name}"), value) {
            eprintln!("note: net.{name} stays as it is: {error}");
        }
    }
}

fn die_with_parent() -> io::Result<()> {
    Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
}

fn wait_for_end_of_input() -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
}

fn run_within(within: Within) -> io::Result<()> {
    die_with_parent()?;
    if let Some(pid) = within.holder {
        setns(
            File::open(format!("/proc/{pid}/ns/net"))?,
            CloneFlags::CLONE_NEWNET,
        )?;
    }
    pin(&within.cpus)?;
    let program: Vec<CString> = within
        .program
        .into_iter()
        .map(|word| CString::new(word.into_vec()))
        .collect::<Result<_, _>>()?;
    let name = program.first().ok_or(io::ErrorKind::InvalidInput)?;
    nix::unistd::execvp(name, &program)?;
    Ok(())
}

/// As root: a PID namespace, so that the kernel ends every process in it, whatever happened.
fn cage(program: &[OsString]) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return cage_init(program);
    }
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)?;
    let status = command("cage-init")?.arg("--").args(program).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("cage: {:?}", status.signal()))),
    }
}

fn cage_init(program: &[OsString]) -> io::Result<()> {
    let caged = std::process::id() == 1;
    if caged {
        die_with_parent()?;
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing)?;
        mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            MsFlags::empty(),
            nothing,
        )?;
    } else {
        prctl::set_child_subreaper(true)?;
    }
    // A session for each program: one that stayed in ours would share its weight with the load.
    setsid()?;
    let (name, arguments) = program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()?;
    wait_for_end_of_input()?;
    if let Ok(pid) = i32::try_from(child.id()) {
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    }
    let end = clock::now() + Duration::from_secs(2);
    while child.try_wait()?.is_none() && clock::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    // In a cage the kernel does this when we leave.
    if !caged {
        for pid in Processes::under(std::process::id()).pids() {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
