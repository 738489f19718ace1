//! Limits, forgetting and the overview of [`super::Sources`], on a simulated clock.

use std::num::NonZeroU32;

use super::*;
use crate::config::model::Network;
use crate::net::clock;

fn sources(max: u32, rate: Option<(u32, u32)>) -> Sources {
    let number = |number| NonZeroU32::new(number).unwrap();
    Sources::new(&PerSource {
        max_connections: NonZeroU32::new(max),
        connections_per_second: rate.map(|(per_second, burst)| Rate {
            per_second: number(per_second),
            burst: number(burst),
        }),
        exempt: vec![Network::new("10.0.0.0".parse().unwrap(), 8).unwrap()],
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_source_has_so_many_connections_and_the_next_when_one_ends() {
    let (sources, now) = (sources(2, None), clock::now());
    let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(sources.enter(a, now), Ok(()));
    assert_eq!(sources.enter(a, now), Ok(()));
    assert_eq!(sources.enter(a, now), Err(Excess::Connections));
    assert_eq!(sources.enter(b, now), Ok(()));
    sources.leave(a);
    assert_eq!(sources.enter(a, now), Ok(()));
    assert_eq!(sources.enter(a, now), Err(Excess::Connections));
}

#[test]
fn addresses_of_one_ipv6_network_of_64_bits_are_one_source() {
    let (sources, now) = (sources(2, None), clock::now());
    assert_eq!(sources.enter(ip("2001:db8:1:2::1"), now), Ok(()));
    assert_eq!(sources.enter(ip("2001:db8:1:2:ffff::9"), now), Ok(()));
    assert_eq!(
        sources.enter(ip("2001:db8:1:2:3::"), now),
        Err(Excess::Connections)
    );
    assert_eq!(sources.enter(ip("2001:db8:1:3::1"), now), Ok(()));
    let name = |text| Source::of(ip(text)).to_string();
    assert_eq!(name("2001:db8:1:2:3::"), "2001:db8:1:2::/64");
    assert_eq!(name("::ffff:192.0.2.7"), "192.0.2.7");
}

#[test]
fn connections_come_at_the_rate_after_a_burst_and_refused_ones_cost_nothing() {
    let (sources, start) = (sources(0, Some((10, 3))), clock::now());
    let client = ip("192.0.2.1");
    let let_in = |ms: u64| {
        let now = start + Duration::from_millis(ms);
        (0..50)
            .filter(|_| sources.enter(client, now).is_ok())
            .count()
    };
    assert_eq!(let_in(0), 3);
    assert_eq!(let_in(99), 0);
    assert_eq!(let_in(100), 1);
    assert_eq!(let_in(350), 2);
    // After a rest there is another burst, and no more than that.
    assert_eq!(let_in(10_000), 3);
    assert_eq!(sources.enter(client, start), Err(Excess::Rate));
    // Hammering for ten seconds brings ten a second.
    let hammered: usize = (10_001..=20_000).map(let_in).sum();
    assert_eq!(hammered, 100);
}

#[test]
fn exempt_sources_are_counted_and_not_limited() {
    let (sources, now) = (sources(1, Some((1, 1))), clock::now());
    for _ in 0..100 {
        assert_eq!(sources.enter(ip("10.1.2.3"), now), Ok(()));
    }
    assert_eq!(sources.overview(5).top[0].connections, 100);
}

/// A million sources, one connection each, come and go.
#[test]
fn a_million_distinct_sources_leave_a_bounded_table_behind() {
    let (sources, now) = (sources(4, Some((1, 1))), clock::now());
    for number in 0..1_000_000_u32 {
        let client = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number));
        assert_eq!(sources.enter(client, now), Ok(()));
        sources.leave(client);
    }
    let overview = sources.overview(3);
    assert_eq!((overview.known, overview.connected), (65_536, 0));
    let held: usize = sources.parts.iter().map(|part| lock(part).idle.len()).sum();
    assert_eq!(held, 65_536);
    let room: usize = sources
        .parts
        .iter()
        .map(|part| lock(part).entries.capacity())
        .sum();
    assert!(room <= 4 * 65_536, "{room}");
}

#[test]
fn those_with_connections_are_never_forgotten_and_room_is_given_back() {
    let (sources, now) = (sources(1, None), clock::now());
    let client = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number));
    for number in 0..100_000 {
        assert_eq!(sources.enter(client(number), now), Ok(()));
    }
    let overview = sources.overview(1);
    assert_eq!((overview.known, overview.connected), (100_000, 100_000));
    for number in 0..100_000 {
        assert_eq!(sources.enter(client(number), now), Err(Excess::Connections));
    }
    for number in 0..100_000 {
        sources.leave(client(number));
    }
    let overview = sources.overview(1);
    assert_eq!((overview.known, overview.connected), (65_536, 0));
}

