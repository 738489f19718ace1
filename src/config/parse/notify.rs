//! Programs that lbd runs: `notify` of a VIP, and how a program and its user are written.

use toml::de::DeValue;

use super::fields::Fields;
use super::given::Sink;
use crate::config::model::{Notify, RunAs};
use crate::config::problem::Problem;

const ARGUMENTS_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 32;

/// `notify`; `None` when it is left out or wrong.
pub(super) fn notify(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<Notify> {
    let span = fields.span_of("notify");
    let mut table = fields.table("notify", sink)?;
    let before = sink.errors();
    let notify = Notify {
        active: command(&mut table, "active", sink),
        backup: command(&mut table, "backup", sink),
        fault: command(&mut table, "fault", sink),
        stop: command(&mut table, "stop", sink),
        any: command(&mut table, "any", sink),
        keepalived_arguments: table.flag("keepalived-arguments", sink),
        timeout: table.time("timeout", sink),
        user: run_as(&mut table, sink),
    };
    let arguments_span = table.span_of("keepalived-arguments");
    let name = table.name().to_owned();
    table.finish(sink);
    if sink.errors() > before {
        return None;
    }
    let programs = [
        &notify.active,
        &notify.backup,
        &notify.fault,
        &notify.stop,
        &notify.any,
    ];
    if programs.iter().all(|program| program.is_empty()) {
        sink.push(
            Problem::error("E0104", format!("`{name}` names no program"))
                .at(&span, "give `active`, `backup`, `fault`, `stop` or `any`"),
        );
        return None;
    }
    if notify.keepalived_arguments && notify.any.is_empty() {
        sink.push(
            Problem::error(
                "E0109",
                format!("`{name}.keepalived-arguments` has no meaning here"),
            )
            .at(&arguments_span, "only `any` gets them, and there is none"),
        );
        return None;
    }
    Some(notify)
}

/// `user`: a name, or a name and a group.
pub(super) fn run_as(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<RunAs> {
    let text = fields.text("user", sink)?;
    let (user, group) = match text.text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text.text, None),
    };
    let is_name = |name: &str| {
        (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
    };
    if is_name(user) && group.is_none_or(is_name) {
        return Some(RunAs {
            user: user.to_owned(),
            group: group.map(str::to_owned),
        });
    }
    sink.push(
        Problem::error("E0108", format!("`{}` is no user", text.name))
            .at(&text.span, "write \"name\" or \"name:group\""),
    );
    None
}

/// A program and its arguments; nothing when the key is missing.
pub(super) fn command(fields: &mut Fields<'_, '_>, key: &str, sink: &mut Sink) -> Vec<String> {
    let Some(given) = fields.take(key, sink) else {
        return Vec::new();
    };
    if let DeValue::String(line) = given.value {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| format!("{word:?}"))
            .collect();
        let problem = given.wrong_type("a list: the program, then its arguments");
        let plain = line
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b" -_./:=,@".contains(&b));
        sink.push(if plain && line.starts_with('/') {
            problem.fix("write", &given.span, format!("[{}]", words.join(", ")))
        } else {
            problem.help("there is no shell unless you ask: [\"/bin/sh\", \"-c\", \"…\"]")
        });
        return Vec::new();
    }
    let DeValue::Array(items) = given.value else {
        sink.push(given.wrong_type("a list: the program, then its arguments"));
        return Vec::new();
    };
    let mut command = Vec::new();
    for (index, item) in given.items(items, ARGUMENTS_MAX, sink).iter().enumerate() {
        let Some(text) = item.text(sink) else {
            continue;
        };
        if text.text.contains('\0') {
            sink.push(
                Problem::error("E0108", format!("`{}` holds a zero byte", text.name))
                    .at(&text.span, "no program can be given that"),
            );
        }
        if index == 0 && !text.text.starts_with('/') {
            sink.push(
                Problem::error("E0108", format!("`{}` must be an absolute path", text.name)).at(
                    &text.span,
                    "lbd looks in no PATH: write e.g. \"/usr/bin/…\"",
                ),
            );
        }
        command.push(text.text.to_owned());
    }
    command
}
