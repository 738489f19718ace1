//! Lints of the files that checks read: whether they are here, fit together and are kept secret.

use std::path::Path;

use super::{Flaw, Host, host};
use crate::config::model::{CheckKind, Proxy, TlsCheck, Verify};
use crate::config::parse::Draft;
use crate::config::problem::Problem;

/// Where kubeadm keeps the cluster's certificate authority.
const CLUSTER_CA: &str = "/etc/kubernetes/pki/ca.crt";

/// From this machine.
pub(super) fn here(draft: &Draft, host: &Host<'_>, problems: &mut Vec<Problem>) {
    for proxy in &draft.config.proxies {
        let (tls, token) = match &proxy.check.kind {
            CheckKind::Tcp | CheckKind::Http(_) => continue,
            CheckKind::Tls(tls) => (tls, None),
            CheckKind::Https(tls, http) => (tls, http.token_file.as_deref()),
        };
        let path = format!("proxy/{}/check", proxy.name);
        let client = tls.client.as_ref();
        let files = [
            ("ca-file", tls.ca_file.as_deref()),
            ("client-cert", client.map(|client| client.cert.as_path())),
            ("client-key", client.map(|client| client.key.as_path())),
            ("token-file", token),
        ];
        let mut missing = false;
        for (key, file) in files {
            let Some(file) = file else { continue };
            missing |= !(host.file_exists)(file);
            host::file(draft, file, &format!("{path}/{key}"), host, problems);
        }
        if !missing {
            flaws(draft, proxy, host, problems);
        }
        let credentials = token.is_some() || client.is_some();
        unverified(draft, &path, tls, credentials, host, problems);
    }
}

/// Files that are there but can't be used, or by too many.
fn flaws(draft: &Draft, proxy: &Proxy, host: &Host<'_>, problems: &mut Vec<Problem>) {
    for (key, flaw) in (host.check_flaws)(&proxy.check) {
        let span = draft.spans.at(&format!("proxy/{}/check/{key}", proxy.name));
        problems.push(match flaw {
            Flaw::Unusable(reason) => {
                Problem::error("E0317", format!("`{key}` of the check cannot be used"))
                    .at(&span, reason)
            }
            Flaw::ReadableByAll(file) => Problem::warning(
                "W0318",
                format!("everybody on this machine can read {}", file.display()),
            )
            .at(&span, "who reads it can pass for lbd")
            .help(format!(
                "leave it to lbd's own user: `chmod o= {}`",
                file.display()
            )),
        });
    }
}

fn unverified(
    draft: &Draft,
    path: &str,
    tls: &TlsCheck,
    credentials: bool,
    host: &Host<'_>,
    problems: &mut Vec<Problem>,
) {
    let by_default = tls.verify == Verify::IfCaPresent && tls.ca_file.is_none();
    if !by_default || (host.file_exists)(Path::new(CLUSTER_CA)) {
        return;
    }
    let name = path.trim_end_matches("/check").replace('/', ".");
    let problem = Problem::warning(
        "W0306",
        format!("`{name}` is checked without verifying certificates"),
    )
    .at(
        &draft.spans.at(path),
        format!("{CLUSTER_CA} is not on this machine"),
    )
    .help("copy it from a control-plane node, here or elsewhere: `{ type = \"kube-apiserver\", ca-file = \"…\" }`");
    problems.push(if credentials {
        problem.help("until then the check's credentials are not sent")
    } else {
        problem
    });
}
