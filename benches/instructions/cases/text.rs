//! What is read and written: the access log, the metrics, the configuration.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use lbd::admin::families;
use lbd::admin::measures::ProcessMeasures;
use lbd::admin::status::{ProcessStatus, ProxyStatus, ServerState, ServerStatus, Status};
use lbd::config::model::AccessFormat;
use lbd::log::access::AccessLine;

use super::{Case, KUBESPHERE, Outcome};
use crate::measured;

pub(super) const CASES: [Case; 6] = [
    Case::pure("access log: tcplog", 2_000, |times| {
        line(times, AccessFormat::Tcplog)
    }),
    Case::pure("access log: logfmt", 2_000, |times| {
        line(times, AccessFormat::Logfmt)
    }),
    Case::pure("access log: json", 2_000, |times| {
        line(times, AccessFormat::Json)
    }),
    Case::pure("metrics: a page, 3 servers", 20, |times| metrics(times, 3)),
    Case::pure("metrics: a page, 200 servers", 2, |times| {
        metrics(times, 200)
    }),
    Case::pure("config: parse kubesphere.toml", 20, parse),
];

fn line(times: u32, format: AccessFormat) -> Outcome {
    let line = AccessLine {
        accepted_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_371_234_567),
        utc_offset: 3600,
        client: "172.16.0.77:51234".parse()?,
        local: "172.16.0.10:6443".parse()?,
        proxy: "kube-apiserver",
        server: Some("kube-apiserver-2"),
        queue: Some(Duration::ZERO),
        connect: Some(Duration::from_millis(1)),
        total: Duration::from_millis(1234),
        bytes_in: 4321,
        bytes_out: 65_432,
        code: "--",
        active: 120,
        frontend: 110,
        backend: 110,
        server_active: 40,
        retries: 0,
        redispatched: false,
        hedged: false,
        server_queue: 0,
        backend_queue: 0,
        sample: 1,
    };
    let mut bytes = 0;
    measured(times, &mut || {
        bytes += black_box(&line).render(black_box(format)).len();
    });
    if bytes > 0 {
        Ok(())
    } else {
        Err("no line".into())
    }
}

fn metrics(times: u32, servers: u64) -> Outcome {
    let server = |number: u64| ServerStatus {
        name: format!("kube-apiserver-{number}"),
        address: format!("172.16.0.{number}:6443"),
        state: ServerState::Up,
        counter: (2, 2),
        weight: 100,
        connections: number,
        max_connections: Some(250),
        connected: 3_400,
        connect_micros: 1_500_000,
        bytes_out: 5_368_709_120,
        ..ServerStatus::default()
    };
    let status = Status {
        process: ProcessStatus {
            version: "0.1.0".to_owned(),
            serving: true,
            measures: ProcessMeasures {
                compat: true,
                ..ProcessMeasures::default()
            },
            ..ProcessStatus::default()
        },
        proxies: vec![ProxyStatus {
            name: "kube-apiserver".to_owned(),
            probed: true,
            usable: 3,
            servers: (1..=servers).map(server).collect(),
            ..ProxyStatus::default()
        }],
        ..Status::default()
    };
    let mut bytes = 0;
    measured(times, &mut || {
        bytes += families::render(black_box(&status)).len();
    });
    if bytes > 0 {
        Ok(())
    } else {
        Err("no page".into())
    }
}

fn parse(times: u32) -> Outcome {
    let mut wrong = 0;
    measured(times, &mut || {
        wrong += u32::from(lbd::config::load(black_box(KUBESPHERE)).is_err());
    });
    if wrong == 0 {
        Ok(())
    } else {
        Err("refused".into())
    }
}
