//! How busy the machine is while a case runs: bounds on wall time are stretched by it, and stay
//! what they are on a machine with nothing else to do.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lbd::net::clock;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);

/// Looks at the machine until it is dropped.
pub struct Noise {
    looks: Arc<Mutex<Vec<Look>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// Tasks that ran or waited for a processor.
    runnable: u32,
    /// Ticks of all processors so far: all, and those that the host's other guests took.
    ticks: u64,
    stolen: u64,
}

impl Noise {
    pub fn start() -> Self {
        let looks = Arc::<Mutex<Vec<Look>>>::default();
        let over = Arc::<AtomicBool>::default();
        let (seen, end) = (Arc::clone(&looks), Arc::clone(&over));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                if let Some(look) = look() {
                    let mut looks = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    looks.push(look);
                }
                thread::sleep(EVERY);
            }
        });
        Self {
            looks,
            over,
            thread: Some(thread),
        }
    }

    /// How many times longer than alone on the machine something took since then, in percent: from
    /// 100 on. The tasks of the case itself count, too, where they are more than processors.
    pub fn since(&self, since: Instant) -> u32 {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let looks: Vec<Look> = looks.iter().copied().filter(|l| l.at >= since).collect();
        let ([first, .., last], Ok(count)) = (&looks[..], u32::try_from(looks.len())) else {
            return 100;
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let processors = u32::try_from(processors).unwrap_or(1);
        // This look's own task is one of them.
        let runnable: u32 = looks.iter().map(|l| l.runnable.saturating_sub(1)).sum();
        let crowd = (runnable * 100 / count / processors).max(100);
        let ticks = last.ticks.saturating_sub(first.ticks);
        let stolen = last.stolen.saturating_sub(first.stolen);
        let got = (ticks.saturating_sub(stolen) * 100)
            .checked_div(ticks)
            .map_or(100, |got| got.clamp(5, 100));
        crowd * 100 / u32::try_from(got).unwrap_or(100)
    }

    /// A bound on wall time, as this machine keeps it since then.
    pub fn stretched(&self, bound: Duration, since: Instant) -> Duration {
        bound * self.since(since) / 100
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn look() -> Option<Look> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let runnable = load.split(' ').nth(3)?.split('/').next()?.parse().ok()?;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks = stat.lines().next()?.split_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = ticks.filter_map(|one| one.parse().ok()).collect();
    Some(Look {
        at: clock::now(),
        runnable,
        ticks: ticks.iter().sum(),
        stolen: ticks.get(7).copied()?,
    })
}
