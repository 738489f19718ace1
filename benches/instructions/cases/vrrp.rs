//! The way of an advert, in and out, and a step of each state machine.

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lbd::config::local::LocalVip;
use lbd::config::model::{Auth, Vip};
use lbd::health::fsm::{self, Machine as Health};
use lbd::net::clock;
use lbd::units::{AdvertInterval, Priority, Vrid};
use lbd::vrrp::fsm::{Input, Machine, NodeHealth, Settings};
use lbd::vrrp::hmac::{Clock, Seal};
use lbd::vrrp::packet::{Addresses, Advertisement, Datagram, WireAuth};
use lbd::vrrp::validate::Rules;

use super::{Case, KUBESPHERE, Outcome, config};
use crate::measured;

pub(super) const CASES: [Case; 7] = [
    Case::pure("vrrp: encode an advert", 5_000, encode),
    Case::pure("vrrp: judge an advert", 5_000, judge),
    Case::pure("vrrp: sign an advert", 500, sign),
    Case::pure("vrrp: judge a signed advert", 500, judge_signed),
    Case::pure("vrrp: a Backup hears an advert", 5_000, backup),
    Case::pure("vrrp: an Active's timer", 5_000, active),
    Case::pure("health: a step", 10_000, health),
];

const ME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 3));

const PLAIN: &str = r#"
[vip.kube]
address = ["10.1.0.100/24", "10.1.0.101/24"]
nodes = ["10.1.0.2", "10.1.0.3"]
"#;
const SIGNED: &str = r#"
[vip.kube]
address = ["10.1.0.100/24", "10.1.0.101/24"]
nodes = ["10.1.0.2", "10.1.0.3"]
auth = { type = "hmac", keys = [{ id = 1, key = "hex:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" }] }
"#;

fn local(text: &str) -> Result<LocalVip, Box<dyn Error>> {
    let vip: Vip = config(text)?.vips.into_iter().next().ok_or("no vip")?;
    Ok(LocalVip {
        vip,
        me: 0,
        interface: "eth0".to_owned(),
        source: ME,
    })
}

fn advert(vip: &Vip) -> Result<Advertisement<'static>, Box<dyn Error>> {
    Ok(Advertisement {
        version: vip.version,
        vrid: Vrid::try_from(100)?,
        priority: 190,
        interval: AdvertInterval::new(vip.version, Duration::from_secs(1))?,
        addresses: Addresses::V4(&[[10, 1, 0, 100], [10, 1, 0, 101]]),
        auth: WireAuth::None,
    })
}

fn payload(vip: &Vip) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::new();
    advert(vip)?.encode(PEER, ME, &mut out)?;
    Ok(out)
}

const fn datagram(payload: &[u8]) -> Datagram<'_> {
    Datagram {
        source: PEER,
        destination: ME,
        ttl: 255,
        payload,
    }
}

fn seal(vip: &Vip) -> Result<Seal, Box<dyn Error>> {
    let Auth::Hmac(hmac) = &vip.auth else {
        return Err("no HMAC".into());
    };
    Ok(Seal::new(hmac, vip.advert_interval, 1))
}

fn wall(at: Instant, since: Duration) -> Clock {
    Clock {
        wall: Duration::from_secs(1_800_000_000) + since,
        at: at + since,
    }
}

fn encode(times: u32) -> Outcome {
    let advert = advert(&local(PLAIN)?.vip)?;
    let mut out = Vec::with_capacity(64);
    let mut wrong = 0;
    measured(times, &mut || {
        wrong += u32::from(black_box(&advert).encode(PEER, ME, &mut out).is_err());
    });
    none(wrong)
}

fn judge(times: u32) -> Outcome {
    let local = local(PLAIN)?;
    let rules = Rules::new(&local)?;
    let payload = payload(&local.vip)?;
    let mut wrong = 0;
    measured(times, &mut || {
        let judged = rules.judge(datagram(black_box(&payload)), None);
        wrong += u32::from(black_box(judged).is_err());
    });
    none(wrong)
}

