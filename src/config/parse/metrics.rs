//! `[metrics]`.

use super::fields::Fields;
use super::given::{Sink, Text};
use super::{address, discovery};
use crate::config::model::Metrics;
use crate::config::problem::Problem;

/// More names are no names.
const NAMES_MAX: usize = 16;

pub(super) fn metrics(fields: Option<Fields<'_, '_>>, sink: &mut Sink) -> Metrics {
    let mut fields = fields.unwrap_or_else(|| Fields::absent("metrics"));
    let default = fields.default_text("listen").parse().ok();
    let listen = match fields.text("listen", sink) {
        None => default,
        Some(given) if given.text == "off" => None,
        Some(given) => address::socket_addr(&given, sink),
    };
    let compat = fields.flag("compat", sink);
    let names = fields.take("names", sink).map_or_else(Vec::new, |given| {
        let items = given.one_or_more(NAMES_MAX, sink).into_iter();
        items
            .filter_map(|item| host_name(&item.text(sink)?, sink))
            .collect()
    });
    fields.finish(sink);
    Metrics {
        listen,
        compat,
        names,
    }
}

/// A name without port, as DNS has them.
fn host_name(text: &Text<'_>, sink: &mut Sink) -> Option<String> {
    let host = text.text.strip_suffix('.').unwrap_or(text.text);
    if discovery::is_host_name(host) {
        return Some(host.to_ascii_lowercase());
    }
    sink.push(
        Problem::error("E0108", format!("`{}` is no host name", text.name)).at(
            &text.span,
            "write a name alone, without scheme and port: \"lb.example.com\"",
        ),
    );
    None
}
