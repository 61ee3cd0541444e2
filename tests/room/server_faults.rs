//! What may befall one of the servers, or its way to Redis.

use std::time::{Duration, Instant};

use crate::judge::{CUT_OFF, MISSING, WHOLE, same};
use crate::rooms::{QUICK, Rooms, bounds, full, nobody_left, nothing_is_heard_of_it, sizes, times};
use crate::util::redis::installed;

/// The names of a server's members, in the order of WHO.
fn members_of(rooms: &mut Rooms, server: usize) -> Vec<String> {
    let start = format!("s{server}-");
    let who = rooms.who_is_there().into_iter();
    who.filter(|name| name.starts_with(&start)).collect()
}

/// Lines about members, and how often each was heard before something was done: on a machine that stands
/// still for longer than a short lease they leave and come without that, too.
struct Told(Vec<(String, Vec<(usize, usize)>)>);

impl Told {
    fn before(rooms: &Rooms, names: &[String], line: fn(&str) -> String) -> Told {
        let lines = names.iter().map(|name| line(name));
        Told(lines.map(|line| (line.clone(), rooms.counts(&line))).collect())
    }

    /// Each is heard once more, but for those at a server.
    fn wait_for_one_more(&self, rooms: &mut Rooms, but: usize) {
        for (line, counts) in &self.0 {
            rooms.wait_for_more(counts, but, line);
        }
    }
}

fn left(name: &str) -> String {
    format!("{name} has left the room.")
}

fn came(name: &str) -> String {
    format!("{name} is in the room.")
}

#[test]
fn killed() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let (options, lease) = bounds();
        let mut rooms = Rooms::start(servers, &options);
        rooms.talk();
        let last = servers - 1;
        let theirs = members_of(&mut rooms, last);
        rooms.kill(last);
        let begin = Instant::now();
        rooms.swarm.until("its connections have ended", |swarm| {
            swarm.members.iter().all(|member| member.server != last || member.ended)
        });
        let living = rooms.living();
        rooms.wait_for(&living, &left(&theirs[0]), 1);
        assert!(begin.elapsed() > lease / 2, "left after {:?}", begin.elapsed());
        for name in &theirs {
            rooms.wait_for(&living, &left(name), 1);
        }
        rooms.go_on_talking(3);
        let witnesses = rooms.conclude();
        assert_eq!(same(&witnesses[..last]), Ok(()));
        let heard = witnesses[0].heard.iter().map(|it| it.line);
        let leavers: Vec<_> =
            heard.filter_map(|it| it.strip_suffix(" has left the room.")).collect();
        assert_eq!(leavers, theirs, "they leave in the order in which they came");
    }
}

#[test]
fn frozen() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let (options, _) = bounds();
        let mut rooms = Rooms::start(servers, &options);
        rooms.talk();
        let last = servers - 1;
        let theirs = members_of(&mut rooms, last);
        let departures = Told::before(&rooms, &theirs, left);
        rooms.server(last).signal("STOP");
        // Its members say on what nobody reads.
        if full() {
            rooms.swarm.during(Duration::from_secs(20));
        }
        departures.wait_for_one_more(&mut rooms, last);
        let arrivals = Told::before(&rooms, &theirs, came);
        rooms.server(last).signal("CONT");
        arrivals.wait_for_one_more(&mut rooms, last);
        rooms.go_on_talking(3);
        let who = rooms.who_is_there();
        assert!(who.ends_with(&theirs), "they come back last, and in their order: {who:?}");
        let witnesses = rooms.conclude();
        assert_eq!(same(&witnesses[..last]), Ok(()));
        // Nobody there hears that they were away.
        nobody_left(&witnesses[last..]);
    }
}

#[test]
fn frozen_for_a_moment() {
    if !installed() {
        return;
    }
    let mut rooms = Rooms::start(2, &[]);
    rooms.talk();
    rooms.server(1).signal("STOP");
    rooms.swarm.during(Duration::from_secs(3));
    rooms.server(1).signal("CONT");
    rooms.go_on_talking(3);
    nothing_is_heard_of_it(&rooms.conclude());
}

#[test]
fn its_link_is_cut_and_comes_back() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        let mut rooms = Rooms::start(servers, &[]);
        rooms.talk();
        for _ in 0..5 {
            rooms.links[servers - 1].cut();
            rooms.go_on_talking(2);
        }
        rooms.links[servers - 1].hold();
        rooms.swarm.during(Duration::from_secs(2));
        rooms.links[servers - 1].go_on();
        rooms.go_on_talking(2);
        nothing_is_heard_of_it(&rooms.conclude());
    }
}

#[test]
fn its_link_is_down_for_longer_than_a_lease() {
    if !installed() {
        return;
    }
    for servers in sizes() {
        for refuse in [false, true] {
            let (options, _) = bounds();
            let mut rooms = Rooms::start(servers, &options);
            rooms.talk();
            let last = servers - 1;
            let theirs = members_of(&mut rooms, last);
            let departures = Told::before(&rooms, &theirs, left);
            let cut = rooms.counts(CUT_OFF);
            let link = &rooms.links[last];
            if refuse {
                link.refuse()
            } else {
                link.hold()
            }
            rooms.wait_for_more(&cut[last..], usize::MAX, CUT_OFF);
            departures.wait_for_one_more(&mut rooms, last);
            rooms.go_on_talking(3);
            let arrivals = Told::before(&rooms, &theirs, came);
            rooms.links[last].go_on();
            arrivals.wait_for_one_more(&mut rooms, last);
            rooms.go_on_talking(3);
            let witnesses = rooms.conclude();
            assert_eq!(same(&witnesses[..last]), Ok(()));
            nobody_left(&witnesses[last..]);
            assert_eq!([CUT_OFF, WHOLE].map(|line| times(&witnesses[0], line)), [0, 0]);
            assert_eq!(times(&witnesses[last], MISSING), 0);
        }
    }
}

#[test]
fn each_byte_of_an_answer_may_be_the_last() {
    if !installed() {
        return;
    }
    // No answer comes whole for a while, and the waits between two attempts grow.
    let mut rooms = Rooms::start(2, &["--bus-timeout=30s", "--bus-lease=60s"]);
    rooms.talk();
    let bytes = if full() { 1000 } else { 150 };
    for number in 1..=bytes {
        rooms.links[1].cut_after(number);
        rooms.swarm.until("the link was cut", |_| rooms.links[1].cuts() == number);
        if number % 8 == 0 {
            rooms.go_on_talking(1);
        }
    }
    rooms.go_on_talking(3);
    nothing_is_heard_of_it(&rooms.conclude());
}

#[test]
fn its_link_is_cut_while_all_come() {
    if !installed() {
        return;
    }
    let mut rooms = Rooms::start(2, &QUICK);
    rooms.talk();
    for number in 0..20 {
        let newcomer = rooms.swarm.join(1, rooms.addrs[1]);
        if number % 2 == 0 {
            rooms.links[1].cut();
        }
        rooms.swarm.until("it has told its name", |swarm| swarm.is_in(newcomer));
    }
    rooms.go_on_talking(3);
    let witnesses = rooms.conclude();
    nobody_left(&witnesses);
}
