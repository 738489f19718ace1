//! The text of a backends file: TOML as in lb.toml, or the JSON of Prometheus's `file_sd`. Pure.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::Value;

use crate::config;
use crate::config::discovery::Template;
use crate::config::model::Server;
use crate::units::Weight;

/// One group of `file_sd`: labels hold for each of its targets.
#[derive(Debug, Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: serde_json::Map<String, Value>,
}

/// The servers of a text.
///
/// # Errors
/// What is wrong with it, in one line.
pub(super) fn servers(
    text: &str,
    is_toml: bool,
    template: Template,
) -> Result<Vec<Server>, String> {
    if is_toml {
        return config::backends(text, template).map_err(|problems| first(text, &problems));
    }
    let groups: Vec<Group> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut found: Vec<Server> = Vec::new();
    for group in groups {
        let single = group.targets.len() == 1;
        for target in &group.targets {
            let server = server(target, &group.labels, single, template)?;
            if let Some(twin) = found
                .iter()
                .find(|other| other.address == server.address || other.name == server.name)
            {
                return Err(format!("{target:?} is listed twice ({})", twin.name));
            }
            found.push(server);
        }
    }
    Ok(found)
}

/// Labels mean what the keys of lb.toml mean; those it doesn't have are somebody else's.
fn server(
    target: &str,
    labels: &serde_json::Map<String, Value>,
    single: bool,
    template: Template,
) -> Result<Server, String> {
    let address: SocketAddr = target
        .parse()
        .ok()
        .filter(|address: &SocketAddr| {
            let ip = address.ip();
            address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
        })
        .ok_or_else(|| format!("{target:?} is no IP:PORT of a server"))?;
    let mut server = template.server(address.to_string(), address);
    for (label, value) in labels {
        let wrong = || format!("label {label:?} of {target:?} has no such value: {value}");
        match label.as_str() {
            "name" if single => server.name = name(value).ok_or_else(wrong)?,
            "name" => return Err(format!("label \"name\" names {target:?} and others")),
            "weight" => {
                let weight = number(value).and_then(|n| Weight::try_from(n).ok());
                server.weight = weight.ok_or_else(wrong)?;
            }
            "max-connections" => {
                let most = number(value).and_then(|n| u32::try_from(n).ok());
                server.max_connections = Some(most.and_then(NonZeroU32::new).ok_or_else(wrong)?);
            }
            "backup" => server.backup = flag(value).ok_or_else(wrong)?,
            _ => {}
        }
    }
    Ok(server)
}

fn name(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b));
    fits.then(|| text.to_owned())
}

fn flag(value: &Value) -> Option<bool> {
    match value.as_str() {
        Some(text) => text.parse().ok(),
        None => value.as_bool(),
    }
}

/// `file_sd` has strings only; a number is taken all the same.
fn number(value: &Value) -> Option<i64> {
    match value.as_str() {
        Some(text) => text.parse().ok(),
        None => value.as_i64(),
    }
}

/// The first problem with its line.
fn first(text: &str, problems: &[config::Problem]) -> String {
    let Some(problem) = problems.iter().find(|problem| problem.is_error()) else {
        return "it is refused".to_owned();
    };
    let at = problem.labels.iter().find(|label| label.primary);
    let line = at
        .and_then(|label| text.get(..label.span.start))
        .map(|before| {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: ")
        });
    format!("{}{}", line.unwrap_or_default(), problem.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Vec<(String, u16, Option<u32>)>, String> {
        let found = servers(text, false, Template::default())?;
        let of = |s: &Server| {
            (
                s.name.clone(),
                s.weight.get(),
                s.max_connections.map(NonZeroU32::get),
            )
        };
        Ok(found.iter().map(of).collect())
    }

    #[test]
    fn groups_of_file_sd_are_servers_with_their_labels() {
        let text = r#"[
            { "targets": ["10.0.0.4:6443", "[fd00::5]:6443"], "labels": { "weight": "3", "rack": "a" } },
            { "targets": ["10.0.0.6:6443"], "labels": { "name": "cp-3", "max-connections": 250 } },
            { "targets": [] }
        ]"#;
        assert_eq!(
            json(text).unwrap(),
            [
                ("10.0.0.4:6443".to_owned(), 3, None),
                ("[fd00::5]:6443".to_owned(), 3, None),
                ("cp-3".to_owned(), 1, Some(250)),
            ]
        );
    }

    #[test]
    fn a_backup_may_be_told_in_either_way() {
        for (label, backup) in [("\"true\"", true), ("true", true), ("\"false\"", false)] {
            let text =
                format!(r#"[{{"targets": ["10.0.0.4:1"], "labels": {{"backup": {label}}}}}]"#);
            let found = servers(&text, false, Template::default()).unwrap();
            assert_eq!(
                found.first().map(|server| server.backup),
                Some(backup),
                "{label}"
            );
        }
    }

    #[test]
    fn a_text_with_any_mistake_is_refused_as_a_whole() {
        for (text, why) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            (
                r#"[{"targets": ["10.0.0.4"]}]"#,
                r#""10.0.0.4" is no IP:PORT of a server"#,
            ),
            (
                r#"[{"targets": ["10.0.0.4:0"]}]"#,
                r#""10.0.0.4:0" is no IP:PORT of a server"#,
            ),
            (
                r#"[{"targets": ["0.0.0.0:1"]}]"#,
                r#""0.0.0.0:1" is no IP:PORT of a server"#,
            ),
            (
                r#"[{"targets": ["10.0.0.4:1", "10.0.0.4:1"]}]"#,
                r#""10.0.0.4:1" is listed twice (10.0.0.4:1)"#,
            ),
            (
                r#"[{"targets": ["10.0.0.4:1"], "labels": {"weight": "257"}}]"#,
                r#"label "weight" of "10.0.0.4:1" has no such value: "257""#,
            ),
            (
                r#"[{"targets": ["10.0.0.4:1", "10.0.0.5:1"], "labels": {"name": "x"}}]"#,
                r#"label "name" names "10.0.0.4:1" and others"#,
            ),
        ] {
            assert_eq!(json(text).unwrap_err(), why);
        }
        assert!(json(r#"{"targets": ["10.0.0.4:1"]}"#).is_err());
    }

    #[test]
    fn no_beginning_of_a_file_passes_for_the_whole() {
        let text = r#"[{"targets": ["10.0.0.4:6443"], "labels": {"weight": "3"}}]"#;
        for end in 0..text.len() {
            let beginning = text.get(..end).unwrap();
            assert!(json(beginning).is_err(), "{beginning}");
        }
    }

    #[test]
    fn toml_says_on_which_line_it_is_wrong() {
        let text = "[backends]\na = \"10.0.0.1:6443\"\nb = \"10.0.0.2\"\n";
        let told = servers(text, true, Template::default()).unwrap_err();
        assert_eq!(told, "line 3: `backends.b` is no IP:PORT");
        let good = "backends = [\"10.0.0.1:6443\"]\n";
        assert_eq!(servers(good, true, Template::default()).unwrap().len(), 1);
    }
}
