//! Clients that do not read.

use std::io::{Read, Write};

use crate::swarm::{at_once, join, narrow, size, will_reset};
use crate::util::{Client, until};
use crate::victim::Victim;

/// Thousands that never read what is said in the room, and some that do.
#[test]
fn thousands_of_readers_that_never_read() {
    let options = ["--max-total-output", "32M"];
    let victim = Victim::start(&["presence"], &options);
    let count = at_once(size(2_000, 8_000));
    let lines = size(30, 200);
    // Capacity is more than content, and each has a little of its own.
    let most = 3 * (32 << 20) + count * 4096;
    let attack = format!("{count} readers that never read {lines} lines of 60 kB");
    victim.does_not_grow(&attack, most, |victim| talk_to_the_deaf(victim, count, lines));
    let log = victim.ends();
    assert!(log.contains("max_total_output"), "{log}");
}

fn talk_to_the_deaf(victim: &Victim, count: usize, lines: usize) {
    let deaf: Vec<_> = (0..count).map(|number| narrow(victim.addr("presence"), number)).collect();
    deaf.iter().for_each(will_reset);
    let mut readers: Vec<_> = (0..10).map(|_| Client::connect(victim.addr("presence"))).collect();
    for reader in &mut readers {
        while !reader.line().starts_with("  Shutdown") {}
    }
    readers.iter_mut().for_each(|reader| reader.send("HELLO reader\n"));
    for reader in &mut readers {
        let mut named = 0;
        while named < 10 {
            named += usize::from(reader.line() == "reader is in the room.\n");
        }
    }
    // What has been said until the last one was there.
    readers[9].send("SAY begin\n");
    for reader in &mut readers {
        while reader.line() != "reader says: begin\n" {}
    }
    let text = "x".repeat(60_000);
    let mut gone = 0;
    for number in 0..lines {
        readers[0].send(format!("SAY {number} {text}\n"));
        let expected = format!("reader says: {number} {text}\n");
        for reader in &mut readers {
            loop {
                let line = reader.line();
                if line == expected {
                    break;
                }
                assert_eq!(line, "An anonymous user has left the room.\n");
                gone += 1;
            }
        }
    }
    assert!(gone > 0, "the budget was never used up");
}

/// Those who do not read the answers to their own questions: they are held back, not closed.
#[test]
fn questions_without_reading_the_answers() {
    let victim = Victim::start(&["presence", "roulette2"], &[]);
    let count = at_once(size(50, 500));
    let mut clients = Vec::new();
    for number in 0..count {
        let (_, addr) = &victim.services()[number % 2];
        let client = narrow(*addr, number);
        will_reset(&client);
        client.set_nonblocking(true).unwrap();
        clients.push((client, 0));
    }
    let questions = "WHO\nHELP\n".repeat(1_000);
    let mut stuck = 0;
    while stuck < 20 {
        stuck += 1;
        for (client, sent) in &mut clients {
            if let Ok(more) = client.write(questions.as_bytes()) {
                *sent += more;
                stuck = 0;
            }
        }
        victim.serves_the_polite();
        let sent: usize = clients.iter().map(|(_, sent)| sent).sum();
        assert!(sent < count * (16 << 20), "nothing holds them back");
    }
    let most = count * 2 * (256 << 10) + (16 << 20);
    assert!(victim.peak() < most, "{} bytes", victim.peak());
    drop(clients);
    victim.is_well(&format!("{count} that ask and never read the answers"), 16 << 20);
    victim.ends();
}

/// Nothing holds back who is gone, so no answer is made for it: a list of all that are there for each of
/// thousands of questions would take minutes.
#[test]
fn questions_of_one_that_is_gone() {
    let victim = Victim::start(&["presence"], &[]);
    let addr = victim.addr("presence");
    let count = at_once(size(1_000, 8_000));
    let room: Vec<_> = (0..count).map(|number| join(addr, number)).collect();
    let mut last = Client::connect(addr);
    while last.line() != "  Shutdown server with 'KILL'\n" {}
    let (all, before) = (victim.descriptors(), victim.cpu());
    let mut client = narrow(addr, 0);
    will_reset(&client);
    client.write_all(&b"WHO\n".repeat(16_000)).unwrap();
    // It has begun.
    client.read_exact(&mut [0; 200]).unwrap();
    drop(client);
    until("it is gone", || victim.descriptors() == all);
    victim.serves_the_polite();
    let more = victim.cpu() - before;
    assert!(more < 300, "{more} hundredths of a second");
    drop((room, last));
    victim.is_well(&format!("16,000 questions of one that is gone, in a room of {count}"), 8 << 20);
    victim.ends();
}
