//! One server without a bus: that what is asked of a room holds there, so that it can be asked elsewhere.

use std::time::{Duration, Instant};

use crate::judge::same;
use crate::link::Link;
use crate::rooms::Rooms;
use crate::swarm::Pace;
use crate::util::redis::{Asker, Redis, installed};

#[test]
fn everybody_hears_the_same() {
    let mut rooms = Rooms::alone();
    rooms.talk();
    rooms.swarm.speaks(5, Pace { window: 100, pause: Duration::ZERO });
    rooms.go_on_talking(10);
    let [first, second] = [rooms.join(0), rooms.join(0)];
    let who = rooms.who_is_there();
    let names = [first, second].map(|id| rooms.swarm.members[id].name.clone());
    assert!(who.ends_with(&names), "{who:?}");
    rooms.swarm.leave(first);
    rooms.swarm.leave(7);
    let left = |name: &str| format!("{name} has left the room.");
    rooms.wait_for(&[0], &left(&names[0]), 1);
    rooms.wait_for(&[0], &left("s0-7"), 1);
    rooms.go_on_talking(3);
    let witnesses = rooms.conclude();
    assert!(witnesses[0].heard.len() > 100);
    assert_eq!(same(&witnesses), Ok(()));
}

#[test]
fn what_is_done_to_redis_and_to_the_way_there_happens() {
    if !installed() {
        return;
    }
    let mut redis = Redis::start();
    let link = Link::to(redis.addr);
    let dial = || Asker::dial(link.addr).unwrap();
    let mut asker = dial();
    assert_eq!(asker.ask("SET key value"), "OK");
    link.slow(Duration::from_millis(20), 2);
    let begin = Instant::now();
    assert_eq!(asker.ask("GET key"), "value");
    // The answer has 11 bytes: six pieces.
    assert!(begin.elapsed() >= Duration::from_millis(6 * 20));
    link.go_on();
    // "$5\r\nvalue\r\n", and the connection.
    for bytes in 1..11 {
        link.cut_after(bytes);
        assert_eq!(asker.try_ask("GET key"), None, "{bytes}");
        assert_eq!(link.cuts(), bytes);
        asker = dial();
    }
    // It has been let in.
    assert_eq!(asker.ask("PING"), "PONG");
    link.cut();
    assert_eq!(asker.try_ask("GET key"), None);
    link.refuse();
    assert_eq!(dial().try_ask("GET key"), None);
    link.go_on();
    let mut asker = dial();
    link.hold();
    let answer = std::thread::spawn(move || asker.ask("INCR number"));
    redis.signal("STOP");
    link.go_on();
    redis.signal("CONT");
    assert_eq!(answer.join().unwrap(), "1");
    assert_eq!((redis.ask("GET number").as_str(), redis.calls("incr")), ("1", 1));
    redis.kill();
    redis.resume();
    assert_eq!(redis.ask("GET number"), "", "it keeps nothing");
}
