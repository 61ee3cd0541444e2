//! A connection that leaves one service for another, over real sockets: a lobby hands over to the rooms
//! that its clients ask for.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use reactor::http::Request;
use reactor::{
    CloseReason, ConnId, Context, Counters, Exit, Handle, Handler, Limits, Reactor, WebSocket,
};

use crate::util::frames::{self, CLOSE, Frame, TEXT};
use crate::util::{Client, PATIENCE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Left(CloseReason),
    Came(ConnId),
    Gone(CloseReason),
}

/// Hands over to the service that the path names.
struct Lobby {
    told: mpsc::Sender<Told>,
    /// Sent in front of the answer.
    before: usize,
    panics: bool,
}

/// Says its name and gives lines back.
struct Room {
    told: mpsc::Sender<Told>,
    panics: bool,
}

impl Handler for Lobby {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let Some((request, length)) = Request::parse(bytes).unwrap() else { return 0 };
        let upgrade = WebSocket::new().answer(&request).unwrap();
        cx.send(vec![b'x'; self.before]);
        if let Err(error) = cx.hand_over(&request.path()[1..], upgrade) {
            writeln!(cx, "{error}");
        }
        length
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, reason: CloseReason) {
        let _ = self.told.send(Told::Left(reason));
        assert!(!self.panics, "on purpose");
    }
}

impl Handler for Room {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        assert!(cx.peer_addr().is_some_and(|peer| peer.ip().is_loopback()));
        cx.send("room\n");
        let _ = self.told.send(Told::Came(cx.id()));
        assert!(!self.panics, "on purpose");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send([line, b"\n"].concat());
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, reason: CloseReason) {
        let _ = self.told.send(Told::Gone(reason));
    }
}

struct Running {
    addr: SocketAddr,
    handle: Handle<()>,
    told: mpsc::Receiver<Told>,
    thread: JoinHandle<(Exit, [Counters; 2])>,
}

impl Running {
    fn start(room: Limits, change: impl FnOnce(&mut Lobby, &mut Room) + Send + 'static) -> Running {
        let (tell, told) = mpsc::channel();
        let (ready, known) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut lobby = Lobby { told: tell.clone(), before: 0, panics: false };
            let mut hall = Room { told: tell, panics: false };
            change(&mut lobby, &mut hall);
            let mut reactor = Reactor::new().unwrap();
            let lobby = reactor.listen("127.0.0.1:0", lobby).unwrap();
            let hall = reactor.add(hall, room).unwrap();
            reactor.set_name(&hall, "hall");
            ready.send((lobby.address().unwrap().as_socket().unwrap(), lobby.handle())).unwrap();
            let exit = reactor.run().unwrap();
            (exit, [reactor.counters_of(&lobby), reactor.counters_of(&hall)])
        });
        let (addr, handle) = known.recv_timeout(PATIENCE).unwrap();
        Running { addr, handle, told, thread }
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("nobody was told of anything")
    }

    /// A client that has asked for the service of that name.
    fn asks(&self, name: &str, behind: &[u8]) -> Client {
        let mut client = Client::connect(self.addr);
        let request = frames::request(&self.addr.to_string(), &format!("/{name}"));
        client.send([request.as_bytes(), behind].concat());
        client
    }

    fn stop(self) -> (Exit, [Counters; 2]) {
        self.handle.stop();
        self.thread.join().unwrap()
    }
}

/// All that a client still gets, cut into the answer and frames.
fn rest(client: &mut Client) -> (String, Vec<Frame>) {
    let mut bytes = client.rest();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
    let frames = std::iter::from_fn(|| frames::take(&mut bytes)).collect();
    assert!(bytes.is_empty(), "{bytes:?}");
    (head, frames)
}

fn message(text: &str) -> Frame {
    Frame { last: true, opcode: TEXT, masked: false, payload: text.into() }
}

fn closed(code: u16) -> Frame {
    Frame { last: true, opcode: CLOSE, masked: false, payload: code.to_be_bytes().to_vec() }
}

fn unchanged(_: &mut Lobby, _: &mut Room) {}

#[test]
fn frames_behind_the_request_are_the_first_that_the_room_has() {
    let server = Running::start(Limits::default(), unchanged);
    let behind = [frames::text("one"), frames::text("two"), frames::close(1000)].concat();
    // In one piece, and with the border in the middle of a frame.
    for cut in [behind.len(), 5, 1, 0] {
        let mut client = server.asks("hall", &behind[..cut]);
        if cut < behind.len() {
            assert_eq!(server.next(), Told::Left(CloseReason::HandedOver));
            assert!(matches!(server.next(), Told::Came(_)));
            client.send(&behind[cut..]);
        }
        let (head, frames) = rest(&mut client);
        assert!(head.starts_with(frames::ACCEPTED) && head.contains(frames::ACCEPT), "{head}");
        assert_eq!(frames, [message("room"), message("one"), message("two"), closed(1000)]);
        if cut == behind.len() {
            assert_eq!(server.next(), Told::Left(CloseReason::HandedOver));
            assert!(matches!(server.next(), Told::Came(_)));
        }
        assert_eq!(server.next(), Told::Gone(CloseReason::PeerClosed));
    }
    let (exit, [lobby, room]) = server.stop();
    assert_eq!(exit, Exit::Clean);
    assert_eq!((lobby.accepted, lobby.closed(CloseReason::HandedOver), lobby.open), (4, 4, 0));
    assert_eq!((room.accepted, room.closed(CloseReason::PeerClosed), room.lines_in), (4, 4, 8));
}

