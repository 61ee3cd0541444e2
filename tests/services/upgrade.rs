//! What the last release hands on, this one goes on with: `release-0.1.parcel` has the bytes, frame by frame.
//!
//! The bytes are those of a server that was recorded (see [`record`]); the sockets that went with them are others
//! here. Whoever changes what is written down, of the loop or of a service, raises its version and goes on reading the
//! one before. As long as there is no release that has written it so, the file is recorded anew instead:
//! `REACTOR_RECORD=1 cargo test --test services upgrade::what`. After a release it is left as it is, and the next one has
//! a file of its own. `release-0.1.room` is the same of a room over Redis (`src/services/room/saving.rs`), with
//! `REACTOR_RECORD=1 cargo test --lib room::saving`.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use reactor::services::roulette::{Roulette, Version};
use reactor::services::{Echo, Presence, Time};
use reactor::{
    Encoder, Error, Exit, Handler, Limits, Listen, Rate, Rates, Reactor, Selection, Service,
    Successor,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::{Domain, Socket, Type};

use crate::util::{Client, PATIENCE};

const RECORDED: &str = "tests/services/release-0.1.parcel";
const NAMES: [&str; 4] = ["Echo", "Time", "Roulette", "Presence"];
/// How many of the connections that were recorded went along.
const CONNECTIONS: usize = 7;
/// More than a LIST has in its first piece.
const LONG: usize = 32 << 10;
const INTERVAL: Duration = Duration::from_secs(1);
// Frames without a body.
const READY: [u8; 6] = [3, 0, 0, 0, 0, 0];
const COMMIT: [u8; 6] = [7, 0, 0, 0, 0, 0];

/// The services, each listening at its socket.
fn serve(
    reactor: &mut Reactor<'static>,
    at: [Listen; 4],
) -> Result<Service<<Presence as Handler>::Message>, Error> {
    // Little is kept, so that the file is small. What is owed of the rates stays below them.
    let rates = Rates::from(Rate { per_second: 1, burst: 1 << 20 });
    let connect = Some(Rate { per_second: 1, burst: 100 });
    let limits = Limits {
        high_water: 64,
        low_water: 32,
        bytes_per_turn: 256,
        rate: rates,
        peer_rate: rates,
        peer_connect_rate: connect,
        ..Limits::default()
    };
    reactor.set_accounting(true);
    let [echo, time, roulette, presence] = at;
    let service = reactor.add(Echo, limits.clone())?;
    reactor.bind(&service, echo)?;
    let service = reactor.add(Time::new(INTERVAL, 2), limits.clone())?;
    reactor.bind(&service, time)?;
    let service = reactor.add(Roulette::new(Version::Two, 1 << 20), limits.clone())?;
    reactor.bind(&service, roulette)?;
    let service = reactor.add(Presence::new(true).unique_names(), limits)?;
    reactor.bind(&service, presence)?;
    Ok(service)
}

/// A socket that has room for little, and so have those that it accepts.
fn narrow() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket
}

