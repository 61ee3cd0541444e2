//! The loop and the ready-made services in a hostile world, which a seed decides: hundreds of
//! clients that send and read in pieces of any size, are interrupted, broken, half-closed, idle,
//! silent or gone at any byte, while the clock leaps and hooks panic. Real is all but the sockets
//! and the clock.
//!
//! ```sh
//! cargo test --test simulation                            # a few seconds
//! SEEDS=10000 cargo test --release --test simulation      # as long as one likes, or SEEDS=10000..20000
//! ONCE=1 SEEDS=10000 cargo test --release --test simulation   # without living again to compare
//! SEED=17 cargo test --test simulation echo -- --nocapture    # one of them, event by event
//! ```
//!
//! After each turn an oracle looks at every byte (`world/book.rs`), which knows from a model of
//! each protocol (`world/models`) what had to come.

#[path = "../world/mod.rs"]
mod world;

#[path = "../spread/mod.rs"]
mod spread;

#[path = "../util/folder.rs"]
mod folder;

mod cores;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ops::Range;

use allocation_counter::measure;
use reactor::services::room::{Command, Reply};

use world::models::{Echo, Forward, Model, Presence, Puppet, Roulette, Time};
use world::{Choices, History, World};

/// How many seeds each service is tried with when nobody says it.
const SEEDS: u64 = 8;
/// How many worlds of several cores there are.
const SEEDS_OF_CORES: u64 = 16;
/// How many worlds of three servers and a Redis there are.
const SEEDS_OF_ROOMS: u64 = 40;
/// How many worlds there are for each promise that one is aimed at.
const SEEDS_OF_AIMS: u64 = 2;
/// Of so many worlds of rooms there is one more for each aim.
const SEEDS_PER_AIM: u64 = 100;
/// At how many places a connection to Redis is cut, if not at all of them.
const PLACES: u64 = 25;
const STEPS: usize = 100;
/// One seed of so many lives again and again, with the same choices.
const SEEDS_PER_REPEAT: u64 = 4;

fn fresh<M: Model>(seed: u64, trace: bool) -> World<M> {
    let mut world = World::new(Choices::of_seed(seed));
    if !seed.is_multiple_of(2) {
        world.change_limits(Choices::of_seed(seed));
    }
    world.trace(trace);
    world
}

/// Tells which promise was broken. The world it happened in must still be there: a session may panic
/// when it is dropped, and would be heard instead.
fn must_hold<M: Model>(seed: u64, outcome: Result<(), String>) {
    must_hold_of(M::NAME, seed, outcome);
}

fn must_hold_of(name: &str, seed: u64, outcome: Result<(), String>) {
    if let Err(complaint) = outcome {
        panic!(
            "{name}, seed {seed}: {complaint}\nevent by event: \
             SEED={seed} cargo test --test simulation {name} -- --nocapture"
        );
    }
}

/// One world from its beginning to its end.
fn simulate<M: Model>(seed: u64, trace: bool) -> History {
    let must_hold = |outcome| must_hold::<M>(seed, outcome);
    let mut world = fresh::<M>(seed, trace);
    must_hold(world.live(STEPS));
    let first = world.history();
    let once = env::var_os("ONCE").is_some();
    if !once && seed.is_multiple_of(SEEDS_PER_REPEAT) {
        let mut repeat = |lives| {
            let heap = measure(|| {
                for _ in 0..lives {
                    world.choose(Choices::of_seed(seed));
                    must_hold(world.live(STEPS));
                }
            });
            heap.bytes_current
        };
        // In the first lives the capacity of what all clients share may double now and then. What
        // is left over at each end grows however often one looks.
        repeat(1);
        if (0..12).all(|_| repeat(4) > 0) {
            must_hold(Err("each life leaves something on the heap".to_owned()));
        }
    }
    must_hold(world.die(STEPS / 3));
    if once {
        return world.history();
    }
    let mut again = fresh::<M>(seed, false);
    must_hold(again.live(STEPS));
    let second = again.history();
    if first != second {
        must_hold(Err(format!("the same seed gave {first:?} and {second:?}")));
    }
    world.history()
}

/// Which seeds the environment asks for, or else so many; and whether it is one, event by event.
fn seeds(otherwise: u64) -> (Range<u64>, bool) {
    let number = |name: &str, text: &str| -> u64 {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: write a whole number"))
    };
    if let Ok(one) = env::var("SEED") {
        let seed = number("SEED", &one);
        return (seed..seed + 1, true);
    }
    let Ok(many) = env::var("SEEDS") else { return (0..otherwise, false) };
    let (first, end) = many.split_once("..").unwrap_or(("0", &many));
    (number("SEEDS", first)..number("SEEDS", end), false)
}

