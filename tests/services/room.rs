//! A room on three cores: everybody hears the same in the same order, whatever happens meanwhile.

#![cfg(feature = "services")]

use reactor::services::Presence;
use reactor::services::room::Message;
use reactor::{CloseReason, Exit, Limits};

use crate::util::{Client, Server};

const CORES: usize = 3;

fn room() -> Server<Message> {
    Server::on_cores(CORES, Limits::default(), |core| Presence::default().on(&core))
}

/// A newcomer that has heard its welcome.
fn join(server: &Server<Message>) -> Client {
    let mut client = server.connect();
    (0..6).for_each(|_| _ = client.line());
    client
}

/// All that comes up to that line, and it.
fn up_to(client: &mut Client, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line| line != last) {
        heard.push(client.line());
    }
    heard
}

/// Clients with names, of whom each has heard that all have theirs.
fn named(server: &Server<Message>, count: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..count).map(|_| join(server)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("HELLO c{number}\n"));
        client.expect_up_to(&format!("c{number} is in the room.\n"));
    }
    let last = format!("c{} is in the room.\n", count - 1);
    clients[..count - 1].iter_mut().for_each(|client| client.expect_up_to(&last));
    clients
}

trait Hears {
    fn expect_up_to(&mut self, last: &str);
}

impl Hears for Client {
    fn expect_up_to(&mut self, last: &str) {
        up_to(self, last);
    }
}

#[test]
fn everybody_hears_the_same_in_the_same_order() {
    const CLIENTS: usize = 30;
    const LINES: usize = 200;
    let server = room();
    let clients = named(&server, CLIENTS);
    let mut ends = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        ends.push(std::thread::spawn(move || {
            let mut writer = client.stream.try_clone().unwrap();
            let said = std::thread::spawn(move || {
                for line in 0..LINES {
                    let said = format!("SAY {line}\nHELLO c{number}\n");
                    std::io::Write::write_all(&mut writer, said.as_bytes()).unwrap();
                }
                if number % 3 == 0 {
                    std::io::Write::write_all(&mut writer, b"BYE\n").unwrap();
                }
            });
            let mut heard = Vec::new();
            let mut left = CLIENTS.div_ceil(3);
            let leaving = format!("c{number} is about to leave the room.\n");
            let mut said_by_others = CLIENTS * LINES * 2;
            while left > 0 || said_by_others > 0 {
                let line = client.line();
                left -= usize::from(line.ends_with(" has left the room.\n"));
                let says = line.contains(" says: ") || line.ends_with(" is in the room.\n");
                said_by_others -= usize::from(says);
                let own_end = line == leaving;
                heard.push(line);
                if own_end {
                    assert_eq!(client.rest(), b"");
                    break;
                }
            }
            said.join().unwrap();
            (client, heard)
        }));
    }
    let all: Vec<_> = ends.into_iter().map(|end| end.join().unwrap()).collect();
    let whole = &all[1].1;
    for (number, (_, heard)) in all.iter().enumerate() {
        // Those who left have heard the beginning of it.
        assert!(number % 3 == 0 || heard.len() == whole.len());
        assert!(*heard == whole[..heard.len()], "{number} has heard something else");
        for line in 0..LINES {
            let said = format!("c{number} says: {line}\n");
            assert_eq!(whole.iter().filter(|heard| **heard == said).count(), 1);
        }
        let left = format!("c{number} has left the room.\n");
        let times = whole.iter().filter(|line| **line == left).count();
        assert_eq!(times, usize::from(number % 3 == 0));
    }
    drop(all);
    let (exit, counters) = server.stop();
    assert_eq!((exit, counters.closed(CloseReason::SlowConsumer)), (Exit::Clean, 0));
}
