//! Listeners that somebody else has opened: served as others, and left as they were.

#![cfg(feature = "services")]

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use reactor::services::Echo;
use reactor::{Cores, Exit, Limits, Listen, Reactor};
use socket2::SockRef;

use crate::util::folder::Folder;
use crate::util::{Client, PATIENCE, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

fn opened() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Serves there, in a loop of its own, until this client has been served.
fn serve_one(listen: Listen, mut client: Client) {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen(listen, Echo).unwrap();
    let handle = service.handle();
    let talking = std::thread::spawn(move || {
        client.send("hello\n");
        client.expect([GREETING, "> HELLO\n"].concat());
        handle.stop();
        client.rest()
    });
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    talking.join().unwrap();
}

#[test]
fn those_who_come_between_two_loops_wait_for_the_next_one() {
    let (listener, addr) = opened();
    let listen = Listen::from_tcp(listener).unwrap();
    for _ in 0..3 {
        // Nobody accepts yet, and nobody is refused.
        serve_one(listen.clone(), Client::connect(addr));
    }
    drop(listen);
    assert!(std::net::TcpStream::connect(addr).is_err(), "somebody still has it");
}

#[test]
fn two_services_of_a_loop_do_not_share_one() {
    let (listener, addr) = opened();
    let listen = Listen::from_tcp(listener).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.listen(listen.clone(), Echo).unwrap();
    let error = reactor.listen(listen, Echo).unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {addr}: a service listens there already"));
}

/// A service goes, and one that comes later has its socket, in one loop.
#[test]
fn it_can_be_left_and_taken_up_again() {
    let (listener, addr) = opened();
    let listen = Listen::from_tcp(listener).unwrap();
    let address = addr.into();
    let mut reactor = Reactor::new().unwrap();
    let first = reactor.listen(listen.clone(), Echo).unwrap();
    reactor
        .rebind(&first, Listen::at(addr).unwrap().allow("192.0.2.0/24".parse().unwrap()))
        .unwrap();
    reactor.unbind(&first, &address).unwrap();
    let mut waiting = Client::connect(addr);
    for _ in 0..3 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(reactor.counters().refused, 0, "nobody listens");
    let second = reactor.listen(listen, Echo).unwrap();
    let handle = second.handle();
    let talking = std::thread::spawn(move || {
        waiting.expect(GREETING);
        handle.stop();
    });
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    talking.join().unwrap();
}

#[test]
fn every_core_gets_its_share() {
    let (listener, addr) = opened();
    let mut cores = Cores::new(2).unwrap();
    let spread = cores.listen(Listen::from_tcp(listener).unwrap(), |_| Echo).unwrap();
    assert_eq!(spread.address().unwrap().as_socket(), Some(addr));
    let handle = spread.handles()[0].clone();
    let talking = std::thread::spawn(move || {
        let mut clients: Vec<_> = (0..20).map(|_| Client::connect(addr)).collect();
        clients.iter_mut().for_each(|client| client.expect(GREETING));
        handle.stop();
    });
    cores.run().unwrap();
    talking.join().unwrap();
    assert!(cores.status().cores.len() == 2 && cores.status().counters.accepted == 20);
}

/// Whoever has opened it may have set what the limits say otherwise, as the loop before this one.
#[test]
fn its_options_are_those_of_the_limits() {
    let (listener, _) = opened();
    let other = listener.try_clone().unwrap();
    let other = SockRef::from(&other);
    let listen = Listen::from_tcp(listener).unwrap();
    for keepalive in [Some(Duration::from_secs(77)), None] {
        let limits = Limits { keepalive, ..Limits::default() };
        Reactor::new().unwrap().listen_with(listen.clone(), Echo, limits).unwrap();
        assert_eq!(other.keepalive().unwrap(), keepalive.is_some());
        assert!(other.tcp_nodelay().unwrap());
    }
    assert_eq!(other.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
}

/// The reactor that has it no longer, and lives, must not wake up for those who come then.
#[test]
fn a_loop_that_has_ended_does_not_watch_it() {
    let (listener, addr) = opened();
    let listen = Listen::from_tcp(listener).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.listen(listen.clone(), Echo).unwrap();
    reactor.stop();
    until("it has ended", || {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        reactor.exit().is_some()
    });
    // As a foreign loop watches it.
    let mut poll = Poll::new().unwrap();
    let fd = reactor.as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
    let _client = Client::connect(addr);
    let mut events = Events::with_capacity(1);
    poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
    assert!(events.is_empty(), "it wakes up");
}

#[test]
fn the_path_of_a_unix_socket_is_not_ours() {
    let folder = Folder::new("inherited");
    let path = folder.file("e.sock");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let listen = Listen::from_unix(listener).unwrap().unix_mode(0o666);
    for _ in 0..2 {
        let mut waiting = UnixStream::connect(&path).unwrap();
        let mut reactor = Reactor::new().unwrap();
        let service = reactor.listen(listen.clone(), Echo).unwrap();
        assert_eq!(service.address().unwrap().to_string(), format!("unix:{}", path.display()));
        let handle = service.handle();
        let talking = std::thread::spawn(move || {
            waiting.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut said = vec![0; GREETING.len()];
            waiting.read_exact(&mut said).unwrap();
            handle.stop();
            said
        });
        reactor.run().unwrap();
        assert_eq!(talking.join().unwrap(), GREETING.as_bytes());
    }
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["e.sock"], "no lock, and nothing removed");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn who_may_come_is_asked_there_too() {
    let folder = Folder::new("inherited-uids");
    let path = folder.file("e.sock");
    let listen = Listen::from_unix(UnixListener::bind(&path).unwrap()).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.listen(listen.allow_uids([54321]), Echo).unwrap();
    until("it is refused", || {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        reactor.counters().refused == 1
    });
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_listened_at_is_refused() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let not = "cannot use the socket that was given to listen: ";
    let says = |outcome: Result<Listen, reactor::Error>, words: &str| {
        assert_eq!(outcome.unwrap_err().to_string(), [not, words].concat());
    };
    let silent = "it does not listen, as a connection does not; give one that does";
    let (listener, addr) = opened();
    let connection = OwnedFd::from(std::net::TcpStream::connect(addr).unwrap());
    says(Listen::from_tcp(connection.into()), silent);
    let (one, _other) = UnixStream::pair().unwrap();
    says(Listen::from_unix(OwnedFd::from(one).into()), silent);
    let unix = OwnedFd::from(
        UnixListener::bind_addr(
            &SocketAddr::from_abstract_name(format!("reactor-{}", std::process::id())).unwrap(),
        )
        .unwrap(),
    );
    says(Listen::from_unix(unix.into()), "it has an abstract name; bind it to a path");
    drop(listener);
}
