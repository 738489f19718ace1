//! The metrics of one server.

use super::*;
use crate::admin::status::{ServerState, ServerStatus};

/// How metrics name what checks say.
const VERDICTS: [&str; 3] = ["ready", "not-ready", "unresponsive"];

pub(super) fn add(out: &mut Families, proxy: &str, server: &ServerStatus) {
    let labels = [proxy, server.name.as_str()];
    for state in ServerState::ALL {
        let labels = [proxy, server.name.as_str(), state.word()];
        out.add(&SERVER_STATE, &labels, flag(server.state == state));
    }
    let standing = &server.standing;
    if let Some(verdict) = &standing.verdict {
        for word in VERDICTS {
            let labels = [proxy, server.name.as_str(), word];
            out.add(&SERVER_VERDICT, &labels, flag(verdict == word));
        }
    }
    if let Some(verdict) = &server.verdict {
        for word in VERDICTS {
            let labels = [proxy, server.name.as_str(), word];
            out.add(&HEALTH_LAST, &labels, flag(verdict == word));
        }
    }
    let single = [
        (&SERVER_EJECTED, flag(standing.ejected_ms.is_some())),
        (&SERVER_DAMPED, flag(standing.missing > 0)),
        (&SERVER_SUSPICIONS, number(standing.suspicions)),
        (&SERVER_EJECTIONS, number(standing.ejections)),
        (&SERVER_STATE_AGE, seconds_from_ms(server.since_ms)),
        (&SERVER_WEIGHT, number(server.weight)),
        (&SERVER_CONNECTIONS, number(server.connections)),
        (&SERVER_CONNECTED, number(server.connected)),
        (&SERVER_REDISPATCHED, number(server.redispatches)),
        (&SERVER_HEDGED, number(server.hedges)),
        (&SERVER_HEDGES_WON, number(server.hedges_won)),
        (&SERVER_REBALANCED, number(server.rebalanced)),
        (&SERVER_ABORTS, number(server.aborts)),
        (&SERVER_BYTES_IN, number(server.bytes_in)),
        (&SERVER_BYTES_OUT, number(server.bytes_out)),
        (&HEALTH_CHECKS, number(server.checks)),
        (&HEALTH_FAILURES, number(server.check_failures)),
        (&HEALTH_TRANSITIONS, number(server.transitions)),
    ];
    for (family, value) in single {
        out.add(family, &labels, value);
    }
    measured(out, &labels, server);
    if let Some(limit) = server.max_connections {
        out.add(&SERVER_LIMIT, &labels, number(limit));
    }
    if let Some(micros) = server.check_micros {
        out.add(&HEALTH_DURATION, &labels, seconds_from_micros(micros));
    }
    let failed = [
        ("refused", server.connect_errors),
        ("timeout", server.connect_timeouts),
    ];
    for (reason, count) in failed {
        let labels = [proxy, server.name.as_str(), reason];
        out.add(&SERVER_CONNECT_FAILED, &labels, number(count));
    }
}

fn measured(out: &mut Families, labels: &[&str; 2], server: &ServerStatus) {
    let measures = &server.measures;
    let single = [
        (&SERVER_USABLE, flag(measures.usable)),
        (&SERVER_BACKUP, flag(measures.backup)),
        (&SERVER_DOWNS, number(measures.downs)),
        (&SERVER_DOWN_TIME, seconds_from_ms(measures.down_ms)),
        (&SERVER_SHARE, ratio(measures.share_percent)),
        (&SERVER_ATTEMPTS, number(measures.attempts)),
        (&SERVER_RETRIES, number(measures.retries)),
        (&SERVER_ASKED, number(measures.asked)),
        (&SERVER_ANSWERED, number(measures.answered)),
        (
            &SERVER_ANSWER_TIME,
            seconds_from_micros(measures.answer_micros),
        ),
        (&SERVER_UNANSWERED, number(measures.unanswered)),
        (&SERVER_ENDED, number(measures.ended)),
        (&SERVER_LIFE, seconds_from_micros(measures.life_micros)),
        (&SERVER_CLIENT_ABORTS, number(measures.client_aborts)),
    ];
    for (family, value) in single {
        out.add(family, labels, value);
    }
    if let Some(limit) = measures.connects_per_second {
        out.add(&SERVER_RATE_LIMIT, labels, number(limit));
    }
    out.add_spans(&SERVER_CONNECT_TIME, labels, &measures.connects);
    out.add_spans(&HEALTH_TIME, labels, &measures.checks);
}

#[expect(clippy::float_arithmetic, reason = "Prometheus has no percents")]
fn ratio(percent: u64) -> f64 {
    number(percent) / 100.0
}
