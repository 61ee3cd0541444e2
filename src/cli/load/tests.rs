//! The whole play with a server that the test plays: without sockets, and time passes when it is
//! told to.

use std::time::Duration;

use clap::Parser;
use reactor::testing::{Client, Harness};

use super::driver::Stage;
use super::fault::Fault;
use super::modes::Part;
use super::modes::echo::Talk;
use super::modes::presence::Room;
use super::modes::time::Clock;
use super::options::{Load, Mode};
use super::run::Crew;
use crate::cli::args::{Args, Command};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn plan(args: &str) -> Load {
    let words = ["reactor", "load", "9"].into_iter().chain(args.split_whitespace());
    let Some(Command::Load(load)) = Args::parse_from(words).command else { panic!("not load") };
    load.check().unwrap();
    load
}

/// The server's side.
struct Server<'p, P: Part> {
    harness: Harness<Stage<'p, P>>,
    clients: Vec<Client>,
}

impl<P: Part> Server<'_, P> {
    /// Accepts all that dial.
    fn accept(&mut self) -> usize {
        let before = self.clients.len();
        for (_, client) in self.harness.dialled() {
            self.harness.answer(client);
            self.clients.push(client);
        }
        self.clients.len() - before
    }

    /// Accepts and greets them.
    fn greet(&mut self) {
        self.accept();
        for client in self.clients.clone() {
            self.harness.feed(client, P::GREETING);
        }
    }

    /// The lines that a client has sent.
    fn lines(&mut self, client: Client) -> Vec<String> {
        let sent = String::from_utf8(self.harness.sent(client)).unwrap();
        sent.lines().map(str::to_owned).collect()
    }

    /// Echoes what has come from all, and what they send upon that; tells how many lines.
    fn echo(&mut self) -> usize {
        let mut count = 0;
        for client in self.clients.clone() {
            loop {
                let lines = self.lines(client);
                if lines.is_empty() {
                    break;
                }
                count += lines.len();
                for line in lines {
                    self.harness.feed(client, format!("> {}\n", line.to_uppercase()));
                    if line == "BYE" {
                        self.harness.end(client);
                    }
                }
            }
        }
        count
    }

    /// Lets all hear what was said; tells whether anything was.
    fn repeat(&mut self) -> bool {
        let clients = self.clients.clone();
        let said: Vec<_> = clients.iter().flat_map(|client| self.lines(*client)).collect();
        for line in &said {
            let text = line.strip_prefix("SAY ").unwrap();
            for client in &clients {
                self.harness.feed(*client, format!("An anonymous user says: {text}\n"));
            }
        }
        !said.is_empty()
    }

    fn is_over(&self) -> bool {
        self.harness.is_stopping()
    }
}

