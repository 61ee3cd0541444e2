//! Multicast and broadcast, each test in a network namespace of its own.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use reactor::{DatagramContext, DatagramHandler, DatagramOptions, Error, Reactor, Service};

use crate::util::namespace::inside;
use crate::util::{self, PATIENCE};

/// Loopback is all there is, and nothing leads to multicast addresses.
const LOOPBACK: &str = "true";
const GROUP: &str = "239.255.1.1:7001";

type Heard = RefCell<Vec<(&'static str, String)>>;

/// Notes what it hears, under its name; sends to its own address what it is told to.
struct Ear<'a>(&'static str, &'a Heard);

impl DatagramHandler for Ear<'_> {
    type Message = (SocketAddr, &'static str);

    fn on_datagram(&mut self, _: &mut DatagramContext<'_>, _: SocketAddr, bytes: &[u8]) {
        self.1.borrow_mut().push((self.0, String::from_utf8_lossy(bytes).into_owned()));
    }

    fn on_message(&mut self, cx: &mut DatagramContext<'_>, (to, text): Self::Message) {
        cx.send_to(to, text);
    }
}

type Mouth = Service<(SocketAddr, &'static str)>;

/// A reactor with sockets that hear.
struct Room<'a> {
    reactor: Reactor<'a>,
    heard: &'a Heard,
}

impl<'a> Room<'a> {
    fn new(heard: &'a Heard) -> Room<'a> {
        Room { reactor: Reactor::new().unwrap(), heard }
    }

    fn add(
        &mut self,
        name: &'static str,
        place: &str,
        options: DatagramOptions,
    ) -> Result<Mouth, Error> {
        self.reactor.datagrams_with(place, Ear(name, self.heard), options)
    }

    /// Says something through one of the sockets, and asserts who hears it.
    #[track_caller]
    fn say(&mut self, mouth: &Mouth, to: &str, text: &'static str, hearers: &[&str]) {
        let (sent, lost) = (self.reactor.counters().datagrams_out, self.lost());
        mouth.handle().post((to.parse().unwrap(), text)).unwrap();
        while self.reactor.counters().datagrams_out == sent && self.lost() == lost {
            self.reactor.turn(Some(PATIENCE)).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while self.heard.borrow().len() < hearers.len() && Instant::now() < deadline {
            self.reactor.turn(Some(PATIENCE)).unwrap();
        }
        // For those who should not hear it.
        for _ in 0..5 {
            self.reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        let mut heard = self.heard.take();
        heard.sort_unstable();
        let wanted: Vec<_> = hearers.iter().map(|name| (*name, text.to_owned())).collect();
        assert_eq!(heard, wanted);
    }

    fn lost(&self) -> u64 {
        self.reactor.counters().datagrams_lost
    }
}

/// What the program ip says.
fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Multicast stays on loopback.
fn local() -> DatagramOptions {
    DatagramOptions { interface: Some(Ipv4Addr::LOCALHOST), ..DatagramOptions::default() }
}

#[test]
fn a_group_is_heard_by_all_that_are_bound_to_it_and_by_nobody_else() {
    if !inside(LOOPBACK) {
        return;
    }
    let heard = Heard::default();
    let mut room = Room::new(&heard);
    let ann = room.add("ann", GROUP, local()).unwrap();
    let _bob = room.add("bob", GROUP, local()).unwrap();
    let _other = room.add("other group", "239.255.1.2:7001", local()).unwrap();
    let _any = room.add("no group", "127.0.0.1:7001", local()).unwrap();
    let out = room.add("sender", "127.0.0.1:0", local()).unwrap();
    assert_eq!(ann.address().unwrap().to_string(), GROUP);
    room.say(&ann, GROUP, "from one of them", &["ann", "bob"]);
    room.say(&out, GROUP, "from outside", &["ann", "bob"]);
    // One bound to the group hears nothing but the group.
    room.say(&out, "127.0.0.1:7001", "to the port", &["no group"]);
    assert_eq!(room.lost(), 0);
}

#[test]
fn one_socket_can_hear_several_groups_and_its_port() {
    if !inside(LOOPBACK) {
        return;
    }
    let heard = Heard::default();
    let mut room = Room::new(&heard);
    let groups = |last: &[u8]| -> Vec<IpAddr> {
        last.iter().map(|last| Ipv4Addr::new(239, 255, 1, *last).into()).collect()
    };
    let ann = DatagramOptions { groups: groups(&[1, 2]), shared: true, ..local() };
    let ann = room.add("ann", "0.0.0.0:7001", ann).unwrap();
    let bob = DatagramOptions { groups: groups(&[3, 3]), shared: true, ..local() };
    let error = room.add("bob", "0.0.0.0:7001", bob.clone()).unwrap_err().to_string();
    assert!(error.contains("cannot join the group 239.255.1.3"), "twice: {error}");
    let bob = DatagramOptions { groups: groups(&[3]), ..bob };
    let _bob = room.add("bob", "0.0.0.0:7001", bob).unwrap();
    // Not what others on this machine have joined.
    for (group, hears) in [(1, "ann"), (2, "ann"), (3, "bob")] {
        room.say(&ann, &format!("239.255.1.{group}:7001"), "hi", &[hears]);
    }
    room.say(&ann, "239.255.1.4:7001", "hi", &[]);
    let cid = DatagramOptions { groups: groups(&[5]), ..local() };
    let _cid = room.add("cid", "0.0.0.0:7002", cid).unwrap();
    room.say(&ann, "239.255.1.5:7002", "to the group", &["cid"]);
    room.say(&ann, "127.0.0.1:7002", "to the port", &["cid"]);
}

#[test]
fn a_group_without_a_way_to_it_is_an_error_with_the_remedy() {
    if !inside(LOOPBACK) {
        return;
    }
    let heard = Heard::default();
    let mut room = Room::new(&heard);
    let error = room.add("ann", GROUP, DatagramOptions::default()).unwrap_err().to_string();
    assert!(error.contains("cannot join") && error.contains("127.0.0.1"), "{error}");
    let elsewhere = DatagramOptions { interface: Some(Ipv4Addr::new(192, 0, 2, 1)), ..local() };
    let error = room.add("ann", GROUP, elsewhere).unwrap_err().to_string();
    assert!(error.contains("no interface with the address 192.0.2.1;"), "{error}");
    // Sending there is no error of the reactor.
    let out = room.add("sender", "127.0.0.1:0", DatagramOptions::default()).unwrap();
    let _ann = room.add("ann", GROUP, local()).unwrap();
    room.say(&out, "192.0.2.1:7", "to nobody", &[]);
    assert_eq!(room.lost(), 1);
}

#[test]
fn broadcast_takes_permission_and_reaches_those_that_share_a_port() {
    if !inside(LOOPBACK) {
        return;
    }
    let heard = Heard::default();
    let mut room = Room::new(&heard);
    let shared = DatagramOptions { shared: true, ..local() };
    let _ann = room.add("ann", "0.0.0.0:7001", shared.clone()).unwrap();
    let error = room.add("bob", "0.0.0.0:7001", local()).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    let _bob = room.add("bob", "0.0.0.0:7001", shared).unwrap();

    let shy = room.add("shy", "127.0.0.1:0", local()).unwrap();
    room.say(&shy, "127.255.255.255:7001", "may I?", &[]);
    assert_eq!(room.lost(), 1);
    let loud = DatagramOptions { broadcast: true, ..local() };
    let loud = room.add("loud", "127.0.0.1:0", loud).unwrap();
    room.say(&loud, "127.255.255.255:7001", "all of you", &["ann", "bob"]);
}

#[test]
fn groups_of_ipv6_go_by_the_scope_of_the_address() {
    // Loopback does not carry them. The routes lead to another cable, which was up first.
    let cables = "ip link add far0 type veth peer name far1 && ip link set far0 up && \
                  ip link set far1 up && ip link add end0 index 7 type veth peer name end1 && \
                  ip link set end0 up && ip link set end1 up && \
                  ip -6 addr add fe80::1/64 dev end0 nodad";
    if !inside(cables) {
        return;
    }
    // The kernel makes the routes when the cables are ready, which is a moment later.
    util::until("there are the routes", || {
        let routes = ip("-6 route show table all type multicast");
        ["far0", "end0"].iter().all(|name| routes.contains(&format!("ff00::/8 dev {name} ")))
    });
    let place = "[ff02::7001%7]:7001";
    let heard = Heard::default();
    let mut room = Room::new(&heard);
    let ann = room.add("ann", place, DatagramOptions::default()).unwrap();
    let _bob = room.add("bob", place, DatagramOptions::default()).unwrap();
    room.say(&ann, place, "hello", &["ann", "bob"]);
    // A group besides, at the same interface.
    let groups = vec!["ff02::7002".parse().unwrap()];
    let options = DatagramOptions { groups, ..DatagramOptions::default() };
    let _cid = room.add("cid", "[::%7]:7002", options).unwrap();
    room.say(&ann, "[ff02::7002%7]:7002", "hello", &["cid"]);
    // Not what others on this machine have joined; and where to is said by the sender's scope.
    let groups = vec!["ff05::7003".parse().unwrap()];
    let options = DatagramOptions { groups, shared: true, ..DatagramOptions::default() };
    let _dan = room.add("dan", "[::%7]:7003", options.clone()).unwrap();
    let options = DatagramOptions { groups: Vec::new(), ..options };
    let _eve = room.add("eve", "[::%7]:7003", options).unwrap();
    let out = room.add("out", "[::%7]:0", DatagramOptions::default()).unwrap();
    room.say(&out, "[ff05::7003]:7003", "hello", &["dan"]);
}

#[test]
fn what_is_tested_here_stays_here() {
    if !inside(LOOPBACK) {
        return;
    }
    // Some kernels put tunnels into every namespace, which are down.
    let up = ip("-oneline link show up");
    assert!(up.starts_with("1: lo: ") && up.lines().count() == 1, "{up}");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(udp.send_to(b"x", "10.0.0.1:9").is_err());
}
