//! What strace wrote (`-f -ttt`), counted. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// From when to when, since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

#[derive(Debug)]
struct Call {
    thread: u32,
    at: Duration,
    name: String,
    failed: bool,
}

/// Every call of a program, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    calls: Vec<Call>,
    /// Threads that gave themselves a name.
    names: Vec<(u32, String)>,
}

impl Trace {
    pub(crate) fn parse(text: &str) -> Self {
        let mut trace = Self::default();
        for line in text.lines() {
            trace.read(line);
        }
        trace
    }

    /// `THREAD SECONDS.MICROS CALL(…) = RESULT`, or in two halves: `CALL(… <unfinished ...>` and
    /// `<... CALL resumed>…) = RESULT`.
    fn read(&mut self, line: &str) -> Option<()> {
        let (thread, rest) = line.split_once(' ')?;
        let (at, rest) = rest.trim_start().split_once(' ')?;
        let thread = thread.parse().ok()?;
        let failed = rest.contains(" = -1 E");
        if rest.starts_with("<... ") {
            let begun = self.calls.iter_mut().rfind(|call| call.thread == thread)?;
            begun.failed = failed;
            return Some(());
        }
        let (name, arguments) = rest.split_once('(')?;
        // Asked by a debug build of Rust's library before each close.
        if cfg!(debug_assertions) && name == "fcntl" && arguments.contains("F_GETFD") {
            return None;
        }
        if let Some(rest) = arguments.strip_prefix("PR_SET_NAME, \"") {
            let (given, _) = rest.split_once('"')?;
            self.names.push((thread, given.to_owned()));
        }
        let (seconds, micros) = at.split_once('.')?;
        let at = Duration::from_secs(seconds.parse().ok()?)
            + Duration::from_micros(micros.parse().ok()?);
        self.calls.push(Call {
            thread,
            at,
            name: name.to_owned(),
            failed,
        });
        Some(())
    }

    /// The calls that began within `span`: of every thread, or of those of this name.
    pub(crate) fn count(&self, span: Span, thread: Option<&str>) -> Counts {
        let mut counts = Counts::default();
        for call in &self.calls {
            let inside = span.from <= call.at && call.at <= span.to;
            let of_it = thread.is_none_or(|wanted| {
                let named =
                    |(thread, name): &(u32, String)| *thread == call.thread && name == wanted;
                self.names.iter().any(named)
            });
            if inside && of_it {
                let (count, failed) = counts.0.entry(call.name.clone()).or_default();
                *count += 1;
                *failed += u64::from(call.failed);
            }
        }
        counts
    }
}

/// By call: how many, and how many of these failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Counts(pub(crate) BTreeMap<String, (u64, u64)>);

impl Counts {
    /// For one of so many things: hundredths.
    pub(crate) fn each(&self, things: usize) -> Self {
        let things = u64::try_from(things).unwrap();
        let share = |count: u64| (count * 100 + things / 2) / things;
        let each = |(call, (count, failed)): (&String, &(u64, u64))| {
            (call.clone(), (share(*count), share(*failed)))
        };
        Self(self.0.iter().map(each).collect())
    }

    pub(crate) fn of(&self, call: &str) -> u64 {
        self.0.get(call).map_or(0, |(count, _)| *count)
    }

    pub(crate) fn failed(&self, call: &str) -> u64 {
        self.0.get(call).map_or(0, |(_, failed)| *failed)
    }

    /// All but these.
    pub(crate) fn without(&self, calls: &[&str]) -> u64 {
        let rest = self
            .0
            .iter()
            .filter(|(call, _)| !calls.contains(&call.as_str()));
        rest.map(|(_, (count, _))| count).sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |count: u64| format!("{}.{:02}", count / 100, count % 100);
        for (call, (count, failed)) in &self.0 {
            let failed = if *failed > 0 {
                format!("  ({} in vain)", shown(*failed))
            } else {
                String::new()
            };
            if *count > 0 {
                writeln!(f, "  {:>6} {call}{failed}", shown(*count))?;
            }
        }
        writeln!(f, "  {:>6} in all", shown(self.without(&[])))
    }
}

#[test]
fn calls_of_one_thread_within_a_span_are_counted_once_each() {
    let trace = Trace::parse(
        "7  10.000001 prctl(PR_SET_NAME, \"lbd-w0\") = 0\n\
         7  11.000000 accept4(5, NULL) = 9\n\
         8  11.000000 accept4(5, NULL) = 10\n\
         7  11.500000 recvfrom(9,  <unfinished ...>\n\
         8  11.500001 close(10) = 0\n\
         7  11.500002 <... recvfrom resumed>\"x\", 65536, 0, NULL, NULL) = -1 EAGAIN (Resource)\n\
         7  11.600000 --- SIGUSR1 {si_signo=SIGUSR1} ---\n\
         7  12.000001 accept4(5, NULL) = 9\n",
    );
    let span = Span {
        from: Duration::from_secs(11),
        to: Duration::from_secs(12),
    };
    let worker = trace.count(span, Some("lbd-w0"));
    assert_eq!(
        worker.to_string(),
        "    0.01 accept4\n    0.01 recvfrom  (0.01 in vain)\n    0.02 in all\n"
    );
    assert_eq!(trace.count(span, None).without(&["recvfrom"]), 3);
    assert_eq!(worker.each(4).of("accept4"), 25);
}
