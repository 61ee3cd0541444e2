//! The time service over real sockets: the rhythm, the count, and the date's form.

#![cfg(feature = "services")]

use std::time::{Duration, Instant};

use reactor::services::Time;
use reactor::{CloseReason, Limits};

use crate::util::{Client, Server};

fn server(interval: Duration, count: u64) -> Server<()> {
    Server::start(Limits::default(), move || Time::new(interval, count))
}

/// `{'time' : 'EEE MMM dd HH:mm:ss zzz yyyy'}`, as Java's `Date.toString()` has it.
#[track_caller]
fn check(line: &str) {
    let date = line.strip_prefix("{'time' : '").and_then(|rest| rest.strip_suffix("'}\n"));
    let words: Vec<_> = date.unwrap_or_else(|| panic!("{line:?}")).split(' ').collect();
    let [day, month, date, time, zone, year] = words[..] else { panic!("{line:?}") };
    assert!(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].contains(&day), "{line:?}");
    let months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    assert!(months.split(' ').any(|name| name == month), "{line:?}");
    let number = |text: &str, digits: usize, most: u32| {
        assert!(text.len() == digits && text.bytes().all(|b| b.is_ascii_digit()), "{line:?}");
        let number: u32 = text.parse().unwrap();
        assert!(number <= most, "{line:?}");
        number
    };
    assert!(number(date, 2, 31) > 0, "{line:?}");
    let [hours, minutes, seconds] = time.split(':').collect::<Vec<_>>()[..] else {
        panic!("{line:?}")
    };
    number(hours, 2, 23);
    number(minutes, 2, 59);
    number(seconds, 2, 60);
    assert!(!zone.is_empty() && zone.bytes().all(|b| b.is_ascii_graphic()), "{line:?}");
    assert!(number(year, 4, 9999) >= 2024, "{line:?}");
}

fn stream(mut client: Client, count: usize) {
    for _ in 0..count {
        check(&client.line());
    }
    assert_eq!(client.rest(), b"", "no more than {count} lines");
}

#[test]
fn several_clients_get_fifteen_lines_each_from_its_own_arrival() {
    let interval = Duration::from_millis(100);
    let server = server(interval, 15);
    let mut first = server.connect();
    // The others come when the first has had five.
    for _ in 0..5 {
        check(&first.line());
    }
    let began = Instant::now();
    let others: Vec<_> = (0..5)
        .map(|_| {
            let began = Instant::now();
            let client = server.connect();
            std::thread::spawn(move || {
                stream(client, 15);
                began.elapsed()
            })
        })
        .collect();
    stream(first, 10);
    for other in others {
        let took = other.join().unwrap();
        // One line at once and fourteen at intervals (exactly so: src/services/time.rs). They count
        // from the beginning of the turn that let it in, which a busy machine may have made long.
        assert!(took >= interval * 8, "{took:?}");
    }
    // At the same time, and not one after the other, which would take at least as long as this.
    assert!(began.elapsed() < interval * 14 * 5, "{:?}", began.elapsed());
    let (_, counters) = server.stop();
    assert_eq!((counters.accepted, counters.closed(CloseReason::Closed)), (6, 6));
}

#[test]
fn count_zero_streams_until_the_client_leaves() {
    let server = server(Duration::from_millis(20), 0);
    let mut client = server.connect();
    for _ in 0..40 {
        check(&client.line());
    }
    drop(client);
    let mut other = server.connect();
    check(&other.line());
    drop(other);
}

#[test]
fn a_half_closed_client_gets_all_of_it_and_input_is_ignored() {
    // Time enough for all its input to come before the last line.
    let server = server(Duration::from_millis(200), 15);
    let quiet = server.connect();
    quiet.end();
    let mut chatty = server.connect();
    chatty.send(b"BYE\nKILL\n\xff\xff\n");
    chatty.send(vec![b'x'; 300_000]);
    chatty.end();
    stream(quiet, 15);
    stream(chatty, 15);
    let (_, counters) = server.stop();
    assert_eq!((counters.lines_in, counters.bytes_in), (0, 300_012));
    assert_eq!(counters.closed(CloseReason::PeerClosed), 2);
}

#[test]
fn the_first_line_comes_at_once_and_one_can_be_all() {
    let server = Server::start(Limits::default(), || Time::new(Duration::from_secs(3600), 1));
    let began = Instant::now();
    stream(server.connect(), 1);
    assert!(began.elapsed() < Duration::from_secs(20));
}
