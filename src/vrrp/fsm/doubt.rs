//! What an Active does that the others can't hear: its own sends fail (*mute*), or a peer says by
//! the peer channel that it hears nothing (*unheard*: packets are lost one way). The others take
//! over, as they must, and two nodes hold the addresses until one yields. The one that can't be
//! heard hears the other, so it is the one to yield, whatever the priorities:
//!
//! - An Active that has been mute for an interval yields to the first advert of another Active.
//!   An Active that is unheard yields once that other has gone on for an interval in spite of our
//!   adverts: where it heard us after all, as after a healed partition, it has yielded by then.
//! - It preempts nobody until it is known to be heard. To learn that, it sends a weak advert now
//!   and then, with back-off: the Active answers that and stays, and its peer channel says that
//!   we are heard again (or the send works again).
//! - None of this counts against an Active that can't serve (priority 0 to 2), and none where no
//!   Active is heard: a vacant address is taken, and one that nobody else wants is kept.
//!
//! Neither rule can leave an address vacant: who yields, yields to a node that advertises, and
//! watches it as any Backup does. A report that goes stale frees the preemption only after the
//! back-off, which doubles with each time it was wrong.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// With which priority a doubted Backup asks whether it is heard: an Active of any use stays, and
/// no Backup takes it for a node that can't serve.
pub(super) const PROBE_PRIORITY: u8 = 2;
/// The first wait for such a probe, and the longest.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MOST: Duration = Duration::from_secs(30);
/// After so long without trouble the back-off begins anew.
const FORGET: Duration = Duration::from_secs(600);

/// Whether the others hear this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doubt {
    /// Since when all sends have failed.
    #[serde(with = "crate::recorder::time::maybe")]
    mute_since: Option<Instant>,
    /// What the peer channel says.
    unheard: bool,
    /// It has yielded because it was unheard, and nobody has said since that it is heard.
    silenced: bool,
    /// Whether it has sent a probe since it yielded.
    probed: bool,
    #[serde(with = "crate::recorder::time::maybe")]
    retry_at: Option<Instant>,
    #[serde(with = "crate::recorder::time::span")]
    back_off: Duration,
    #[serde(with = "crate::recorder::time::maybe")]
    yielded_at: Option<Instant>,
}

/// Another Active, weaker than this one, that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rival {
    sender: IpAddr,
    #[serde(with = "crate::recorder::time")]
    since: Instant,
    #[serde(with = "crate::recorder::time")]
    last: Instant,
}

impl Rival {
    /// The same one, if it was heard within `span`; otherwise one that begins now.
    pub(super) fn heard(
        before: Option<Self>,
        sender: IpAddr,
        now: Instant,
        span: Duration,
    ) -> Self {
        let same = before.filter(|rival| {
            rival.sender == sender && now.saturating_duration_since(rival.last) <= span
        });
        Self {
            sender,
            since: same.map_or(now, |rival| rival.since),
            last: now,
        }
    }
}

impl Doubt {
    pub(super) const NONE: Self = Self {
        mute_since: None,
        unheard: false,
        silenced: false,
        probed: false,
        retry_at: None,
        back_off: BACK_OFF,
        yielded_at: None,
    };

    /// Whether the last round of adverts failed as a whole.
    pub(super) fn is_mute(&self) -> bool {
        self.mute_since.is_some()
    }

    /// Whether this Active has reason to think that another one can't hear it.
    pub(super) fn is_there(&self) -> bool {
        self.mute_since.is_some() || self.unheard
    }

    /// Whether this Active is to yield to a weaker one.
    pub(super) fn yields(&self, rival: &Rival, now: Instant, interval: Duration) -> bool {
        let lasts = |since| now.saturating_duration_since(since) >= interval;
        self.mute_since.is_some_and(lasts) || (self.unheard && lasts(rival.since))
    }

    /// Whether this Backup preempts nobody.
    pub(super) fn forbids(&self, now: Instant) -> bool {
        self.mute_since.is_some() || self.silenced || self.retry_at.is_some_and(|at| now < at)
    }

    pub(super) fn set_mute(&mut self, mute: bool, now: Instant) {
        if mute {
            self.mute_since.get_or_insert(now);
        } else {
            self.mute_since = None;
            self.clear();
        }
    }

    pub(super) fn set_unheard(&mut self, unheard: bool) {
        self.unheard = unheard;
        if !unheard {
            self.silenced = false;
            self.clear();
        }
    }

    /// It yields: from here on it must be heard before it preempts.
    pub(super) fn note_yield(&mut self, now: Instant) {
        let forgotten = |at| now.saturating_duration_since(at) > FORGET;
        if self.yielded_at.is_none_or(forgotten) {
            self.back_off = BACK_OFF;
        }
        self.yielded_at = Some(now);
        self.silenced = self.unheard;
        self.probed = false;
        self.wait(now);
    }

    /// Whether to ask now if it is heard.
    pub(super) fn probes(&mut self, now: Instant) -> bool {
        let due = (self.mute_since.is_some() || self.silenced)
            && self.retry_at.is_none_or(|at| at <= now);
        if due {
            self.probed = true;
            self.wait(now);
        }
        due
    }

    /// The addresses were vacant, and this node has taken them.
    pub(super) fn note_take_over(&mut self) {
        self.silenced = false;
        self.probed = false;
        self.retry_at = None;
    }

    /// A new start: the sockets are others.
    pub(super) fn note_start(&mut self) {
        self.mute_since = None;
        self.note_take_over();
    }

    /// What an answer to a probe says is true at once; anything else may be a report gone stale.
    fn clear(&mut self) {
        if self.probed && self.mute_since.is_none() && !self.silenced {
            self.retry_at = None;
        }
    }

    fn wait(&mut self, now: Instant) {
        self.retry_at = Some(now + self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF_MOST);
    }
}
