//! Promises 2 and 4 to 6 as exact numbers: the system calls that a line costs.

#![cfg(feature = "services")]

use std::time::Duration;

use reactor::Limits;
use reactor::services::{Echo, Presence};
use reactor::testing::{Client, Harness};

use crate::util::Server;

/// Reads and writes so far.
fn calls<H: reactor::Handler>(server: &Harness<H>, client: Client) -> (usize, usize) {
    (server.reads(client), server.writes(client))
}

#[test]
fn a_line_alone_is_one_read_and_one_write() {
    let mut server = Harness::new(Echo);
    let client = server.connect();
    assert_eq!(calls(&server, client), (0, 1), "nothing has come: the greeting alone");
    for round in 1..=100 {
        server.feed(client, "ping\n");
        assert_eq!(calls(&server, client), (round, 1 + round));
    }
}

#[test]
fn sixty_four_pipelined_lines_are_one_read_and_one_write() {
    let mut server = Harness::new(Echo);
    let client = server.connect();
    for round in 1..=100 {
        server.feed(client, "thirty-one bytes and a line feed\n".repeat(64));
        assert_eq!(calls(&server, client), (round, 1 + round));
    }
}

#[test]
fn half_a_line_is_one_read() {
    let mut server = Harness::new(Echo);
    let client = server.connect();
    for round in 1..=100 {
        server.feed(client, "half ");
        assert_eq!(calls(&server, client), (round, 1));
    }
}

#[test]
fn sixteen_messages_in_a_turn_are_one_write_for_each_listener() {
    let mut server = Harness::new(Presence::default());
    let listeners: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let speaker = server.connect();
    let before: Vec<_> = listeners.iter().map(|client| calls(&server, *client)).collect();
    server.feed(speaker, "SAY hello\n".repeat(16));
    for (client, (reads, writes)) in listeners.iter().zip(before) {
        assert_eq!(calls(&server, *client), (reads, writes + 1));
        let heard = server.sent(*client);
        assert!(heard.ends_with("An anonymous user says: hello\n".repeat(16).as_bytes()));
    }
}

#[test]
fn a_bye_is_one_write_and_one_read_to_see_the_client_go() {
    let mut server = Harness::new(Echo);
    let client = server.connect();
    server.feed(client, "bye\n");
    assert_eq!(calls(&server, client), (1, 2));
    server.end(client);
    assert_eq!(calls(&server, client), (2, 2));
}

/// Each turn is one wait for events, whether or not there are idle timeouts to look after.
#[test]
fn a_line_alone_is_one_wait() {
    let limits = Limits { idle_timeout: Some(Duration::from_secs(600)), ..Limits::default() };
    for limits in [Limits::default(), limits] {
        let server = Server::start(limits, || Echo);
        let mut client = server.connect();
        client.line();
        client.line();
        for _ in 0..100 {
            client.send("ping\n");
            client.expect("> PING\n");
        }
        let (_, counters) = server.stop();
        // Some for coming and going.
        assert!(counters.turns < 110, "{} turns for 100 lines", counters.turns);
    }
}