/// How many seeds there are to be, if the environment says it.
fn how_many() -> Option<u64> {
    env::var_os("SEEDS").map(|_| seeds(0).0).map(|seeds| seeds.end - seeds.start)
}

fn nothing_is_lost_repeated_reordered_or_left_over<M: Model>() {
    let (seeds, trace) = seeds(SEEDS);
    let count = seeds.end - seeds.start;
    // What a process loads once and keeps, such as the time zones, is loaded now.
    drop(fresh::<M>(0, false));
    let (mut connections, mut lines, mut panics, mut upgrades) = (0, 0, 0, 0);
    let mut record = 0_u64;
    for seed in seeds {
        let mut history = None;
        let heap = measure(|| history = Some(simulate::<M>(seed, trace)));
        // What a process loads once and keeps is left over only once, as is a trace that is captured.
        let again = || measure(|| _ = simulate::<M>(seed, false));
        if heap.bytes_current != 0 && again().bytes_current != 0 {
            let left_over = format!("{} bytes are left over", heap.bytes_current);
            must_hold::<M>(seed, Err(left_over));
        }
        let history = history.unwrap();
        connections += history.connections;
        lines += history.lines;
        panics += history.panics;
        upgrades += history.upgrades;
        record = record.rotate_left(1) ^ history.digest;
    }
    println!(
        "{}, {count} seeds: {connections} connections, {lines} lines, {panics} panics, \
         {upgrades} upgrades; \
         the record of all is {record:016x}",
        M::NAME
    );
}

#[test]
fn echo() {
    nothing_is_lost_repeated_reordered_or_left_over::<Echo>();
}

#[test]
fn time() {
    nothing_is_lost_repeated_reordered_or_left_over::<Time>();
}

#[test]
fn presence() {
    nothing_is_lost_repeated_reordered_or_left_over::<Presence>();
}

#[test]
fn roulette() {
    nothing_is_lost_repeated_reordered_or_left_over::<Roulette>();
}

#[test]
fn forward() {
    nothing_is_lost_repeated_reordered_or_left_over::<Forward>();
}

#[test]
fn puppet() {
    nothing_is_lost_repeated_reordered_or_left_over::<Puppet>();
}

#[test]
fn several_cores() {
    let (seeds, trace) = seeds(SEEDS_OF_CORES);
    let count = seeds.end - seeds.start;
    let (mut connections, mut words, mut refused, mut held, mut upgrades) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let live = |trace| {
            let mut world = cores::World::new(seed, trace);
            (world.live(STEPS), world.history())
        };
        let (outcome, history) = live(trace);
        must_hold_of("several_cores", seed, outcome);
        if seed.is_multiple_of(SEEDS_PER_REPEAT) {
            assert_eq!(history, live(false).1, "the same seed {seed} did not give the same");
        }
        connections += history.connections;
        words += history.words;
        refused += history.refused;
        held += history.held;
        upgrades += history.upgrades;
    }
    println!(
        "cores, {count} seeds: {connections} connections, {refused} refused, {words} words from core \
         to core, {upgrades} upgrades; after {held} turns a queue was full"
    );
}

#[test]
fn one_room_on_several_cores() {
    let (seeds, trace) = seeds(SEEDS);
    let count = seeds.end - seeds.start;
    let mut history = room::History::default();
    for seed in seeds {
        let live = |trace| {
            let mut world = room::World::new(seed, trace);
            let outcome = world.live(STEPS);
            (outcome, world.history)
        };
        let (outcome, happened) = live(trace);
        must_hold_of("one_room_on_several_cores", seed, outcome);
        if seed.is_multiple_of(SEEDS_PER_REPEAT) {
            assert_eq!(happened, live(false).1, "the same seed {seed} did not give the same");
        }
        history.news += happened.news;
        history.heard += happened.heard;
        history.lists += happened.lists;
        history.held += happened.held;
    }
    let room::History { news, heard, lists, held } = history;
    println!(
        "room on cores, {count} seeds: {news} news, heard {heard} times; {lists} lists; {held} held"
    );
}

