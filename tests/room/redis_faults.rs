//! What may befall Redis without a loss of data.

use std::time::{Duration, Instant};

use crate::judge::{CUT_OFF, MISSING, WHOLE};
use crate::rooms::{Rooms, bounds, full, nobody_left, nothing_is_heard_of_it, sizes, times};
use crate::swarm::Pace;
use crate::util::redis::{Redis, installed};

/// All were cut off, and whole again; nobody left, nothing is missing.
#[track_caller]
fn all_were_apart(rooms: &mut Rooms) {
    let witnesses = rooms.conclude();
    nobody_left(&witnesses);
    for witness in &witnesses {
        assert_eq!(times(witness, CUT_OFF), times(witness, WHOLE));
        assert!(times(witness, CUT_OFF) > 0);
        assert_eq!(times(witness, MISSING), 0);
        let elsewhere =
            witness.heard.iter().filter(|it| it.line.ends_with("said elsewhere meanwhile."));
        assert!(elsewhere.count() > 0, "it was not told how many lines it has missed");
    }
}

#[test]
fn frozen_for_a_moment() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let mut rooms = Rooms::start(servers, &[]);
        rooms.talk();
        let speaker = rooms.speakers()[0];
        rooms.redis().signal("STOP");
        let (_, before) = rooms.swarm.progress(speaker);
        rooms.swarm.during(Duration::from_secs(3));
        let (_, after) = rooms.swarm.progress(speaker);
        assert!(after <= before + 20, "{before} {after}: nothing is heard that is not in Redis");
        rooms.redis().signal("CONT");
        rooms.go_on_talking(3);
        nothing_is_heard_of_it(&rooms.conclude());
    }
}

#[test]
fn frozen_for_long() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let (options, _) = bounds();
        let mut rooms = Rooms::start(servers, &options);
        rooms.talk();
        let living = rooms.living();
        for _ in 0..2 {
            let [cut, whole] = [CUT_OFF, WHOLE].map(|line| rooms.counts(line));
            rooms.redis().signal("STOP");
            if full() {
                rooms.swarm.during(Duration::from_secs(20));
            }
            rooms.wait_for_more(&cut, usize::MAX, CUT_OFF);
            rooms.go_on_talking(5);
            // Who comes meanwhile is seen elsewhere afterwards.
            let newcomer = rooms.join(0);
            rooms.redis().signal("CONT");
            rooms.wait_for_more(&whole, usize::MAX, WHOLE);
            let name = rooms.swarm.members[newcomer].name.clone();
            rooms.wait_for(&living, &format!("{name} is in the room."), 1);
            rooms.go_on_talking(3);
        }
        all_were_apart(&mut rooms);
    }
}

#[test]
fn its_clients_are_killed() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let mut rooms = Rooms::start(servers, &[]);
        rooms.talk();
        for _ in 0..20 {
            let killed = rooms.redis().ask("CLIENT KILL TYPE normal SKIPME yes");
            assert!(killed.parse::<usize>().unwrap() > 0);
            rooms.go_on_talking(1);
        }
        nothing_is_heard_of_it(&rooms.conclude());
    }
}

#[test]
fn slow() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let mut rooms = Rooms::start(servers, &[]);
        rooms.talk();
        let flooder = rooms.swarm.of(1, 5);
        rooms.swarm.speaks(flooder, Pace { window: 1000, pause: Duration::ZERO });
        for link in &rooms.links {
            link.slow(Duration::from_millis(100), 16 << 10);
        }
        rooms.go_on_talking(1);
        let (begin, calls) = (Instant::now(), rooms.redis().calls("exec"));
        let (_, before) = rooms.swarm.progress(flooder);
        rooms.go_on_talking(3);
        let calls = rooms.redis().calls("exec") - calls;
        let (_, after) = rooms.swarm.progress(flooder);
        let round_trips = begin.elapsed().as_millis() / 200 + 1;
        let most = round_trips as u64 * servers as u64;
        assert!(calls <= most, "{calls} batches in {round_trips} round trips of {servers} servers");
        // It is held at 64 lines that it has not heard, and let go on at half of that.
        let lines = u64::from(after - before);
        assert!(lines >= 10 && lines <= 128 * round_trips as u64, "{lines} in {round_trips}");
        for link in &rooms.links {
            link.go_on();
        }
        rooms.go_on_talking(3);
        nothing_is_heard_of_it(&rooms.conclude());
    }
}

#[test]
fn out_of_memory() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let (options, _) = bounds();
        let mut rooms = Rooms::start(servers, &options);
        rooms.talk();
        let [cut, whole] = [CUT_OFF, WHOLE].map(|line| rooms.counts(line));
        assert_eq!(rooms.redis().ask("CONFIG SET maxmemory 1"), "OK");
        rooms.wait_for_more(&cut, usize::MAX, CUT_OFF);
        rooms.go_on_talking(5);
        assert_eq!(rooms.redis().ask("CONFIG SET maxmemory 0"), "OK");
        rooms.wait_for_more(&whole, usize::MAX, WHOLE);
        rooms.go_on_talking(3);
        all_were_apart(&mut rooms);
    }
}

#[test]
fn another_password() {
    if !installed() {
        return;
    }
    let mut redis = Redis::start_with(&["--requirepass", "first"]);
    redis.password = Some("first".to_owned());
    let (options, _) = bounds();
    let mut rooms = Rooms::over(redis, 2, &options);
    rooms.talk();
    let [cut, whole] = [CUT_OFF, WHOLE].map(|line| rooms.counts(line));
    let mut asker = rooms.redis().asker();
    assert_eq!(asker.ask("CONFIG SET requirepass second"), "OK");
    let begin = Instant::now();
    asker.ask("CLIENT KILL TYPE normal SKIPME yes");
    rooms.wait_for_more(&cut, usize::MAX, CUT_OFF);
    rooms.go_on_talking(3);
    // Each connection has tried once, and tries again after 30 s.
    let tried = |info: &str| -> u32 {
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().parse().unwrap()
    };
    let before = tried(&asker.ask("INFO stats"));
    rooms.swarm.during(Duration::from_secs(3));
    assert_eq!(tried(&asker.ask("INFO stats")), before, "it is tried again at once");
    if full() {
        // Both connections of both servers: one that is back for a lease before the other finds it gone.
        rooms.swarm.until("all try again", |_| tried(&asker.ask("INFO stats")) == before + 4);
        let passed = begin.elapsed();
        assert!(passed >= Duration::from_secs(30), "tried again after {passed:?}");
        // The next try goes through.
        assert_eq!(asker.ask("CONFIG SET requirepass first"), "OK");
        rooms.wait_for_more(&whole, usize::MAX, WHOLE);
        rooms.go_on_talking(3);
        all_were_apart(&mut rooms);
    }
}
