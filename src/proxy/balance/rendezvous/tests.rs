//! What rendezvous hashing promises, over a hundred thousand clients.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

/// Clients 10.0.0.0, 10.0.0.1 and so on.
fn clients(count: u32) -> impl Iterator<Item = Key> {
    (0..count).map(|n| Key::of(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))))
}

/// The name of the server that a client gets among these.
fn choose<'a>(client: Key, servers: &[(&'a str, u32)]) -> &'a str {
    let preference = |(name, weight): (&str, u32)| Preference::new(client, seed(name), weight);
    let mut best = servers[0];
    for server in servers {
        if preference(*server).beats(preference(best)) {
            best = *server;
        }
    }
    best.0
}

fn count(clients: u32, servers: &[(&str, u32)]) -> Vec<u32> {
    let mut counts = vec![0; servers.len()];
    for client in self::clients(clients) {
        let chosen = choose(client, servers);
        counts[servers.iter().position(|s| s.0 == chosen).unwrap()] += 1;
    }
    counts
}

const THREE: [(&str, u32); 3] = [("api-1", 1), ("api-2", 1), ("api-3", 1)];

#[test]
fn when_one_of_three_leaves_its_clients_move_and_no_other() {
    let mut moved = 0;
    for client in clients(120_000) {
        let (before, after) = (choose(client, &THREE), choose(client, &THREE[..2]));
        if before == "api-3" {
            moved += 1;
        } else {
            assert_eq!(before, after);
        }
    }
    // Captured, as all counts here, from another program that calculates with real logarithms. A
    // third is 40,000.
    assert_eq!(moved, 39_746);
}

#[test]
fn when_one_of_sixteen_leaves_its_clients_are_spread_over_all_the_others() {
    let names: Vec<String> = (1..=16).map(|n| format!("10.1.0.{n}:6443")).collect();
    let servers: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let (gone, rest) = servers.split_first().unwrap();
    let mut moved = [0; 15];
    for client in clients(160_000) {
        let after = choose(client, rest);
        if choose(client, &servers) == gone.0 {
            moved[rest.iter().position(|s| s.0 == after).unwrap()] += 1;
        } else {
            assert_eq!(choose(client, &servers), after);
        }
    }
    // A sixteenth is 10,000; a fifteenth of that 667.
    assert_eq!(moved.iter().sum::<u32>(), 9_851);
    assert!(moved.iter().all(|m| (580..=750).contains(m)), "{moved:?}");
}

#[test]
fn clients_fall_to_servers_by_their_weights() {
    for (weights, expected) in [
        ([1, 1, 1], [86_266, 85_779, 85_955]),
        ([1, 2, 3], [43_137, 85_851, 129_012]),
        ([256, 1, 1], [255_929, 1_075, 996]),
        ([65_536, 4_096, 256], [241_966, 15_081, 953]),
    ] {
        let servers = [0, 1, 2].map(|at| (THREE[at].0, weights[at]));
        assert_eq!(count(258_000, &servers), expected, "{weights:?}");
    }
}

#[test]
fn a_server_that_warms_up_takes_clients_from_the_others_and_they_none_from_each_other() {
    let mut last = 0;
    for share in [16, 64, 128, 192, 256] {
        let servers = [("api-1", 256), ("api-2", 256), ("api-3", share)];
        let mut present = 0;
        for client in clients(30_000) {
            let (without, with) = (choose(client, &servers[..2]), choose(client, &servers));
            present += u32::from(with == "api-3");
            assert!(with == without || with == "api-3");
            // Who came to it at a smaller share stays at a greater.
            let smaller = [servers[0], servers[1], ("api-3", 16)];
            assert!(choose(client, &smaller) != "api-3" || with == "api-3");
        }
        assert!(present > last, "{share}: {present} after {last}");
        last = present;
    }
}

#[test]
fn among_equals_the_short_way_leads_to_the_same_server() {
    let names: Vec<String> = (1..=16).map(|n| format!("api-{n}")).collect();
    for client in clients(20_000) {
        let weighted = |name: &&String| Preference::new(client, seed(name), 77);
        let plain = |name: &&String| Preference::among_equals(client, seed(name));
        let best = |preference: &dyn Fn(&&String) -> Preference| {
            let first = &names[0];
            names.iter().fold(first, |best, name| {
                let better = preference(&name).beats(preference(&best));
                if better { name } else { best }
            })
        };
        assert_eq!(best(&weighted), best(&plain));
    }
}

#[test]
fn the_order_of_the_servers_means_nothing_and_their_names_do() {
    let turned = [THREE[2], THREE[0], THREE[1]];
    let renamed = [("api-1", 1), ("api-2", 1), ("api-4", 1)];
    let mut other = 0;
    for client in clients(10_000) {
        assert_eq!(choose(client, &THREE), choose(client, &turned));
        other += u32::from(choose(client, &THREE) != choose(client, &renamed));
    }
    assert!(other > 3_000, "{other}");
}

#[test]
fn clients_keep_their_servers_from_version_to_version() {
    // From that program too.
    assert_eq!(seed("api-1"), 0x37ee_0d01_368c_c059);
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x16, 0, 0, 0, 0, 0, 2));
    assert_eq!(client(v6), 0x5bfe_3aad_39a8_49f4);
    let chosen: Vec<_> = clients(9).map(|client| choose(client, &THREE)).collect();
    let last = [2, 2, 1, 2, 2, 2, 2, 1, 3].map(|n| format!("api-{n}"));
    assert_eq!(chosen, last);
}

#[test]
fn the_logarithm_is_right_to_a_millionth() {
    assert_eq!(distance(u64::MAX), 1);
    assert_eq!(distance(1 << 63), 1 << 32);
    assert_eq!(distance(0), 64 << 32);
    // 2⁶⁴ × 3/4 and × 0.6: 0.415037499 and 0.736965594 × 2³².
    for (draw, expected) in [
        (0xc000_0000_0000_0000, 1_782_572_486),
        (0x9999_9999_9999_9999, 3_165_243_128),
    ] {
        assert!(
            distance(draw).abs_diff(expected) < 15_000,
            "{}",
            distance(draw)
        );
    }
}
