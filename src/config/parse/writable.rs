//! `writable`: where programs may write. Pure.

use std::path::PathBuf;

use toml::de::DeValue;

use super::fields::Fields;
use super::given::Sink;
use crate::config::problem::Problem;

/// More are no list of exceptions.
const PATHS_MAX: usize = 16;

/// The directories, as written.
pub(super) fn writable(root: &mut Fields<'_, '_>, sink: &mut Sink) -> Vec<PathBuf> {
    let Some(given) = root.take("writable", sink) else {
        return Vec::new();
    };
    let DeValue::Array(items) = given.value else {
        sink.push(given.wrong_type("a list of absolute paths"));
        return Vec::new();
    };
    let mut paths = Vec::new();
    for item in given.items(items, PATHS_MAX, sink) {
        if !matches!(item.value, DeValue::String(_)) {
            sink.push(item.wrong_type("an absolute path, in quotes"));
            continue;
        }
        let Some(text) = item.text(sink) else {
            continue;
        };
        if text.text.starts_with('/') && !text.text.contains('\0') {
            paths.push(PathBuf::from(text.text));
            continue;
        }
        let message = format!("`{}` must be an absolute path", text.name);
        sink.push(Problem::error("E0108", message).at(&text.span, "it must begin with `/`"));
    }
    paths
}
