//! Floods against the limits that are made for them.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use reactor::services::Presence;
use reactor::testing::Harness;
use reactor::{CloseReason, Limits, Rate, Rates};

use crate::swarm::{from, join, narrow, size};
use crate::util::Client;
use crate::victim::Victim;

#[test]
fn against_the_rate() {
    let victim = Victim::start(&["echo"], &["--rate", "1000/s", "--burst", "100"]);
    let addr = victim.addr("echo");
    let lines = size(2_000, 60_000);
    std::thread::scope(|scope| {
        let flooders: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let mut client = Client::from(join(addr, number));
                    while client.line().starts_with("Welcome") {}
                    let text: String = (0..lines).map(|n| format!("line {n}\n")).collect();
                    let mut writer = client.stream.try_clone().unwrap();
                    let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()));
                    (0..lines).for_each(|n| client.expect(format!("> LINE {n}\n")));
                    writing.join().unwrap().unwrap();
                })
            })
            .collect();
        while flooders.iter().any(|flooder| !flooder.is_finished()) {
            victim.serves_the_polite();
        }
    });
    victim.is_well(&format!("8 that send {lines} lines at once, at 1,000/s"), 8 << 20);
    victim.ends();
}

#[test]
fn from_one_address() {
    let victim = Victim::start(&["echo", "presence"], &["--max-per-peer", "10"]);
    for (service, addr) in victim.services() {
        let flood = || from(Ipv4Addr::new(127, 0, 9, 9), *addr);
        let mut clients: Vec<_> = (0..size(500, 5_000)).map(|_| flood()).collect();
        // With several threads these are not always the ones that came first.
        let mut served = 0;
        for client in &mut clients {
            let mut first = [0; 8];
            client.read_exact(&mut first).unwrap();
            assert!([b"Welcome ", b"Too many"].contains(&&first), "{service}: {first:?}");
            served += usize::from(&first == b"Welcome ");
        }
        assert_eq!(served, 10, "{service}");
        victim.serves_the_polite();
    }
    victim.is_well("a flood from one address", 8 << 20);
    victim.ends();
}

/// One who talks faster than the others can read makes slow consumers of them. With a rate it is
/// the one who waits, and everybody gets every line.
#[test]
fn of_talk() {
    // In the short form, which runs anywhere, slow enough for readers on a busy machine.
    let rate = format!("{}/s", size(300, 1_000));
    let victim = Victim::start(&["presence"], &["--rate", &rate, "--burst", "100"]);
    let addr = victim.addr("presence");
    let lines = size(2_000, 30_000);
    let mut readers: Vec<_> = (0..20).map(|number| Client::from(narrow(addr, number))).collect();
    let mut speaker = Client::connect(addr);
    speaker.send("HELLO speaker\n");
    for reader in &mut readers {
        while reader.line() != "speaker is in the room.\n" {}
    }
    let text: String = (0..lines).map(|n| format!("SAY {n:>500}\n")).collect();
    let mut writer = speaker.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()));
    while speaker.line() != "speaker is in the room.\n" {}
    for n in 0..lines {
        let expected = format!("speaker says: {n:>500}\n");
        speaker.expect(&expected);
        readers.iter_mut().for_each(|reader| reader.expect(&expected));
    }
    writing.join().unwrap().unwrap();
    drop((readers, speaker));
    victim.is_well(&format!("{lines} lines of talk at once, at {rate}"), 8 << 20);
    let log = victim.ends();
    assert!(!log.contains("slow consumer"), "{log}");
}

/// Says its lines, resets, comes again. The clock is the test's.
#[test]
fn by_one_who_comes_again_and_again() {
    let five = Rate { per_second: 5, burst: 5 };
    let limits = Limits { rate: five.into(), peer_rate: five.into(), ..Limits::default() };
    let mut room = Harness::with_limits(Presence::new(false), limits);
    let listener = room.connect();
    let step = Duration::from_millis(10);
    for _ in 0..500 {
        let flooder = room.connect_from(([127, 0, 0, 7], 9).into());
        room.feed(flooder, "SAY spam\n".repeat(5));
        room.reset(flooder);
        room.advance(step);
    }
    let heard = String::from_utf8(room.sent(listener)).unwrap();
    let spam = heard.matches("says: spam\n").count();
    assert!((25..=30).contains(&spam), "{spam} lines in five seconds");
    // Another address has lost nothing.
    let polite = room.connect_from(([127, 0, 0, 8], 9).into());
    room.feed(polite, "SAY hello\n");
    assert!(room.sent(listener).ends_with(b"says: hello\n"));
}

/// A byte that is no text is three for everybody in the room, and a line has 64 KiB of them: ten
/// lines a second are more than a listener can read, who reads all that his link of 20 Mbit/s
/// carries.
#[test]
fn of_few_lines_that_are_long() {
    let lines = Some(Rate { per_second: 10, burst: 10 });
    let bytes = Some(Rate { per_second: 64 << 10, burst: 64 << 10 });
    let said = [b"SAY ".as_slice(), &[0xff; 65_500], b"\n"].concat();
    for (bytes, fate) in [(None, Some(CloseReason::SlowConsumer)), (bytes, None)] {
        let limits = Limits { rate: Rates { lines, bytes }, ..Limits::default() };
        let mut room = Harness::with_limits(Presence::new(false), limits);
        let (listener, flooder) = (room.connect(), room.connect());
        let mut heard = Vec::new();
        room.take_only(listener, Some(0));
        room.feed(flooder, said.repeat(10));
        for _ in 0..150 {
            room.take_only(listener, Some(250_000));
            room.advance(Duration::from_millis(100));
            heard.extend(room.sent(listener));
        }
        assert_eq!(room.closed(listener), fate);
        let heard = String::from_utf8_lossy(&heard);
        let lines = heard.matches("says: \u{fffd}").count();
        assert_eq!(lines == 10, fate.is_none(), "{lines} lines");
    }
}
