//! Whole runs against a server that the test plays, without sockets and without real time.

use std::time::Duration;

use clap::Parser;
use reactor::testing::{Client, Harness};

use super::driver::Driver;
use super::fault::Fault;
use super::greeting::Greeting;
use super::modes::Workload;
use super::modes::exchange::Exchange;
use super::modes::presence::Presence;
use super::modes::time::Time;
use super::options::{Load, Mode};
use super::payload::EchoLines;
use super::run::Run;
use super::team::{Member, Team, shares};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn plan(args: &str) -> Load {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        load: Load,
    }

    let words = ["load", "9"].into_iter().chain(args.split_whitespace());
    let Alone { load } = Alone::parse_from(words);
    load.check().unwrap();
    load
}

type Echo = Exchange<EchoLines>;

fn echo(run: &Run) -> Echo {
    Exchange::new(run, EchoLines::new(run.plan.size, !run.plan.talk.plain))
}

/// The server's side.
struct Server<'p, P: Workload> {
    harness: Harness<Driver<'p, P>>,
    clients: Vec<Client>,
    greeting: Vec<u8>,
}

impl<P: Workload> Server<'_, P> {
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
            self.harness.feed(client, &self.greeting);
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

    /// Echoes what has come from all, and leaves what they send upon that; tells how many lines.
    fn echo_once(&mut self) -> usize {
        let clients = self.clients.clone();
        let sent: Vec<_> = clients.iter().map(|client| self.lines(*client)).collect();
        for (client, lines) in clients.iter().zip(&sent) {
            let replies = lines.iter().map(|line| format!("> {}\n", line.to_uppercase()));
            self.harness.feed(*client, replies.collect::<String>());
        }
        sent.iter().map(Vec::len).sum()
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
fn drive<P: Workload>(
    args: &str,
    workload: impl FnOnce(&Run) -> P,
    server: impl FnOnce(&mut Server<'_, P>),
) -> Run {
    let plan = plan(args);
    let connect = plan.target.plainly();
    let member = Member::new(Team::new(&plan, None), 0);
    let mut run = Run::new(plan, member, 0);
    let mut workload = workload(&run);
    let limits = run.plan.limits();
    let greeting = match workload.greeting() {
        Greeting::Text(text) => text,
        _ => Vec::new(),
    };
    let harness = Harness::with_limits(Driver::new(&mut run, &mut workload, connect), limits);
    let mut side = Server { harness, clients: Vec::new(), greeting };
    server(&mut side);
    drop(side);
    workload.conclude(&mut run);
    run
}

fn faults(run: &Run) -> Vec<(Fault, u64)> {
    run.metrics.faults().collect()
}

/// The longest latency in milliseconds.
fn longest(run: &Run) -> u64 {
    run.metrics.latencies.max() / 1_000_000
}

// ---- With a rate ----

#[test]
fn lines_leave_when_they_are_due_from_the_beginning() {
    let run = drive("--clients=2 --rate=1000 --duration=1s", echo, |server| {
        server.greet();
        let mut sent = server.echo();
        for milli in 1..=20 {
            server.harness.advance(MILLI);
            sent += server.echo();
            assert!(sent == milli || sent == milli + 1, "{sent} after {milli} ms");
        }
    });
    assert_eq!((longest(&run), faults(&run)), (0, vec![]));
}

#[test]
fn what_the_server_holds_up_counts_from_when_it_was_due() {
    let run = drive("--clients=1 --rate=1000 --duration=1s", echo, |server| {
        server.greet();
        server.harness.advance(10 * MILLI);
        // The first one has waited for 10 ms, the next for 9, and so on.
        assert!(server.echo() >= 10);
    });
    assert_eq!((longest(&run), run.metrics.latencies.value_at_quantile(0.5) / 1_000_000), (10, 5));
}

#[test]
fn what_the_tester_is_late_does_not_count() {
    for (mode, args) in [("echo", "--clients=1"), ("pipeline", "--clients=3 --depth=2")] {
        let args = format!("--mode={mode} {args} --rate=1000 --duration=1s");
        let run = drive(&args, echo, |server| {
            server.greet();
            server.echo();
            server.harness.jump(100 * MILLI);
            assert!(server.echo() >= 100);
        });
        assert_eq!(longest(&run), 0, "{mode}");
    }
    let run = drive("--mode=presence --clients=1 --rate=1000", Presence::new, |server| {
        server.greet();
        while server.repeat() {}
        server.harness.jump(100 * MILLI);
        while server.repeat() {}
    });
    assert!(run.metrics.messages >= 100);
    assert_eq!(longest(&run), 0);
}

#[test]
fn a_room_that_is_held_up_counts_from_when_it_was_due() {
    let run = drive("--mode=presence --clients=1 --rate=1000", Presence::new, |server| {
        server.greet();
        server.harness.advance(10 * MILLI);
        while server.repeat() {}
    });
    assert!(run.metrics.messages >= 10);
    assert_eq!((longest(&run), run.metrics.latencies.value_at_quantile(0.5) / 1_000_000), (10, 5));
}

/// A tick took as many steps as lines had come due.
#[test]
fn a_rate_that_nobody_can_keep_ends_in_time() {
    let run = drive("--clients=2 --rate=4000000000 --duration=1s", echo, |server| {
        server.greet();
        server.harness.jump(2 * SECOND);
        server.echo();
    });
    assert_eq!(run.metrics.lines, 2);
    assert!(run.metrics.unsent > Some(1 << 32), "{:?}", run.metrics.unsent);
}

#[test]
fn what_could_not_be_sent_in_time_is_told() {
    let run = drive("--clients=1 --rate=1000 --duration=10ms", echo, |server| {
        server.greet();
        server.harness.advance(20 * MILLI);
        server.echo();
        assert!(server.is_over());
    });
    assert_eq!((run.metrics.lines, run.metrics.unsent), (1, Some(10)));
    assert_eq!(faults(&run), []);
    // The one that was sent had its reply late; the others waited for up to 9 ms until the end.
    assert_eq!((run.metrics.latencies.len(), longest(&run)), (11, 20));
    assert_eq!(run.metrics.latencies.value_at_quantile(0.5) / 1_000_000, 5);
}

// ---- A number of requests, a warm-up ----

#[test]
fn no_more_than_asked_for_are_sent() {
    let run = drive("--clients=3 --requests=100", echo, |server| {
        server.greet();
        // Each that is answered is followed by the next one, up to the last.
        let mut sent = 0;
        while let count @ 1.. = server.echo() {
            sent += count;
        }
        // And then they say goodbye.
        assert_eq!(sent, 100 + 3);
        assert!(server.is_over());
    });
    assert_eq!((run.metrics.lines, run.metrics.sent, faults(&run)), (100, Some(100), vec![]));
}

/// Whatever the number of clients, all threads have sent what they are to send at the same time.
#[test]
fn requests_are_shared_as_the_rate_is() {
    let shares = shares(&plan("-c 3 -t 2 -n 100 -q 50"));
    let of = |(first, load): &(u32, Load)| (*first, load.clients, load.requests);
    assert_eq!(shares.iter().map(of).collect::<Vec<_>>(), [(0, 1, Some(33)), (1, 2, Some(67))]);
    for (_, load) in shares {
        let lasts = load.requests.unwrap() as f64 / load.rate.unwrap();
        assert!((1.9..2.1).contains(&lasts), "{load:?}");
    }
}

#[test]
fn who_does_not_answer_any_more_is_told_of() {
    let run = drive("--clients=2 --requests=100", echo, |server| {
        server.greet();
        server.harness.advance(4 * SECOND);
        for client in server.clients.clone() {
            let lines = server.lines(client);
            server.harness.feed(client, format!("> {}\n", lines[0].to_uppercase()));
        }
        server.harness.advance(4 * SECOND);
        assert!(!server.is_over());
        server.harness.advance(8 * SECOND);
        assert!(server.is_over());
    });
    assert_eq!((run.metrics.lines, run.metrics.sent), (2, Some(4)));
    assert_eq!(faults(&run), [(Fault::MissingReply, 2)]);
}

/// The replies to what was sent before the load began are waited for, and forgotten.
#[test]
fn a_warm_up_is_over_before_the_load_begins() {
    for rate in ["", "--rate=1000"] {
        let args = format!("--clients=2 --warm-up=1s --duration=1s {rate}");
        let run = drive(&args, echo, |server| {
            server.greet();
            assert!(server.echo_once() > 0, "{args}");
            server.harness.advance(SECOND);
            // Their replies come late, and nothing follows them.
            server.harness.advance(SECOND);
            assert!(server.echo_once() > 0, "{args}");
            // Those were the last ones: the load has begun.
            server.harness.advance(MILLI);
            assert!(server.echo_once() > 0, "{args}");
            server.harness.advance(SECOND);
            while server.echo() > 0 {}
            assert!(server.is_over(), "{args}");
        });
        assert_eq!((faults(&run), run.elapsed().as_millis() / 10), (vec![], 100), "{args}");
        // What waited for two seconds was to warm up.
        assert!(longest(&run) <= 1001 && run.metrics.lines > 0, "{args}: {}", longest(&run));
    }
}

#[test]
fn a_warm_up_that_is_not_answered_is_no_load() {
    let run = drive("--clients=2 --warm-up=1s", echo, |server| {
        server.greet();
        server.harness.advance(SECOND);
        server.harness.advance(6 * SECOND);
        server.harness.advance(SECOND);
        assert!(server.is_over());
    });
    assert_eq!((run.metrics.lines, faults(&run)), (0, vec![(Fault::MissingReply, 2)]));
}

// ---- What is owed at the end ----

/// p99 was that of the lines before, beside thousands that had waited for seconds.
#[test]
fn what_is_never_answered_counts_with_the_time_it_waited() {
    for (args, sent) in [("--rate=100", 2), ("--mode=pipeline --depth=8", 16), ("", 2)] {
        let args = format!("--clients=2 --duration=1s {args}");
        let run = drive(&args, echo, |server| {
            server.greet();
            server.harness.advance(SECOND);
            server.harness.advance(5 * SECOND);
            assert!(server.is_over());
        });
        assert_eq!(faults(&run), [(Fault::MissingReply, sent)], "{args}");
        let unsent = run.metrics.unsent.unwrap_or(0);
        assert_eq!(run.metrics.latencies.len(), sent + unsent, "{args}");
        assert_eq!(longest(&run) / 10, 600, "{args}");
        if unsent > 0 {
            // They were due within the second of the load.
            assert_eq!(run.metrics.latencies.value_at_quantile(0.5) / 10_000_000, 50);
        }
    }
}

#[test]
fn what_a_signal_leaves_owed_counts_too() {
    for args in ["", "--rate=1000", "--mode=churn"] {
        let run = drive(&format!("--clients=1 {args}"), echo, |server| {
            server.greet();
            server.harness.advance(SECOND);
            server.harness.stop();
        });
        assert_eq!((longest(&run) / 10, faults(&run)), (100, vec![]), "{args}");
    }
    let run = drive("--mode=presence --clients=1", Presence::new, |server| {
        server.greet();
        server.harness.advance(SECOND);
        server.harness.stop();
    });
    assert_eq!((longest(&run) / 10, faults(&run)), (100, vec![]));
}

#[test]
fn visits_that_do_not_end_count_too() {
    // One is not greeted, the other has no reply.
    let run = drive("--mode=churn --clients=2 --duration=1s", echo, |server| {
        server.accept();
        server.harness.feed(server.clients[0], server.greeting.clone());
        server.harness.advance(6 * SECOND);
        server.harness.advance(SECOND);
        assert!(server.is_over());
    });
    assert_eq!((run.metrics.latencies.len(), longest(&run) / 1000), (2, 6));
}

#[test]
fn what_the_room_does_not_hear_counts_too() {
    let args = "--mode=presence --clients=2 --depth=3 --rate=100 --duration=1s";
    let run = drive(args, Presence::new, |server| {
        server.greet();
        server.harness.advance(6 * SECOND);
        // Too late: it counted below zero.
        server.repeat();
        server.harness.advance(SECOND);
        assert!(server.is_over());
    });
    let unsent = run.metrics.unsent.unwrap();
    assert_eq!((run.metrics.latencies.len(), run.metrics.messages), (3 + unsent, 0));
    assert!(run.metrics.latencies.value_at_quantile(0.5) > 490_000_000);
    assert_eq!((longest(&run) / 10, run.metrics.count(Fault::WrongReply)), (600, 0));
}

#[test]
fn a_clock_that_stops_deviates_until_the_end() {
    let args = "--mode=time --clients=1 --duration=10s";
    let run = drive(
        args,
        |_| Time::default(),
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
    assert_eq!((run.metrics.latencies.len(), longest(&run) / 10), (3, 700));
}

// ---- Endings ----

/// One goodbye that did not come ended the run before the others were counted.
#[test]
fn each_goodbye_that_does_not_come_counts() {
    let run = drive("--mode=idle --clients=3 --duration=1s", echo, |server| {
        server.greet();
        server.harness.advance(5 * SECOND);
        assert!(!server.is_over());
        server.harness.advance(2 * SECOND);
        assert!(server.is_over());
    });
    assert_eq!(faults(&run), [(Fault::MissingReply, 3)]);
}

/// That the server left them open after BYE was no error.
#[test]
fn a_server_that_does_not_close_is_told_of() {
    for mode in ["echo", "churn"] {
        let args = format!("--mode={mode} --clients=3 --duration=1s");
        let run = drive(&args, echo, |server| {
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
        assert_eq!(faults(&run), [(Fault::NotClosed, 3)], "{mode}");
    }
}

#[test]
fn a_server_that_greets_nobody_is_not_asked_again_and_again() {
    for mode in ["echo", "churn", "time"] {
        let args = format!("--mode={mode} --clients=1000 --duration=1h");
        let script = |accepted: usize| assert_eq!(accepted, 256, "{mode}");
        let run = match mode {
            "time" => drive(&args, |_| Time::default(), |server| mute(server, script)),
            _ => drive(&args, echo, |server| mute(server, script)),
        };
        assert_eq!(faults(&run), [(Fault::NoGreeting, 256)], "{mode}");
    }
}

fn mute<P: Workload>(server: &mut Server<'_, P>, accepted: impl FnOnce(usize)) {
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
        let run = drive(&args, echo, |server| {
            let mut greeted = 0;
            for _ in 0..12 {
                server.accept();
                if let Some(client) = server.clients.get(greeted) {
                    server.harness.feed(*client, server.greeting.clone());
                    greeted += 1;
                }
                server.harness.advance(3 * SECOND);
                server.echo();
            }
            assert!(server.is_over());
        });
        assert!(run.connected >= most && run.connected <= 10, "{args}: {}", run.connected);
        assert!(args.contains("ramp") || run.metrics.count(Fault::NoGreeting) == 7);
    }
}

/// A lost client's turn to speak was waited for to the end.
#[test]
fn a_room_goes_on_without_the_one_who_was_lost() {
    let run = drive("--mode=presence --clients=3 --duration=1s", Presence::new, |server| {
        server.greet();
        let lost = server.clients.pop().unwrap();
        server.harness.end(lost);
        for _ in 0..20 {
            assert!(server.repeat());
        }
    });
    assert_eq!(run.metrics.messages, 20);
}

// ---- Sums ----

/// What it said was numbered with 32 bits, and confused once they had been used up.
#[test]
fn a_room_that_has_heard_billions_goes_on() {
    let workload = |run: &Run| {
        let mut room = Presence::new(run);
        // The first line of a round that none has heard anything of.
        room.next = (u32::MAX - 3).into();
        room
    };
    let run = drive("--mode=presence --clients=1 --depth=3", workload, |server| {
        server.greet();
        for _ in 0..20 {
            assert!(server.repeat());
        }
    });
    assert_eq!((run.metrics.messages, faults(&run)), (60, vec![]));
}

/// The greetings and goodbyes of all were taken for throughput.
#[test]
fn bytes_are_those_of_the_load() {
    let run = drive("--mode=idle --clients=3 --duration=1s", echo, |server| {
        server.greet();
        server.harness.advance(SECOND);
        server.echo();
        assert!(server.is_over());
    });
    assert_eq!((run.metrics.bytes_sent, run.metrics.bytes_received), (0, 0));
    assert_eq!(run.plan.mode, Mode::Idle);

    let run = drive("--clients=3 --size=100 --rate=1000 --duration=9500us", echo, |server| {
        server.greet();
        for _ in 0..20 {
            server.echo();
            server.harness.advance(MILLI);
        }
        assert!(server.is_over());
    });
    let (lines, metrics) = (run.metrics.lines, &run.metrics);
    assert!(lines >= 10);
    assert_eq!((metrics.bytes_sent, metrics.bytes_received), (100 * lines, 102 * lines));
    assert_eq!(faults(&run), []);
}
