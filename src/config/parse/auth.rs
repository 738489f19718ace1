//! `[vip.NAME] auth`: a simple password, or HMAC keys.

use toml::de::DeValue;

use super::fields::Fields;
use super::given::{Given, Sink, Text};
use crate::config::model::{Auth, Hmac, HmacKey, HmacMode, Password, Secret};
use crate::config::problem::Problem;
use crate::units::Version;

const KEYS_MAX: usize = 4;
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=64;

pub(super) fn auth(fields: &mut Fields<'_, '_>, version: Version, sink: &mut Sink) -> Auth {
    let span = fields.span_of("auth");
    let Some(mut table) = fields.table("auth", sink) else {
        return Auth::None;
    };
    match table.word("type", sink) {
        "hmac" => hmac(table, sink),
        "pass" => {
            if version == Version::V3 {
                sink.push(
                    Problem::error("E0210", format!("`{}`: version 3 has no password", table.name()))
                        .at(&span, "RFC 9568 dropped it: the sender's address and TTL 255 protect")
                        .help("leave it out, or use `type = \"hmac\"` on every node, or write `version = 2` if the other node is keepalived with auth_pass"),
                );
            }
            pass(table, sink)
        }
        // Said already; what else is in the table depends on it.
        _ => Auth::None,
    }
}

fn pass(mut table: Fields<'_, '_>, sink: &mut Sink) -> Auth {
    let key = required(&mut table, "key", sink).and_then(|given| given.text(sink));
    table.refuse_unread("`type = \"pass\"`", sink);
    let Some(key) = key else {
        return Auth::None;
    };
    let mut password = [0_u8; 8];
    let bytes = key.text.as_bytes();
    match password.get_mut(..bytes.len()) {
        Some(place) if !bytes.is_empty() => {
            place.copy_from_slice(bytes);
            return Auth::Pass(Password(password));
        }
        Some(_) => sink.push(
            Problem::error("E0105", format!("`{}` is empty", key.name))
                .at(&key.span, "1 to 8 bytes"),
        ),
        // No fix: it would show the password.
        None => sink.push(
            Problem::error("E0105", format!("`{}` is too long", key.name)).at(
                &key.span,
                "a password has at most 8 bytes; keepalived uses the first 8 of a longer one: write those",
            ),
        ),
    }
    Auth::None
}

fn hmac(mut table: Fields<'_, '_>, sink: &mut Sink) -> Auth {
    let mode = match table.word("mode", sink) {
        "permissive" => HmacMode::Permissive,
        "receive-only" => HmacMode::ReceiveOnly,
        _ => HmacMode::Enforce,
    };
    let given = required(&mut table, "keys", sink);
    table.refuse_unread("`type = \"hmac\"`", sink);
    let Some(given) = given else {
        return Auth::None;
    };
    let DeValue::Array(items) = given.value else {
        sink.push(given.wrong_type("a list such as [{ id = 1, key = \"…\" }]"));
        return Auth::None;
    };
    let mut keys: Vec<HmacKey> = Vec::with_capacity(items.len());
    for item in given.items(items, KEYS_MAX, sink) {
        let (name, span) = (item.name.clone(), item.span.clone());
        let Some(key) = hmac_key(item, sink) else {
            continue;
        };
        if keys.iter().any(|other| other.id == key.id) {
            sink.push(
                Problem::error("E0210", format!("`{name}` has an id that is taken"))
                    .at(&span, format!("another key is {} already", key.id))
                    .help("an advert names its key by the id alone: give each key its own, the same on every node"),
            );
        } else {
            keys.push(key);
        }
    }
    Auth::Hmac(Hmac { keys, mode })
}

fn hmac_key(given: Given<'_, '_>, sink: &mut Sink) -> Option<HmacKey> {
    let mut table = given.into_fields("vip.NAME.auth.keys", String::new(), sink)?;
    let id = table.integer("id", sink);
    let text = table.text("key", sink);
    table.finish(sink);
    let secret = text.and_then(|text| secret(&text, sink));
    Some(HmacKey {
        id: u8::try_from(id?).ok()?,
        secret: secret?,
    })
}

/// No complaint here shows a part of it, or offers a fix that would.
fn secret(text: &Text<'_>, sink: &mut Sink) -> Option<Secret> {
    let bytes = match text.text.strip_prefix("hex:") {
        Some(digits) => {
            let Some(bytes) = from_hex(digits) else {
                sink.push(
                    Problem::error("E0108", format!("`{}` is not hexadecimal", text.name)).at(
                        &text.span,
                        "after `hex:` come pairs of digits 0 to 9, a to f",
                    ),
                );
                return None;
            };
            bytes
        }
        None => text.text.as_bytes().to_vec(),
    };
    if !SECRET_BYTES.contains(&bytes.len()) {
        sink.push(
            Problem::error("E0105", format!("`{}` has a wrong length", text.name))
                .at(
                    &text.span,
                    format!("{} bytes; it must be 32 to 64", bytes.len()),
                )
                .help("make one with `openssl rand -hex 32`, and write `hex:` before it"),
        );
        return None;
    }
    Some(Secret(bytes))
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |c: u8| char::from(c).to_digit(16);
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok())
        .collect()
}

/// A key that this type of authentication needs.
fn required<'t, 'i>(
    table: &mut Fields<'t, 'i>,
    name: &str,
    sink: &mut Sink,
) -> Option<Given<'t, 'i>> {
    let given = table.take(name, sink);
    if given.is_none() && !sink.recovering {
        let full = format!("{}.{name}", table.name());
        sink.push(Problem::error("E0104", format!("`{full}` is missing")).at(
            &table.span_of(name),
            format!("this type of authentication needs `{name}`"),
        ));
    }
    given
}
