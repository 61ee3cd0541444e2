//! TLS in one thread, turned by hand: what its records hold that nobody else counts.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::services::Forward;
use reactor::{CloseReason, Context, Exit, Handler, Limits, Listen, Rate, Rates, Reactor, Tls};
use rustls::version::TLS13;

use crate::util::PATIENCE;
use crate::util::tls::{Pem, TlsClient};

/// A service over TLS in this thread, turned by hand.
fn here<'h>(
    pem: &Pem,
    limits: Limits,
    handler: impl Handler<Message = ()> + 'h,
) -> (Reactor<'h>, SocketAddr) {
    let mut reactor = Reactor::new().unwrap();
    let tls = Tls::from_files(pem.cert(), pem.key()).unwrap();
    let listen = Listen::at("127.0.0.1:0").unwrap().tls(&tls);
    let service = reactor.listen_with(listen, handler, limits).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    (reactor, addr)
}

/// Sends so many bytes for `go`, more than the sockets' buffers take, and says when they have left;
/// any other line comes back.
struct Megabyte {
    size: usize,
    drained: Rc<Cell<bool>>,
}

impl Handler for Megabyte {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        if line == b"go" {
            cx.send(vec![b'x'; self.size]);
            cx.request_drain();
        } else {
            cx.send(line);
        }
    }

    fn on_drain(&mut self, _: &mut Context<'_, ()>) {
        self.drained.set(true);
    }
}

/// A client that has been sent so many bytes and not read all of them: the reactor's own output is
/// gone, and what is left is TLS's and the system's.
fn held<'h>(pem: &Pem, size: usize) -> (Reactor<'h>, TlsClient) {
    let drained = Rc::new(Cell::new(false));
    let limits = Limits { low_water: 0, ..Limits::default() };
    let handler = Megabyte { size, drained: Rc::clone(&drained) };
    let (mut reactor, addr) = here(pem, limits, handler);
    let mut client = pem.begin(addr);
    socket2::SockRef::from(&client.stream).set_recv_buffer_size(32 * 1024).unwrap();
    client.tls.writer().write_all(b"go\n").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !drained.get() {
        assert!(Instant::now() < deadline, "its output does not leave");
        reactor.turn(Some(Duration::ZERO)).unwrap();
        client.step(true);
    }
    (reactor, client)
}

/// Sizes of which some end while TLS still holds a part.
fn sizes() -> impl Iterator<Item = usize> {
    (0..8).map(|number| 1_000_000 + number * 9_000)
}

#[test]
fn who_has_not_got_what_tls_holds_was_cut_off() {
    let pem = Pem::new("cut-off");
    let mut cut = 0;
    // What the kernel takes is its own affair: of which sizes TLS holds a part is found out by trying.
    for (number, size) in (1_000_000..).step_by(9_000).enumerate() {
        if number >= 8 && cut > 0 {
            break;
        }
        assert!(number < 200, "TLS never held anything");
        let (mut reactor, mut client) = held(&pem, size);
        reactor.set_shutdown_timeout(Duration::ZERO);
        reactor.stop();
        while reactor.exit().is_none() {
            reactor.turn(None).unwrap();
        }
        let exit = reactor.exit().unwrap();
        drop(reactor);
        while client.end.is_none() && client.received.len() < size {
            client.step(true);
        }
        assert_eq!(exit == Exit::Clean, client.received.len() == size, "{exit:?}");
        cut += usize::from(exit != Exit::Clean);
    }
}

/// It lay in the arena, which was cleared without it: the reactor panicked, or sent what lay there
/// later.
#[test]
fn what_is_said_while_tls_holds_something_keeps_its_place() {
    let pem = Pem::new("place");
    let deadline = Instant::now() + PATIENCE;
    for size in sizes() {
        let (mut reactor, mut client) = held(&pem, size);
        for word in ["first", "second"] {
            client.tls.writer().write_all(format!("{word}\n").as_bytes()).unwrap();
            client.step(false);
            let handled = reactor.counters().lines_in;
            while reactor.counters().lines_in == handled {
                assert!(Instant::now() < deadline, "the line does not come");
                reactor.turn(Some(Duration::ZERO)).unwrap();
            }
        }
        let all = [vec![b'x'; size], b"firstsecond".to_vec()].concat();
        while client.received.len() < all.len() {
            assert!(Instant::now() < deadline && client.end.is_none());
            client.step(true);
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        assert!(client.received == all);
    }
}

/// Counts bytes.
struct Count(Rc<Cell<usize>>);

impl Handler for Count {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, _: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        self.0.set(self.0.get() + bytes.len());
        bytes.len()
    }
}

