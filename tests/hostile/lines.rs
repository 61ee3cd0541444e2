//! Lines that are too long, too short, or no text.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::swarm::{join, size};
use crate::util::{Client, again};
use crate::victim::Victim;

const EVERY_SERVICE: [&str; 5] = ["echo", "time", "presence", "roulette", "roulette2"];

/// A gigabyte without a line feed, to each service: it is told that this is too long, and what
/// follows is thrown away, or it has been reset before it was through.
#[test]
fn a_gigabyte_in_a_line() {
    let victim = Victim::start(&EVERY_SERVICE, &["--time-count", "1"]);
    let block = vec![b'x'; 1 << 20];
    for (service, addr) in victim.services() {
        let client = join(*addr, 0);
        let mut writer = client.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..1024 {
                    if writer.write_all(&block).is_err() {
                        return;
                    }
                }
                let _ = writer.shutdown(Shutdown::Write);
            });
            let mut said = Vec::new();
            let _ = (&client).read_to_end(&mut said);
            let said = String::from_utf8(said).unwrap();
            let told = said.ends_with("Line too long (limit 65536 bytes)\n");
            assert!(told || service == "time", "{service}: {said}");
        });
        victim.serves_the_polite();
    }
    assert!(victim.peak() < 8 << 20, "{} bytes", victim.peak());
    victim.is_well("a line of 1 GiB to each service", 8 << 20);
    victim.ends();
}

#[test]
fn millions_of_empty_lines() {
    let victim = Victim::start(&["echo", "presence", "roulette2"], &[]);
    let count = size(1_000_000, 10_000_000);
    let answers = [
        "> \n".len(),
        "What? I only understand HELLO, SAY, WHO, BYE and KILL commands\n".len(),
        "Huh? please use HELP if you don't know what commands are available.\n".len(),
    ];
    for ((service, addr), answer) in victim.services().iter().zip(answers) {
        let mut client = join(*addr, 0);
        let mut writer = client.try_clone().unwrap();
        let mut greeting = 0;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let block = vec![b'\n'; 50_000];
                for _ in 0..count / block.len() {
                    writer.write_all(&block).unwrap();
                }
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut block = vec![0; 1 << 20];
            let mut got = 0;
            loop {
                match again(|| client.read(&mut block)).unwrap() {
                    0 => break,
                    more => got += more,
                }
                if greeting == 0 {
                    greeting = got;
                    victim.serves_the_polite();
                }
            }
            // What came first is the greeting and perhaps some answers; others' coming and going
            // is told in between in the room.
            assert!(got >= count * answer, "{service}: {got} bytes");
        });
    }
    assert!(victim.peak() < 16 << 20, "{} bytes", victim.peak());
    victim.is_well(&format!("{count} empty lines to each service"), 16 << 20);
    victim.ends();
}

/// NUL, 0xFF, what telnet says before anybody types, and noise: bytes as others.
#[test]
fn bytes_that_are_no_text() {
    let victim = Victim::start(&EVERY_SERVICE, &["--time-count", "1"]);
    let every: Vec<u8> = (0..=255).collect();
    let seed = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = (1..size(20_000, 2_000_000) as u64)
        .map(|n| (seed.wrapping_mul(n ^ (n >> 7)) >> 56) as u8)
        .collect();
    let pieces: [&[u8]; 6] = [
        &[0; 5_000],
        &[0xff; 5_000],
        b"\xff\xfd\x01\xff\xfb\x18\xff\xfa\x18\x00vt100\xff\xf0\xff\xf4\xff\xfd\x06",
        b"\x1b]0;owned\x07\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80\x00\n",
        &every,
        &noise,
    ];
    for (service, addr) in victim.services() {
        for piece in pieces {
            let mut client = join(*addr, 0);
            for part in [piece, b"\n", piece] {
                // It may have found the word BYE or a long line.
                let _ = client.write_all(part);
            }
            let _ = client.shutdown(Shutdown::Write);
            let mut said = Vec::new();
            let _ = client.read_to_end(&mut said);
            let words = ["Welcome", "{'time'", "Welcome", "Hello", "Hello"];
            let greeted = words.iter().any(|word| said.starts_with(word.as_bytes()));
            assert!(greeted, "{service}");
        }
    }
    // Not a byte is changed that is no letter.
    let mut client = Client::connect(victim.addr("echo"));
    while client.line().starts_with("Welcome") {}
    client.send(b"\x00\xff\xf4ab\x80\xc3\n");
    client.expect(b"> \x00\xff\xf4AB\x80\xc3\n");
    drop(client);
    victim.is_well("NUL, 0xFF, telnet and noise", 8 << 20);
    victim.ends();
}
