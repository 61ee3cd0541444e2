//! Promise 10 in the program: out of file descriptors it neither spins nor forgets anybody.
#![cfg(target_os = "linux")]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::util::program::Program;
use crate::util::{self, Client, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";
const SORRY: &str = "Too many connections, try again later\n";

/// Whether the server has said this to the client, all of it and first of all.
fn heard(client: &Client, text: &str) -> bool {
    let mut buf = vec![0; text.len()];
    client.stream.set_nonblocking(true).unwrap();
    let outcome = client.stream.peek(&mut buf);
    client.stream.set_nonblocking(false).unwrap();
    match outcome {
        Ok(count) => count == text.len() && buf == text.as_bytes(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}

fn answers(client: &mut Client) {
    client.expect(GREETING);
    client.send("hello\n");
    client.expect("> HELLO\n");
}

/// The processor time that a process has used. Linux counts it in hundredths of a second.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is a name in parentheses that may hold anything.
    let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn with_forty_descriptors_and_eighty_clients() {
    let _quiet = util::quiet();
    let program = Program::serve_after("ulimit -n 40", &["echo=0"]);
    let addr = program.addr("echo");
    let mut waiting: Vec<_> = (0..80).map(|_| Client::connect(addr)).collect();
    program.wait_for_log("out of file descriptors");

    // About ten are the program's own.
    let mut inside = Vec::new();
    let mut let_in = |waiting: &mut Vec<Client>| {
        let (new, rest) = std::mem::take(waiting).into_iter().partition(|c| heard(c, GREETING));
        inside.extend::<Vec<_>>(new);
        *waiting = rest;
        inside.len() >= 20
    };
    until("twenty are served", || let_in(&mut waiting));
    inside.iter_mut().for_each(answers);

    let (began, before) = (Instant::now(), cpu(program.pid()));
    // What is measured here is a time: nothing waits for this sleep.
    std::thread::sleep(Duration::from_secs(2));
    let share = (cpu(program.pid()) - before).as_secs_f64() / began.elapsed().as_secs_f64();
    assert!(share < 0.10, "it used {:.0} % of a core while nothing happened", share * 100.0);
    for client in &mut inside {
        client.send("again\n");
        client.expect("> AGAIN\n");
    }

    // Room by room, until everybody has had a place or a refusal.
    drop(inside);
    let mut served = 0;
    until("everybody has had a turn", || {
        waiting.retain_mut(|client| {
            if heard(client, GREETING) {
                answers(client);
                served += 1;
                return false;
            }
            !heard(client, SORRY)
        });
        waiting.is_empty()
    });
    assert!(served >= 20, "only {served} got in when others had left");
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

/// Who says goodbye and stays holds a descriptor for a while, and no limit of connections counts it:
/// one address could keep all the others out, whatever `--max-per-peer` said.
#[test]
fn who_lingers_makes_room() {
    let program = Program::serve_after("ulimit -n 40", &["echo=0", "time=0", "--time-count=1"]);
    let (echo, time) = (program.addr("echo"), program.addr("time"));
    let mut stay = Vec::new();
    let (began, mut refused) = (Instant::now(), 0);
    // With five seconds for thirty of them it would take longer than a minute.
    let minute = Duration::from_secs(60);
    for number in 0..400 {
        assert!(began.elapsed() < minute, "{number} in a minute");
        let mut client = Client::connect(if number % 2 == 0 { echo } else { time });
        client.send("bye\n");
        let said = String::from_utf8(client.rest()).unwrap();
        refused += usize::from(said == SORRY);
        assert!(said == SORRY || said.ends_with("> BYE\n") || said.ends_with("'}\n"), "{said}");
        stay.push(client);
    }
    assert!(refused <= 100, "{refused} were refused");
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}
