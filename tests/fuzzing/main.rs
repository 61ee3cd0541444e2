//! The targets of the fuzzers (`fuzz/`), with inputs that any toolchain can make: those that were
//! found worth keeping, and random ones.
//!
//! ```sh
//! cargo test --test fuzzing
//! INPUTS=1000000 cargo test --release --test fuzzing
//! ```

#[path = "../../src/cli/mod.rs"]
#[allow(dead_code, reason = "only its options are looked at")]
mod cli;
#[path = "../../src/net/proxy/header.rs"]
mod proxy_header;
mod redis;
mod targets;
mod web_socket;
#[path = "../world/mod.rs"]
mod world;

use std::path::Path;
use std::{env, fs};

use world::models::{Echo, Forward, Presence, Puppet, Roulette, Time};

/// How many random inputs each target gets when nobody says it.
const INPUTS: u64 = 300;

/// The kept inputs of a target, then random ones of up to `longest` bytes.
fn run(name: &str, longest: usize, target: fn(&[u8])) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut count = 0;
    for file in fs::read_dir(&kept).into_iter().flatten() {
        target(&fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no inputs in {}", kept.display());
    let inputs = env::var("INPUTS").map_or(INPUTS, |text| text.parse().expect("INPUTS: a number"));
    for seed in 0..inputs {
        let mut random = fastrand::Rng::with_seed(seed);
        let length = random.usize(..longest);
        // Few different bytes make other things happen than all of them do.
        let most = random.u8(1..);
        let input: Vec<u8> = (0..length).map(|_| random.u8(..=most)).collect();
        target(&input);
    }
}

#[test]
fn framing() {
    run("framing", 20_000, targets::framing);
}

#[test]
fn echo() {
    run("echo", 2_000, targets::service::<Echo>);
}

#[test]
fn time() {
    run("time", 2_000, targets::service::<Time>);
}

#[test]
fn presence() {
    run("presence", 2_000, targets::service::<Presence>);
}

#[test]
fn roulette() {
    run("roulette", 2_000, targets::service::<Roulette>);
}

#[test]
fn forward() {
    run("forward", 2_000, targets::service::<Forward>);
}

#[test]
fn puppet() {
    run("puppet", 2_000, targets::service::<Puppet>);
}

#[test]
fn address() {
    run("address", 60, targets::address);
}

#[test]
fn proxy() {
    run("proxy", 600, targets::proxy);
}

#[test]
fn head() {
    run("head", 600, targets::head);
}

#[test]
fn redis() {
    run("redis", 2_000, redis::replies);
}

#[test]
fn web_socket_reads() {
    run("web_socket_reads", 2_000, web_socket::reads);
}

#[test]
fn web_socket_writes() {
    run("web_socket_writes", 2_000, web_socket::writes);
}

#[test]
fn admin() {
    run("admin", 400, targets::admin);
}

#[test]
fn options() {
    run("options", 200, targets::options);
}

#[test]
fn config() {
    run("config", 60, targets::config);
}

#[test]
fn web() {
    run("web", 600, targets::web);
}