#[test]
fn one_room_over_several_servers() {
    let (seeds, trace) = seeds(SEEDS_OF_ROOMS);
    let count = seeds.end - seeds.start;
    let (mut deliveries, mut seen) = (0, BTreeMap::<_, u64>::new());
    for seed in seeds {
        let live = |trace| {
            let mut world = spread::World::new(seed, None, trace);
            let outcome = world.live();
            (outcome, world.digest, world.oracle.deliveries, world.seen)
        };
        let (outcome, digest, heard, happened) = live(trace);
        if let Err(complaint) = outcome {
            let name = "one_room_over_several_servers";
            panic!(
                "seed {seed}: {complaint}\nevent by event: \
                 SEED={seed} cargo test --test simulation {name} -- --nocapture"
            );
        }
        if seed.is_multiple_of(SEEDS_PER_REPEAT) {
            assert_eq!(digest, live(false).1, "the same seed {seed} did not give the same");
        }
        deliveries += heard;
        happened.keys().for_each(|what| *seen.entry(*what).or_default() += 1);
    }
    println!("rooms, {count} seeds: {deliveries} lines heard; in so many of them:");
    seen.iter().for_each(|(what, seeds)| println!("{seeds:>7} {what}"));
}

#[test]
fn the_model_of_redis_answers_as_redis_does() {
    if !spread::real::compare_all() {
        let set = |name| env::var_os(name).is_some();
        let skipped = "skipped: redis-server is not installed";
        assert!(!set("CI") && !set("REACTOR_SKIP_NOTHING"), "it must not be {skipped}");
        println!("{skipped}");
    }
}

#[test]
fn one_room_that_is_aimed_at_a_promise() {
    let seeds = SEEDS_OF_AIMS.max(how_many().unwrap_or(0) / SEEDS_PER_AIM);
    for (name, aim) in spread::Aim::all() {
        let mut seen = BTreeSet::new();
        for seed in 0..seeds {
            let mut world = spread::World::new(seed, Some(aim.clone()), false);
            if let Err(complaint) = world.live() {
                panic!("{name}, seed {seed}: {complaint}");
            }
            seen.extend(world.seen.into_keys());
        }
        for what in aim.must {
            assert!(seen.contains(what), "{name}: {what:?} has not happened");
        }
    }
}

#[test]
fn one_room_whose_connections_are_cut_at_every_place() {
    let live = |place| {
        let mut world = spread::World::new(0, Some(spread::Aim::cut_at(place)), false);
        world.live().unwrap_or_else(|complaint| panic!("cut at {place}: {complaint}"));
        world.places
    };
    let places = live(0);
    let tried = how_many().unwrap_or(PLACES).min(places);
    let mut random = fastrand::Rng::with_seed(places);
    for place in 1..=tried {
        live(if tried == places { place } else { random.u64(1..=places) });
    }
    println!("cut at {tried} of {places} places");
}

#[test]
fn one_room_with_a_redis_that_says_anything() {
    (0..how_many().unwrap_or(SEEDS_OF_ROOMS)).for_each(spread::hostile::lives_with);
}

/// Whatever a Redis does, to ask it costs little, and nobody waits for it for ever.
#[test]
fn a_redis_that_does_not_help_is_given_up_and_costs_little() {
    use spread::hostile::{Treats, effort, well};

    let has = |commands: &[Command], name: &str| {
        commands.iter().any(|command| command[0] == name.as_bytes())
    };
    let refused = |commands: &[Command]| {
        Treats::With(vec![Reply::Error("NOPERM no".to_owned()); commands.len()])
    };
    let not_executed = |commands: &[Command]| {
        let exec = |reply| if matches!(reply, Reply::Array(_)) { Reply::Nil } else { reply };
        Treats::With(well(commands).into_iter().map(exec).collect())
    };
    let where_it_has = |name: &str, treats: &dyn Fn(&[Command]) -> Treats| {
        effort(|commands| if has(commands, name) { treats(commands) } else { Treats::Well })
    };
    for (what, cut_off, effort) in [
        ("waits", 0, effort(|_| Treats::Well)),
        ("does not wait", 0, effort(|commands| Treats::With(well(commands)))),
        ("is silent", 1, effort(|_| Treats::Not)),
        ("refuses all", 1, effort(refused)),
        ("drops who reads", 1, where_it_has("XREAD", &|_| Treats::Drops)),
        ("drops who writes", 1, where_it_has("MULTI", &|_| Treats::Drops)),
        ("refuses to read", 1, where_it_has("XREAD", &refused)),
        ("takes no entries", 1, where_it_has("XADD", &refused)),
        ("executes nothing", 1, where_it_has("EXEC", &not_executed)),
        ("executes no entries", 1, where_it_has("XADD", &not_executed)),
    ] {
        assert_eq!(effort.cut_off, cut_off, "a Redis that {what}: {effort:?}");
        // A few requests, attempts and looks at the clock for each of 60 seconds.
        let little = effort.sent < 900 && effort.dialled < 120 && effort.woken < 300;
        assert!(little, "a Redis that {what}: {effort:?}");
    }
}
