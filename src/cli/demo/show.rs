//! What the terminal shows: a picture that is drawn again in place, or plain lines where the
//! output is not a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::tally::Counts;

/// One moment of the laboratory.
#[derive(Debug, Clone)]
pub struct View {
    /// Time since the start.
    pub elapsed: Duration,
    /// The first line.
    pub title: String,
    /// The load balancers.
    pub nodes: Vec<NodeView>,
    /// The servers: name, address, answers.
    pub servers: Vec<(String, String, usize)>,
    /// Attempts in the last second.
    pub last_second: Counts,
    /// Attempts since the client started.
    pub total: Counts,
    /// One mark for each tenth of a second: whether all, some or none were answered.
    pub strip: Vec<Mark>,
}

/// A load balancer at one moment.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Whether the VIP is on its interface.
    pub holds: bool,
    /// What it says of itself; `None`: nothing answers.
    pub says: Option<String>,
}

/// How the client fared in a tenth of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It made no attempt.
    Nothing,
    /// Every attempt was answered.
    Served,
    /// Some were.
    Partly,
    /// None was.
    Failed,
}

/// Where the show goes.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    color: bool,
    /// Lines of the last picture, to be drawn over.
    drawn: usize,
    /// What has been told, newest last.
    told: Vec<String>,
}

/// How many of the last told lines stand below the picture.
const TOLD_SHOWN: usize = 14;

impl Screen {
    /// Standard output.
    #[must_use]
    pub fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            terminal,
            color: terminal && std::env::var_os("NO_COLOR").is_none(),
            drawn: 0,
            told: Vec::new(),
        }
    }

    /// Tells an event.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn tell(&mut self, elapsed: Duration, text: &str) -> io::Result<()> {
        let line = format!("{} s  {text}", seconds(elapsed));
        if !self.terminal {
            writeln!(io::stdout(), "{line}")?;
        }
        self.told.push(line);
        Ok(())
    }

    /// Draws the picture, on a terminal.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn draw(&mut self, view: &View) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let mut lines = picture(view, self.color);
        let first = self.told.len().saturating_sub(TOLD_SHOWN);
        lines.extend(self.told.iter().skip(first).map(|line| format!("  {line}")));
        // No line wrap and no cursor while drawing: a narrow terminal cuts, it does not scroll.
        let mut out = String::from("\x1b[?25l\x1b[?7l");
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            out.push_str(line);
            out.push_str("\x1b[K\n");
        }
        out.push_str("\x1b[J\x1b[?7h\x1b[?25h");
        self.drawn = lines.len();
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }

    /// Prints lines that stay; the next picture goes below them.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn print(&mut self, lines: &[String]) -> io::Result<()> {
        self.drawn = 0;
        let mut stdout = io::stdout().lock();
        for line in lines {
            writeln!(stdout, "{line}")?;
        }
        stdout.flush()
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

fn picture(view: &View, color: bool) -> Vec<String> {
    let paint = |code: &str, text: &str| {
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let mut lines = vec![
        format!("  {}  {} s", paint("1", &view.title), seconds(view.elapsed)),
        String::new(),
    ];
    for node in &view.nodes {
        let vip = if node.holds {
            paint("1;32", "holds the VIP")
        } else {
            paint("2", "-            ")
        };
        let says = match &node.says {
            Some(says) => says.clone(),
            None => paint("1;31", "dead"),
        };
        let (name, address) = (&node.name, &node.address);
        lines.push(format!("  {name:<16} {address:<18} {vip}  {says}"));
    }
    lines.push(String::new());
    let most = view.servers.iter().map(|(_, _, count)| *count).max();
    for (name, address, count) in &view.servers {
        let width = (count * 24).checked_div(most.unwrap_or(0)).unwrap_or(0);
        let bar = paint("36", &"=".repeat(width));
        lines.push(format!(
            "  {name:<16} {address:<18} {count:>6} answers  {bar}"
        ));
    }
    lines.push(String::new());
    let failed = format!("{} failed", view.total.failed());
    let failed = if view.total.failed() > 0 {
        paint("1;31", &failed)
    } else {
        failed
    };
    lines.push(format!(
        "  client   {} connections/s   {} answered   {failed}",
        view.last_second.served, view.total.served
    ));
    lines.push(format!("           {}", strip(&view.strip, color)));
    lines.push(String::new());
    lines
}

fn strip(marks: &[Mark], color: bool) -> String {
    let mut line = String::new();
    let mut before = None;
    for mark in marks {
        let (plain, code) = match mark {
            Mark::Nothing => (' ', "0"),
            Mark::Served => ('|', "32"),
            Mark::Partly => ('!', "33"),
            Mark::Failed => ('x', "1;31"),
        };
        if color && before != Some(*mark) {
            line.push_str(&format!("\x1b[0;{code}m"));
            before = Some(*mark);
        }
        line.push(plain);
    }
    if color {
        line.push_str("\x1b[0m");
    }
    line
}

/// Seconds with one decimal, right-aligned for the first hundred.
fn seconds(elapsed: Duration) -> String {
    format!("{:>3}.{}", elapsed.as_secs(), elapsed.subsec_millis() / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_names_the_holder_and_the_dead() {
        let node = |name: &str, holds, says: Option<&str>| NodeView {
            name: name.into(),
            address: "172.16.0.2".into(),
            holds,
            says: says.map(Into::into),
        };
        let view = View {
            elapsed: Duration::from_millis(12_345),
            title: "lbd demo".into(),
            nodes: vec![
                node("lb1", true, Some("active (MASTER)")),
                node("lb2", false, None),
            ],
            servers: vec![("kube-apiserver-1".into(), "172.16.0.4:6443".into(), 10)],
            last_second: Counts::default(),
            total: Counts::default(),
            strip: vec![Mark::Served, Mark::Partly, Mark::Failed, Mark::Nothing],
        };
        let lines = picture(&view, false);
        assert_eq!(lines[0], "  lbd demo   12.3 s");
        assert_eq!(
            lines[2],
            "  lb1              172.16.0.2         holds the VIP  active (MASTER)"
        );
        assert_eq!(
            lines[3],
            "  lb2              172.16.0.2         -              dead"
        );
        assert_eq!(
            lines[5],
            "  kube-apiserver-1 172.16.0.4:6443        10 answers  ========================"
        );
        assert_eq!(lines[8], "           |!x ");
    }
}