fn sign(times: u32) -> Outcome {
    let vip = local(SIGNED)?.vip;
    let mut seal = seal(&vip)?;
    let mut message = payload(&vip)?;
    let len = message.len();
    message.reserve(64);
    let (start, mut since) = (clock::now(), Duration::ZERO);
    measured(times, &mut || {
        message.truncate(len);
        since += Duration::from_secs(1);
        seal.sign(&mut message, PEER, wall(start, since));
    });
    none(u32::from(message.len() == len))
}

fn judge_signed(times: u32) -> Outcome {
    let local = local(SIGNED)?;
    let rules = Rules::new(&local)?;
    let (mut theirs, mut ours) = (seal(&local.vip)?, seal(&local.vip)?);
    let plain = payload(&local.vip)?;
    let start = clock::now();
    let seconds = |count: u32| Duration::from_secs(count.into());
    let packets: Vec<Vec<u8>> = (0..times)
        .map(|count| {
            let mut message = plain.clone();
            theirs.sign(&mut message, PEER, wall(start, seconds(count)));
            message
        })
        .collect();
    let (mut count, mut wrong) = (0, 0);
    let mut packets = packets.iter();
    measured(times, &mut || {
        let packet = packets.next().map_or(&[][..], Vec::as_slice);
        let clock = wall(start, seconds(count));
        let judged = rules.judge(datagram(packet), Some((&mut ours, clock)));
        wrong += u32::from(black_box(judged).is_err());
        count += 1;
    });
    none(wrong)
}

/// A machine that is up, with somebody else to listen to.
fn machine(start: Instant) -> Result<Machine, Box<dyn Error>> {
    let vip = local(PLAIN)?.vip;
    let mut machine = Machine::new(
        Settings {
            version: vip.version,
            me: ME,
            base: Priority::try_from(100)?,
            interval: vip.advert_interval,
            spacing: vip.advert_spacing,
            preempt: vip.preempt,
            lease: vip.lease,
            garp: vip.garp.clone(),
            recovery_delay: Duration::from_secs(1),
            alone: false,
        },
        start,
    );
    let health = NodeHealth {
        can_serve: true,
        known: true,
        weight: 0,
        probe_epoch: NodeHealth::NO_PROBE,
    };
    black_box(machine.handle(start, Input::Health(health)));
    black_box(machine.handle(start, Input::Up));
    Ok(machine)
}

fn backup(times: u32) -> Outcome {
    let local = local(PLAIN)?;
    let accepted = Rules::new(&local)?.judge(datagram(&payload(&local.vip)?), None);
    let accepted = accepted.map_err(lbd::vrrp::packet::Reject::word)?;
    let mut now = clock::now();
    let mut machine = machine(now)?;
    measured(times, &mut || {
        now += Duration::from_secs(1);
        black_box(machine.handle(now, Input::Advert(accepted)));
        black_box(machine.deadline());
    });
    Ok(())
}

fn active(times: u32) -> Outcome {
    let mut machine = machine(clock::now())?;
    let mut late = 0;
    measured(times, &mut || match machine.deadline() {
        Some(due) => {
            black_box(machine.handle(due, Input::Timer));
        }
        None => late += 1,
    });
    none(late + u32::from(machine.state() != lbd::ipc::message::VrrpState::Active))
}

fn health(times: u32) -> Outcome {
    let config = config(KUBESPHERE)?;
    let check = &config.proxies.first().ok_or("no proxy")?.check;
    let mut machine = Health::new(check, clock::now());
    let (mut step, mut changes) = (0_u32, 0);
    measured(times, &mut || {
        step += 1;
        // Down for three probes of sixteen.
        let change = machine.on_result(fsm::Health::up_or_not(step % 16 > 2), machine.deadline());
        changes += u32::from(change.is_some());
    });
    none(u32::from(changes < times / 16))
}

fn none(wrong: u32) -> Outcome {
    if wrong == 0 {
        Ok(())
    } else {
        Err(format!("{wrong} went wrong").into())
    }
}
