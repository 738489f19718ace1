//! Which servers are in force: those whose turn can come. All usable backups stand in together when
//! no other server is usable.

use super::board::Board;
use super::plan::Candidate;
use super::slots::{Door, Slots, Take};
use super::{Dispatch, Server};
use crate::proxy::balance::Rotation;
use crate::proxy::queue::Tried;

impl Dispatch {
    /// A slot for a connection that has failed on all the servers in force before checks told that
    /// they are gone: on a backup, or else on one that is held back.
    pub(super) fn standby(&mut self, tried: Tried) -> Option<usize> {
        let (servers, weights) = (&self.servers, &self.weights);
        let out_of_force = |index: usize| {
            let server = servers.get(index)?.as_ref().filter(|s| s.able())?;
            let in_force = weights.get(index).is_some_and(|weight| *weight > 0);
            (!in_force && !tried.contains(index)).then_some(server)
        };
        let backups_left =
            (0..weights.len()).any(|index| out_of_force(index).is_some_and(Server::usable));
        let weight = |index: usize| {
            let server = out_of_force(index).filter(|s| s.usable() || !backups_left)?;
            Some(server.effective_weight())
        };
        in_rotation(&mut self.rotation, &self.board, weight)
    }

    /// The servers in force, as a plan wants them.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let servers = self.servers.iter().zip(&self.weights).enumerate();
        servers
            .filter(|(_, (_, weight))| **weight > 0)
            .filter_map(|(place, (server, weight))| {
                Some(Candidate {
                    place: u16::try_from(place).ok()?,
                    weight: *weight,
                    seed: server.as_ref()?.seed(),
                })
            })
            .collect()
    }

    /// Whether a server's turn can come: all usable backups stand in when no other is usable.
    pub(super) fn in_force(&self, server: &Server) -> bool {
        server.usable() && server.backup() == self.on_backups
    }
}

/// A slot on the next of the servers that have a weight and room, picked one at a time.
pub(super) fn in_rotation(
    rotation: &mut Rotation,
    board: &Board,
    weight: impl Fn(usize) -> Option<u32>,
) -> Option<usize> {
    loop {
        let picked = rotation.pick(|index| {
            let free = board.slots(index).is_some_and(Slots::has_room);
            weight(index).filter(|_| free).unwrap_or(0)
        })?;
        if board.slots(picked)?.take(Door::Queue) == Take::Taken {
            return Some(picked);
        }
    }
}
