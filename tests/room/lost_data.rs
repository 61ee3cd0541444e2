//! What Redis had is gone: some of it, or all.

use std::time::{Duration, Instant};

use crate::judge::{MISSING, Witness};
use crate::rooms::{Rooms, bounds, nobody_left, sizes, times};
use crate::util::redis::{Redis, installed};

/// Everybody was told that lines may be missing, and nobody left.
#[track_caller]
fn all_were_told(witnesses: &[Witness<'_>]) {
    nobody_left(witnesses);
    assert!(witnesses.iter().all(|witness| times(witness, MISSING) > 0));
}

#[test]
fn all_data() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let mut rooms = Rooms::start(servers, &[]);
        let living = rooms.living();
        rooms.redis().ask("FLUSHALL");
        let begin = Instant::now();
        rooms.wait_for(&living, MISSING, 1);
        // A second, and what the machine may need besides.
        let passed = begin.elapsed();
        assert!(passed < Duration::from_secs(4), "told after {passed:?}");
        let newcomer = rooms.join(servers - 1);
        let name = rooms.swarm.members[newcomer].name.clone();
        rooms.wait_for(&living, &format!("{name} is in the room."), 1);
        rooms.talk();
        // Whoever has read all that is lost has missed nothing, and need not be told.
        for _ in 0..5 {
            rooms.redis().ask("FLUSHALL");
            rooms.go_on_talking(3);
        }
        all_were_told(&rooms.conclude());
    }
}

#[test]
fn an_older_state_comes_back() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let (options, _) = bounds();
        let log = ["--appendonly", "yes", "--appendfsync", "always"];
        let mut rooms = Rooms::over(Redis::start_with(&log), servers, &options);
        rooms.talk();
        let [data, older] = ["appendonlydir", "older"].map(|name| rooms.redis().file(name));
        copy(&data, &older);
        rooms.go_on_talking(10);
        let before = rooms.counts(MISSING);
        rooms.redis().kill();
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(&older, &data).unwrap();
        rooms.redis().resume();
        rooms.wait_for_more(&before, usize::MAX, MISSING);
        rooms.go_on_talking(3);
        all_were_told(&rooms.conclude());
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn killed_and_started_with_all_that_it_had() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let log = ["--appendonly", "yes", "--appendfsync", "always"];
        let mut rooms = Rooms::over(Redis::start_with(&log), servers, &[]);
        rooms.talk();
        for _ in 0..3 {
            rooms.redis().kill();
            rooms.redis().resume();
            rooms.go_on_talking(3);
        }
        let witnesses = rooms.conclude();
        nobody_left(&witnesses);
        assert!(witnesses.iter().all(|witness| times(witness, MISSING) == 0));
    }
}

#[test]
fn lost_before_one_has_read_it() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        for loss in ["XTRIM reactor:lobby MAXLEN 0", "FLUSHALL"] {
            let mut rooms = Rooms::start(servers, &[]);
            rooms.talk();
            let last = servers - 1;
            rooms.links[last].hold();
            let other = rooms.swarm.of(0, 1);
            let before = rooms.swarm.progress(other).1;
            rooms.swarm.until("others go on", |swarm| swarm.progress(other).1 > before + 5);
            let lost = rooms.redis().ask(loss);
            assert_ne!(lost, "0");
            rooms.links[last].go_on();
            rooms.wait_for(&[last], MISSING, 1);
            rooms.go_on_talking(3);
            nobody_left(&rooms.conclude());
        }
    }
}