#[test]
fn a_name_that_nobody_has_leaves_the_connection_where_it_is() {
    let server = Running::start(Limits::default(), unchanged);
    let mut client = server.asks("nowhere", b"");
    client.expect("cannot hand over to \"nowhere\": there is no service of that name\n");
    let request = frames::request("127.0.0.1", "/hall");
    client.send(request);
    client.expect(frames::ACCEPTED);
    assert_eq!(server.next(), Told::Left(CloseReason::HandedOver));
    assert!(matches!(server.next(), Told::Came(_)));
    drop(client);
    assert!(matches!(server.next(), Told::Gone(_)));
    server.stop();
}

#[test]
fn a_full_room_says_so_in_a_close_frame() {
    let server = Running::start(Limits { max_connections: 1, ..Limits::default() }, unchanged);
    let mut first = server.asks("hall", b"");
    assert_eq!(server.next(), Told::Left(CloseReason::HandedOver));
    assert!(matches!(server.next(), Told::Came(_)));
    let (head, frames) = rest(&mut server.asks("hall", &frames::text("unheard")));
    assert!(head.starts_with(frames::ACCEPTED));
    assert_eq!(frames, [message("Too many connections, try again later"), closed(1013)]);
    assert_eq!(server.next(), Told::Left(CloseReason::HandedOver));
    first.send(frames::close(1000));
    assert_eq!(rest(&mut first).1, [message("room"), closed(1000)]);
    assert_eq!(server.next(), Told::Gone(CloseReason::PeerClosed));
    let (_, [_, room]) = server.stop();
    assert_eq!((room.accepted, room.refused, room.open), (1, 1, 0));
}

/// More than fits into the socket stands before the answer: the client breaks it off, or the server ends,
/// while the connection leaves.
#[test]
fn one_that_is_on_its_way_out_ends_where_it_is() {
    let much = |lobby: &mut Lobby, _: &mut Room| lobby.before = 30 << 20;
    let server = Running::start(Limits::default(), much);
    let mut client = server.asks("hall", b"");
    client.expect([b'x'; 1000]);
    client.reset();
    let told = server.next();
    let broken = |kind| Told::Left(CloseReason::Error(kind));
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kinds.into_iter().any(|kind| told == broken(kind)), "{told:?}");
    let mut client = server.asks("hall", &frames::text("unheard"));
    client.expect([b'x'; 1000]);
    server.handle.stop();
    let all = client.rest();
    let answer = String::from_utf8_lossy(&all[all.len() - 200..]);
    assert!(answer.contains(frames::ACCEPT) && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(server.next(), Told::Left(CloseReason::Shutdown));
    let (exit, [_, room]) = server.stop();
    assert_eq!((exit, room.accepted), (Exit::Clean, 0));
}

#[test]
fn one_that_is_broken_off_after_it_has_left_ends_in_the_room() {
    let server = Running::start(Limits::default(), unchanged);
    let client = server.asks("hall", b"");
    assert_eq!(server.next(), Told::Left(CloseReason::HandedOver));
    assert!(matches!(server.next(), Told::Came(_)));
    client.reset();
    let gone = server.next();
    assert!(
        matches!(gone, Told::Gone(CloseReason::Error(_) | CloseReason::PeerClosed)),
        "{gone:?}"
    );
    server.stop();
}

#[test]
fn a_panic_in_the_lobby_at_the_end_takes_nothing_from_the_room() {
    let server = Running::start(Limits::default(), |lobby, _| lobby.panics = true);
    let behind = [frames::text("one"), frames::close(1000)].concat();
    let (_, frames) = rest(&mut server.asks("hall", &behind));
    assert_eq!(frames, [message("room"), message("one"), closed(1000)]);
    let (_, [lobby, room]) = server.stop();
    assert_eq!((lobby.panics, room.panics, room.closed(CloseReason::PeerClosed)), (1, 0, 1));
}

#[test]
fn a_panic_in_the_room_at_the_beginning_closes_the_connection() {
    let server = Running::start(Limits::default(), |_, room| room.panics = true);
    let (_, frames) = rest(&mut server.asks("hall", &frames::text("unheard")));
    assert_eq!(frames, [message("room"), closed(1011)]);
    let (_, [lobby, room]) = server.stop();
    assert_eq!((lobby.panics, room.panics, room.closed(CloseReason::Panicked)), (0, 1, 1));
}
