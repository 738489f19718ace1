//! The limits that this process keeps together with another one, while there is one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::report::Shared;
use super::start::Table;
use crate::proxy::farm::Farm;
use crate::proxy::joint::Joined;
use crate::proxy::shares::Column;

/// This process's column of the table, and whether another process has one, too.
#[derive(Debug)]
pub(super) struct SharedLimits {
    column: Option<Column>,
    shared: bool,
}

impl SharedLimits {
    /// Before anything is served.
    pub(super) fn new(table: Table, farms: &[Arc<Farm>]) -> Self {
        let limits = Self {
            shared: table.beside && table.column.is_some(),
            column: table.column,
        };
        if let Some(column) = &limits.column {
            if limits.shared {
                farms.iter().for_each(|farm| farm.share(column));
                // Nobody has everything: what others take is in the table.
                column.shares.end_alone(column.column.into());
            } else {
                column.shares.be_alone(column.column);
            }
        }
        limits
    }

    /// The table, for another keeper.
    pub(super) fn table(&self) -> Option<BorrowedFd<'_>> {
        Some(self.column.as_ref()?.shares.as_fd())
    }

    /// How the engine begins, where the file wants so many connections at most.
    pub(super) fn joined(&self, max_connections: Option<u32>) -> Option<Joined> {
        let column = self.column.as_ref().filter(|_| self.shared)?;
        Some(Joined {
            column: column.clone(),
            max_connections,
        })
    }

    /// Another process serves, too, or does no more.
    pub(super) fn set(&mut self, of: &Shared, shared: bool) {
        let Some(column) = &self.column else { return };
        let changed = std::mem::replace(&mut self.shared, shared) != shared;
        if !changed {
            return;
        }
        let in_force = of.in_force();
        let (farms, engine) = (&in_force.farms, of.engine.get());
        if shared {
            farms.iter().for_each(|farm| farm.share(column));
            if let (Some(engine), Some(joined)) = (engine, self.joined(in_force.limits.asked)) {
                engine.share(&joined);
            }
            // What is taken here is in the table: others may have the rest.
            column.shares.end_alone(column.column.into());
        } else {
            farms.iter().for_each(|farm| farm.end_sharing());
            if let Some(engine) = engine {
                engine.end_sharing();
            }
            // Nobody looks there any more.
            column.shares.be_alone(column.column);
        }
        tracing::info!(shared, "limits are kept together with another process");
    }

    /// Gives back what is not used, and claims what is waited for. `stays`: whether this process goes on
    /// accepting.
    pub(super) fn settle(&self, of: &Shared, stays: bool) {
        let Some(column) = self.column.as_ref().filter(|_| self.shared) else {
            return;
        };
        let in_force = of.in_force();
        for farm in &in_force.farms {
            // One that came meanwhile.
            farm.share(column);
            farm.settle_sharing(stays);
        }
        if let Some(engine) = of.engine.get() {
            engine.settle_sharing(stays, in_force.limits.asked);
        }
    }
}