fn listener(socket: Socket) -> TcpListener {
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

fn turns(reactor: &mut Reactor<'_>) {
    (0..400).for_each(|_| reactor.turn(Some(Duration::from_micros(200))).unwrap());
}

/// Writes the file anew.
fn record() {
    let mut reactor = Reactor::new().unwrap();
    let listeners = [(); 4].map(|()| listener(narrow()));
    let [echo, time, roulette, room] =
        listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let at = listeners.map(|it| Listen::from_tcp(it).unwrap());
    let presence = serve(&mut reactor, at).unwrap();
    let connect = |addr: SocketAddr| {
        let socket = narrow();
        socket.connect(&addr.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Client::from(TcpStream::from(socket))
    };
    // In the order in which the test has them.
    let (mut half, mut slow) = (connect(echo), connect(echo));
    half.send("first\nin the mid");
    for line in 0..2000 {
        if slow.stream.write_all(format!("line {line}\n").as_bytes()).is_err() {
            break;
        }
        if line % 100 == 0 {
            turns(&mut reactor);
        }
    }
    let (mut list, mut load) = (connect(roulette), connect(roulette));
    for piece in
        format!("LOAD\n{}\nyannick\nzoe\nENDOFDATA\n", "x".repeat(LONG)).as_bytes().chunks(2000)
    {
        load.send(piece);
        turns(&mut reactor);
    }
    // The rest of the list is that of a store that is no more.
    let before = reactor.counters().bytes_out;
    list.send("LIST\n");
    turns(&mut reactor);
    while reactor.counters().bytes_out - before < (LONG - 4000) as u64 {
        _ = list.stream.read(&mut [0; 500]);
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    load.send("CLEAR\nLOAD\nada\nENDOFDATA\nLOAD\nbob\ncharl");
    let (mut olivier, mut nobody) = (connect(room), connect(room));
    olivier.send("HELLO olivier\nSAY hel");
    nobody.send("WH");
    // What was dialled does not go along, and is missed.
    let dialled = listener(narrow());
    reactor.connect(&presence, dialled.local_addr().unwrap()).unwrap();
    let mut dialled = dialled.accept().unwrap().0;
    dialled.write_all(b"HELLO zed\n").unwrap();
    turns(&mut reactor);
    let mut told = connect(time);
    while told.stream.read(&mut [0; 99]).is_err() {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let (one, mut other) = UnixStream::pair().unwrap();
    other.write_all(&READY).unwrap();
    let mut to = Successor::new(one, Duration::from_millis(100)).unwrap();
    reactor.offer(&mut to).unwrap();
    reactor.hand_on(to, PATIENCE).unwrap_err();
    let mut said = Vec::new();
    other.read_to_end(&mut said).unwrap();
    assert!(place(&said, b"\0\x03zoe").is_some(), "all of the list was made already");
    std::fs::write(RECORDED, &said).unwrap();
    drop((half, slow, list, load, olivier, nobody, told));
}

fn place(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Says what was recorded, with these sockets where some went along.
fn replay(said: &[u8], to: &UnixStream, mut sockets: &[BorrowedFd<'_>]) {
    let mut rest = said;
    while let Some((head, after)) = rest.split_first_chunk::<6>() {
        let length = u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize;
        let (body, next) = after.split_at(length);
        let (own, others) = sockets.split_at(head[5].into());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(own.is_empty() || control.push(SendAncillaryMessage::ScmRights(own)));
        let frame = [IoSlice::new(head), IoSlice::new(body)];
        let sent = sendmsg(to, &frame, &mut control, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(sent, 6 + length, "a frame that does not fit at once");
        (rest, sockets) = (next, others);
    }
    assert!(sockets.is_empty(), "{} sockets too many", sockets.len());
}

/// The new loop's end of a socket at whose other end all has been said that was recorded, that end, and those of
/// the connections, in the order of the services.
fn predecessor(said: &[u8]) -> (UnixStream, UnixStream, Vec<Client>) {
    let listeners = NAMES.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let pair = |_| {
        let client = Client::connect(listeners[0].local_addr().unwrap());
        (client, listeners[0].accept().unwrap().0)
    };
    let (clients, servers): (Vec<_>, Vec<_>) = (0..CONNECTIONS).map(pair).unzip();
    let mut sockets: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    sockets.extend(servers.iter().map(AsFd::as_fd));
    let (one, mut other) = UnixStream::pair().unwrap();
    replay(said, &other, &sockets);
    other.write_all(&COMMIT).unwrap();
    (one, other, clients)
}

/// A new loop that has taken over.
fn successor(from: UnixStream) -> Reactor<'static> {
    let mut reactor = Reactor::new().unwrap();
    reactor.inherit(from, PATIENCE).unwrap();
    serve(&mut reactor, NAMES.map(|_| Listen::at("127.0.0.1:0").unwrap())).unwrap();
    reactor.succeed().unwrap();
    reactor
}

/// What a new loop answers that is ready, and has taken all services but those of which it says why not.
fn taken(refusals: [Option<&str>; 4]) -> String {
    let mut body = Encoder::default();
    refusals.into_iter().for_each(|why| body.put_option(why, Encoder::put_text));
    let length = u32::try_from(body.as_bytes().len()).unwrap().to_be_bytes();
    [&READY[..], &[6], &length, &[0], body.as_bytes()].concat().escape_ascii().to_string()
}

/// All that the new loop has answered.
fn heard(mut from: UnixStream) -> String {
    let mut answers = Vec::new();
    from.read_to_end(&mut answers).unwrap();
    answers.escape_ascii().to_string()
}

#[test]
fn what_the_last_release_hands_on_goes_on() {
    if std::env::var_os("REACTOR_RECORD").is_some() {
        record();
    }
    let (one, other, clients) = predecessor(&std::fs::read(RECORDED).unwrap());
    let server = thread::spawn(move || {
        let mut reactor = successor(one);
        let usage = reactor.connections(&Selection::default()).connections[0].usage.unwrap();
        assert_eq!((usage.lines_in, usage.bytes_in), (1, 16));
        (reactor.run().unwrap(), reactor.counters().open)
    });
    assert_eq!(heard(other), taken([None; 4]));
    let [mut half, mut slow, mut told, mut list, mut load, mut olivier, mut nobody] =
        <[Client; CONNECTIONS]>::try_from(clients).unwrap();
    half.send("dle\nbye\n");
    assert_eq!(half.rest(), b"> IN THE MIDDLE\n> BYE\n");
    // From the unsent end of an answer on, then what had come and was not answered, then the line whose
    // other half comes here.
    slow.send(" is cut\nbye\n");
    let rest = String::from_utf8(slow.rest()).unwrap();
    let all: String = (0..2000).map(|line| format!("> LINE {line}\n")).collect();
    let (whole, cut) = rest.strip_suffix(" IS CUT\n> BYE\n").unwrap().rsplit_once('\n').unwrap();
    assert!(whole.len() > 64 && all.contains(&format!("{whole}\n{cut}")), "{rest}");
    // The second of two.
    assert!(told.line().starts_with("{'time' : '"));
    assert_eq!(told.rest(), b"");
    // What is left of a list of a store that is no more.
    list.send("INFO\n");
    let rest = list.line();
    let end = "\"},{\"fullname\":\"yannick\"},{\"fullname\":\"zoe\"}]}\n";
    let name = rest.strip_suffix(end).unwrap();
    assert!(name.len() > 64 && name.bytes().all(|byte| byte == b'x'), "{name}");
    list.expect("{\"protocolVersion\":\"2.0\",\"numberOfStudents\":1}\n");
    load.send("ie\nENDOFDATA\nLIST\nBYE\n");
    load.expect("{\"status\":\"success\",\"numberOfNewStudents\":2}\n{\"students\":[");
    load.expect("{\"fullname\":\"ada\"},{\"fullname\":\"bob\"},{\"fullname\":\"charlie\"}]}\n");
    // Those before the upgrade count.
    load.expect("{\"status\":\"success\",\"numberOfCommands\":6}\n");
    // Who did not come along is missed first.
    olivier.expect("zed has left the room.\n");
    nobody.expect("zed has left the room.\n");
    olivier.send("lo\n");
    nobody.expect("olivier says: hello\n");
    nobody.send("O\nHELLO Olivier\nKILL\n");
    nobody.expect("Currently connected users:\n - olivier\n - An anonymous user\n");
    // Names are known to be taken.
    assert_eq!(nobody.line(), "The name Olivier is taken; choose another with 'HELLO name'\n");
    assert_eq!(nobody.rest(), b"KILL command received. Bringing server down...\n");
    olivier.expect("olivier says: hello\n");
    assert_eq!(server.join().unwrap(), (Exit::Clean, 0));
}

/// As one of a later release says it that writes down more, or one of before that wrote down less.
#[test]
fn of_a_service_of_another_version_it_is_said_that_it_is_not_taken() {
    let recorded = std::fs::read(RECORDED).unwrap();
    for (number, name) in NAMES.iter().enumerate() {
        for other in [0, 2] {
            let mut said = recorded.clone();
            // Behind the name: that it goes, of how many connections, in how many bytes.
            let version = place(&said, name.as_bytes()).unwrap() + name.len() + 1 + 8 + 8;
            assert_eq!(said[version..version + 8], 1_u64.to_be_bytes(), "{name}");
            said[version + 7] = other;
            let mut refusals = [None; 4];
            refusals[number] = Some("an unknown version");
            let (one, other, _clients) = predecessor(&said);
            let reactor = successor(one);
            assert_eq!(heard(other), taken(refusals), "{name}");
            let went = reactor.status().services[number].clone();
            assert_eq!((went.name.as_str(), went.connections), (*name, 0));
        }
    }
}
