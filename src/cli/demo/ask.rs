//! Asks each node about itself, again and again, over its admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::lab::Node;
use crate::admin::protocol::ask_status;
use crate::admin::status::Status;
use crate::ipc::message::VrrpState;

/// How often.
const INTERVAL: Duration = Duration::from_millis(200);

/// Someone who asks; ends when dropped.
#[derive(Debug)]
pub struct Asker {
    /// Each node's last word; `None`: it is dead.
    words: Vec<Arc<Mutex<Option<String>>>>,
    stop: Arc<AtomicBool>,
}

impl Asker {
    /// Starts to ask at this socket, a path on each node.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(nodes: &[Node], socket: &Path) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut words = Vec::new();
        for node in nodes {
            let word = Arc::new(Mutex::new(None));
            words.push(Arc::clone(&word));
            let (host, stopped) = (Arc::clone(&node.host), Arc::clone(&stop));
            let socket: PathBuf = socket.to_owned();
            node.host.thread("asker", move || {
                while !stopped.load(Ordering::Relaxed) {
                    let alive = host.processes().is_ok_and(|all| !all.is_empty());
                    let new = alive.then(|| say(ask_status(&socket).ok().as_ref()));
                    *word.lock().unwrap_or_else(PoisonError::into_inner) = new;
                    thread::sleep(INTERVAL);
                }
            })?;
        }
        Ok(Self { words, stop })
    }

    /// What a node last said; `None`: it is dead.
    #[must_use]
    pub fn word(&self, node: usize) -> Option<String> {
        let word = self.words.get(node)?;
        word.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A node's status in a few words.
fn say(status: Option<&Status>) -> String {
    let Some(status) = status else {
        return "no answer yet".into();
    };
    let vip = status.vrrp.as_ref().and_then(|vrrp| vrrp.vips.first());
    let mut words = match vip {
        Some(vip) => format!("{:<15}", state(vip.state)),
        None => "no keeper      ".into(),
    };
    for proxy in &status.proxies {
        let (usable, all) = (proxy.usable, proxy.servers.len());
        words.push_str(&format!("  {usable} of {all} servers ready"));
    }
    words
}

const fn state(state: VrrpState) -> &'static str {
    match state {
        VrrpState::Initialize => "starting",
        VrrpState::Backup => "backup",
        VrrpState::Active => "active (MASTER)",
        VrrpState::Leaving => "leaving",
    }
}
