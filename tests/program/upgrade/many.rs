//! A thousand clients in the middle of lines, and one upgrade after the other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::{GREETING, Generations};
use crate::util::{Client, quiet, until};

/// So many of the clients are in the room.
const IN_ROOM: usize = 40;
/// So many are told the time, in so many lines each.
const TOLD: usize = 20;
const TIMES: usize = 50;
/// Threads for the others.
const THREADS: usize = 4;

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a whole number"))
}

/// Talks with echo until it is over, in halves of lines: whenever it waits for an answer, the half of the next
/// line is there. Gives how long each client has waited at the most, and how many lines there were.
fn talk(
    addr: SocketAddr,
    clients: std::ops::Range<usize>,
    begin: &impl Fn(),
    over: &AtomicBool,
) -> Waits {
    let mut all: Vec<_> = clients.map(|number| (number, Client::connect(addr))).collect();
    let mut longest = vec![Duration::ZERO; all.len()];
    for (number, client) in &mut all {
        client.expect(GREETING);
        client.send(format!("Client {number}, li"));
    }
    begin();
    let mut line = 0;
    while !over.load(SeqCst) || line == 0 {
        let mut sent = Vec::new();
        for (number, client) in &mut all {
            sent.push(Instant::now());
            client.send(format!("ne {line}\nClient {number}, li"));
        }
        for (((number, client), sent), longest) in all.iter_mut().zip(sent).zip(&mut longest) {
            client.expect(format!("> CLIENT {number}, LINE {line}\n"));
            *longest = sent.elapsed().max(*longest);
        }
        line += 1;
    }
    for (number, client) in &mut all {
        client.send("ne that ends\nbye\n");
        client.expect(format!("> CLIENT {number}, LINE THAT ENDS\n> BYE\n"));
        assert_eq!(client.rest(), b"");
    }
    Waits { longest, lines: (line + 1) * all.len() }
}

/// Ends what the threads do, also if this one fails.
struct Ends<'o>(&'o AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

struct Waits {
    longest: Vec<Duration>,
    lines: usize,
}

/// In the room one speaks after the other, and all hear the same.
fn chat(addr: SocketAddr, begin: &impl Fn(), over: &AtomicBool) -> Waits {
    let mut all: Vec<_> = (0..IN_ROOM).map(|_| Client::connect(addr)).collect();
    let skip = |client: &mut Client, last: String| while client.line() != last {};
    for client in &mut all {
        skip(client, "  Shutdown server with 'KILL'\n".to_owned());
    }
    for (number, client) in all.iter_mut().enumerate() {
        client.send(format!("HELLO n{number}\nSA"));
        skip(client, format!("n{number} is in the room.\n"));
    }
    for client in &mut all[..IN_ROOM - 1] {
        skip(client, format!("n{} is in the room.\n", IN_ROOM - 1));
    }
    begin();
    let mut longest = vec![Duration::ZERO; all.len()];
    let mut said = 0;
    while !over.load(SeqCst) || said < IN_ROOM {
        let speaker = said % IN_ROOM;
        let sent = Instant::now();
        all[speaker].send(format!("Y line {said}\nSA"));
        for (client, longest) in all.iter_mut().zip(&mut longest) {
            client.expect(format!("n{speaker} says: line {said}\n"));
            *longest = sent.elapsed().max(*longest);
        }
        said += 1;
    }
    Waits { longest, lines: said * IN_ROOM }
}

/// All lines that there are to be come, each a time not before that of the one before.
fn read_times(addr: SocketAddr, begin: &impl Fn()) -> Waits {
    let mut all: Vec<_> = (0..TOLD).map(|_| Client::connect(addr)).collect();
    begin();
    for client in &mut all {
        let lines: Vec<_> = (0..TIMES).map(|_| client.line()).collect();
        assert!(lines.iter().all(|line| line.starts_with("{'time' : '") && line.ends_with("'}\n")));
        assert_eq!(client.rest(), b"");
    }
    Waits { longest: Vec::new(), lines: TOLD * TIMES }
}

fn shown(mut pauses: Vec<Duration>) -> String {
    pauses.sort_unstable();
    let at = |part: usize| pauses[(pauses.len() - 1) * part / 100];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100))
}

/// No line is lost, repeated or moved. `CLIENTS` and `UPGRADES` say how many there are. It prints how long the
/// clients had to wait for an answer at the most.
#[test]
fn no_client_notices_twenty_upgrades() {
    nobody_notices(1, number("CLIENTS", 1_000), number("UPGRADES", 20));
}

/// The same, with one room over all threads.
#[test]
fn no_client_of_several_threads_notices_upgrades() {
    nobody_notices(3, number("CLIENTS", 200), number("UPGRADES", 10));
}

fn nobody_notices(threads: usize, clients: usize, upgrades: usize) {
    let _quiet = quiet();
    let most = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(most > clients as u64 + 200, "{most} descriptors are too few for {clients} clients");
    let echo = clients.checked_sub(IN_ROOM + TOLD).expect("more CLIENTS");
    let count = format!("--time-count={TIMES}");
    let room = format!("--max-connections={clients}");
    let services = ["serve", "echo=0", "presence=0", "time=0"];
    let threads = format!("--threads={threads}");
    let args = [&services[..], &["--time-interval=100ms", &count, &room, &threads]].concat();
    let mut server = Generations::start("upgrades", &args);
    let [addr, room, time] = ["echo", "presence", "time"].map(|name| server.addr(name));
    let (over, ready) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begin = || _ = ready.fetch_add(1, SeqCst);
    let (told, waits, took) = thread::scope(|scope| {
        let part = |thread: usize| echo * thread / THREADS..echo * (thread + 1) / THREADS;
        let (over, begin) = (&over, &begin);
        let ends = Ends(over);
        let mut threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || talk(addr, part(thread), begin, over)))
            .collect();
        threads.push(scope.spawn(move || chat(room, begin, over)));
        threads.push(scope.spawn(move || read_times(time, begin)));
        until("all are there", || ready.load(SeqCst) == THREADS + 2);
        let begun = Instant::now();
        let told: Vec<_> = (0..upgrades).map(|_| server.upgrade()).collect();
        let took = begun.elapsed();
        drop(ends);
        let waits: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        (told, waits, took)
    });
    let lines: usize = waits.iter().map(|waits| waits.lines).sum();
    let pauses = shown(waits.into_iter().flat_map(|waits| waits.longest).collect());
    println!(
        "{clients} clients, {lines} lines, {upgrades} upgrades in {took:?}; longest wait for an answer: {pauses}"
    );
    // Who is told the time may have heard all.
    let wanted = |told: &String| {
        (0..=TOLD).any(|gone| *told == format!("handed on {} connections", grouped(clients - gone)))
    };
    assert!(told.iter().all(wanted), "{told:?}");
    let log = server.end();
    for word in ["WARN", "ERROR", "panic"] {
        assert!(!log.contains(word), "{log}");
    }
}

fn grouped(count: usize) -> String {
    match count {
        0..1_000 => count.to_string(),
        _ => format!("{},{:03}", count / 1_000, count % 1_000),
    }
}
