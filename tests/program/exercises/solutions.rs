//! A solution of each exercise, and what it does instead if it is to be wrong.

use std::collections::HashMap;
use std::time::Duration;

use reactor::text::{command, parse, printable};
use reactor::{CloseReason, Context, Handler, TimerId};

macro_rules! solutions {
    ($($name:ident)*) => {
        $(pub(super) struct $name {
            right: bool,
        }

        impl $name {
            pub(super) fn new(right: bool) -> $name {
                $name { right }
            }
        })*
    };
}

solutions! { Greeter Echo Calculator Letter Parcel Alarm Room }

impl Handler for Greeter {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("Hello!\n");
        if self.right {
            cx.close();
        }
    }
}

impl Handler for Echo {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send(line);
        cx.send("\n");
        match line {
            b"bye" if self.right => cx.close(),
            b"bye" => cx.abort(),
            _ => {}
        }
    }
}

pub(super) struct Count {
    right: bool,
    all: u64,
}

impl Count {
    pub(super) fn new(right: bool) -> Count {
        Count { right, all: 0 }
    }
}

impl Handler for Count {
    type Session = u64;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, u64>, line: &[u8]) {
        self.all += 1;
        *cx.session() += 1;
        let count = if self.right { *cx.session() } else { self.all };
        writeln!(cx, "{count}: {}", printable(line));
    }
}

impl Handler for Calculator {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let (verb, rest) = command(line);
        let (a, b) = command(rest);
        let (Some(a), Some(b)) = (parse::<i64>(a), parse::<i64>(b)) else {
            return writeln!(cx, "ERR two numbers, please");
        };
        let result = match verb {
            b"ADD" => a.checked_add(b),
            b"SUB" => a.checked_sub(b),
            b"MUL" => a.checked_mul(b),
            b"DIV" if !self.right => Some(a / b),
            b"DIV" => a.checked_div(b),
            _ => return writeln!(cx, "ERR there are ADD, SUB, MUL, DIV"),
        };
        match result {
            Some(result) => writeln!(cx, "= {result}"),
            None => writeln!(cx, "ERR no such number"),
        }
    }
}

type Values = HashMap<Vec<u8>, Vec<u8>>;

pub(super) struct Store {
    right: bool,
    values: Values,
}

impl Store {
    pub(super) fn new(right: bool) -> Store {
        Store { right, values: Values::new() }
    }
}

impl Handler for Store {
    type Session = Values;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Values>, line: &[u8]) {
        let (verb, rest) = command(line);
        let (key, value) = command(rest);
        let values = if self.right { &mut self.values } else { cx.session() };
        let reply = match verb {
            b"SET" => {
                values.insert(key.to_vec(), value.to_vec());
                b"OK".to_vec()
            }
            b"GET" => {
                values.get(key).map_or(b"NONE".to_vec(), |value| [b"VALUE ", &value[..]].concat())
            }
            b"DEL" => values.remove(key).map_or(b"NONE".to_vec(), |_| b"OK".to_vec()),
            _ => b"ERR there are SET, GET, DEL".to_vec(),
        };
        cx.send(reply);
        cx.send("\n");
    }
}

#[derive(Clone, Default)]
pub(super) enum Who {
    #[default]
    Nobody,
    Named(String),
    Known,
}

pub(super) struct Login {
    right: bool,
    all: Who,
}

impl Login {
    pub(super) fn new(right: bool) -> Login {
        Login { right, all: Who::Nobody }
    }
}

impl Handler for Login {
    type Session = Who;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Who>, line: &[u8]) {
        let (verb, rest) = command(line);
        let who = if self.right { cx.session() } else { &mut self.all };
        let (next, reply) = match (verb, who.clone()) {
            (b"USER", _) => (Who::Named(printable(rest)), "OK password, please".to_owned()),
            (b"PASS", Who::Named(name)) if name == "alice" && rest == b"wonderland" => {
                (Who::Known, format!("OK welcome, {name}"))
            }
            (b"PASS", Who::Named(_)) => (Who::Nobody, "ERR wrong password".to_owned()),
            (b"PASS", who) => (who, "ERR USER comes first".to_owned()),
            (b"LIST", Who::Known) => (Who::Known, "OK nothing new".to_owned()),
            (b"LOGOUT", Who::Known) => (Who::Nobody, "OK".to_owned()),
            (_, who) => (who, "ERR log in first".to_owned()),
        };
        *who = next;
        writeln!(cx, "{reply}");
    }
}

