//! Shares, pace and rests of the plan, against literals and against a farm of servers.

use std::num::NonZeroU32;

use super::*;

fn config(rate: u32) -> model::Rebalance {
    model::Rebalance {
        above: 125,
        rate: NonZeroU32::new(rate).unwrap(),
        quiet: Duration::from_secs(1),
    }
}

/// Weights and connections of servers without a limit, at places 0, 1, ….
fn seats(servers: &[(u32, u32)]) -> Vec<Seat> {
    let seat = |(place, &(weight, used))| Seat {
        place,
        weight,
        used,
        room: u32::MAX,
        warming: false,
    };
    servers.iter().enumerate().map(seat).collect()
}

/// A farm whose clients come back after a step, led to where they are owed, or stay away.
struct Farm {
    plan: Plan,
    seats: Vec<Seat>,
    counters: (u64, u64),
    now: Instant,
    come_back: bool,
    news: Vec<News>,
}

impl Farm {
    fn new(rate: u32, servers: &[(u32, u32)]) -> Self {
        Self {
            plan: Plan::new(&config(rate)),
            seats: seats(servers),
            counters: (0, 0),
            now: crate::net::clock::now(),
            come_back: true,
            news: Vec::new(),
        }
    }

    fn used(&self) -> Vec<u32> {
        self.seats.iter().map(|seat| seat.used).collect()
    }

    /// A quarter of a second; answers how many were closed.
    fn step(&mut self) -> u32 {
        self.now += Duration::from_millis(250);
        let step = self.plan.step(Some(&self.seats), self.counters, self.now);
        self.news.extend(step.news);
        let mut closed = 0;
        for shed in step.sheds {
            let seat = self.seats.iter_mut().find(|s| s.place == shed.place);
            let seat = seat.unwrap();
            seat.used -= shed.count;
            assert!(seat.used >= shed.floor, "below the fair share");
            closed += shed.count;
        }
        self.counters.0 += u64::from(closed);
        for (place, count) in step.credits {
            if !self.come_back {
                break;
            }
            let owed = self.counters.0 - self.counters.1;
            let count = count.min(u32::try_from(owed).unwrap());
            let seat = self.seats.iter_mut().find(|s| s.place == place).unwrap();
            assert!(seat.room >= count, "no room");
            seat.room -= count;
            seat.used += count;
            self.counters.1 += u64::from(count);
        }
        closed
    }

    fn steps(&mut self, count: usize) -> u32 {
        (0..count).map(|_| self.step()).sum()
    }

    /// The server at this place comes (back) with such a weight.
    fn joins(&mut self, weight: u32) {
        self.steps(1);
        let place = self.seats.len();
        let fresh = seats(&[(weight, 0)])[0];
        self.seats.push(Seat { place, ..fresh });
    }
}

#[test]
fn a_server_that_came_back_gets_its_share_and_no_more_are_closed_than_it_gets() {
    let mut farm = Farm::new(10, &[(256, 150), (256, 150)]);
    farm.joins(256);
    assert_eq!(farm.steps(80), 100);
    assert_eq!(farm.used(), [100, 100, 100]);
    assert_eq!(farm.news[0], News::Began(true));
    assert!(matches!(farm.news[1], News::Done(_, 100)));
    // And then there is peace.
    assert_eq!(farm.steps(2000), 0);
    assert_eq!(farm.news.len(), 2);
}

#[test]
fn shares_are_by_weight() {
    let mut farm = Farm::new(1000, &[(1, 300), (2, 300)]);
    farm.joins(3);
    farm.steps(40);
    assert_eq!(farm.used(), [100, 200, 300]);
}

#[test]
fn what_does_not_divide_is_left() {
    let mut farm = Farm::new(1000, &[(1, 6), (1, 5)]);
    farm.joins(1);
    farm.steps(40);
    assert_eq!(farm.used(), [4, 4, 3]);
}

#[test]
fn the_pace_is_kept() {
    let mut farm = Farm::new(8, &[(1, 600), (1, 600)]);
    farm.joins(1);
    farm.steps(4);
    for _ in 0..10 {
        let second = farm.steps(4);
        assert_eq!(second, 8);
    }
}

#[test]
fn a_small_skew_begins_nothing_and_a_great_one_is_moved_to_the_end() {
    let mut farm = Farm::new(1000, &[(1, 124), (1, 76)]);
    assert_eq!(farm.steps(100), 0);
    farm.seats = seats(&[(1, 125), (1, 75)]);
    assert_eq!(farm.steps(20), 25);
    assert_eq!(farm.used(), [100, 100]);
    // A few connections are no skew.
    let mut few = Farm::new(1000, &[(1, 4), (1, 0)]);
    assert_eq!(few.steps(100), 0);
}

