//! The limits that this process keeps together with another one, while there is one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::start::Table;
use crate::proxy::farm::Farm;
use crate::proxy::farm::share::Column;

/// This process's column of the table, and whether another process has one, too.
#[derive(Debug)]
pub(super) struct SharedLimits {
    column: Option<Column>,
    shared: bool,
}

impl SharedLimits {
    /// Before anything is served.
    pub(super) fn new(table: Table, farms: &[Arc<Farm>]) -> Self {
        let mut limits = Self {
            column: table.column,
            shared: false,
        };
        if table.beside {
            limits.set(farms, true);
        } else if let Some(Column { shares, column }) = &limits.column {
            shares.be_alone(*column);
        }
        limits
    }

    /// The table, for another keeper.
    pub(super) fn table(&self) -> Option<BorrowedFd<'_>> {
        Some(self.column.as_ref()?.shares.as_fd())
    }

    /// Another process serves, too, or does no more.
    pub(super) fn set(&mut self, farms: &[Arc<Farm>], shared: bool) {
        let Some(column) = &self.column else { return };
        let changed = std::mem::replace(&mut self.shared, shared) != shared;
        if !changed {
            return;
        }
        if shared {
            farms.iter().for_each(|farm| farm.share(column));
            // What is taken here is in the table: others may have the rest.
            column.shares.end_alone(column.column.into());
        } else {
            column.shares.be_alone(column.column);
            farms.iter().for_each(|farm| farm.end_sharing());
        }
        tracing::info!(shared, "limits are kept together with another process");
    }

    /// Gives back what is not used, and claims what is waited for. `stays`: whether this process goes on
    /// accepting.
    pub(super) fn settle(&self, farms: &[Arc<Farm>], stays: bool) {
        let Some(column) = self.column.as_ref().filter(|_| self.shared) else {
            return;
        };
        for farm in farms {
            // One that came meanwhile.
            farm.share(column);
            farm.settle_sharing(stays);
        }
    }
}
