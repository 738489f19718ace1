//! Slots for connections that have been served once already: elsewhere, or beside the one they have.

use super::{Dispatch, in_rotation};
use crate::proxy::queue::Tried;

impl Dispatch {
    /// Whether a server that could serve is not in `tried`: one that is held back is better than none.
    #[must_use]
    pub fn has_untried(&self, tried: Tried) -> bool {
        self.members()
            .any(|(place, server)| server.able() && !tried.contains(place))
    }

    /// A slot for a connection that has one already, or can do without, on a server among those
    /// `allowed`; on a backup if none in force is. Never a slot that somebody waits for.
    pub fn take_beside(&mut self, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        if !self.queue.is_empty() {
            return None;
        }
        self.open_paced();
        let (servers, weights) = (&self.servers, &self.weights);
        let in_force = |index: usize| weights.get(index).copied().filter(|weight| *weight > 0);
        let any = (0..weights.len()).any(|index| in_force(index).is_some() && allowed(index));
        let weight = |index: usize| {
            if !allowed(index) {
                None
            } else if any {
                in_force(index)
            } else {
                let server = servers.get(index)?.as_ref().filter(|s| s.usable())?;
                Some(server.effective_weight())
            }
        };
        let server = in_rotation(&mut self.rotation, &self.board, weight)?;
        self.keep_pace(server);
        Some(server)
    }
}
