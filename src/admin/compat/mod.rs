//! lbd's numbers by the names and labels of other exporters, so that their dashboards and alerts go
//! on working: HAProxy's own for proxies in TCP mode, and keepalived-exporter's. Pure.
//!
//! Each `[proxy.NAME]` is a frontend and a backend of that name, as a `listen` section of HAProxy
//! is. What HAProxy counts of HTTP, TLS, compression or stick tables is 0 where its exporter says 0
//! for a proxy in TCP mode: lbd has none of it. What lbd doesn't measure is absent; docs/metrics.md
//! lists it, and why.

mod backend;
mod frontend;
mod keepalived;
mod process;
mod server;

use super::status::Status;
use crate::metrics::{Families, Family};

/// A family, and how its value is read.
struct Row<T> {
    family: Family,
    read: fn(&T) -> f64,
}

macro_rules! rows {
    ($list:ident of $type:ty, $labels:expr; $($kind:ident $name:literal $help:literal $read:expr;)*) => {
        pub(super) const $list: &[Row<$type>] = &[$(Row {
            family: Family { name: $name, kind: Kind::$kind, labels: &$labels, help: $help },
            read: $read,
        }),*];
    };
}
use rows;

impl<T> Row<T> {
    /// Adds one sample of each row.
    fn add_all(rows: &[Self], out: &mut Families, labels: &[&str], of: &T) {
        for row in rows {
            out.add(&row.family, labels, (row.read)(of));
        }
    }
}

/// Adds everything.
pub fn add(out: &mut Families, status: &Status) {
    process::add(out, status);
    for proxy in &status.proxies {
        frontend::add(out, proxy, status.process.serving);
        backend::add(out, proxy);
        for one in &proxy.servers {
            server::add(out, proxy, one);
        }
    }
    keepalived::add(out, status);
}

/// Every family, in the order of the documentation.
#[must_use]
pub fn all() -> Vec<Family> {
    let mut all = Vec::new();
    all.extend(process::families());
    all.extend(frontend::families());
    all.extend(backend::families());
    all.extend(server::families());
    all.extend(keepalived::families());
    all
}

/// What has no meaning is no number there.
fn or_nan(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

/// What nobody has.
const fn none<T>(_: &T) -> f64 {
    0.0
}

#[cfg(test)]
mod tests;
