//! Clients whose process is stopped in the middle of something. The client is a forwarder here, so
//! that the test can see every byte that passes through it.

use std::process::Command;

use crate::swarm::size;
use crate::util::Client;
use crate::util::program::{Program, REACTOR};
use crate::victim::Victim;

/// A process between us and the server, and our end of it.
fn through(addr: std::net::SocketAddr) -> (Program, Client) {
    let mut command = Command::new(REACTOR);
    let process = Program::spawn(command.args(["forward", "0"]).arg(addr.to_string()));
    let client = Client::connect(process.addr("forward"));
    (process, client)
}

#[test]
fn in_the_middle_of_a_large_reply() {
    let victim = Victim::start(&["roulette2"], &[]);
    let count = size(200_000, 2_000_000);
    let (process, mut client) = through(victim.addr("roulette2"));
    client.line();
    client.send("LOAD\n");
    client.line();
    let names: String = (0..count).map(|n| format!("student number {n}\n")).collect();
    client.send(names);
    client.send("ENDOFDATA\n");
    assert!(client.line().contains(&count.to_string()));
    client.send("LIST\n");
    client.expect("{\"students\":[{\"fullname\":\"student number 0\"}");
    process.signal("STOP");
    let before = victim.resident();
    for _ in 0..20 {
        victim.serves_the_polite();
    }
    let more = victim.resident().saturating_sub(before);
    assert!(more < 4 << 20, "{more} bytes more while it is stopped");
    process.signal("CONT");
    for n in 1..count {
        client.expect(format!(",{{\"fullname\":\"student number {n}\"}}"));
    }
    client.expect("]}\n");
    client.send("CLEAR\n");
    client.expect("DATASTORE CLEARED\n");
    drop((process, client));
    // The allocator keeps the room that the names had.
    let kept = (count * 40).max(24 << 20);
    victim.is_well(&format!("stopped in a LIST of {count}"), kept);
    victim.ends();
}

#[test]
fn in_the_middle_of_a_broadcast() {
    let victim = Victim::start(&["presence"], &[]);
    let mut speaker = Client::connect(victim.addr("presence"));
    while !speaker.line().starts_with("  Shutdown") {}
    let (process, mut listener) = through(victim.addr("presence"));
    while !listener.line().starts_with("  Shutdown") {}
    assert_eq!(speaker.line(), "Someone has arrived...\n");

    // Less than the soft limit: it gets all of it when it goes on.
    process.signal("STOP");
    let text = "x".repeat(1_000);
    let line = |n: usize| format!("An anonymous user says: {n} {text}\n");
    for n in 0..200 {
        speaker.send(format!("SAY {n} {text}\n"));
        speaker.expect(line(n));
    }
    process.signal("CONT");
    (0..200).for_each(|n| listener.expect(line(n)));

    // Until the kernel takes no more and the limit is reached: it is closed, and the log says why.
    process.signal("STOP");
    let text = "y".repeat(50_000);
    for n in 0.. {
        speaker.send(format!("SAY {n} {text}\n"));
        let said = speaker.line();
        if said == "An anonymous user has left the room.\n" {
            break;
        }
        assert!(n < 2_000, "{n} lines of 50 kB and it is still there");
    }
    victim.wait_for_log("slow consumer");
    process.signal("CONT");
    drop((process, listener, speaker));
    victim.is_well("stopped in a broadcast", 8 << 20);
    victim.ends();
}
