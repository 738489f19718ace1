//! The terminal while `lbd top` has it, and its way back to what it was: at the end, after an error,
//! a panic, and when a signal ends it.

use std::io::{self, Stdout, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::state::Key;

/// What came from the keyboard, or happened to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Key(Key),
    /// Another size.
    Resized,
    /// Nothing of interest.
    Nothing,
}

/// The terminal, taken; dropped, it is what it was.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal. A panic gives it back before it says what it has to say.
    ///
    /// # Errors
    /// What the terminal says.
    pub(super) fn take() -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            give_back();
            before(what);
        }));
        let taken = enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen))
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// What the terminal says; it may be gone.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(|_drawn| ())
    }

    /// Waits for input, at most `patience`.
    ///
    /// # Errors
    /// What the terminal says; it may be gone.
    pub(super) fn input(&self, patience: Duration) -> io::Result<Option<Input>> {
        if !event::poll(patience)? {
            return Ok(None);
        }
        Ok(Some(match event::read()? {
            Event::Key(key) => key_of(key).map_or(Input::Nothing, Input::Key),
            Event::Resize(_, _) => Input::Resized,
            Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => {
                Input::Nothing
            }
        }))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Does what can be done: a terminal that is gone needs nothing.
fn give_back() {
    let mut out = io::stdout();
    let shown = execute!(out, LeaveAlternateScreen, Show).and_then(|()| out.flush());
    let cooked = disable_raw_mode();
    if let Err(error) = shown.and(cooked) {
        tracing::debug!(%error, "the terminal cannot be given back");
    }
}

const KEYS: [(KeyCode, Key); 10] = [
    (KeyCode::Up, Key::Up),
    (KeyCode::Down, Key::Down),
    (KeyCode::PageUp, Key::PageUp),
    (KeyCode::PageDown, Key::PageDown),
    (KeyCode::Home, Key::Home),
    (KeyCode::End, Key::End),
    (KeyCode::Tab, Key::Tab),
    (KeyCode::BackTab, Key::BackTab),
    (KeyCode::Enter, Key::Enter),
    (KeyCode::Esc, Key::Escape),
];

fn key_of(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    if let KeyCode::Char(char) = key.code {
        return Some(Key::Char(char));
    }
    let known = KEYS.iter().find(|(code, _)| *code == key.code);
    known.map(|(_, key)| *key)
}

/// Set once a signal asks this process to end. Call it before other threads begin: they inherit
/// that the signals wait for the one thread that looks for them. A second signal ends the process
/// where it stands.
///
/// # Errors
/// The kernel's.
pub(super) fn ended_by_signal() -> io::Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            if told.swap(true, Ordering::Relaxed) {
                give_back();
                if signals.thread_unblock().and(raise(signal)).is_err() {
                    return;
                }
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use nix::fcntl::{OFlag, open};
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
    use nix::sys::stat::Mode;
    use nix::sys::termios::tcgetattr;

    use super::*;

    #[test]
    #[ignore = "the next test runs it, on a terminal of its own"]
    fn a_program_that_panics() {
        let _screen = Screen::take().unwrap();
        panic!("on purpose");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_speaks() {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let slave = open(
            name.as_str(),
            OFlag::O_RDWR | OFlag::O_NOCTTY,
            Mode::empty(),
        )
        .unwrap();
        let before = tcgetattr(&slave).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("cli::top::terminal::tests::a_program_that_panics")
            .env("RUST_BACKTRACE", "0")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let mut output = File::from(OwnedFd::from(master));
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            // It ends with an error when nobody has the other end any more.
            output.read_to_end(&mut all).unwrap_or_default();
            String::from_utf8_lossy(&all).into_owned()
        });
        assert!(!child.wait().unwrap().success());
        let after = tcgetattr(&slave).unwrap();
        drop(slave);
        let said = reader.join().unwrap();
        assert_eq!(after.local_flags, before.local_flags);
        assert_eq!(after.output_flags, before.output_flags);
        let taken = said.find("\x1b[?1049h").expect("it was taken");
        let back = said.find("\x1b[?1049l").expect("it was given back");
        let spoken = said.find("on purpose").expect("it spoke");
        assert!(taken < back && back < spoken, "{said:?}");
    }
}
