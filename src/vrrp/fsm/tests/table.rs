//! The whole table: from each state, each input, silly ones too: the state that follows, the
//! actions, and the microseconds to the next deadline. `table.txt` holds what is expected.

use super::*;

/// A state worth a part of the table, and a machine in it.
type Start = (&'static str, fn(&Settings) -> Rig);

fn watching(settings: &Settings) -> Rig {
    Rig::backup(settings.clone())
}

/// Behind an Active that is stronger than most.
fn following(settings: &Settings) -> Rig {
    let mut rig = watching(settings);
    rig.hear(HIGHER, 200);
    rig.pass(1);
    rig
}

fn holding(settings: &Settings) -> Rig {
    let mut rig = Rig::new(settings.clone());
    rig.tell(Input::Resume);
    rig.tell(health(true, true, 0));
    rig.pass(1);
    rig
}

fn after(settings: &Settings, input: Input) -> Rig {
    let mut rig = holding(settings);
    rig.tell(input);
    rig
}

const MAIN: &[Start] = &[
    ("starting", |settings| Rig::new(settings.clone())),
    ("watching", watching),
    ("following", following),
    ("active", holding),
    ("leaving", |settings| after(settings, Input::Resign)),
];

const MORE: &[Start] = &[
    ("link down", |settings| {
        let mut rig = watching(settings);
        rig.tell(Input::Down);
        rig
    }),
    ("left", |settings| {
        let mut rig = watching(settings);
        rig.tell(Input::Resign);
        rig
    }),
    ("resigned to", |settings| {
        let mut rig = following(settings);
        rig.hear(HIGHER, 0);
        rig.pass(1);
        rig
    }),
    ("standing down", |settings| {
        let hold = Some(Duration::from_secs(60));
        let mut rig = after(settings, Input::Failover { hold });
        rig.hear(HIGHER, 100);
        rig
    }),
    ("silenced", |settings| {
        let mut rig = after(settings, Input::Mute(true));
        rig.run_to(1_500);
        rig.hear(HIGHER, 100);
        rig
    }),
    ("unfit backup", |settings| {
        let mut rig = following(settings);
        rig.tell(health(true, false, 0));
        rig
    }),
    ("unfit active", |settings| {
        let mut rig = Rig::new(settings.clone());
        rig.tell(health(true, false, 0));
        rig.tell(Input::Resume);
        rig.pass(1);
        rig
    }),
    ("mute active", |settings| {
        let mut rig = after(settings, Input::Mute(true));
        rig.run_to(1_500);
        rig
    }),
    ("unheard active", |settings| {
        let mut rig = after(settings, Input::Unheard(true));
        rig.hear(HIGHER, 100);
        rig.run_to(900);
        rig.hear(HIGHER, 100);
        rig.run_to(1_500);
        rig
    }),
    ("handing off", |settings| {
        after(settings, health(true, false, 0))
    }),
    ("failing over", |settings| {
        after(settings, Input::Failover { hold: None })
    }),
];

fn inputs() -> Vec<(&'static str, Input)> {
    let advert = |sender, priority| {
        Input::Advert(Accepted {
            sender,
            peer: 0,
            priority,
            interval: AdvertInterval::from_wire_v3(100).unwrap(),
            interval_as_sent: true,
            same_addresses: true,
        })
    };
    let minute = Some(Duration::from_secs(60));
    vec![
        ("up", Input::Up),
        ("down", Input::Down),
        ("resume", Input::Resume),
        ("hear 0", advert(HIGHER, 0)),
        ("stranger 0", advert(LOWER, 0)),
        ("hear 1", advert(HIGHER, 1)),
        ("hear 149", advert(HIGHER, 149)),
        ("hear 150<", advert(LOWER, 150)),
        ("hear 150>", advert(HIGHER, 150)),
        ("hear 255", advert(HIGHER, 255)),
        ("early", Input::Timer),
        ("due", Input::Timer),
        ("an hour late", Input::Timer),
        ("fit", health(true, true, 1)),
        ("unfit", health(true, false, 0)),
        ("unknown", health(false, false, 0)),
        ("lost", Input::AddressLost),
        ("failed", Input::AddressFailed),
        ("not renewed", Input::NotRenewed),
        ("resign", Input::Resign),
        ("failover", Input::Failover { hold: minute }),
        ("release", Input::ReleaseHold),
        ("unheard", Input::Unheard(true)),
        ("heard", Input::Unheard(false)),
        ("mute", Input::Mute(true)),
        ("not mute", Input::Mute(false)),
    ]
}

fn letters(actions: &[Action]) -> String {
    let words: Vec<String> = actions
        .iter()
        .map(|action| match action {
            Action::Claim => "claim".into(),
            Action::Renew => "renew".into(),
            Action::Restore => "restore".into(),
            Action::Release { graceful: true } => "release".into(),
            Action::Release { graceful: false } => "drop".into(),
            Action::Advertise(priority) => format!("say{priority}"),
            Action::Garp(frames) => format!("garp{frames}"),
            Action::Probe => "probe".into(),
            Action::IgnoredResign => "ignored".into(),
            Action::FailedOver { taken } => format!("taken:{taken}"),
        })
        .collect();
    words.join(" ")
}

fn row(kind: &str, state: &str, (name, input): (&str, Input), mut rig: Rig) -> String {
    match name {
        "due" => {
            if let Some(due) = rig.machine.deadline() {
                rig.at = due - rig.start;
            }
        }
        "an hour late" => rig.pass(3_600_000),
        _ => {}
    }
    let actions = letters(&rig.tell(input));
    let wait = rig.machine.deadline().map(|_| rig.wait());
    let wait = wait.map_or("never".into(), |wait| wait.to_string());
    let after = format!("{:?}", rig.machine.state());
    format!("{kind} | {state} | {name} | {after} | {actions} | {wait}")
}

#[test]
fn each_state_answers_each_input_as_the_table_says() {
    let ten = Preempt::After(Duration::from_secs(10));
    let kinds = [
        ("v3 1s", Rig::v3(), vec![MAIN, MORE]),
        (
            "v2 1s never",
            settings(Version::V2, 1_000, 150, Preempt::Never),
            vec![MAIN],
        ),
        (
            "v3 10ms after",
            settings(Version::V3, 10, 150, ten),
            vec![MAIN],
        ),
        (
            "owner",
            settings(Version::V3, 1_000, 255, Preempt::Never),
            vec![MAIN],
        ),
    ];
    let mut lines = Vec::new();
    for (kind, settings, parts) in kinds {
        for (state, start) in parts.into_iter().flatten() {
            for input in inputs() {
                lines.push(row(kind, state, input, start(&settings)));
            }
        }
    }
    let table: Vec<&str> = include_str!("table.txt").lines().collect();
    let wrong: Vec<String> = lines
        .iter()
        .zip(&table)
        .filter(|(got, expected)| got != expected)
        .map(|(got, expected)| format!("expected {expected}\n     got {got}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(lines.len(), table.len(), "{}", lines.join("\n"));
}
