//! What a TCP check proves: that the process takes connections, not only its kernel.

use super::*;

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const TIMEOUT: Duration = Duration::from_millis(600);

/// Not a test of its own: the server that is stopped below is this binary again. It accepts, reads
/// to the end and closes.
#[test]
fn the_server_under_test() {
    if std::env::var_os("LBD_TEST_SERVER").is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("\nlistening {}", listener.local_addr().unwrap());
    for mut connection in listener.incoming().flatten() {
        connection.read_to_end(&mut Vec::new()).unwrap_or_default();
    }
}

/// A server in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start() -> Self {
        use std::io::BufRead;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "accept::the_server_under_test", "--nocapture"])
            .env("LBD_TEST_SERVER", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("listening ")?.parse().ok())
            .unwrap();
        Self { child, address }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Stops it, and waits until each of its threads has stopped.
    fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let deadline = clock::now() + Duration::from_secs(10);
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T')
        };
        while !std::fs::read_dir(&tasks).unwrap().all(stopped) {
            assert!(clock::now() < deadline, "still running");
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

fn tcp(address: SocketAddr) -> Probe {
    let check = Check {
        timeout: TIMEOUT,
        ..check(CheckKind::Tcp)
    };
    Probe::new(&check, address, Path::new("/nonexistent")).unwrap()
}

/// The verdict and how long it took.
fn timed(probe: &Probe) -> (Verdict, Duration) {
    let begun = clock::now();
    let verdict = block_on(probe.run()).verdict;
    (verdict, clock::now() - begun)
}

/// Probes until the server was quick enough to be known for answering.
fn see_it_answer(probe: &Probe) {
    let deadline = clock::now() + Duration::from_secs(20);
    loop {
        let (verdict, took) = timed(probe);
        assert_eq!(verdict, Verdict::Ready);
        if took < Duration::from_millis(90) {
            return;
        }
        assert!(clock::now() < deadline, "never quick");
    }
}

fn not_taken() -> Verdict {
    unresponsive("connected, but the server didn't take the connection")
}

#[test]
fn a_stopped_process_is_unresponsive_though_its_kernel_completes_connections() {
    let server = Process::start();
    let probe = tcp(server.address);
    see_it_answer(&probe);
    server.stop();
    // The kernel still does its part.
    drop(TcpStream::connect(server.address).unwrap());
    let (verdict, took) = timed(&probe);
    assert_eq!(verdict, not_taken());
    assert!(took >= TIMEOUT, "{took:?}");
    server.signal(Signal::SIGCONT);
    let deadline = clock::now() + Duration::from_secs(10);
    while timed(&probe).0 != Verdict::Ready {
        assert!(clock::now() < deadline, "never ready again");
    }
}

#[test]
fn a_server_that_was_never_seen_to_answer_is_believed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let probe = tcp(listener.local_addr().unwrap());
    for _ in 0..3 {
        let (verdict, took) = timed(&probe);
        assert_eq!(verdict, Verdict::Ready);
        assert!(took < TIMEOUT, "{took:?}");
    }
    // Nothing stays open on its side: each probe ended in a reset.
    for _ in 0..3 {
        let (mut taken, _) = listener.accept().unwrap();
        assert_eq!(taken.read(&mut [0; 8]).unwrap(), 0);
        let reset = || taken.take_error().unwrap().map(|error| error.kind());
        let deadline = clock::now() + Duration::from_secs(10);
        while reset() != Some(std::io::ErrorKind::BrokenPipe) {
            assert!(clock::now() < deadline, "still open");
            std::thread::yield_now();
        }
    }
}

#[test]
fn bytes_and_resets_are_answers_too() {
    let greeting = server(|mut tcp| {
        tcp.write_all(b"220 hello\r\n").unwrap();
        // It never closes by itself: the probe does.
        tcp.set_read_timeout(None).unwrap();
        while tcp.read(&mut [0; 8]).is_ok_and(|count| count > 0) {}
        std::thread::park();
    });
    let resetting = server(|mut tcp| {
        tcp.read(&mut [0; 1]).unwrap_or_default();
        reset(&tcp);
    });
    for address in [greeting, resetting] {
        see_it_answer(&tcp(address));
    }
}

#[test]
fn what_listens_after_a_refusal_may_be_a_server_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let probe = tcp(address);
    let first = std::thread::spawn(move || {
        let (mut taken, _) = listener.accept().unwrap();
        taken.read_to_end(&mut Vec::new()).unwrap();
    });
    assert_eq!(timed(&probe).0, Verdict::Ready);
    first.join().unwrap();
    assert_eq!(timed(&probe).0, unresponsive("connection refused"));
    let silent = TcpListener::bind(address).unwrap();
    assert_eq!(timed(&probe).0, Verdict::Ready);
    drop(silent);
}
