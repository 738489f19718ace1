//! What passed each second, out of counters that only grow: the daemon's own uptime is the clock,
//! so that a slow answer makes no false rate. Pure.

use std::collections::{BTreeMap, VecDeque};

use crate::admin::status::Status;

/// Rates kept of each counter: a minute at one answer a second.
const KEPT: usize = 60;

/// Rates of everything that is counted, in tenths a second.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// The process that counts: a new one begins at zero.
    process: Option<u32>,
    uptime_ms: u64,
    counters: BTreeMap<Counter, Series>,
}

/// A counter of a proxy, or of one of its servers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Counter {
    proxy: String,
    server: Option<String>,
    of: Of,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    /// New connections.
    Connections,
    /// Bytes from clients.
    BytesIn,
    /// Bytes to clients.
    BytesOut,
}

#[derive(Debug)]
struct Series {
    value: u64,
    /// Of this answer: what is gone from it is forgotten.
    seen: bool,
    tenths: VecDeque<u64>,
}

impl Counter {
    /// Of a whole proxy.
    pub(super) fn of_proxy(proxy: &str, of: Of) -> Self {
        Self {
            proxy: proxy.to_owned(),
            server: None,
            of,
        }
    }

    /// Of one server.
    pub(super) fn of_server(proxy: &str, server: &str, of: Of) -> Self {
        Self {
            proxy: proxy.to_owned(),
            server: Some(server.to_owned()),
            of,
        }
    }
}

impl Rates {
    /// Takes the counters of one more answer.
    pub(super) fn take(&mut self, status: &Status) {
        let process = &status.process;
        let uptime = process.uptime_ms;
        let passed = match self.process {
            Some(pid) if pid == process.pid && uptime >= self.uptime_ms => uptime - self.uptime_ms,
            Some(_) | None => {
                self.counters.clear();
                0
            }
        };
        if self.process == Some(process.pid) && passed == 0 && !self.counters.is_empty() {
            return;
        }
        self.process = Some(process.pid);
        self.uptime_ms = uptime;
        for proxy in &status.proxies {
            let name = &proxy.name;
            let accepted = Counter::of_proxy(name, Of::Connections);
            self.put(accepted, proxy.totals.accepted, passed);
            for server in &proxy.servers {
                for (of, value) in [
                    (Of::Connections, server.connected),
                    (Of::BytesIn, server.bytes_in),
                    (Of::BytesOut, server.bytes_out),
                ] {
                    self.put(Counter::of_server(name, &server.name, of), value, passed);
                }
            }
        }
        self.counters
            .retain(|_, series| std::mem::take(&mut series.seen));
    }

    /// The last rate; `None`: it takes two answers.
    pub(super) fn last(&self, counter: &Counter) -> Option<u64> {
        self.counters.get(counter)?.tenths.back().copied()
    }

    /// The last `count` rates, oldest first.
    pub(super) fn recent(&self, counter: &Counter, count: usize) -> Vec<u64> {
        let Some(series) = self.counters.get(counter) else {
            return Vec::new();
        };
        let skipped = series.tenths.len().saturating_sub(count);
        series.tenths.iter().skip(skipped).copied().collect()
    }

    fn put(&mut self, counter: Counter, value: u64, passed_ms: u64) {
        let Some(series) = self.counters.get_mut(&counter) else {
            let first = Series {
                value,
                seen: true,
                tenths: VecDeque::new(),
            };
            self.counters.insert(counter, first);
            return;
        };
        series.seen = true;
        // A server that went and came back counts from zero.
        let grown = value.checked_sub(series.value);
        series.value = value;
        if let Some(grown) = grown
            && let Some(tenths) = grown.saturating_mul(10_000).checked_div(passed_ms)
        {
            if series.tenths.len() >= KEPT {
                series.tenths.pop_front();
            }
            series.tenths.push_back(tenths);
        }
    }
}

/// A rate of things: `0`, `3.5`, `120`.
pub(super) fn short_rate(tenths: Option<u64>) -> String {
    match tenths {
        None => "–".to_owned(),
        Some(tenths) if tenths >= 1_000 || tenths % 10 == 0 => (tenths / 10).to_string(),
        Some(tenths) => format!("{}.{}", tenths / 10, tenths % 10),
    }
}

/// A curve of blocks, one for each value; `top` is a full one.
pub(super) fn curve(values: &[u64], top: u64) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let block = |value: &u64| {
        let height = value.saturating_mul(7).div_ceil(top.max(1)).min(7);
        let at = usize::try_from(height).unwrap_or(7);
        BLOCKS.get(at).copied().unwrap_or('█')
    };
    values.iter().map(block).collect()
}
