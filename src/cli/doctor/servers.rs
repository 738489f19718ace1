//! Asks each server what the daemon would ask it: the check of lb.toml, from this machine.

use std::path::Path;

use tokio::task::JoinSet;

use super::Facts;
use super::report::Finding;
use crate::config::model::{Config, Proxy, Server};
use crate::health::probe::{Probe, Report, Verdict};
use crate::health::tls::CLUSTER_CA;
use crate::proxy::pp;

const CHECK: &str = "server";

/// Every server of the file that isn't disabled, all at once.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Some(config) = &facts.config else {
        return Vec::new();
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(all(config)),
        Err(error) => {
            let why = format!("no event loop: {error}");
            vec![Finding::not_checked(CHECK, "", why)]
        }
    }
}

async fn all(config: &Config) -> Vec<Finding> {
    let mut asked: JoinSet<(usize, Finding)> = JoinSet::new();
    let mut findings: Vec<(usize, Finding)> = Vec::new();
    let servers = config
        .proxies
        .iter()
        .flat_map(|proxy| proxy.servers.iter().map(move |server| (proxy, server)));
    for (place, (proxy, server)) in servers.enumerate() {
        let subject = subject(proxy, server);
        if server.disabled {
            let why = "`disabled` in the file";
            findings.push((place, Finding::not_checked(CHECK, &subject, why)));
            continue;
        }
        match probe(proxy, server) {
            Ok(probe) => {
                asked.spawn(async move {
                    let unverified = probe.is_unverified();
                    let report = probe.run().await;
                    (place, told(&subject, &report, unverified))
                });
            }
            Err(finding) => findings.push((place, *finding)),
        }
    }
    while let Some(done) = asked.join_next().await {
        findings.extend(done.ok());
    }
    findings.sort_by_key(|(place, _)| *place);
    findings.into_iter().map(|(_, finding)| finding).collect()
}

/// Proxy and server, with the address unless that is its name.
fn subject(proxy: &Proxy, server: &Server) -> String {
    let address = server.check_address.to_string();
    if server.name == address {
        return format!("{} {address}", proxy.name);
    }
    format!("{} {} ({address})", proxy.name, server.name)
}

fn probe(proxy: &Proxy, server: &Server) -> Result<Probe, Box<Finding>> {
    let subject = subject(proxy, server);
    let probe = Probe::new(&proxy.check, server.check_address, Path::new(CLUSTER_CA));
    let probe = probe.map_err(|error| {
        let text = crate::cli::chain(&error);
        Box::new(
            Finding::failed(CHECK, &subject, text)
                .cause("a file of the check can't be used")
                .remedy("`lbd check` says which, and why"),
        )
    })?;
    let send = proxy.proxy_protocol.as_ref().and_then(|pp| pp.send);
    let source = proxy.source.fixed_for(server.check_address.ip());
    Ok(probe
        .from_source(source)
        .beginning_with(send.map_or(&[], pp::own)))
}

fn told(subject: &str, report: &Report, unverified: bool) -> Finding {
    match &report.verdict {
        Verdict::Ready if report.unauthorized => {
            Finding::warning(CHECK, subject, "ready, though it answers 401 or 403")
                .cause("anonymous requests are refused: whether it is really ready nobody knows")
                .remedy(
                    "give the check a `token-file` or a `client-cert`, or allow anonymous /readyz",
                )
        }
        Verdict::Ready if unverified => {
            Finding::ok(CHECK, subject, "ready; its certificate is not verified")
        }
        Verdict::Ready => Finding::ok(CHECK, subject, "ready"),
        Verdict::NotReady(reason) => {
            Finding::failed(CHECK, subject, format!("alive, but not ready: {reason}"))
                .cause("it answers, and says that it takes no clients, or can't be trusted")
                .remedy("see its log; for an API server: `kubectl get --raw /readyz?verbose` there")
        }
        Verdict::Unresponsive(reason) => Finding::failed(
            CHECK,
            subject,
            format!("no sign of life: {reason}"),
        )
        .cause("it is down, listens elsewhere, or a firewall stands between")
        .remedy(
            "see whether its process runs and listens (`ss -ltn` there), and what firewalls do",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::cli::doctor::report::State;
    use crate::config::parse;

    #[test]
    fn a_server_that_answers_is_ready_and_one_that_does_not_fails() {
        let alive = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let (alive_at, gone_at) = (alive.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let text = format!(
            "[proxy.a]\nlisten = \":1\"\n[proxy.a.backends]\nx = \"{alive_at}\"\ny = \"{gone_at}\"\n\
             z = {{ address = \"127.0.0.1:9\", disabled = true }}\n"
        );
        let config = parse(&text).config.unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let findings = runtime.block_on(all(&config));
        let states: Vec<State> = findings.iter().map(|finding| finding.state).collect();
        assert_eq!(states, [State::Ok, State::Failed, State::NotChecked]);
        assert_eq!(findings[0].subject, format!("a x ({alive_at})"));
        assert!(findings[1].found.starts_with("no sign of life: "));
    }
}
