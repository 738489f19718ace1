//! `[reload]`: when the file is read again.

/// `[reload]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// `watch`, default false: a file that changes is taken without an order.
    pub watch: bool,
}