#[test]
fn a_move_that_skew_begins_has_to_wait_and_one_for_a_server_that_came_back_has_not() {
    let mut farm = Farm::new(1000, &[(1, 150), (1, 50)]);
    farm.steps(20);
    assert_eq!(farm.used(), [100, 100]);
    farm.seats = seats(&[(1, 150), (1, 50)]);
    assert_eq!(farm.steps(80), 0, "20 s");
    assert!(farm.steps(80) > 0, "40 s");
    let mut farm = Farm::new(1000, &[(1, 150), (1, 50)]);
    farm.steps(20);
    farm.joins(1);
    farm.steps(20);
    assert_eq!(farm.used(), [67, 67, 66]);
}

#[test]
fn nothing_moves_to_a_server_without_room() {
    let mut farm = Farm::new(1000, &[(1, 150), (1, 150)]);
    farm.joins(1);
    farm.seats[2].room = 30;
    assert_eq!(farm.steps(100), 30);
    assert_eq!(farm.used(), [135, 135, 30]);
}

#[test]
fn nothing_moves_with_one_server_or_while_nothing_may_be_moved() {
    let mut farm = Farm::new(1000, &[(1, 150)]);
    assert_eq!(farm.steps(20), 0);
    farm.joins(1);
    let mut now = farm.now;
    for _ in 0..20 {
        now += Duration::from_millis(250);
        assert_eq!(farm.plan.step(None, (0, 0), now), Step::default());
    }
}

#[test]
fn a_slowstart_takes_connections_as_its_share_grows() {
    let mut farm = Farm::new(1000, &[(256, 150), (256, 150)]);
    farm.joins(256);
    farm.seats[2].warming = true;
    // A sixteenth, a half and the whole of its share: the others may have 146, 120 and 100 then.
    for (share, expected) in [(16, 8), (128, 60), (256, 100)] {
        farm.seats[2].weight = share;
        farm.steps(20);
        assert_eq!(farm.seats[2].used, expected);
    }
    farm.seats[2].warming = false;
    farm.steps(1);
    assert!(matches!(
        farm.news[..],
        [News::Began(true), News::Done(_, 100)]
    ));
}

#[test]
fn clients_that_stay_away_are_few_and_end_the_move() {
    let mut farm = Farm::new(10, &[(1, 150), (1, 150)]);
    farm.come_back = false;
    farm.joins(1);
    // 30 may be away at once; after 10 s nobody expects them any more.
    assert_eq!(farm.steps(30), 30);
    let all = 30 + farm.steps(2000);
    assert_eq!(all, 30);
    assert!(matches!(
        farm.news[..],
        [News::Began(true), News::InVain(_, 30)]
    ));
    // Not even another server that comes back changes that.
    farm.joins(1);
    assert_eq!(farm.steps(80), 0);
}

#[test]
fn workers_get_the_same_and_what_is_left_over_in_turn() {
    let mut plan = Plan::new(&config(10));
    let shed = |count| Shed {
        place: 3,
        count,
        floor: 7,
    };
    let counts = |orders: Vec<Vec<Shed>>| -> Vec<u32> {
        orders
            .iter()
            .map(|o| o.iter().map(|s| s.count).sum())
            .collect()
    };
    assert_eq!(plan.split(&[shed(4)], 2), [[shed(2)], [shed(2)]]);
    assert_eq!(counts(plan.split(&[shed(1)], 2)), [0, 1]);
    assert_eq!(counts(plan.split(&[shed(1)], 2)), [1, 0]);
    assert_eq!(counts(plan.split(&[shed(5)], 3)), [1, 2, 2]);
    assert_eq!(counts(plan.split(&[shed(2)], 3)), [1, 0, 1]);
    assert_eq!(counts(plan.split(&[], 3)), [0, 0, 0]);
}

#[test]
fn what_one_worker_cannot_close_comes_to_the_other_one_at_last() {
    let mut plan = Plan::new(&config(10));
    let one = |place| Shed {
        place,
        count: 1,
        floor: 20,
    };
    let places = |orders: &[Vec<Shed>]| -> Vec<Vec<usize>> {
        orders
            .iter()
            .map(|o| o.iter().map(|shed| shed.place).collect())
            .collect()
    };
    let two = [one(0), one(1)];
    assert_eq!(places(&plan.split(&two, 2)), [[0], [1]]);
    assert_eq!(places(&plan.split(&two, 2)), [[1], [0]]);
    assert_eq!(places(&plan.split(&two, 2)), [[0], [1]]);
}

#[test]
fn seeded_farms_come_to_rest_with_fair_shares() {
    let mut seed = 3_u64;
    let mut below = move |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u32::try_from((seed >> 33) % limit).unwrap()
    };
    for _ in 0..200 {
        let servers: Vec<_> = (0..=below(6) + 1)
            .map(|_| (below(256) + 1, below(400)))
            .collect();
        let mut farm = Farm::new(1000, &servers);
        farm.joins(below(256) + 1);
        farm.steps(200);
        let total: u32 = farm.used().iter().sum();
        let weights: u32 = farm.seats.iter().map(|seat| seat.weight).sum();
        for seat in &farm.seats {
            let fair = (total * seat.weight).div_ceil(weights);
            assert!(seat.used <= fair, "{:?}", farm.seats);
        }
        assert_eq!(farm.steps(400), 0);
    }
}
