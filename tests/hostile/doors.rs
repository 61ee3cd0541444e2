//! Against the page and WebSocket: upgrades of every kind and half-done ones, visitors that never read.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::swarm::{at_once, join, narrow, size, will_reset};
use crate::util::frames::{self, CLOSE, PING, TEXT};
use crate::victim::Victim;

const MASK: Option<[u8; 4]> = Some(*b"mask");

fn upgrade(victim: &Victim) -> Vec<u8> {
    frames::request(&victim.addr("web").to_string(), "/ws/presence").into_bytes()
}

/// One whose upgrade is done, and who has read no frame.
fn in_the_room(victim: &Victim, mut client: TcpStream) -> TcpStream {
    client.write_all(&upgrade(victim)).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(frames::ACCEPTED.as_bytes()), "{}", head.escape_ascii());
    client
}

/// All sorts of newcomers: who says everything at once, who leaves at the very moment, who stops at any
/// byte of the request, and who vanishes from the room. Each of them gets what is due, nobody is news.
#[test]
fn upgrades() {
    let victim = Victim::start(&["web", "presence"], &[]);
    let web = victim.addr("web");
    let said = [
        upgrade(&victim),
        frames::text("HELLO hasty"),
        frames::frame(true, CLOSE, MASK, &[0x03, 0xE8]),
    ];
    let said = said.concat();
    for number in 0..size(600, 20_000) {
        let mut client = join(web, number);
        client.write_all(&said).unwrap();
        match number % 4 {
            0 => will_reset(&client),
            1 => drop(in_the_room(&victim, join(web, number))),
            way => {
                if way == 2 {
                    client.shutdown(Shutdown::Write).unwrap();
                }
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).unwrap();
                let heard = heard.escape_ascii().to_string();
                assert!(heard.ends_with("hasty is in the room.\\x88\\x02\\x03\\xe8"), "{heard}");
            }
        }
    }
    let half = &said[..upgrade(&victim).len() - 1];
    let stalled: Vec<_> = (0..at_once(size(800, 900)))
        .map(|number| {
            let mut client = join(web, number);
            client.write_all(&half[..number % half.len()]).unwrap();
            client
        })
        .collect();
    victim.serves_the_polite();
    stalled.iter().for_each(will_reset);
    drop(stalled);
    victim.is_well("upgrades, whole and half", 8 << 20);
    let log = victim.ends();
    assert!(!log.contains("is gone"), "{log}");
}

/// Thousands of requests at once, and none of the answers is read: what is kept is bounded by
/// `high_water` and an answer for each, and other visitors are answered.
#[test]
fn visitors_that_never_read() {
    let victim = Victim::start(&["web", "echo"], &[]);
    let web = victim.addr("web");
    let count = at_once(size(100, 900));
    let most = count * (384 << 10) + (16 << 20);
    victim.does_not_grow(&format!("{count} visitors that never read"), most, |victim| {
        let visitors: Vec<_> = (0..count)
            .map(|number| {
                let path = ["/", "/status.json?all", "/metrics"][number % 3];
                let request = format!("GET {path} HTTP/1.1\r\nHost: {web}\r\n\r\n");
                let mut visitor = narrow(web, number);
                visitor.set_nonblocking(true).unwrap();
                will_reset(&visitor);
                let _ = visitor.write(request.repeat(200).as_bytes());
                visitor
            })
            .collect();
        victim.serves_the_polite();
        drop(visitors);
    });
    victim.ends();
}

/// Who asks for pongs without end and takes none is owed no more than some frames.
#[test]
fn pings_whose_pongs_nobody_takes() {
    let victim = Victim::start(&["web", "presence"], &[]);
    let pings = frames::frame(true, PING, MASK, &[0; 125]).repeat(500);
    let count = at_once(size(50, 900));
    let clients: Vec<_> = (0..count)
        .map(|number| {
            let mut client = in_the_room(&victim, narrow(victim.addr("web"), number));
            client.write_all(&frames::frame(false, TEXT, MASK, b"unfinished")).unwrap();
            client.set_nonblocking(true).unwrap();
            will_reset(&client);
            client
        })
        .collect();
    for _ in 0..size(10, 200) {
        for mut client in &clients {
            let _ = client.write(&pings);
        }
        victim.serves_the_polite();
    }
    let most = count * (48 << 10) + (8 << 20);
    assert!(victim.peak() < most, "{} bytes", victim.peak());
    drop(clients);
    victim.is_well(&format!("{count} that take no pongs"), 8 << 20);
    victim.ends();
}
