//! Clients that take their time.

use std::io::{Read, Write};

use crate::swarm::{at_once, join, size, will_reset};
use crate::util::Client;
use crate::util::program::threads;
use crate::victim::Victim;

/// Slowloris, twenty times as fast: a line not finished in 3 s instead of 60, a byte every few
/// seconds instead of every minute. None of them is idle, and none of them gets anywhere.
#[test]
fn slowloris() {
    let count = at_once(size(10_000, 12_000));
    // With room for the polite.
    let most = (count + 1_000).to_string();
    let victim = Victim::start(&["echo"], &["--line-timeout", "3s", "--max-connections", &most]);
    let mut polite = Client::connect(victim.addr("echo"));
    while polite.line().starts_with("Welcome") {}
    let mut ask = |what: &str| {
        polite.send(format!("{what}\n"));
        polite.expect(format!("> {}\n", what.to_uppercase()));
    };
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = join(victim.addr("echo"), number);
        client.write_all(b"x").unwrap();
        clients.push(client);
        if number % 100 == 0 {
            ask("between them");
        }
    }
    for client in &mut clients {
        // It may be gone by now.
        let _ = client.write_all(b"x");
    }
    ask("among them");
    for client in &mut clients {
        // Who went on after it was told that it is too late is told again by a reset.
        will_reset(client);
        let mut said = Vec::new();
        let _ = client.read_to_end(&mut said);
        let said = String::from_utf8(said).unwrap();
        assert!(said.ends_with("not finished in time (limit 3 s)\n"), "{said}");
    }
    ask("after them");
    assert!(victim.peak() < 24 << 20, "{} bytes for {count} clients", victim.peak());
    drop((clients, polite));
    victim.is_well(&format!("slowloris, {count} clients"), 8 << 20);
    victim.ends();
}

/// Each a line of almost the limit that never ends: what a service may hold of unfinished lines.
#[test]
fn unfinished_lines() {
    let options = ["--max-line", "64K", "--line-timeout", "10m", "--max-total-input", "1G"];
    let victim = Victim::start(&["echo", "presence"], &options);
    let count = at_once(size(2_000, 9_000));
    let most = count * 5 / 4 * 65_536 + (8 << 20);
    victim.does_not_grow(&format!("unfinished lines, {count} of 65 kB"), most, |victim| {
        let line = vec![b'x'; 65_000];
        let mut clients = Vec::new();
        for number in 0..count {
            let (_, addr) = victim.services()[number % 2];
            let mut client = join(addr, number);
            // In pieces, as it comes from afar: a buffer that grows has something to waste.
            for piece in line.chunks(33_000) {
                client.write_all(piece).unwrap();
            }
            will_reset(&client);
            clients.push(client);
        }
        victim.serves_the_polite();
    });
    victim.ends();
}

/// More of them than the process has memory for: the longest go, the others never notice.
#[test]
fn unfinished_lines_beyond_the_memory_there_is() {
    let options = ["--line-timeout", "10m", "--max-total-input", "32M"];
    let victim = Victim::start_after("ulimit -v 262144", &["echo"], &options);
    let count = at_once(size(4_600, 9_000));
    let mut slow = Client::connect(victim.addr("echo"));
    while slow.line().starts_with("Welcome") {}
    slow.send("take your ");
    let line = vec![b'x'; 65_000];
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = join(victim.addr("echo"), number);
        will_reset(&client);
        client.write_all(&line).unwrap();
        clients.push(client);
        if number % 500 == 0 {
            victim.serves_the_polite();
        }
    }
    slow.send("time\n");
    slow.expect("> TAKE YOUR TIME\n");
    // What all threads have together is held to the bound a turn later.
    let most = (40 + 8 * threads()) << 20;
    assert!(victim.peak() < most, "{} bytes", victim.peak());
    drop((clients, slow));
    victim.is_well(&format!("{count} unfinished lines of 65 kB in 256 MiB"), 8 << 20);
    let log = victim.ends();
    assert!(log.contains("max_total_input") && log.contains("too much unfinished input"), "{log}");
}
