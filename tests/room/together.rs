//! Several servers and a healthy Redis.

use std::time::{Duration, Instant};

use crate::judge::{is_rest, same};
use crate::rooms::{Rooms, nothing_is_heard_of_it};
use crate::swarm::Pace;
use crate::util::redis::{Redis, installed};

/// People come, speak, leave and come again.
fn a_day(rooms: &mut Rooms) {
    rooms.talk();
    rooms.swarm.speaks(rooms.swarm.of(0, 5), Pace { window: 100, pause: Duration::ZERO });
    let servers = rooms.living();
    let mut late = Vec::new();
    for server in servers.iter().rev() {
        let newcomer = rooms.join(*server);
        let name = rooms.swarm.members[newcomer].name.clone();
        // Two that come at the same moment come in any order.
        rooms.wait_for(&servers, &format!("{name} is in the room."), 1);
        late.push(name);
    }
    let who = rooms.who_is_there();
    assert!(who.ends_with(&late), "they came in the order {late:?}; WHO: {who:?}");
    for server in &servers {
        let leaver = rooms.swarm.of(*server, 7);
        let name = rooms.swarm.members[leaver].name.clone();
        rooms.swarm.leave(leaver);
        rooms.wait_for(&servers, &format!("{name} has left the room."), 1);
    }
    rooms.go_on_talking(5);
}

#[test]
fn everybody_hears_the_same() {
    if !installed() {
        return;
    }
    for servers in [2, 3] {
        let mut rooms = Rooms::start(servers, &[]);
        a_day(&mut rooms);
        assert_eq!(same(&rooms.conclude()), Ok(()));
    }
}

#[test]
fn several_threads_hear_the_same() {
    if !installed() {
        return;
    }
    let mut rooms = Rooms::start(2, &["--threads=2"]);
    a_day(&mut rooms);
    assert_eq!(same(&rooms.conclude()), Ok(()));
}

#[test]
fn who_comes_with_a_new_server_hears_the_rest() {
    if !installed() {
        return;
    }
    let mut rooms = Rooms::start(2, &[]);
    rooms.talk();
    rooms.add_server();
    let newcomers: Vec<_> = (0..5).map(|_| rooms.join(2)).collect();
    let who = rooms.who_is_there();
    assert!(who.ends_with(&["s2-0", "s2-1", "s2-2", "s2-3", "s2-4"].map(str::to_owned)), "{who:?}");
    rooms.go_on_talking(5);
    nothing_is_heard_of_it(&rooms.conclude());
    let arrival = rooms.swarm.number_of("Someone has arrived...");
    let numbers = |id| -> Vec<u32> { rooms.swarm.heard(id).iter().map(|it| it.0).collect() };
    let all = numbers(0);
    assert_eq!(is_rest(&all, &numbers(newcomers[0]), arrival, all.len()), Ok(()));
}

#[test]
fn who_stops_leaves_at_once() {
    if !installed() {
        return;
    }
    let mut rooms = Rooms::start(3, &["--bus-lease=1h"]);
    rooms.talk();
    rooms.server(2).signal("TERM");
    let begin = Instant::now();
    rooms.swarm.until("its members have left", |swarm| {
        swarm.members.iter().all(|member| member.server != 2 || member.ended)
    });
    rooms.wait_for_end(2);
    for member in 0..rooms.swarm.members.len() {
        if rooms.swarm.members[member].server == 2 {
            let left = format!("{} has left the room.", rooms.swarm.members[member].name);
            rooms.wait_for(&[0, 1], &left, 1);
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    rooms.go_on_talking(3);
    assert_eq!(same(&rooms.conclude()[..2]), Ok(()));
}

#[test]
fn rooms_with_other_names_hear_nothing_of_each_other() {
    if !installed() {
        return;
    }
    let redis = Redis::start();
    let mut others = Rooms::with(Some(redis.again()), "other", 2, &[]);
    let mut lobby = Rooms::over(redis, 2, &[]);
    lobby.talk();
    others.talk();
    for _ in 0..5 {
        lobby.go_on_talking(1);
        others.go_on_talking(1);
    }
    nothing_is_heard_of_it(&lobby.conclude());
    nothing_is_heard_of_it(&others.conclude());
}

#[test]
fn of_two_with_one_name_the_first_one_has_it() {
    if !installed() {
        return;
    }
    let mut rooms = Rooms::start(3, &["--unique-names"]);
    let ears: Vec<_> = (0..3).map(|server| rooms.swarm.ear(server).unwrap()).collect();
    for number in 0..20 {
        let name = format!("duke-{number}");
        for ear in &ears {
            rooms.swarm.send(*ear, &format!("HELLO {name}\n"));
        }
        let (has, taken) = (
            format!("{name} is in the room."),
            format!("The name {name} is taken; choose another with 'HELLO name'"),
        );
        rooms.swarm.until("all but one were refused", |swarm| {
            ears.iter().map(|ear| swarm.times(*ear, &taken)).sum::<usize>() == 2
        });
        rooms.wait_for(&[0, 1, 2], &has, 1);
        assert!(ears.iter().all(|ear| rooms.swarm.times(*ear, &has) == 1));
        let who = rooms.who_is_there();
        assert_eq!(who.iter().filter(|there| **there == name).count(), 1, "{who:?}");
    }
}