#[test]
fn tiny_records_do_not_buy_a_longer_turn() {
    let pem = Pem::new("tiny");
    let count = Rc::new(Cell::new(0));
    let (mut reactor, addr) = here(&pem, Limits::default(), Count(Rc::clone(&count)));
    let mut client = pem.begin(addr);
    let deadline = Instant::now() + PATIENCE;
    while client.tls.is_handshaking() {
        assert!(Instant::now() < deadline);
        client.step(true);
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let mut wire = Vec::new();
    for _ in 0..20_000 {
        client.tls.writer().write_all(b"x").unwrap();
        client.tls.write_tls(&mut wire).unwrap();
    }
    let (record, share) = (wire.len() / 20_000, Limits::default().bytes_per_turn);
    let mut rest = wire.as_slice();
    while count.get() < 20_000 {
        assert!(Instant::now() < deadline);
        // As much as the sockets take, so that a turn has enough for more than its share.
        while let Ok(sent) = client.stream.write(rest) {
            rest = &rest[sent..];
            if rest.is_empty() {
                break;
            }
        }
        let before = count.get();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        let handled = count.get() - before;
        // The last read may go past it.
        assert!(handled * record <= share + 8192, "{handled} records in a turn");
    }
}

/// What was read of a record counted once there was something in it for the handler, so one that is
/// never finished cost its peer nothing.
#[test]
fn what_is_read_of_an_unfinished_record_counts_too() {
    let pem = Pem::new("unfinished");
    let count = Rc::new(Cell::new(0));
    let bytes = Some(Rate { per_second: 1, burst: 8192 });
    let peer_rate = Rates { lines: None, bytes };
    let limits = Limits { peer_rate, ..Limits::default() };
    let (mut reactor, addr) = here(&pem, limits, Count(Rc::clone(&count)));
    let deadline = Instant::now() + PATIENCE;
    // The first does not finish its record, so that the second has to wait with a whole one.
    for missing in [1, 0] {
        let mut client = pem.begin(addr);
        while client.tls.is_handshaking() {
            assert!(Instant::now() < deadline);
            client.step(true);
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        let mut wire = Vec::new();
        client.tls.writer().write_all(&[b'x'; 12_000]).unwrap();
        client.tls.write_tls(&mut wire).unwrap();
        client.stream.write_all(&wire[..wire.len() - missing]).unwrap();
        for _ in 0..20 {
            reactor.turn(Some(Duration::from_millis(5))).unwrap();
        }
        assert_eq!(count.get(), 0, "{missing} missing");
    }
}

/// Notes what it is told, and greets if it is to.
struct Note(bool, Rc<RefCell<Vec<String>>>);

impl Handler for Note {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        if self.0 {
            cx.send("hello\n");
        }
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.1.borrow_mut().push(String::from_utf8(line.to_vec()).unwrap());
        cx.send(line);
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, _: CloseReason) {
        self.1.borrow_mut().push("closed".to_owned());
    }
}

/// How a client leaves that does not read: with `close_notify` or not, and by a reset or not, which
/// it is at the latest when the tickets come that end its handshake.
const WAYS: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

/// The rest of the handshake, a line, the beginning of another and the client's end, at once.
fn speak_and_leave(pem: &Pem, reactor: &mut Reactor<'_>, addr: SocketAddr, way: (bool, bool)) {
    let mut client = pem.begin_with(addr, &[&TLS13]);
    let deadline = Instant::now() + PATIENCE;
    while client.tls.is_handshaking() {
        assert!(Instant::now() < deadline, "no handshake");
        client.step(true);
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    client.tls.writer().write_all(b"line\nend").unwrap();
    if way.0 {
        client.tls.send_close_notify();
    }
    client.step(false);
    if way.1 {
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn who_leaves_without_reading_the_tickets_has_been_heard() {
    let pem = Pem::new("tickets");
    for (greets, way) in WAYS.into_iter().flat_map(|way| [(true, way), (false, way)]) {
        let told = Rc::default();
        let handler = Note(greets, Rc::clone(&told));
        let (mut reactor, addr) = here(&pem, Limits::default(), handler);
        speak_and_leave(&pem, &mut reactor, addr, way);
        let deadline = Instant::now() + PATIENCE;
        while told.borrow().last().is_none_or(|last| last != "closed") {
            assert!(Instant::now() < deadline, "greets: {greets}, {way:?}: {told:?}");
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        // What is not finished counts only where the client itself says that it is all.
        let whole: &[&str] = if way.0 { &["line", "end", "closed"] } else { &["line", "closed"] };
        assert_eq!(*told.borrow(), whole, "greets: {greets}, {way:?}");
    }
}

#[test]
fn what_it_said_is_forwarded_too() {
    let pem = Pem::new("forwarded");
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap().into();
    let (mut reactor, addr) = here(&pem, Limits::default(), Forward::new(address));
    for way in WAYS {
        speak_and_leave(&pem, &mut reactor, addr, way);
        target.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut accepted = None;
        let (mut got, mut buf) = (Vec::new(), [0; 64]);
        let end = loop {
            assert!(Instant::now() < deadline, "{way:?}: only {got:?}");
            reactor.turn(Some(Duration::ZERO)).unwrap();
            let Some(stream) = &mut accepted else {
                accepted = target.accept().ok().map(|(stream, _)| stream);
                accepted.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
                continue;
            };
            match stream.read(&mut buf) {
                Ok(0) => break None,
                Ok(count) => got.extend(&buf[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => break Some(error.kind()),
            }
        };
        // A client that somebody may have cut off has not ended.
        let cut = (!way.0).then_some(ErrorKind::ConnectionReset);
        assert_eq!((got.as_slice(), end), (&b"line\nend"[..], cut), "{way:?}");
    }
}
