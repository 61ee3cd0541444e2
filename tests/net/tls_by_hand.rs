//! TLS in one thread, turned by hand: what its records hold that nobody else counts.

use crate::util::{self, tls};

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::{Context, Exit, Handler, Limits, Listen, Reactor, Tls};
use tls::{Pem, TlsClient};
use util::PATIENCE;

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
    for size in sizes() {
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
    assert!(cut > 0, "TLS never held anything");
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
