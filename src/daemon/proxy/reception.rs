//! The thread that answers questions over HTTP, and by which names. It has an executor of its own:
//! however many ask, and however long a page is, health checks and orders on the control thread
//! are not kept waiting.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::utsname::uname;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread that writes long pages goes when it has had nothing to do for so long.
const WRITER_REST: Duration = Duration::from_secs(10);
/// The same for all pages: each waits for the one before, and none for another's reader.
const WRITERS: usize = 1;
const RESOLVER: &str = "/etc/resolv.conf";

/// The thread, once it is needed; it ends when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Reception(Option<(Handle, oneshot::Sender<()>)>);

impl Reception {
    /// Where to put tasks that answer. On the present thread if there can be no other.
    pub(super) fn handle(&mut self) -> Handle {
        if self.0.is_none() {
            match begin() {
                Ok(begun) => self.0 = Some(begun),
                Err(error) => {
                    tracing::warn!(%error, "no thread for http, it is answered beside checks");
                }
            }
        }
        let present = self.0.as_ref().map(|(handle, _)| handle.clone());
        present.unwrap_or_else(Handle::current)
    }
}

fn begin() -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(WRITERS)
        .thread_keep_alive(WRITER_REST)
        .thread_name("lbd-pages")
        .build()?;
    let handle = runtime.handle().clone();
    let (until_dropped, end) = oneshot::channel::<()>();
    thread::Builder::new()
        .name("lbd-http".to_owned())
        .spawn(move || {
            // Nothing is ever sent.
            runtime.block_on(end).unwrap_or_default();
            runtime.shutdown_background();
        })?;
    Ok((handle, until_dropped))
}

/// What this machine is called: its own name, with and without a domain, and in each domain that
/// short names are looked up in.
pub(super) fn host_names() -> Vec<String> {
    let own = uname().map(|it| it.nodename().to_string_lossy().to_ascii_lowercase());
    let own = own.unwrap_or_default();
    let text = fs::read_to_string(Path::new(RESOLVER)).unwrap_or_default();
    names(&own, &text)
}

fn names(own: &str, resolver: &str) -> Vec<String> {
    let Some(short) = own.split('.').next().filter(|short| !short.is_empty()) else {
        return Vec::new();
    };
    let mut names = vec![short.to_owned()];
    if own != short {
        names.push(own.to_owned());
    }
    for line in resolver.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            let domains = words.map(|domain| domain.trim_end_matches('.').to_ascii_lowercase());
            let domains = domains.filter(|domain| !domain.is_empty());
            names.extend(domains.map(|domain| format!("{short}.{domain}")));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_called_by_its_name_and_by_that_in_its_domains() {
        let resolver =
            "# search not.this\nnameserver 10.0.0.1\nsearch Example.com. k8s.local\ndomain x\n";
        assert_eq!(
            names("lb1", resolver),
            ["lb1", "lb1.example.com", "lb1.k8s.local", "lb1.x"]
        );
        assert_eq!(names("lb1.example.org", ""), ["lb1", "lb1.example.org"]);
        assert_eq!(names("", "search example.com"), [""; 0]);
    }

    #[test]
    fn its_tasks_run_on_a_thread_of_its_own_until_it_is_dropped() {
        let mut reception = Reception::default();
        let name = async { thread::current().name().map(str::to_owned) };
        let (handle, other) = (reception.handle(), reception.handle());
        assert_eq!(
            handle.block_on(handle.spawn(name)).unwrap().as_deref(),
            Some("lbd-http")
        );
        let forever = other.spawn(std::future::pending::<()>());
        drop(reception);
        assert!(futures_end(forever).is_cancelled());
    }

    fn futures_end(task: tokio::task::JoinHandle<()>) -> tokio::task::JoinError {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(task).unwrap_err()
    }
}
