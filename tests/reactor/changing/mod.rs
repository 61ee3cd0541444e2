//! A loop whose services come, change and go while it runs, over real sockets. The reactor is turned by the
//! test, which changes it between two turns.

mod limits;
mod listeners;
mod removing;

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::{
    CloseReason, Context, Handler, Limits, Listen, Reactor, Service, ServiceContext, ToListen,
};

use crate::util::PATIENCE;

/// How long one turn may sleep.
const TICK: Duration = Duration::from_millis(5);

/// More than the kernel takes for a client that does not read.
const MUCH: usize = 16 * 1024 * 1024;

/// What handlers have noted, each under the name of its service.
type Notes = Rc<RefCell<Vec<String>>>;

/// Gives lines back, and notes what happens.
struct Noting {
    name: &'static str,
    notes: Notes,
    /// How long it keeps connections open in a shutdown.
    keeps: Duration,
    panics_at_its_end: bool,
}

impl Noting {
    fn new(name: &'static str, notes: &Notes) -> Noting {
        let notes = Rc::clone(notes);
        Noting { name, notes, keeps: Duration::ZERO, panics_at_its_end: false }
    }

    fn note(&self, what: &str) {
        self.notes.borrow_mut().push(format!("{} {what}", self.name));
    }
}

impl Handler for Noting {
    type Session = ();
    type Message = &'static str;

    fn on_start(&mut self, _cx: &mut ServiceContext<'_, ()>) {
        self.note("starts");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"PAUSE" => {
                cx.pause();
                true
            }
            b"MUCH" => cx.send(vec![b'x'; MUCH]),
            b"OTHERS" => {
                cx.broadcast(vec![b'x'; MUCH]);
                true
            }
            _ => cx.send([line, b"\n"].concat()),
        };
    }

    fn on_close(&mut self, _cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.note(reason.as_str());
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, message: &'static str) {
        match message {
            "dial" => {
                let dialled = cx.connect("127.0.0.1:1", ());
                self.note(&dialled.map_or_else(|error| error.to_string(), |_| "dials".to_owned()));
            }
            _ => self.note(message),
        }
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, ()>) {
        self.note("shuts down");
        cx.broadcast("bye\n");
        if !self.keeps.is_zero() {
            cx.keep_open(self.keeps);
        }
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.note("is dropped");
        assert!(!self.panics_at_its_end, "on purpose");
    }
}

/// The loop under test.
struct Rig {
    reactor: Reactor<'static>,
    notes: Notes,
}

impl Rig {
    fn new() -> Rig {
        Rig { reactor: Reactor::new().unwrap(), notes: Notes::default() }
    }

    fn service(&mut self, name: &'static str, limits: Limits) -> Service<&'static str> {
        self.service_at(name, "127.0.0.1:0", limits)
    }

    fn service_at(
        &mut self,
        name: &'static str,
        address: impl ToListen,
        limits: Limits,
    ) -> Service<&'static str> {
        let handler = Noting::new(name, &self.notes);
        let service = self.reactor.add(handler, limits).unwrap();
        self.reactor.set_name(&service, name);
        self.reactor.bind(&service, address).unwrap();
        service
    }

    /// Where a service listens, by its name.
    fn address(&self, name: &str) -> SocketAddr {
        let services = self.reactor.status().services;
        let service = services.iter().find(|service| service.name == name).unwrap();
        service.listeners[0].address.as_socket().unwrap()
    }

    fn client(&mut self, name: &str) -> Talk {
        let mut client = Talk::connect(self.address(name));
        self.says(&mut client, "hello\n");
        client
    }

    /// A client that does not read what it has asked for.
    fn held_client(&mut self, name: &str) -> Talk {
        let mut client = self.client(name);
        client.send("MUCH\n");
        self.until("it is held", |reactor| reactor.status().unsent > 0);
        client
    }

    fn turn(&mut self) {
        self.reactor.turn(Some(Duration::ZERO)).unwrap();
    }

    fn until(&mut self, what: &str, mut so: impl FnMut(&Reactor<'static>) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !so(&self.reactor) {
            assert!(Instant::now() < end, "in vain: {what}");
            self.reactor.turn(Some(TICK)).unwrap();
        }
    }

    /// The client gets back what it says.
    fn says(&mut self, client: &mut Talk, words: &str) {
        client.send(words);
        self.hears(client, words);
    }

    fn hears(&mut self, client: &mut Talk, words: &str) {
        self.until(words, |_| client.has(words.as_bytes()));
    }

    /// The client hears that, and then the end.
    fn ends(&mut self, client: &mut Talk, words: &str) {
        self.until("the end", |_| client.is_over());
        assert_eq!(String::from_utf8_lossy(&client.got), words);
    }

    fn notes(&self) -> Vec<String> {
        self.notes.take()
    }
}

/// A client that waits for nothing.
struct Talk {
    stream: TcpStream,
    got: Vec<u8>,
    over: bool,
}

impl Talk {
    fn connect(addr: SocketAddr) -> Talk {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nonblocking(true).unwrap();
        Talk { stream, got: Vec::new(), over: false }
    }

    fn send(&mut self, words: &str) {
        self.stream.write_all(words.as_bytes()).unwrap();
    }

    fn read(&mut self) {
        let mut buffer = [0; 64 * 1024];
        while !self.over {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.over = true,
                Ok(count) => self.got.extend(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.over = true,
            }
        }
    }

    /// Whether it has got that; then it forgets it.
    fn has(&mut self, words: &[u8]) -> bool {
        self.read();
        let has = self.got.starts_with(words);
        if has {
            self.got.drain(..words.len());
        }
        has
    }

    fn is_over(&mut self) -> bool {
        self.read();
        self.over
    }
}

fn at(address: SocketAddr) -> Listen {
    Listen::at(address).unwrap()
}
