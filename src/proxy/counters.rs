//! What happened, counted: one set per worker and proxy, written by that worker alone and summed
//! by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::spans::{self, BUCKETS, Counts};

macro_rules! counters {
    ($(#[$meta:meta])* $name:ident, $totals:ident: $($(#[$doc:meta])* $variant:ident $field:ident,)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// How many there are.
            pub const COUNT: usize = [$(Self::$variant),*].len();
        }

        #[doc = concat!("Sums of each [`", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
        pub struct $totals { $($(#[$doc])* pub $field: u64,)* }

        impl $totals {
            fn add(&mut self, cells: &Cells<{ $name::COUNT }>) {
                $(self.$field += cells.value($name::$variant as usize);)*
            }

            /// What was added since `before`.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self { $($field: self.$field.wrapping_sub(before.$field),)* }
            }
        }
    };
}

counters! {
    /// What is counted for a proxy.
    ProxyCount, ProxyTotals:
    /// Connections accepted.
    Accepted accepted,
    /// Clients that broke off before they had a server.
    ClientLeft clients_left,
    /// Refused at once: no server was usable.
    NoServer no_server,
    /// Given up: every server that was tried failed it.
    Unreachable unreachable,
    /// Refused at once: the queue was full.
    QueueFull queue_full,
    /// Refused at once: going by what was served of late, the wait would have been in vain.
    QueueTooSlow queue_too_slow,
    /// Gave up waiting for a slot.
    QueueTimeout queue_timeouts,
    /// Went through the queue and got a slot.
    Queued queued,
    /// Time spent in the queue by those, microseconds.
    QueueMicros queue_micros,
    /// Bytes from clients.
    BytesIn bytes_in,
    /// Bytes to clients.
    BytesOut bytes_out,
    /// Bytes, of both kinds, that went through splice(2).
    Spliced bytes_spliced,
    /// Clients that broke off.
    ClientAborts client_aborts,
    /// Servers that broke off.
    ServerAborts server_aborts,
    /// Closed without a byte in either direction for too long.
    IdleTimeout idle_timeouts,
    /// Closed because the client sent nothing at all.
    FirstByteTimeout first_byte_timeouts,
    /// PROXY headers that were believed.
    Headers headers,
    /// Closed because a sender's bytes began without a header.
    HeaderMissing header_missing,
    /// Closed because a header broke a rule.
    HeaderMalformed header_malformed,
    /// Closed because a header was too long.
    HeaderTooLong header_too_long,
    /// Closed by the sender before its header was whole.
    HeaderClosed header_closed,
    /// Closed because the header was not there in time.
    HeaderTimeout header_timeouts,
    /// Refused because of the client's network.
    Denied denied,
    /// Refused because the client's source had as many connections as it may.
    SourceConnections source_connections,
    /// Refused because the connections of the client's source came too fast.
    SourceRate source_rate,
    /// Closed because the second side did not finish.
    HalfCloseTimeout half_close_timeouts,
    /// Silent connections that gave way to newcomers at a limit.
    GaveWay gave_way,
    /// Closed because the server was found to be down.
    ServerDown server_down,
    /// Closed because they were old.
    MaxAge max_age,
    /// Closed to be served by another server.
    Rebalanced rebalanced,
    /// Closed by an administrator, a stop, or because the virtual address left.
    Killed killed,
    /// Failed for want of descriptors or memory.
    Resource resource_errors,
    /// Accepts that failed.
    AcceptErrors accept_errors,
    /// Connections taken from the listener of another worker that was busy.
    Helped helped,
    /// Times listeners rested because a limit of connections was reached.
    LimitReached limit_reached,
    /// Ended without any fault.
    Finished finished,
}

counters! {
    /// What is counted for a server.
    ServerCount, ServerTotals:
    /// Connections that the server accepted.
    Connected connected,
    /// Time those connects took, microseconds.
    ConnectMicros connect_micros,
    /// Connects begun.
    Attempts attempts,
    /// Connects that were refused or failed.
    Refused connect_errors,
    /// Connects without an answer in time.
    ConnectTimeout connect_timeouts,
    /// Failed connects after which the connection tried again.
    Retries retries,
    /// Failed connects after which the connection went elsewhere.
    Redispatches redispatches,
    /// Bytes to the server.
    BytesIn bytes_in,
    /// Bytes from the server.
    BytesOut bytes_out,
    /// Clients that broke off.
    ClientAborts client_aborts,
    /// The server broke off.
    ServerAborts server_aborts,
    /// Connections that ended.
    Ended ended,
    /// Time from accept to end of those, microseconds.
    TotalMicros total_micros,
    /// Connects on a recycled socket.
    Recycled recycled,
    /// Connects without an answer that got a second one beside them, on another server.
    Hedges hedges,
    /// Second connects that this server answered first.
    HedgesWon hedges_won,
    /// Connections closed because others have fewer.
    Rebalanced rebalanced,
    /// Clients whose first bytes were delivered to the server.
    Asked asked,
    /// Clients that got a first byte from the server.
    Answered answered,
    /// Time for which those had waited for it since they last sent something, microseconds.
    AnswerMicros answer_micros,
    /// Connections that ended without a byte from the server after the client had asked.
    Unanswered unanswered,
}

/// Counters with one writer, on cache lines of their own: two, as processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Cells<const N: usize>([AtomicU64; N]);

impl<const N: usize> Cells<N> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// One writer only, so a load and a store do, without a locked instruction.
    fn add(&self, index: usize, amount: u64) {
        if let Some(cell) = self.0.get(index) {
            let sum = cell.load(Ordering::Relaxed).wrapping_add(amount);
            cell.store(sum, Ordering::Relaxed);
        }
    }

    fn add_to(&self, sums: &mut [u64; N]) {
        for (sum, cell) in sums.iter_mut().zip(&self.0) {
            *sum += cell.load(Ordering::Relaxed);
        }
    }

    fn value(&self, index: usize) -> u64 {
        self.0
            .get(index)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

/// The counters of one worker for one proxy.
#[derive(Debug)]
pub struct WorkerCounters {
    proxy: Cells<{ ProxyCount::COUNT }>,
    servers: Vec<Cells<{ ServerCount::COUNT }>>,
    /// Waits for a server that ended with one, by bucket.
    waits: Cells<BUCKETS>,
    /// Connects that servers accepted, by server and bucket.
    connects: Vec<Cells<BUCKETS>>,
}

impl WorkerCounters {
    /// All zero.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self {
            proxy: Cells::new(),
            servers: (0..servers).map(|_| Cells::new()).collect(),
            waits: Cells::new(),
            connects: (0..servers).map(|_| Cells::new()).collect(),
        }
    }

    /// Counts for the proxy. Only its worker may call this.
    pub fn add(&self, what: ProxyCount, amount: u64) {
        self.proxy.add(what as usize, amount);
    }

    /// Counts for a server. Only its worker may call this.
    pub fn add_server(&self, server: usize, what: ServerCount, amount: u64) {
        if let Some(cells) = self.servers.get(server) {
            cells.add(what as usize, amount);
        }
    }

    /// A wait for a server ended with one after so many microseconds. Only its worker may call this.
    pub fn waited(&self, micros: u64) {
        self.add(ProxyCount::Queued, 1);
        self.add(ProxyCount::QueueMicros, micros);
        self.waits.add(spans::bucket(micros), 1);
    }

    /// A server accepted after so many microseconds. Only its worker may call this.
    pub fn connected(&self, server: usize, micros: u64) {
        self.add_server(server, ServerCount::Connected, 1);
        self.add_server(server, ServerCount::ConnectMicros, micros);
        if let Some(cells) = self.connects.get(server) {
            cells.add(spans::bucket(micros), 1);
        }
    }

    /// One count of one server.
    #[must_use]
    pub fn of_server(&self, server: usize, what: ServerCount) -> u64 {
        self.servers
            .get(server)
            .map_or(0, |cells| cells.value(what as usize))
    }

    /// Adds these counters to sums.
    pub fn sum_into(&self, proxy: &mut ProxyTotals, servers: &mut [ServerTotals]) {
        proxy.add(&self.proxy);
        for (totals, cells) in servers.iter_mut().zip(&self.servers) {
            totals.add(cells);
        }
    }
}

impl WorkerCounters {
    /// Adds the buckets of waits, and those of each server's connects, to sums.
    pub fn sum_spans(&self, waits: &mut Counts, connects: &mut [Counts]) {
        self.waits.add_to(waits);
        for (counts, cells) in connects.iter_mut().zip(&self.connects) {
            cells.add_to(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cache_line_has_two_writers() {
        let workers = [0, 1].map(|_| std::sync::Arc::new(WorkerCounters::new(3)));
        let mut owners = std::collections::HashMap::new();
        for (worker, counters) in workers.iter().enumerate() {
            let servers = counters.servers.iter().flat_map(|cells| &cells.0);
            let spans = counters.connects.iter().flat_map(|cells| &cells.0);
            let spans = spans.chain(&counters.waits.0);
            for cell in counters.proxy.0.iter().chain(servers).chain(spans) {
                let line = std::ptr::from_ref(cell).addr() / 64;
                assert_eq!(*owners.entry(line).or_insert(worker), worker);
            }
        }
        assert!(owners.len() > 2);
    }

    #[test]
    fn the_sum_over_workers_is_what_each_counted() {
        let workers = [WorkerCounters::new(2), WorkerCounters::new(2)];
        workers[0].add(ProxyCount::Accepted, 2);
        workers[1].add(ProxyCount::Accepted, 3);
        workers[1].add_server(1, ServerCount::BytesOut, 7);
        let (mut proxy, mut servers) = (ProxyTotals::default(), [ServerTotals::default(); 2]);
        for worker in &workers {
            worker.sum_into(&mut proxy, &mut servers);
        }
        assert_eq!(proxy.accepted, 5);
        assert_eq!((servers[0].bytes_out, servers[1].bytes_out), (0, 7));
    }

    #[test]
    fn waits_and_connects_are_counted_by_how_long_they_took() {
        let workers = [WorkerCounters::new(2), WorkerCounters::new(2)];
        workers[0].waited(1_000);
        workers[1].waited(1_024);
        workers[1].connected(1, 128);
        workers[0].connected(1, 129);
        let (mut waits, mut connects) = (Counts::default(), [Counts::default(); 2]);
        let (mut proxy, mut servers) = (ProxyTotals::default(), [ServerTotals::default(); 2]);
        for worker in &workers {
            worker.sum_spans(&mut waits, &mut connects);
            worker.sum_into(&mut proxy, &mut servers);
        }
        assert_eq!((waits[3], waits.iter().sum::<u64>()), (2, 2));
        assert_eq!(connects[0], Counts::default());
        assert_eq!(connects[1][..3], [1, 1, 0]);
        assert_eq!((proxy.queued, proxy.queue_micros), (2, 2_024));
        assert_eq!((servers[1].connected, servers[1].connect_micros), (2, 257));
    }
}
