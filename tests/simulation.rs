//! The loop and the ready-made services in a hostile world, which a seed decides: hundreds of
//! clients that send and read in pieces of any size, are interrupted, broken, half-closed, idle,
//! silent or gone at any byte, while the clock leaps and hooks panic. Real is all but the sockets
//! and the clock.
//!
//! ```sh
//! cargo test --test simulation                            # a few seconds
//! SEEDS=10000 cargo test --release --test simulation      # as long as one likes
//! SEED=17 cargo test --test simulation echo -- --nocapture    # one of them, event by event
//! ```
//!
//! After each turn an oracle looks at every byte (`world/book.rs`), which knows from a model of
//! each protocol (`world/models`) what had to come.

mod world;

use std::env;

use allocation_counter::measure;

use world::models::{Echo, Forward, Model, Presence, Puppet, Roulette, Time};
use world::{Choices, History, World};

/// How many seeds each service is tried with when nobody says it.
const SEEDS: u64 = 8;
const STEPS: usize = 100;
/// One seed of so many lives again and again, with the same choices.
const SEEDS_PER_REPEAT: u64 = 4;

fn fresh<M: Model>(seed: u64, trace: bool) -> World<M> {
    let mut world = World::new(Choices::of_seed(seed));
    world.trace(trace);
    world
}

/// One world from its beginning to its end.
fn simulate<M: Model>(seed: u64, trace: bool) -> Result<History, String> {
    let mut world = fresh::<M>(seed, trace);
    world.live(STEPS)?;
    let first = world.history();
    if seed.is_multiple_of(SEEDS_PER_REPEAT) {
        let mut repeat = |lives| -> Result<i64, String> {
            let mut outcome = Ok(());
            let heap = measure(|| {
                for _ in 0..lives {
                    world.choose(Choices::of_seed(seed));
                    outcome = outcome.clone().and_then(|()| world.live(STEPS));
                }
            });
            outcome.map(|()| heap.bytes_current)
        };
        // In a second life what all clients share may still grow a little. From there on what only
        // grows would have to grow even if its capacity doubles now and then.
        repeat(1)?;
        let bytes = repeat(4)?;
        if bytes > 0 {
            return Err(format!("four more lives leave {bytes} bytes"));
        }
    }
    world.die(STEPS / 3)?;
    let mut again = fresh::<M>(seed, false);
    again.live(STEPS)?;
    match again.history() {
        same if same == first => Ok(world.history()),
        other => Err(format!("the same seed gave {first:?} and {other:?}")),
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: write a whole number")))
}

fn nothing_is_lost_repeated_reordered_or_left_over<M: Model>() {
    let one = number("SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    // What a process loads once and keeps, such as the time zones, is loaded now.
    drop(fresh::<M>(0, false));
    let (mut connections, mut lines, mut panics) = (0, 0, 0);
    for seed in seeds {
        let mut outcome = Err(String::new());
        let heap = measure(|| outcome = simulate::<M>(seed, one.is_some()));
        if outcome.is_ok() && heap.bytes_current != 0 {
            outcome = Err(format!("{} bytes are left over", heap.bytes_current));
        }
        let history = outcome.unwrap_or_else(|complaint| {
            let name = M::NAME;
            panic!(
                "{name}, seed {seed}: {complaint}\nevent by event: \
                 SEED={seed} cargo test --test simulation {name} -- --nocapture"
            )
        });
        connections += history.connections;
        lines += history.lines;
        panics += history.panics;
    }
    println!(
        "{}, {count} seeds: {connections} connections, {lines} lines, {panics} panics",
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
