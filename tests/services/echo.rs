//! The echo service over real sockets, byte for byte as its protocol says.

#![cfg(feature = "services")]

use reactor::services::Echo;
use reactor::{CloseReason, Exit, Limits};

use crate::util::Server;

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

fn server() -> Server<()> {
    Server::start(Limits::default(), || Echo)
}

#[test]
fn upper_cases_lf_and_crlf_lines_and_closes_after_bye() {
    let server = server();
    let mut client = server.connect();
    client.expect(GREETING);
    client.send("hello, été\r\n\nBye\n");
    assert_eq!(client.rest(), "> HELLO, ÉTÉ\n> \n> BYE\n".as_bytes());
    drop(client);
    let (exit, counters) = server.stop();
    assert_eq!(exit, Exit::Clean);
    assert_eq!((counters.accepted, counters.lines_in, counters.open), (1, 3, 0));
    assert_eq!(counters.closed(CloseReason::Closed), 1);
}

#[test]
fn two_hundred_thousand_pipelined_lines_come_back_in_order() {
    let server = server();
    let mut client = server.connect();
    client.expect(GREETING);
    let lines: String = (0..200_000).map(|n| format!("line number {n}\n")).collect();
    let replies: String = (0..200_000).map(|n| format!("> LINE NUMBER {n}\n")).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, lines.as_bytes()).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert!(client.rest() == replies.as_bytes());
    sending.join().unwrap();
}