#[test]
fn a_source_that_comes_again_and_again_is_remembered_among_passers_by() {
    let (sources, now) = (sources(1, None), clock::now());
    let regular = ip("198.51.100.9");
    for number in 0..150_000_u32 {
        let client = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number));
        assert_eq!(sources.enter(client, now), Ok(()));
        sources.leave(client);
        if number % 1000 == 0 {
            assert_eq!(sources.enter(regular, now), Ok(()));
            sources.leave(regular);
        }
    }
    let top = sources.overview(1).top;
    assert_eq!(
        top,
        [Talker {
            source: Source::of(regular),
            connections: 0,
            accepted: 150,
            refused: 0
        }]
    );
}

#[test]
fn the_overview_names_who_has_most_and_who_comes_most_often() {
    let (sources, now) = (sources(50, Some((1, 40))), clock::now());
    for (client, connections) in [("192.0.2.1", 5), ("192.0.2.2", 30), ("192.0.2.3", 1)] {
        for _ in 0..connections {
            assert_eq!(sources.enter(ip(client), now), Ok(()));
        }
    }
    for _ in 0..90 {
        if sources.enter(ip("192.0.2.4"), now).is_ok() {
            sources.leave(ip("192.0.2.4"));
        }
    }
    let overview = sources.overview(2);
    assert_eq!((overview.known, overview.connected), (4, 3));
    let top: Vec<_> = overview
        .top
        .iter()
        .map(|t| (t.source.to_string(), t.connections, t.accepted, t.refused))
        .collect();
    let talker = |who: &str, connections, accepted, refused| {
        (who.to_owned(), connections, accepted, refused)
    };
    assert_eq!(
        top,
        [
            talker("192.0.2.2", 30, 30, 0),
            talker("192.0.2.1", 5, 5, 0),
            talker("192.0.2.4", 0, 40, 50),
        ]
    );
}

/// Sources come, go and are refused at random; the table agrees with a plain count.
#[test]
fn seeded_runs_agree_with_a_plain_count() {
    for seed in 1..=20_u64 {
        let mut state = seed;
        let mut next = move |limit: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % limit
        };
        let (sources, now) = (sources(3, None), clock::now());
        let mut counts = HashMap::<u32, u32>::new();
        for _ in 0..20_000 {
            let number = u32::try_from(next(20)).unwrap();
            let client = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number));
            let count = counts.entry(number).or_default();
            if next(2) == 0 {
                assert_eq!(sources.enter(client, now).is_ok(), *count < 3);
                *count = (*count + 1).min(3);
            } else if *count > 0 {
                sources.leave(client);
                *count -= 1;
            }
        }
        let connected = counts.values().filter(|count| **count > 0).count();
        assert_eq!(sources.overview(1).connected, connected);
    }
}

#[test]
fn two_processes_count_a_source_together_while_there_are_two() {
    use crate::proxy::shares::Shares;
    let shares = Arc::new(Shares::create().unwrap());
    let column = |pid| Column {
        column: shares.assign(pid).unwrap(),
        shares: Arc::clone(&shares),
    };
    let (old, new, now) = (
        sources(3, Some((1, 4))),
        sources(3, Some((1, 4))),
        clock::now(),
    );
    let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!((old.enter(a, now), old.enter(a, now)), (Ok(()), Ok(())));
    old.share(&column(1), "kube");
    new.share(&column(2), "kube");
    assert_eq!(new.enter(a, now), Ok(()));
    assert_eq!(new.enter(a, now), Err(Excess::Connections));
    assert_eq!(old.enter(a, now), Err(Excess::Connections));
    assert_eq!(new.enter(b, now), Ok(()));
    // What is refused for the number costs nothing of the rate: three more are due at once.
    old.leave(a);
    old.leave(a);
    assert_eq!((new.enter(a, now), new.enter(a, now)), (Ok(()), Ok(())));
    // What a process had that died is free.
    shares.forget(2);
    assert_eq!(old.enter(a, now), Ok(()));
    // Alone again, one's own connections count.
    old.end_sharing();
    assert_eq!(old.enter(a, now), Ok(()));
    assert_eq!(old.enter(a, now), Err(Excess::Rate));
}

#[test]
fn an_exempt_source_is_counted_together_and_never_refused() {
    use crate::proxy::shares::Shares;
    let shares = Arc::new(Shares::create().unwrap());
    let column = Column {
        column: shares.assign(1).unwrap(),
        shares,
    };
    let (sources, now) = (sources(1, None), clock::now());
    sources.share(&column, "kube");
    for _ in 0..5 {
        assert_eq!(sources.enter(ip("10.0.0.9"), now), Ok(()));
    }
    assert_eq!(sources.enter(ip("192.0.2.1"), now), Ok(()));
    assert_eq!(
        sources.enter(ip("192.0.2.1"), now),
        Err(Excess::Connections)
    );
    sources.leave(ip("192.0.2.1"));
    assert_eq!(sources.enter(ip("192.0.2.1"), now), Ok(()));
}