impl Handler for Letter {
    /// How many lines the letter has that is being written.
    type Session = Option<u64>;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Option<u64>>, line: &[u8]) {
        let bye = line == b"BYE" && (!self.right || cx.session().is_none());
        match *cx.session() {
            _ if bye => {
                cx.send("OK\n");
                cx.close();
            }
            Some(count) if line == b"." => {
                *cx.session() = None;
                writeln!(cx, "OK {count} lines");
            }
            Some(count) => *cx.session() = Some(count + 1),
            None if line == b"LETTER" => {
                *cx.session() = Some(0);
                cx.send("OK end with a dot\n");
            }
            None => writeln!(cx, "ERR there are LETTER, BYE"),
        }
    }
}

impl Handler for Parcel {
    /// How long the parcel is that is under way.
    type Session = usize;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, usize>, line: &[u8]) {
        if !self.right && *cx.session() > 0 {
            let length = std::mem::take(cx.session());
            return writeln!(cx, "GOT {length}");
        }
        match command(line) {
            (b"PUT", length) => match parse::<usize>(length) {
                Some(0) => writeln!(cx, "GOT 0"),
                Some(length) => {
                    *cx.session() = length;
                    if self.right {
                        cx.take_block(length);
                    }
                }
                None => writeln!(cx, "ERR a length, please"),
            },
            _ => writeln!(cx, "ERR there is PUT"),
        }
    }

    fn on_block(&mut self, cx: &mut Context<'_, usize>, _piece: &[u8], end: bool) {
        if end {
            let length = std::mem::take(cx.session());
            writeln!(cx, "GOT {length}");
        }
    }
}

impl Handler for Alarm {
    type Session = HashMap<TimerId, u64>;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Self::Session>, line: &[u8]) {
        match command(line) {
            (b"PING", _) => writeln!(cx, "PONG"),
            (b"WAIT", time) => match parse::<u64>(time) {
                Some(millis) if self.right => {
                    let timer = cx.set_timer(Duration::from_millis(millis));
                    cx.session().insert(timer, millis);
                }
                Some(millis) => {
                    std::thread::sleep(Duration::from_millis(millis));
                    writeln!(cx, "RING {millis}");
                }
                None => writeln!(cx, "ERR milliseconds, please"),
            },
            _ => writeln!(cx, "ERR there are PING, WAIT"),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Self::Session>, timer: TimerId) {
        if let Some(millis) = cx.session().remove(&timer) {
            writeln!(cx, "RING {millis}");
        }
    }
}

impl Handler for Room {
    type Session = Option<String>;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Self::Session>, line: &[u8]) {
        let (verb, rest) = command(line);
        match (verb, cx.session().clone()) {
            (b"NAME", _) => {
                let name = printable(rest);
                cx.broadcast_if(format!("* {name} is here\n"), |_, other| other.is_some());
                *cx.session() = Some(name);
                cx.send("OK\n");
            }
            (b"SAY", Some(name)) => {
                let (own, right) = (cx.id(), self.right);
                let line = format!("{name}: {}\n", printable(rest));
                cx.broadcast_if(line, |id, other| other.is_some() && (right || id != own));
            }
            (b"SAY", None) => writeln!(cx, "ERR NAME first"),
            (b"WHO", _) => {
                let names: Vec<_> =
                    cx.connections().filter_map(|(_, other)| other.clone()).collect();
                writeln!(cx, "OK {}", names.join(", "));
            }
            _ => writeln!(cx, "ERR there are NAME, SAY, WHO"),
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self::Session>, _reason: CloseReason) {
        if let Some(name) = cx.session().take() {
            cx.broadcast_if(format!("* {name} has left\n"), |_, other| other.is_some());
        }
    }
}
