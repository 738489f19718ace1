//! Lints of `backends-file` and `discovery` that look at this machine: files that are not there.

use super::{Host, host};
use crate::config::discovery::Credentials;
use crate::config::model::Proxy;
use crate::config::parse::Draft;
use crate::config::problem::Problem;

pub(super) fn here(draft: &Draft, here: &Host<'_>, problems: &mut Vec<Problem>) {
    for proxy in &draft.config.proxies {
        backends_file(draft, proxy, here, problems);
        credentials(draft, proxy, here, problems);
    }
}

/// Somebody else writes it, perhaps later.
fn backends_file(draft: &Draft, proxy: &Proxy, here: &Host<'_>, problems: &mut Vec<Problem>) {
    let Some(file) = &proxy.discovery.file else {
        return;
    };
    let folder = file.parent().unwrap_or(file);
    let at = draft
        .spans
        .at(&format!("proxy/{}/backends-file", proxy.name));
    if !(here.file_exists)(folder) {
        problems.push(
            Problem::error("E0307", format!("there is no folder {}", folder.display()))
                .at(&at, "not on this machine")
                .help(
                    "make it before lbd starts: its sandbox opens for folders that are there then",
                ),
        );
    } else if !(here.file_exists)(file) {
        problems.push(
            Problem::warning("W0325", format!("there is no file {}", file.display()))
                .at(&at, "it brings no server until it is there"),
        );
    }
}

fn credentials(draft: &Draft, proxy: &Proxy, here: &Host<'_>, problems: &mut Vec<Problem>) {
    let Some(service) = &proxy.discovery.kubernetes else {
        return;
    };
    let mut files = vec![("ca-file", &service.ca_file)];
    match &service.credentials {
        Credentials::Certificate { cert, key } => {
            files.extend([("client-cert", cert), ("client-key", key)]);
        }
        Credentials::Token(token) => files.push(("token-file", token)),
    }
    let table = format!("proxy/{}/discovery/kubernetes", proxy.name);
    for (key, file) in files {
        let path = format!("{table}/{key}");
        let path = if draft.spans.has(&path) {
            &path
        } else {
            &table
        };
        host::file(draft, file, path, here, problems);
    }
}