/// Plays what the options ask for, against a server that does this.
fn play<P: Part>(
    args: &str,
    part: impl FnOnce(&Crew) -> P,
    server: impl FnOnce(&mut Server<'_, P>),
) -> Crew {
    let mut crew = Crew::new(plan(args));
    let mut part = part(&crew);
    let limits = crew.plan.limits();
    let harness = Harness::with_limits(Stage::new(&mut crew, &mut part), limits);
    let mut side = Server { harness, clients: Vec::new() };
    side.harness.post(());
    server(&mut side);
    drop(side);
    part.conclude(&mut crew);
    crew
}

fn faults(crew: &Crew) -> Vec<(Fault, u64)> {
    crew.tally.faults().collect()
}

/// The longest latency in milliseconds.
fn longest(crew: &Crew) -> u64 {
    crew.tally.latencies.max() / 1_000_000
}

// ---- With a rate ----

#[test]
fn lines_leave_when_they_are_due_from_the_beginning() {
    let crew = play("--clients=2 --rate=1000 --duration=1s", Talk::new, |server| {
        server.greet();
        let mut sent = server.echo();
        for milli in 1..=20 {
            server.harness.advance(MILLI);
            sent += server.echo();
            assert!(sent == milli || sent == milli + 1, "{sent} after {milli} ms");
        }
    });
    assert_eq!((longest(&crew), faults(&crew)), (0, vec![]));
}

#[test]
fn what_the_server_holds_up_counts_from_when_it_was_due() {
    let crew = play("--clients=1 --rate=1000 --duration=1s", Talk::new, |server| {
        server.greet();
        server.harness.advance(10 * MILLI);
        // The first one has waited for 10 ms, the next for 9, and so on.
        assert!(server.echo() >= 10);
    });
    assert_eq!((longest(&crew), crew.tally.latencies.value_at_quantile(0.5) / 1_000_000), (10, 5));
}

#[test]
fn what_the_tester_is_late_does_not_count() {
    for (mode, args) in [("echo", "--clients=1"), ("pipeline", "--clients=3 --depth=2")] {
        let args = format!("--mode={mode} {args} --rate=1000 --duration=1s");
        let crew = play(&args, Talk::new, |server| {
            server.greet();
            server.echo();
            server.harness.jump(100 * MILLI);
            assert!(server.echo() >= 100);
        });
        assert_eq!(longest(&crew), 0, "{mode}");
    }
    let crew = play("--mode=presence --clients=1 --rate=1000", Room::new, |server| {
        server.greet();
        while server.repeat() {}
        server.harness.jump(100 * MILLI);
        while server.repeat() {}
    });
    assert!(crew.tally.messages >= 100);
    assert_eq!(longest(&crew), 0);
}

#[test]
fn a_room_that_is_held_up_counts_from_when_it_was_due() {
    let crew = play("--mode=presence --clients=1 --rate=1000", Room::new, |server| {
        server.greet();
        server.harness.advance(10 * MILLI);
        while server.repeat() {}
    });
    assert!(crew.tally.messages >= 10);
    assert_eq!((longest(&crew), crew.tally.latencies.value_at_quantile(0.5) / 1_000_000), (10, 5));
}

/// A beat took as many steps as lines had come due.
#[test]
fn a_rate_that_nobody_can_keep_ends_in_time() {
    let crew = play("--clients=2 --rate=4000000000 --duration=1s", Talk::new, |server| {
        server.greet();
        server.harness.jump(2 * SECOND);
        server.echo();
    });
    assert_eq!(crew.tally.lines, 2);
    assert!(crew.tally.unsent > Some(1 << 32), "{:?}", crew.tally.unsent);
}

#[test]
fn what_could_not_be_sent_in_time_is_told() {
    let crew = play("--clients=1 --rate=1000 --duration=10ms", Talk::new, |server| {
        server.greet();
        server.harness.advance(20 * MILLI);
        server.echo();
        assert!(server.is_over());
    });
    assert_eq!((crew.tally.lines, crew.tally.unsent), (1, Some(10)));
    assert_eq!(faults(&crew), []);
    // The one that was sent had its reply late; the others waited for up to 9 ms until the end.
    assert_eq!((crew.tally.latencies.len(), longest(&crew)), (11, 20));
    assert_eq!(crew.tally.latencies.value_at_quantile(0.5) / 1_000_000, 5);
}

// ---- What is owed at the end ----

/// p99 was that of the lines before, beside thousands that had waited for seconds.
#[test]
fn what_is_never_answered_counts_with_the_time_it_waited() {
    for (args, sent) in [("--rate=100", 2), ("--mode=pipeline --depth=8", 16), ("", 2)] {
        let args = format!("--clients=2 --duration=1s {args}");
        let crew = play(&args, Talk::new, |server| {
            server.greet();
            server.harness.advance(SECOND);
            server.harness.advance(5 * SECOND);
            assert!(server.is_over());
        });
        assert_eq!(faults(&crew), [(Fault::MissingReply, sent)], "{args}");
        let unsent = crew.tally.unsent.unwrap_or(0);
        assert_eq!(crew.tally.latencies.len(), sent + unsent, "{args}");
        assert_eq!(longest(&crew) / 10, 600, "{args}");
        if unsent > 0 {
            // They were due within the second of the load.
            assert_eq!(crew.tally.latencies.value_at_quantile(0.5) / 10_000_000, 50);
        }
    }
}

#[test]
fn what_a_signal_leaves_owed_counts_too() {
    for args in ["", "--rate=1000", "--mode=churn"] {
        let crew = play(&format!("--clients=1 {args}"), Talk::new, |server| {
            server.greet();
            server.harness.advance(SECOND);
            server.harness.stop();
        });
        assert_eq!((longest(&crew) / 10, faults(&crew)), (100, vec![]), "{args}");
    }
    let crew = play("--mode=presence --clients=1", Room::new, |server| {
        server.greet();
        server.harness.advance(SECOND);
        server.harness.stop();
    });
    assert_eq!((longest(&crew) / 10, faults(&crew)), (100, vec![]));
}

#[test]
fn visits_that_do_not_end_count_too() {
    // One is not greeted, the other has no reply.
    let crew = play("--mode=churn --clients=2 --duration=1s", Talk::new, |server| {
        server.accept();
        server.harness.feed(server.clients[0], Talk::GREETING);
        server.harness.advance(6 * SECOND);
        server.harness.advance(SECOND);
        assert!(server.is_over());
    });
    assert_eq!((crew.tally.latencies.len(), longest(&crew) / 1000), (2, 6));
}

#[test]
fn what_the_room_does_not_hear_counts_too() {
    let args = "--mode=presence --clients=2 --depth=3 --rate=100 --duration=1s";
    let crew = play(args, Room::new, |server| {
        server.greet();
        server.harness.advance(6 * SECOND);
        // Too late: it counted below zero.
        server.repeat();
        server.harness.advance(SECOND);
        assert!(server.is_over());
    });
    let unsent = crew.tally.unsent.unwrap();
    assert_eq!((crew.tally.latencies.len(), crew.tally.messages), (3 + unsent, 0));
    assert!(crew.tally.latencies.value_at_quantile(0.5) > 490_000_000);
    assert_eq!((longest(&crew) / 10, crew.tally.count(Fault::WrongReply)), (600, 0));
}

#[test]
fn a_clock_that_stops_deviates_until_the_end() {
    let args = "--mode=time --clients=1 --duration=10s";
    let crew = play(
        args,
        |_| Clock::default(),
        |server| {
            server.accept();
            for _ in 0..3 {
                server
                    .harness
                    .feed(server.clients[0], "{'time' : 'Sat Nov 21 19:10:00 UTC 2026'}\n");
                server.harness.advance(SECOND);
            }
            server.harness.advance(7 * SECOND);
            assert!(server.is_over());
        },
    );
    // The next line was due at 3 s.
    assert_eq!((crew.tally.latencies.len(), longest(&crew) / 10), (3, 700));
}

// ---- Endings ----

/// One goodbye that did not come ended the play before the others were counted.
#[test]
fn each_goodbye_that_does_not_come_counts() {
    let crew = play("--mode=idle --clients=3 --duration=1s", Talk::new, |server| {
        server.greet();
        server.harness.advance(5 * SECOND);
        assert!(!server.is_over());
        server.harness.advance(2 * SECOND);
        assert!(server.is_over());
    });
    assert_eq!(faults(&crew), [(Fault::MissingReply, 3)]);
}

/// That the server left them open after BYE was no error.
#[test]
fn a_server_that_does_not_close_is_told_of() {
    for mode in ["echo", "churn"] {
        let args = format!("--mode={mode} --clients=3 --duration=1s");
        let crew = play(&args, Talk::new, |server| {
            server.greet();
            for _ in 0..20 {
                for client in server.clients.clone() {
                    let lines = server.lines(client);
                    let replies = lines.iter().map(|line| format!("> {}\n", line.to_uppercase()));
                    server.harness.feed(client, replies.collect::<String>());
                }
                server.harness.advance(SECOND / 2);
            }
            assert!(server.is_over(), "{mode}");
        });
        assert_eq!(faults(&crew), [(Fault::NotClosed, 3)], "{mode}");
    }
}

#[test]
fn a_server_that_greets_nobody_is_not_asked_again_and_again() {
    for mode in ["echo", "churn", "time"] {
        let args = format!("--mode={mode} --clients=1000 --duration=1h");
        let script = |accepted: usize| assert_eq!(accepted, 256, "{mode}");
        let crew = match mode {
            "time" => play(&args, |_| Clock::default(), |server| mute(server, script)),
            _ => play(&args, Talk::new, |server| mute(server, script)),
        };
        assert_eq!(faults(&crew), [(Fault::NoGreeting, 256)], "{mode}");
    }
}

fn mute<P: Part>(server: &mut Server<'_, P>, accepted: impl FnOnce(usize)) {
    accepted(server.accept());
    server.harness.advance(6 * SECOND);
    assert_eq!(server.accept(), 0);
    assert!(server.is_over());
}

/// The clients came one after the other for as long as it took them.
#[test]
fn those_who_do_not_come_within_the_duration_are_not_waited_for() {
    for (args, most) in [("", 3), ("--ramp=1/s", 4)] {
        let args = format!("--mode=idle --clients=10 --duration=7s {args}");
        let crew = play(&args, Talk::new, |server| {
            let mut greeted = 0;
            for _ in 0..12 {
                server.accept();
                if let Some(client) = server.clients.get(greeted) {
                    server.harness.feed(*client, Talk::GREETING);
                    greeted += 1;
                }
                server.harness.advance(3 * SECOND);
                server.echo();
            }
            assert!(server.is_over());
        });
        assert!(crew.connected >= most && crew.connected <= 10, "{args}: {}", crew.connected);
        assert!(args.contains("ramp") || crew.tally.count(Fault::NoGreeting) == 7);
    }
}

/// A lost client's turn to speak was waited for to the end.
#[test]
fn a_room_goes_on_without_the_one_who_was_lost() {
    let crew = play("--mode=presence --clients=3 --duration=1s", Room::new, |server| {
        server.greet();
        let lost = server.clients.pop().unwrap();
        server.harness.end(lost);
        for _ in 0..20 {
            assert!(server.repeat());
        }
    });
    assert_eq!(crew.tally.messages, 20);
}

// ---- Sums ----

/// What it said was numbered with 32 bits, and confused once they had been used up.
#[test]
fn a_room_that_has_heard_billions_goes_on() {
    let part = |crew: &Crew| {
        let mut room = Room::new(crew);
        // The first line of a round that none has heard anything of.
        room.next = (u32::MAX - 3).into();
        room
    };
    let crew = play("--mode=presence --clients=1 --depth=3", part, |server| {
        server.greet();
        for _ in 0..20 {
            assert!(server.repeat());
        }
    });
    assert_eq!((crew.tally.messages, faults(&crew)), (60, vec![]));
}

/// The greetings and goodbyes of all were taken for throughput.
#[test]
fn bytes_are_those_of_the_load() {
    let crew = play("--mode=idle --clients=3 --duration=1s", Talk::new, |server| {
        server.greet();
        server.harness.advance(SECOND);
        server.echo();
        assert!(server.is_over());
    });
    assert_eq!((crew.tally.bytes_sent, crew.tally.bytes_received), (0, 0));
    assert_eq!(crew.plan.mode, Mode::Idle);

    let crew = play("--clients=3 --size=100 --rate=1000 --duration=9500us", Talk::new, |server| {
        server.greet();
        for _ in 0..20 {
            server.echo();
            server.harness.advance(MILLI);
        }
        assert!(server.is_over());
    });
    let (lines, tally) = (crew.tally.lines, &crew.tally);
    assert!(lines >= 10);
    assert_eq!((tally.bytes_sent, tally.bytes_received), (100 * lines, 102 * lines));
    assert_eq!(faults(&crew), []);
}
