//! What an API server says of a service's endpoints: a list, then events, and the addresses that
//! follow from them (Kubernetes' API, group discovery.k8s.io/v1). Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::Value;

/// The list has gone from the server's history: it has to be made anew.
const GONE: u16 = 410;
/// More slices than this is no service that lbd could balance.
const SLICES_MAX: usize = 1024;

/// A list of EndpointSlices.
#[derive(Debug, Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Slice>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Meta,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Option<Conditions>,
}

#[derive(Debug, Clone, Deserialize)]
struct Conditions {
    /// Unknown, hence absent, means ready.
    #[serde(default)]
    ready: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// A `Status` object, the server's word about a failure.
#[derive(Debug, Default, Deserialize)]
struct Failure {
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    message: Option<String>,
}

/// Why what was said cannot be used. After any of these the list is made anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SliceError {
    /// Not what the API promises.
    #[error("the API server sent something else: {0}")]
    Malformed(String),
    /// 410: the version asked for has gone.
    #[error("the list is too old")]
    Gone,
    /// Another failure, in the server's words.
    #[error("{0}")]
    Told(String),
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Slices may have changed.
    Changed,
    /// A sign of life with a newer version.
    Bookmark,
}

/// The slices of one service as they were told.
#[derive(Debug, Default)]
pub(super) struct Slices {
    known: BTreeMap<String, Slice>,
    version: Option<String>,
}

impl Slices {
    /// From which version to watch; `None`: a list comes first.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The next word has to be a list.
    pub(super) fn forget(&mut self) {
        self.version = None;
    }

    /// A list replaces everything.
    pub(super) fn on_list(&mut self, body: &[u8]) -> Result<(), SliceError> {
        let list: List = serde_json::from_slice(body).map_err(malformed)?;
        if list.metadata.resource_version.is_empty() {
            return Err(SliceError::Malformed("a list without a version".to_owned()));
        }
        let items = list.items.unwrap_or_default();
        if items.len() > SLICES_MAX {
            return Err(SliceError::Malformed(format!("{} slices", items.len())));
        }
        let slices = items.into_iter();
        self.known = slices.map(|s| (s.metadata.name.clone(), s)).collect();
        self.version = Some(list.metadata.resource_version);
        Ok(())
    }

    /// One line of a watch.
    pub(super) fn on_event(&mut self, line: &[u8]) -> Result<Step, SliceError> {
        let outcome = self.try_event(line);
        if outcome.is_err() {
            self.forget();
        }
        outcome
    }

    fn try_event(&mut self, line: &[u8]) -> Result<Step, SliceError> {
        let event: Event = serde_json::from_slice(line).map_err(malformed)?;
        if event.kind == "ERROR" {
            let failure: Failure = serde_json::from_value(event.object).unwrap_or_default();
            return Err(match failure.code {
                Some(GONE) => SliceError::Gone,
                Some(_) | None => SliceError::Told(failure.message.unwrap_or_default()),
            });
        }
        let slice: Slice = serde_json::from_value(event.object).map_err(malformed)?;
        let (name, version) = (
            slice.metadata.name.clone(),
            slice.metadata.resource_version.clone(),
        );
        if version.is_empty() {
            let what = format!("{} without a version", event.kind);
            return Err(SliceError::Malformed(what));
        }
        let step = match event.kind.as_str() {
            "ADDED" | "MODIFIED" => {
                self.known.insert(name, slice);
                Step::Changed
            }
            "DELETED" => {
                self.known.remove(&name);
                Step::Changed
            }
            "BOOKMARK" => Step::Bookmark,
            other => return Err(SliceError::Malformed(format!("event {other:?}"))),
        };
        if self.known.len() > SLICES_MAX {
            return Err(SliceError::Malformed(format!(
                "{} slices",
                self.known.len()
            )));
        }
        self.version = Some(version);
        Ok(step)
    }

