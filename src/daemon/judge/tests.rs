//! The judge on its own, and with its tape.

use super::*;
use crate::daemon::judge::recorded::RecordedJudge;
use crate::recorder::file::{self, Header, VERSION};
use crate::recorder::replay::replay;
use crate::recorder::time;

const SECOND: Duration = Duration::from_secs(1);

fn vip(track: &str) -> Vip {
    let text = format!(
        "[vip.a]\naddress = \"172.16.0.10/24\"\n\
         nodes = [\"172.16.0.2\", \"172.16.0.3\"]\n{track}\n\
         [proxy.p]\nlisten = \"127.0.0.1:6443\"\nbackends = [\"172.16.0.4:6443\"]\n\
         [track.script.s]\ncommand = [\"/bin/true\"]\n"
    );
    crate::config::load(&text).unwrap().vips.remove(0)
}

fn judge(track: &str) -> Judge {
    let names = ["proxy:p", "script:s"];
    Judge::new(&vip(track), |at| names[at].to_owned(), 2 * SECOND)
}

fn proxy(usable: u16, epoch: u64) -> Seen {
    Seen::Proxy {
        usable: Some(usable),
        epoch,
    }
}

fn script(ok: bool) -> Seen {
    Seen::Result(Some(Found::Ok(ok)))
}

fn look(tracks: &[Seen], holds: bool) -> Look<'_> {
    Look {
        proxy: Standing::Fine,
        holds,
        tracks,
    }
}

#[test]
fn what_is_not_well_is_named() {
    let mut judge = judge("track = [\"proxy:p\", \"script:s:-20\"]");
    let now = crate::net::clock::now();
    let health = judge.look(now, &look(&[proxy(1, 3), script(false)], true));
    let expected = NodeHealth {
        can_serve: true,
        known: true,
        weight: -20,
        probe_epoch: 3,
    };
    assert_eq!(health, expected);
    assert_eq!(judge.complaints(), "script:s failed (-20)");
    let tracks = [proxy(1, 3), script(false)];
    let lost = Look {
        proxy: Standing::Lost,
        ..look(&tracks, true)
    };
    assert!(!judge.look(now, &lost).can_serve);
    assert_eq!(
        judge.complaints(),
        "the proxy does not serve, proxy:p failed, script:s failed (-20)"
    );
}

/// Looks at the same again and again change nothing that counts, so only news is noted; the count of
/// servers changes with time alone.
#[test]
fn a_judge_replays_as_it_lived_though_only_news_is_noted() {
    let base = crate::net::clock::now();
    time::count_from(base);
    let track = "track = [\"proxy:p\", \"script:s:-20\"]\nper-server-weight = 10";
    let mut plain = judge(track);
    let mut recorded = RecordedJudge::new(judge(track), None, base);
    let mut weights = Vec::new();
    for ms in 0..20_000_u64 {
        let now = base + Duration::from_millis(ms);
        let usable = if ms < 5_000 { 3 } else { 2 };
        let tracks = [proxy(usable, ms / 1_000), script(ms < 12_000)];
        let look = look(&tracks, true);
        let answer = plain.look(now, &look);
        assert_eq!(recorded.look(now, &look), answer, "{ms}");
        if weights
            .last()
            .is_none_or(|(_, weight)| *weight != answer.weight)
        {
            weights.push((ms, answer.weight));
        }
    }
    // A holder counts a loss two seconds later.
    assert_eq!(weights, [(0, 30), (7_000, 20), (12_000, 0)]);
    let end = base + 20 * SECOND;
    let header = Header {
        version: VERSION,
        lbd: String::new(),
        config: String::new(),
        node: None,
        boot: String::new(),
        why: String::new(),
        wall_ms: 0,
        t: time::nanos(end),
        lacks: None,
    };
    let tapes = [("judge", "a".to_owned(), recorded.tape(end))];
    let text = String::from_utf8(file::write(&header, &tapes, &[]).unwrap()).unwrap();
    let recording = file::read(&text).unwrap();
    let timeline = replay::<Judge>(&recording.machines[0]).unwrap();
    assert_eq!((timeline.differences, timeline.told), (0, 20));
}
