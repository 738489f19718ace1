//! How many workers the data path has, and on which CPUs they stay: from `limits.workers`,
//! `limits.pin-workers` and what the kernel allows this process.

use crate::config::model::Config;
use crate::net::cpus;

/// The workers of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Workers {
    /// How many; 0 in a file without `[proxy]`.
    pub(super) count: usize,
    /// The CPU of each; empty: the scheduler decides.
    pub(super) cpus: Vec<usize>,
}

impl Workers {
    /// Asks the kernel, so before the sandbox closes: a cgroup's quota stands in a file.
    pub(super) fn of(config: &Config) -> Self {
        let asked = config.limits.workers;
        let count = match asked {
            _ if config.proxies.is_empty() => 0,
            None => cpus::usable(),
            Some(asked) => asked.get().into(),
        };
        let cpus = if config.limits.pin_workers {
            pinned(count)
        } else {
            Vec::new()
        };
        Self { count, cpus }
    }
}

/// A CPU for each worker, or none for any: two on one would wait for each other while the
/// scheduler may not help.
fn pinned(workers: usize) -> Vec<usize> {
    let allowed = match cpus::allowed() {
        Ok(allowed) => allowed,
        Err(error) => {
            tracing::warn!(%error, key = "limits.pin-workers", "workers are not pinned");
            return Vec::new();
        }
    };
    let places = places(workers, &allowed);
    if places.is_none() {
        tracing::warn!(
            key = "limits.pin-workers",
            from = workers,
            to = allowed.len(),
            reason = "more workers than CPUs this process may use: lower limits.workers, or set it to \"auto\"",
            "workers are not pinned"
        );
    }
    places.unwrap_or_default()
}

fn places(workers: usize, allowed: &[usize]) -> Option<Vec<usize>> {
    allowed.get(..workers).map(<[usize]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limits: &str) -> Workers {
        let text = format!(
            "[limits]\n{limits}\n[proxy.p]\nlisten = \"127.0.0.1:1\"\nbackends = [\"127.0.0.1:3\"]\n"
        );
        Workers::of(&crate::config::load(&text).unwrap())
    }

    #[test]
    fn each_worker_gets_a_cpu_of_its_own_or_none_is_pinned() {
        assert_eq!(places(2, &[3, 5, 7]), Some(vec![3, 5]));
        assert_eq!(places(3, &[3, 5, 7]), Some(vec![3, 5, 7]));
        assert_eq!(places(4, &[3, 5, 7]), None);
        let pinned = of("workers = 1\npin-workers = true");
        assert_eq!((pinned.count, pinned.cpus.len()), (1, 1));
        assert!(of("workers = 1").cpus.is_empty());
        assert!(of("workers = 256\npin-workers = true").cpus.is_empty());
    }

    #[test]
    fn auto_is_what_the_process_may_use() {
        assert_eq!(of("workers = \"auto\"").count, cpus::usable());
        assert_eq!(of("").count, cpus::usable());
        let vips_only = crate::config::load(
            "[vip.v]\naddress = \"10.0.0.9/24\"\nnodes = [\"10.0.0.1\", \"10.0.0.2\"]\n",
        );
        assert_eq!(Workers::of(&vips_only.unwrap()).count, 0);
    }
}
