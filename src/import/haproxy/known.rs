//! Directives of haproxy.cfg that need no key: what lbd does by itself, what has no purpose in it,
//! and what it will not do, each with the reason.

use super::super::ledger::Fate;
use super::lex::Directive;

type Verdict = Option<(Fate, &'static str)>;

const HTTP: &str = "about HTTP; lbd forwards bytes";
const TUNED: &str = "lbd sizes this by itself";
const UNIT: &str = "the service manager's unit does it";

/// A directive of `global`.
pub(super) fn global(directive: &Directive) -> Verdict {
    let verdict = match directive.word(0) {
        "chroot"
        | "user"
        | "group"
        | "uid"
        | "gid"
        | "daemon"
        | "pidfile"
        | "ulimit-n"
        | "master-worker"
        | "nosplice"
        | "noepoll"
        | "nopoll"
        | "noreuseport"
        | "nogetaddrinfo"
        | "quiet"
        | "fd-hard-limit"
        | "insecure-fork-wanted"
        | "insecure-setuid-wanted"
        | "set-dumpable"
        | "grace" => (Fate::NotNeeded, UNIT),
        "spread-checks" => (Fate::Default, "checks are spread"),
        "node" | "description" | "localpeer" | "numa-cpu-mapping" | "thread-groups"
        | "thread-group" | "stats-file" | "shm-stats-file" => (Fate::NotNeeded, ""),
        "busy-polling" | "max-spread-checks" | "strict-limits" => (Fate::NotNeeded, TUNED),
        "server-state-file" | "server-state-base" => {
            (Fate::Default, "states outlast a restart, in `state-dir`")
        }
        "hard-stop-after" => (
            Fate::Changed,
            "connections are served to their end, see docs/operate.md",
        ),
        "log-tag" | "log-send-hostname" => (Fate::Changed, "lines are tagged lbd"),
        "ca-base" | "crt-base" => (Fate::NotNeeded, "put in front of the files that are named"),
        "ssl-server-verify" => (Fate::NotNeeded, "counted where servers are checked"),
        "cpu-map" => (
            Fate::Changed,
            "`limits.pin-workers = true` gives each worker a CPU",
        ),
        "nbproc" => (Fate::Changed, "one process with a worker for each CPU"),
        word if word.starts_with("tune.") || word.starts_with("profiling.") => {
            (Fate::NotNeeded, TUNED)
        }
        word if word.starts_with("ssl-") || word == "issuers-chain-path" => {
            (Fate::NotNeeded, "TLS goes through lbd untouched")
        }
        "stats" if matches!(directive.word(1), "timeout" | "maxconn") => (Fate::NotNeeded, TUNED),
        _ => return None,
    };
    Some(verdict)
}

/// A directive of `defaults`, `frontend`, `backend` or `listen` that nothing else translates.
pub(super) fn proxy(directive: &Directive) -> Verdict {
    let verdict = match directive.word(0) {
        "option" => return option(directive),
        "timeout" => match directive.word(1) {
            "http-request" | "http-keep-alive" | "tarpit" => (Fate::NotNeeded, HTTP),
            _ => return None,
        },
        "http-request"
        | "http-response"
        | "http-after-response"
        | "http-reuse"
        | "http-send-name-header"
        | "errorfile"
        | "errorfiles"
        | "errorloc"
        | "errorloc302"
        | "errorloc303"
        | "http-error"
        | "compression"
        | "cookie"
        | "appsession"
        | "capture"
        | "monitor-uri"
        | "unique-id-format"
        | "unique-id-header"
        | "max-keep-alive-queue"
        | "redirect" => (Fate::NotNeeded, HTTP),
        "description" | "id" | "enabled" | "guid" => (Fate::NotNeeded, ""),
        "bind-process" | "fullconn" => (Fate::NotNeeded, TUNED),
        "backlog" => (Fate::Changed, "the kernel's net.core.somaxconn counts"),
        "log-tag" => (Fate::Changed, "lines are tagged lbd"),
        "load-server-state-from-file" => {
            (Fate::Default, "states outlast a restart, in `state-dir`")
        }
        "hash-type" => (
            Fate::Changed,
            "`source-hash` moves few clients when a server goes",
        ),
        "grace" => (Fate::NotNeeded, "connections are served to their end"),
        "stats" => (
            Fate::NotNeeded,
            "the status page is on the metrics listener",
        ),
        "email-alert" => (Fate::Changed, "lbd sends no mail: alert on its metrics"),
        "http-check"
            if matches!(
                directive.word(1),
                "comment" | "send-state" | "disable-on-404"
            ) =>
        {
            (Fate::Changed, "not a part of lbd's checks")
        }
        "tcp-check" if directive.word(1) == "comment" => (Fate::NotNeeded, ""),
        _ => return None,
    };
    Some(verdict)
}

fn option(directive: &Directive) -> Verdict {
    let verdict = match directive.word(1) {
        "http-server-close"
        | "http-keep-alive"
        | "httpclose"
        | "forceclose"
        | "forwardfor"
        | "http-pretend-keepalive"
        | "http-use-htx"
        | "http-no-delay"
        | "http-tunnel"
        | "http-use-proxy-header"
        | "http-buffer-request"
        | "http-ignore-probes"
        | "http-restrict-req-hdr-names"
        | "originalto"
        | "accept-invalid-http-request"
        | "accept-invalid-http-response"
        | "accept-unsafe-violations-in-http-request"
        | "accept-unsafe-violations-in-http-response"
        | "forwarded"
        | "prefer-last-server"
        | "checkcache"
        | "idle-close-on-response"
        | "h1-case-adjust-bogus-client"
        | "h1-case-adjust-bogus-server"
        | "disable-h2-upgrade" => (Fate::NotNeeded, HTTP),
        "redispatch" if directive.negated => (
            Fate::Changed,
            "after a failed connect lbd takes another server",
        ),
        "redispatch" => (Fate::Default, "a failed connect goes to another server"),
        "tcpka" | "clitcpka" | "srvtcpka" if !directive.negated => {
            (Fate::Default, "keepalive is on, probing after 30s")
        }
        "splice-auto" | "splice-request" | "splice-response" => {
            (Fate::Default, "bytes are spliced in the kernel")
        }
        "allbackups" => (Fate::Default, "backups are used together"),
        "log-health-checks" => (Fate::Default, "changes of servers are logged"),
        "contstats" | "socket-stats" | "tcp-smart-accept" | "tcp-smart-connect" => {
            (Fate::NotNeeded, "")
        }
        "httplog" => (Fate::NotNeeded, "a TCP proxy logs as `option tcplog`"),
        "tcplog" | "dontlognull" | "httpslog" => (Fate::NotNeeded, "lines are about frontends"),
        "dontlog-normal" | "logasap" | "log-separate-errors" => {
            (Fate::Changed, "one line per connection, when it ends")
        }
        _ => return None,
    };
    Some(verdict)
}
