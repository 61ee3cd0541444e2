//! Handlers at their worst, in a reactor of the test's own.

use std::panic;
use std::time::Duration;

use reactor::{CloseReason, ConnId, Context, Handler, Limits, TimerId};

use crate::lab::Lab;
use crate::swarm::size;
use crate::util::Client;

const HOUR: Duration = Duration::from_secs(3600);

/// Echoes, and panics on every tenth line, whoever sends it.
struct Brittle(u64);

impl Handler for Brittle {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.0 += 1;
        if self.0.is_multiple_of(10) {
            panic!("on purpose");
        }
        cx.send([line, b"\n"].concat());
    }
}

#[test]
fn a_panic_on_every_tenth_line() {
    // Thousands of reports would bury everything else that is said.
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<&str>() != Some(&"on purpose") {
            report(panic);
        }
    }));
    let lab = Lab::start(Limits::default(), || Brittle(0));
    let mut clients: Vec<Client> = (0..37).map(|_| lab.connect()).collect();
    let lines = size(2_000, 100_000);
    for number in 1..=lines {
        let client = &mut clients[number % 37];
        client.send(format!("{number}\n"));
        if number % 10 == 0 {
            assert_eq!(client.rest(), b"", "line {number}");
            *client = lab.connect();
        } else {
            client.expect(format!("{number}\n"));
        }
    }
    let panics = lines as u64 / 10;
    let counters = lab.counters();
    assert_eq!((counters.panics, counters.lines_in), (panics, lines as u64));
    assert_eq!(counters.closed(CloseReason::Panicked), panics);
    assert_eq!(counters.closed_in_all(), panics, "nobody else");
    drop(clients);
    lab.ends();
}

/// A number asks for so many timers that are set and cancelled, all but one, which is far off;
/// `!` and a number for so many that come at once.
struct Clockmaker;

#[derive(Default)]
struct Fired {
    left: usize,
}

impl Handler for Clockmaker {
    type Session = Fired;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Fired>, line: &[u8]) {
        let text = str::from_utf8(line).unwrap();
        if let Some(count) = text.strip_prefix('!') {
            cx.session().left = count.parse().unwrap();
            for _ in 0..cx.session().left {
                cx.set_timer(Duration::ZERO);
            }
            return;
        }
        let timers: Vec<_> = (0..text.parse().unwrap()).map(|_| cx.set_timer(HOUR)).collect();
        let cancelled = timers[1..].iter().filter(|timer| cx.cancel_timer(**timer)).count();
        let again = timers[1..].iter().filter(|timer| cx.cancel_timer(**timer)).count();
        writeln!(cx, "{cancelled} {again}");
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Fired>, _: TimerId) {
        cx.session().left -= 1;
        if cx.session().left == 0 {
            cx.send("all\n");
        }
    }
}

#[test]
fn thousands_of_timers_set_and_cancelled_in_a_turn() {
    let lab = Lab::start(Limits::default(), || Clockmaker);
    let mut clients: Vec<_> = (0..20).map(|_| lab.connect()).collect();
    let count = size(2_000, 50_000);
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| client.send(format!("{count}\n!{count}\n")));
        for client in &mut clients {
            client.expect(format!("{} 0\nall\n", count - 1));
        }
    }
    drop(clients);
    lab.ends();
}

/// Remembers everybody who ever was here, with a timer of each, and tries to reach the dead at
/// every line.
#[derive(Default)]
struct Medium {
    dead: Vec<(ConnId, TimerId)>,
}

impl Handler for Medium {
    type Session = Option<TimerId>;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Self::Session>) {
        let timer = cx.set_timer(HOUR);
        *cx.session() = Some(timer);
    }

    fn on_line(&mut self, cx: &mut Context<'_, Self::Session>, line: &[u8]) {
        let mut reached = 0;
        for (id, timer) in &self.dead {
            reached += usize::from(cx.send_to(*id, "from beyond\n"));
            reached += usize::from(cx.reply_to(*id, "from beyond\n"));
            reached += usize::from(cx.connection(*id).is_some());
            reached += usize::from(cx.cancel_timer(*timer));
        }
        let text = str::from_utf8(line).unwrap();
        writeln!(cx, "{text}: {} dead, {reached} reached", self.dead.len());
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self::Session>, _: CloseReason) {
        let timer = cx.session().expect("it was opened");
        self.dead.push((cx.id(), timer));
    }
}

#[test]
fn ids_of_the_dead() {
    let lab = Lab::start(Limits::default(), Medium::default);
    let mut staying: Vec<_> = (0..10).map(|_| lab.connect()).collect();
    for number in 0..size(500, 5_000) {
        // All of them have used the same slot, one after the other.
        let mut client = lab.connect();
        client.send(format!("{number}\n"));
        client.expect(format!("{number}: {number} dead, 0 reached\n"));
        client.end();
        assert_eq!(client.rest(), b"");
        let stays = &mut staying[number % 10];
        stays.send("and I\n");
        stays.expect(format!("and I: {} dead, 0 reached\n", number + 1));
    }
    drop(staying);
    lab.ends();
}