    /// Ready endpoints at the port of that name, in order, each once.
    pub(super) fn ready(&self, port_name: &str) -> Vec<SocketAddr> {
        let mut found: Vec<SocketAddr> = self
            .known
            .values()
            .flat_map(|slice| slice.ready(port_name))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Slice {
    fn ready(&self, port_name: &str) -> Vec<SocketAddr> {
        // The third kind, FQDN, has names.
        if !matches!(self.address_type.as_str(), "IPv4" | "IPv6") {
            return Vec::new();
        }
        let ports = self.ports.iter().flatten();
        let port = ports
            .filter(|port| port.protocol.as_deref().is_none_or(|word| word == "TCP"))
            .find(|port| port.name.as_deref().unwrap_or_default() == port_name)
            .and_then(|port| port.port);
        let Some(port) = port.filter(|port| *port != 0) else {
            return Vec::new();
        };
        let endpoints = self.endpoints.iter().flatten();
        let ready = endpoints.filter(|endpoint| endpoint.is_ready());
        ready
            // Consumers use the first; several of one endpoint are the same endpoint.
            .filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok())
            .filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }
}

impl Endpoint {
    fn is_ready(&self) -> bool {
        let conditions = self.conditions.as_ref();
        conditions.is_none_or(|conditions| conditions.ready != Some(false))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn malformed(error: serde_json::Error) -> SliceError {
    SliceError::Malformed(error.to_string())
}

/// What the body of a refusal says, in one line.
pub(super) fn refusal(status: u16, body: &[u8]) -> SliceError {
    if status == GONE {
        return SliceError::Gone;
    }
    let failure: Failure = serde_json::from_slice(body).unwrap_or_default();
    let why = failure.message.map(|message| format!(": {message}"));
    SliceError::Told(format!("status {status}{}", why.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(rest: &str) -> Slices {
        let mut slices = Slices::default();
        let list = format!(
            r#"{{"kind": "EndpointSliceList", "metadata": {{"resourceVersion": "7"}},
                "items": [{{"metadata": {{"name": "a", "resourceVersion": "3"}}, {rest}}}]}}"#
        );
        slices.on_list(list.as_bytes()).unwrap();
        slices
    }

    fn ready(rest: &str) -> Vec<String> {
        let ready = slice(rest).ready("https");
        ready.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn endpoints_are_ready_unless_they_say_no_at_the_port_of_that_name() {
        let rest = r#""addressType": "IPv4", "endpoints": [
                {"addresses": ["10.0.0.5"]},
                {"addresses": ["10.0.0.4", "10.0.0.9"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.6"], "conditions": {"ready": false, "serving": true}},
                {"addresses": ["10.0.0.7"], "conditions": {"ready": null}},
                {"addresses": ["10.0.0.5"]},
                {"addresses": ["no address"]}, {"addresses": []}],
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "https", "port": 5, "protocol": "UDP"},
                {"name": "https", "port": 6443, "protocol": "TCP"}]"#;
        assert_eq!(
            ready(rest),
            ["10.0.0.4:6443", "10.0.0.5:6443", "10.0.0.7:6443"]
        );
        assert!(slice(rest).ready("http").is_empty());
    }

    #[test]
    fn a_port_may_have_no_name_and_null_lists_are_empty_ones() {
        let unnamed = r#""addressType": "IPv6", "endpoints": [{"addresses": ["fd00::4"]}],
            "ports": [{"name": "", "port": 6443}]"#;
        let ready_at = slice(unnamed).ready("");
        assert_eq!(ready_at, ["[fd00::4]:6443".parse().unwrap()]);
        assert!(ready(unnamed).is_empty());
        for nothing in [
            r#""addressType": "IPv4", "endpoints": null, "ports": null"#,
            r#""addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.4"]}], "ports": []"#,
            r#""addressType": "FQDN", "endpoints": [{"addresses": ["10.0.0.4"]}],
               "ports": [{"name": "https", "port": 6443}]"#,
        ] {
            assert!(ready(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn an_event_that_cannot_be_read_makes_the_next_word_a_list() {
        for (line, why) in [
            (
                r#"{"type": "ERROR", "object": {"code": 410, "message": "too old"}}"#,
                "the list is too old",
            ),
            (
                r#"{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}"#,
                "etcd",
            ),
            (
                r#"{"type": "ADDED", "object": {"metadata": {"name": "b"}}}"#,
                "the API server sent something else: ADDED without a version",
            ),
            (
                r#"{"type": "WHAT", "object": {"metadata": {"name": "b", "resourceVersion": "9"}}}"#,
                "the API server sent something else: event \"WHAT\"",
            ),
        ] {
            let mut slices = slice(r#""addressType": "IPv4""#);
            assert_eq!(slices.version(), Some("7"));
            let error = slices.on_event(line.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), why);
            assert_eq!(slices.version(), None);
        }
        let event = br#"{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "12"}}}"#;
        for end in 0..event.len() {
            let mut slices = slice(r#""addressType": "IPv4""#);
            assert!(slices.on_event(&event[..end]).is_err());
        }
        let mut slices = slice(r#""addressType": "IPv4""#);
        assert_eq!(slices.on_event(event), Ok(Step::Bookmark));
        assert_eq!(slices.version(), Some("12"));
    }

    #[test]
    fn a_list_without_a_version_is_none() {
        let mut slices = Slices::default();
        for bad in [
            "",
            "{}",
            r#"{"metadata": {}, "items": []}"#,
            r#"{"metadata": {"resourceVersion": ""}, "items": []}"#,
            r#"{"metadata": {"resourceVersion": "1"}, "items": [{"addressType": "IPv4"}]}"#,
        ] {
            assert!(slices.on_list(bad.as_bytes()).is_err(), "{bad}");
            assert_eq!(slices.version(), None);
        }
    }
}
