//! Floods against the limits that are made for them.

use std::io::{Read, Write};
use std::net::Ipv4Addr;

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
        for (number, client) in clients.iter_mut().enumerate() {
            let mut first = [0; 8];
            client.read_exact(&mut first).unwrap();
            let expected = if number < 10 { b"Welcome " } else { b"Too many" };
            assert_eq!(&first, expected, "{service}: {number}");
        }
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
