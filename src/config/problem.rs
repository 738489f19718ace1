//! A mistake in lb.toml as a value: what, where, and how to mend it. No rendering here.

use std::ops::Range;

/// One mistake, or one thing that deserves a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A stable code such as `E0101` or `W0304`; its meaning is in [`CODES`].
    pub code: &'static str,
    /// Whether the file is refused.
    pub severity: Severity,
    /// One line.
    pub message: String,
    /// Places in the text; empty when the file as a whole is meant.
    pub labels: Vec<Label>,
    /// Further advice, a line each.
    pub help: Vec<String>,
    /// A change that mends it.
    pub fix: Option<Fix>,
}

/// Whether a problem refuses the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted, unless `--strict`.
    Warning,
}

/// A marked place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Byte offsets.
    pub span: Range<usize>,
    /// What is said there; may be empty.
    pub text: String,
    /// The place itself, as against a place that explains it.
    pub primary: bool,
}

/// A change to the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// What it does.
    pub message: String,
    /// Replaced byte offsets.
    pub span: Range<usize>,
    /// The new text.
    pub replacement: String,
}

impl Problem {
    /// An error.
    #[must_use]
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message.into())
    }

    /// A warning.
    #[must_use]
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message.into())
    }

    const fn new(code: &'static str, severity: Severity, message: String) -> Self {
        Self {
            code,
            severity,
            message,
            labels: Vec::new(),
            help: Vec::new(),
            fix: None,
        }
    }

    /// Marks the place.
    #[must_use]
    pub fn at(mut self, span: &Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            span: span.clone(),
            text: text.into(),
            primary: true,
        });
        self
    }

    /// Marks a place that explains it.
    #[must_use]
    pub fn context(mut self, span: &Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            span: span.clone(),
            text: text.into(),
            primary: false,
        });
        self
    }

    /// Adds a line of advice.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Proposes a change.
    #[must_use]
    pub fn fix(
        mut self,
        message: impl Into<String>,
        span: &Range<usize>,
        replacement: impl Into<String>,
    ) -> Self {
        self.fix = Some(Fix {
            message: message.into(),
            span: span.clone(),
            replacement: replacement.into(),
        });
        self
    }

    /// Where it stands in the text, for sorting.
    #[must_use]
    pub fn position(&self) -> usize {
        self.labels
            .iter()
            .find(|label| label.primary)
            .map_or(usize::MAX, |label| label.span.start)
    }

    /// Whether it refuses the file.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Every code with its meaning, for the documentation.
pub const CODES: &[(&str, &str)] = &[
    ("E0001", "the file is not TOML"),
    (
        "E0002",
        "syntax of TOML 1.1, which editors and other tools may not read",
    ),
    (
        "E0003",
        "the file asks for nothing: neither `[vip.NAME]` nor `[proxy.NAME]`",
    ),
    (
        "E0004",
        "the file can't be read, or isn't UTF-8, or is too large",
    ),
    ("E0101", "unknown key"),
    ("E0102", "wrong type"),
    ("E0103", "a duration without a unit"),
    ("E0104", "a required key is missing"),
    ("E0105", "out of range"),
    ("E0106", "no such value"),
    ("E0107", "not supported yet"),
    ("E0108", "malformed value"),
    ("E0109", "the key has no meaning beside the others"),
    ("E0201", "`vrid` is needed"),
    ("E0202", "this machine is not among the nodes"),
    ("W0203", "a node is outside the virtual address's subnet"),
    ("E0204", "a node is listed twice"),
    ("E0205", "no such interface on this machine"),
    ("E0206", "a node's own address is the virtual address"),
    ("W0207", "equal priorities"),
    ("W0208", "a weight that can't decide an election"),
    ("E0209", "an interval that the VRRP version can't carry"),
    ("E0210", "authentication that can't work"),
    ("W0211", "authentication that doesn't protect"),
    ("E0212", "two virtual routers share an address or a vrid"),
    (
        "E0213",
        "`track` names nothing in this file, or one thing twice",
    ),
    ("W0214", "priority 255 is the address owner's"),
    ("W0215", "the virtual address doesn't follow the proxies"),
    ("W0216", "a script or file that nothing tracks"),
    ("W0217", "a pair needs two nodes"),
    (
        "E0230",
        "members of a sync-group that differ in what decides elections",
    ),
    ("W0231", "a sync-group of one"),
    (
        "E0240",
        "a node has no address of a virtual address's family",
    ),
    ("E0241", "version 2 has no IPv6"),
    (
        "E0242",
        "a node's address isn't link-local, and IPv6 adverts go to a group",
    ),
    ("W0261", "a weight per server that can't decide an election"),
    ("W0262", "a tracked interface that is not on this machine"),
    ("W0263", "a program that will not be run"),
    ("E0250", "a route that isn't to a host address"),
    ("W0251", "a route to an address of a LAN of this node"),
    ("W0252", "a route that a hung lbd would leave in place"),
    ("E0270", "the key file of `[peer]` can't be used"),
    ("E0301", "two listeners on one address"),
    ("E0302", "a server is listed twice"),
    ("E0303", "a proxy would connect to itself"),
    ("W0304", "an idle timeout that cuts quiet connections"),
    ("W0305", "a TCP check doesn't notice a hung API server"),
    ("W0306", "the check doesn't verify the server's certificate"),
    ("E0307", "a file is not there"),
    ("W0308", "no server takes connections"),
    ("W0309", "another process holds the port"),
    ("W0310", "anybody may say who the client is"),
    ("E0311", "connections would come from a virtual address"),
    ("W0312", "the source address is not on this machine"),
    ("W0313", "no server is of the source address's family"),
    ("W0314", "servers that don't know the PROXY protocol"),
    ("W0315", "backups that stand in for nobody"),
    ("W0316", "servers that are never reached"),
    ("E0317", "a file of the check cannot be used"),
    ("W0318", "a secret of the check can be read by everybody"),
    ("W0325", "a backends file that is not there yet"),
];

/// `span`, inside the text and on character boundaries.
pub(super) fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}
