//! The proxy's part: it is offered the new configuration, and changes over with the keeper, or
//! another process gets it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::read::{Found, Place};
use super::report::{self, told};
use super::{Asked, Phase};
use crate::daemon::keeper::Keeper;
use crate::daemon::keeper::adoption::Phase as Adoption;
use crate::daemon::keeper::proxies::send;
use crate::ipc::message::{ListenerGroup, ToProxy};
use crate::ipc::reload::{PrepareAnswer, ReloadResult};
use crate::net::seqpacket::FDS_MAX;

/// How the proxy gets the new configuration.
#[derive(Debug)]
pub(super) enum Way {
    /// The present one changes over, at the commit of this number.
    InPlace(u64),
    /// Another process, for this reason.
    Successor(String),
    /// There is none now: the next one begins with it.
    Next,
}

impl Keeper {
    /// The file can be had: does the proxy take it?
    pub(super) fn offer(&mut self, now: Instant, asked: Asked, found: Box<Found>) {
        self.reload.last += 1;
        let id = self.reload.last;
        if !self.proxies.is_connected() {
            return self.decide(now, asked, found, &Way::Next);
        }
        match self.send_offer(id, &found) {
            Ok(()) => {
                self.reload.phase = Phase::Preparing {
                    asked,
                    id,
                    since: now,
                    found,
                };
            }
            Err(error) => {
                let why = format!("the proxy process cannot be told: {error}");
                self.end_reload(now, asked, report::failed(*found, why));
            }
        }
    }

    fn send_offer(&mut self, id: u64, found: &Found) -> io::Result<()> {
        let Adoption::Settled(present) = &self.proxies.phase else {
            return Err(io::ErrorKind::ResourceBusy.into());
        };
        let Some(current) = &mut self.proxies.current else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (epoll, link) = (&self.epoll, &mut current.link);
        let text = [found.config_fd.as_fd()];
        send(epoll, link, &ToProxy::Prepare { id }, &text)?;
        for (proxy, places) in found.listeners.iter().enumerate() {
            for (listen, place) in places.iter().enumerate() {
                let fds: &[OwnedFd] = match place {
                    Place::Kept(..) => continue,
                    Place::Opened(fds) => fds,
                    Place::Moved(proxy, listen) => {
                        let groups = present.0.get(*proxy);
                        let group = groups.and_then(|groups| groups.get(*listen));
                        group.map_or(&[], Vec::as_slice)
                    }
                };
                for fds in fds.chunks(FDS_MAX) {
                    let group = ListenerGroup {
                        proxy: number(proxy),
                        listen: number(listen),
                        count: number(fds.len()),
                    };
                    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                    send(epoll, link, &ToProxy::Listeners(group), &fds)?;
                }
            }
        }
        send(epoll, link, &ToProxy::ListenersDone, &[])
    }

    /// The proxy has looked at it.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        (asked, id): (Asked, u64),
        found: Box<Found>,
        answer: PrepareAnswer,
    ) {
        match answer {
            PrepareAnswer::Ready => self.decide(now, asked, found, &Way::InPlace(id)),
            PrepareAnswer::NeedsNewProcess { why } => {
                self.abort(now, id);
                self.decide(now, asked, found, &Way::Successor(why));
            }
            PrepareAnswer::Refused { problems } => {
                self.abort(now, id);
                let Found {
                    changes,
                    diagnostics,
                    ..
                } = *found;
                let refused = ReloadResult::Refused;
                let report = told(changes, diagnostics, refused, problems);
                self.end_reload(now, asked, report);
            }
        }
    }

    pub(super) fn abort(&mut self, now: Instant, id: u64) {
        self.tell_proxy(now, &ToProxy::Abort { id });
    }

    /// Everybody could: now, or never if this was a dry run.
    fn decide(&mut self, now: Instant, asked: Asked, found: Box<Found>, way: &Way) {
        let ready = self.ready(now, &found);
        let problems = match way {
            Way::Successor(why) => vec![format!("takes a new proxy process: {why}")],
            Way::InPlace(_) | Way::Next => Vec::new(),
        };
        let ready = match ready {
            Ok(ready) if !asked.dry_run => ready,
            other => {
                if let Way::InPlace(id) = way {
                    self.abort(now, *id);
                }
                // What routers that will not be had made for themselves.
                let other = other.map(drop);
                self.routers.remove_unused_devices();
                let Found {
                    changes,
                    diagnostics,
                    ..
                } = *found;
                let (result, problems) = match other {
                    Ok(_) => (ReloadResult::Planned, problems),
                    Err(why) => (ReloadResult::Failed, vec![why]),
                };
                let report = told(changes, diagnostics, result, problems);
                return self.end_reload(now, asked, report);
            }
        };
        let id = match way {
            Way::InPlace(id) => Some(*id),
            Way::Successor(_) | Way::Next => None,
        };
        if let Some(id) = id {
            self.tell_proxy(now, &ToProxy::Commit { id });
        }
        let replaced = matches!(way, Way::Successor(_));
        let (changes, diagnostics) = self.apply(now, *found, ready);
        let result = if replaced {
            ReloadResult::Replaced
        } else {
            ReloadResult::Applied
        };
        let report = told(changes, diagnostics, result, problems);
        match id.filter(|_| self.proxies.is_connected()) {
            Some(id) => {
                self.reload.phase = Phase::Committing {
                    asked,
                    id,
                    since: now,
                    report: Box::new(report),
                };
            }
            None => self.end_reload(now, asked, report),
        }
        if replaced {
            self.replace_proxy(now);
        }
    }
}

fn number(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
