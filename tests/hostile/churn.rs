//! Clients that come and go as fast as they can, in every way there is to go.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use crate::swarm::{join, size, will_reset};
use crate::victim::Victim;

/// The `number`th client, which leaves in the `number`th way.
fn visit(addr: SocketAddr, number: usize) {
    let mut client = join(addr, number);
    let mut some = [0; 20];
    match number % 8 {
        // At once.
        0 | 1 => will_reset(&client),
        // In the middle of a line.
        2 => {
            let _ = client.write_all(b"half a li");
            will_reset(&client);
        }
        // After questions, without the answers.
        3 => {
            let _ = client.write_all(b"HELP\nWHO\nLIST\nRANDOM\n");
            will_reset(&client);
        }
        // In the middle of the greeting.
        4 => {
            let _ = client.read(&mut some);
            will_reset(&client);
        }
        // In the middle of an upload.
        5 => {
            let _ = client.write_all(b"LOAD\njohn doe\nbill");
            will_reset(&client);
        }
        // Half.
        6 => {
            let _ = client.shutdown(Shutdown::Write);
            will_reset(&client);
        }
        // As one should.
        _ => {
            let _ = client.write_all(b"BYE\n");
            let _ = client.shutdown(Shutdown::Write);
            let _ = client.read_to_end(&mut Vec::new());
        }
    }
}

pub fn storm(victim: &Victim, count: usize) {
    let services = victim.services();
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for number in (part..count).step_by(4) {
                    // The kind of leaving and the service must not go together.
                    visit(services[number / 8 % services.len()].1, number);
                }
            });
        }
    });
}

#[test]
fn resets() {
    let services = ["echo", "presence", "roulette", "roulette2"];
    let victim = Victim::start(&services, &["--max-connections", "3000"]);
    let count = size(10_000, 100_000);
    storm(&victim, count / 10);
    victim.is_well("the first of the storm", 8 << 20);
    // What is lost is lost each time; what the allocator happens to keep is there the next time.
    let mut left: Vec<usize> = Vec::new();
    while left.last().is_none_or(|more| *more >= 2 << 20) {
        assert!(left.len() < 4, "nine times as many left more each time: {left:?}");
        let before = victim.resident();
        storm(&victim, count / 10 * 9);
        victim.is_well(&format!("a storm of {count} that come and go"), 8 << 20);
        left.push(victim.resident().saturating_sub(before));
    }
    victim.ends();
}

/// With all of it logged, and nowhere for the log to go.
#[test]
fn resets_with_a_full_disk_under_the_log() {
    for shell in ["exec 2>/dev/full", "exec 2>&-"] {
        let victim = Victim::start_after(shell, &["echo", "presence"], &["--log", "trace"]);
        storm(&victim, size(1_000, 20_000));
        victim.is_well(&format!("the same after {shell}"), 8 << 20);
        victim.ends();
    }
}
