//! The JSON Schema (draft 7) of lb.toml, from the table of keys: what editors complete and check as
//! one types. It knows keys, types, words and ranges; what only the whole file can tell is `lint`'s.

use serde_json::{Map, Value, json};

use super::docs;
use super::schema::{Fallback, Key, Kind, SECTIONS, Section, Support, section};

/// The whole schema.
#[must_use]
pub fn schema() -> Value {
    let named = SECTIONS.iter().filter(|section| !section.path.is_empty());
    let definitions: Map<String, Value> = named
        .map(|section| (section.path.to_owned(), object(section)))
        .collect();
    let mut root = object(section(""));
    let head = [
        ("$schema", json!("http://json-schema.org/draft-07/schema#")),
        ("title", json!("lb.toml")),
        ("definitions", Value::Object(definitions)),
    ];
    if let Value::Object(root) = &mut root {
        root.extend(head.map(|(name, value)| (name.to_owned(), value)));
    }
    root
}

/// A table with exactly the keys of `section`.
fn object(section: &Section) -> Value {
    let keys = || section.keys.iter().filter(|key| offered(key));
    let properties: Map<String, Value> = keys()
        .map(|key| (key.name.to_owned(), described(section, key)))
        .collect();
    let required: Vec<&str> = keys()
        .filter(|key| key.default == Fallback::Required)
        .map(|key| key.name)
        // A route has no nodes.
        .filter(|name| (section.path, *name) != ("vip.NAME", "nodes"))
        .collect();
    let mut object = json!({
        "type": "object",
        "description": section.doc,
        "additionalProperties": false,
        "properties": properties,
    });
    if let (Value::Object(object), false) = (&mut object, required.is_empty()) {
        object.insert("required".to_owned(), json!(required));
    }
    object
}

fn offered(key: &Key) -> bool {
    key.support == Support::Supported
}

/// What the key takes, with what people read about it.
fn described(section: &Section, key: &Key) -> Value {
    let mut value = match short_form(section.path, key) {
        Some(short) => json!({ "anyOf": [short, long_form(section, key)] }),
        None => long_form(section, key),
    };
    if let Value::Object(value) = &mut value {
        // Beside a reference other words would be ignored.
        if let Some(reference) = value.remove("$ref") {
            value.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
        }
        let default = docs::default(key);
        let text = format!("{} Default: {default}.", key.doc);
        value.insert("description".to_owned(), json!(text));
        if let Some(default) = plain_default(key) {
            value.insert("default".to_owned(), default);
        }
    }
    value
}

/// A default that is one plain value.
fn plain_default(key: &Key) -> Option<Value> {
    let table: toml::Table = format!("x = {}", key.default_toml()?).parse().ok()?;
    serde_json::to_value(table.get("x")?).ok()
}

/// What may stand for a table, or for a list.
fn short_form(path: &str, key: &Key) -> Option<Value> {
    match (path, key.name) {
        ("proxy.NAME", "check") => section("proxy.NAME.check")
            .key("type")
            .map(|key| plain(key.kind)),
        ("proxy.NAME", "backends") => Some(list(json!({ "type": "string" }))),
        ("proxy.NAME.discovery", "dns") => Some(one_or_more(json!({ "type": "string" }))),
        ("proxy.NAME", "hedge-after") => Some(json!({ "const": "auto" })),
        _ => None,
    }
}

fn long_form(section: &Section, key: &Key) -> Value {
    match key.kind {
        Kind::Table(path) => reference(path),
        Kind::Named(path) => {
            let table = reference(path);
            let value = match path {
                "proxy.NAME.backends.NAME" => json!({ "anyOf": [{ "type": "string" }, table] }),
                _ => table,
            };
            json!({
                "type": "object",
                "propertyNames": { "pattern": "^[A-Za-z0-9_.-]{1,64}$" },
                "additionalProperties": value,
            })
        }
        Kind::List(words) => {
            let below = format!("{}.{}", section.path, key.name);
            let has_tables = SECTIONS.iter().any(|section| section.path == below);
            let text = json!({ "type": "string" });
            list(match has_tables {
                true if words.starts_with("addresses") => {
                    json!({ "anyOf": [text, reference(&below)] })
                }
                true => reference(&below),
                false => text,
            })
        }
        Kind::Bool
        | Kind::Integer { .. }
        | Kind::IntegerOr { .. }
        | Kind::Duration { .. }
        | Kind::Choice(_)
        | Kind::Form(_) => plain(key.kind),
    }
}

/// A kind that needs no table to be understood.
fn plain(kind: Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::IntegerOr { min, max, word } => json!({
            "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, { "const": word }],
        }),
        Kind::Duration { off, .. } => duration(off),
        Kind::Choice(words) => {
            let words = words.iter().filter(|w| w.support == Support::Supported);
            json!({ "enum": words.map(|word| word.word).collect::<Vec<_>>() })
        }
        Kind::Form(words) => form(words),
        Kind::List(_) | Kind::Table(_) | Kind::Named(_) => json!({}),
    }
}

/// The type behind a form that the table describes in words.
fn form(words: &str) -> Value {
    let text = json!({ "type": "string" });
    if words == "absolute path" {
        return json!({ "type": "string", "pattern": "^/" });
    }
    if words.starts_with("status") {
        return one_or_more(json!({ "type": "integer", "minimum": 100, "maximum": 599 }));
    }
    if words.contains("a duration") {
        return json!({ "anyOf": [{ "type": "boolean" }, duration(false)] });
    }
    if words.contains("list") || words.contains('[') {
        return one_or_more(text);
    }
    text
}

fn duration(off: bool) -> Value {
    let pattern = if off {
        "^([0-9]+(ms|s|m|h)|off)$"
    } else {
        "^[0-9]+(ms|s|m|h)$"
    };
    json!({ "type": "string", "pattern": pattern })
}

fn list(item: Value) -> Value {
    let mut list = json!({ "type": "array" });
    if let Value::Object(list) = &mut list {
        list.insert("items".to_owned(), item);
    }
    list
}

fn one_or_more(item: Value) -> Value {
    json!({ "anyOf": [item.clone(), list(item)] })
}

fn reference(path: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{path}") })
}
