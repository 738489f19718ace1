//! A terminal of 24 lines and 80 columns for a program in a namespace: what stands on it, keys for
//! the program, and whether the program leaves it as it found it. It knows what `lbd top` uses.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use lbd::net::netns::Namespace;
use nix::fcntl::{OFlag, open};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

const LINES: usize = 24;
const COLUMNS: usize = 80;

pub struct Screen {
    keys: File,
    slave: OwnedFd,
    before: Termios,
    seen: Arc<Mutex<Seen>>,
    child: Child,
}

/// What the program has written.
struct Seen {
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    /// On the second screen, which leaves the first one as it was.
    alternate: bool,
    hidden_cursor: bool,
    /// An escape sequence that is not over.
    pending: Option<String>,
    /// Bytes of a letter that is not over.
    rest: Vec<u8>,
    /// All of it.
    written: Vec<u8>,
}

impl Screen {
    /// Starts `lbd` with these arguments on a terminal of its own.
    pub fn start(host: &Namespace, arguments: &[&str]) -> Self {
        Self::with_lines(host, LINES, arguments)
    }

    /// The same with so many lines, of `LINES` at most.
    pub fn with_lines(host: &Namespace, lines: usize, arguments: &[&str]) -> Self {
        let master: PtyMaster = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let slave = open(
            name.as_str(),
            OFlag::O_RDWR | OFlag::O_NOCTTY,
            Mode::empty(),
        )
        .unwrap();
        let size = Command::new("stty")
            .args(["rows", &lines.to_string(), "cols", "80"])
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .status();
        assert!(size.unwrap().success());
        let before = tcgetattr(&slave).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
        command
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end());
        let child = host.spawn(&mut command).expect("lbd starts");
        let mut output = File::from(master.as_fd().try_clone_to_owned().unwrap());
        let keys = File::from(OwnedFd::from(master));
        let seen = Arc::new(Mutex::new(Seen::new()));
        let written = Arc::clone(&seen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                written.lock().unwrap().write(&bytes[..count]);
            }
        });
        Self {
            keys,
            slave,
            before,
            seen,
            child,
        }
    }

    /// What stands on the terminal.
    pub fn text(&self) -> String {
        let seen = self.seen.lock().unwrap();
        let lines = seen.cells.iter();
        let lines = lines.map(|line| line.iter().collect::<String>().trim_end().to_owned() + "\n");
        lines.collect()
    }

    /// Keeps what was written so far: a terminal of this size shows the same again.
    pub fn picture(&self, name: &str) {
        if let Some(dir) = super::pictures() {
            let written = self.seen.lock().unwrap().written.clone();
            std::fs::write(dir.join(name), written).expect("the directory is there");
        }
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the terminal shows what is wanted; what stands there then.
    pub fn until(&self, what: &str, ms: u64, wanted: impl Fn(&str) -> bool) -> String {
        let end = clock::now() + Duration::from_millis(ms);
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            assert!(clock::now() < end, "not within {ms} ms: {what}\n{text}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Signals the program.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits until the program has ended; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let end = clock::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(clock::now() < end, "it does not end\n{}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the program has taken the terminal.
    pub fn is_taken(&self) -> bool {
        let raw = tcgetattr(&self.slave).unwrap().local_flags != self.before.local_flags;
        raw && self.seen.lock().unwrap().alternate
    }

    /// Asserts that the terminal is as it was before the program began.
    pub fn is_as_before(&self) {
        let end = clock::now() + Duration::from_secs(2);
        // Its last bytes may be on their way still.
        while self.seen.lock().unwrap().alternate && clock::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_flags, self.before.local_flags);
        assert_eq!(after.input_flags, self.before.input_flags);
        assert_eq!(after.output_flags, self.before.output_flags);
        let seen = self.seen.lock().unwrap();
        assert!(!seen.alternate, "it left its own screen behind");
        assert!(!seen.hidden_cursor, "it took the cursor away");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            cells: vec![vec![' '; COLUMNS]; LINES],
            at: (0, 0),
            alternate: false,
            hidden_cursor: false,
            pending: None,
            rest: Vec::new(),
            written: Vec::new(),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        self.written.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text: Vec<u8> = self.rest.drain(..whole).collect();
        for letter in String::from_utf8(text).unwrap().chars() {
            self.letter(letter);
        }
    }

    fn letter(&mut self, letter: char) {
        if let Some(mut sequence) = self.pending.take() {
            sequence.push(letter);
            let is_over = sequence.len() > 1 && ('@'..='~').contains(&letter)
                || sequence.len() == 1 && letter != '[';
            if is_over {
                self.obey(&sequence);
            } else {
                self.pending = Some(sequence);
            }
            return;
        }
        match letter {
            '\x1b' => self.pending = Some(String::new()),
            '\r' => self.at.1 = 0,
            '\n' => self.at.0 = (self.at.0 + 1).min(LINES - 1),
            letter => {
                let (line, column) = self.at;
                if column < COLUMNS {
                    self.cells[line][column] = letter;
                }
                self.at.1 = column + 1;
            }
        }
    }

    fn obey(&mut self, sequence: &str) {
        match sequence {
            "[?1049h" => {
                self.alternate = true;
                self.cells = vec![vec![' '; COLUMNS]; LINES];
            }
            "[?1049l" => self.alternate = false,
            "[?25l" => self.hidden_cursor = true,
            "[?25h" => self.hidden_cursor = false,
            "[2J" => self.cells = vec![vec![' '; COLUMNS]; LINES],
            "[J" => {
                for line in self.at.0..LINES {
                    self.cells[line] = vec![' '; COLUMNS];
                }
            }
            "[K" => {
                let (line, column) = self.at;
                self.cells[line][column.min(COLUMNS)..].fill(' ');
            }
            _ => {
                if let Some(place) = sequence.strip_prefix('[').and_then(|s| s.strip_suffix('H')) {
                    let mut numbers = place.split(';').map(|n| n.parse().unwrap_or(1_usize));
                    let mut next = || numbers.next().unwrap_or(1).max(1) - 1;
                    self.at = (next().min(LINES - 1), next());
                }
            }
        }
    }
}
