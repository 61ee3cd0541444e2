//! Who may connect: networks for TCP, permissions for Unix sockets.

use std::cell::RefCell;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use reactor::{
    Address, Callbacks, Counters, Credentials, Exit, Handle, Limits, Listen, Reactor, Service,
};

use crate::util::stranger::{STRANGER, heard_by_stranger};
use crate::util::{Client, PATIENCE, until};

/// A path of this test's own, with nothing there.
fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("reactor-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

struct Guarded {
    addr: SocketAddr,
    handle: Handle<()>,
    thread: JoinHandle<Counters>,
}

/// Says hello to who may come.
fn guarded(address: &'static str, networks: &'static str) -> Guarded {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        let listen = Listen::at(address).unwrap().allow(networks.parse().unwrap());
        let hello = Callbacks::new().on_connection(|cx| {
            cx.send("hello\n");
            cx.close();
        });
        let service: Service<()> = reactor.listen(listen, hello).unwrap();
        let addr = service.address().unwrap().as_socket().unwrap();
        tell.send((addr, service.handle())).unwrap();
        reactor.run().unwrap();
        reactor.counters()
    });
    let (addr, handle) = told.recv_timeout(PATIENCE).unwrap();
    Guarded { addr, handle, thread }
}

impl Guarded {
    /// What somebody hears who comes from this address; none where the connection is closed or
    /// reset without a word.
    fn heard_from(&self, source: &str) -> Option<String> {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, None).unwrap();
        let source = SocketAddr::new(source.parse().unwrap(), 0);
        socket.bind(&source.into()).unwrap();
        // The reset may come before connect has returned.
        let connected = socket.connect(&self.addr.into());
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        match connected.and_then(|()| stream.read_to_string(&mut text)) {
            Ok(_) if text.is_empty() => None,
            Ok(_) => Some(text),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn stop(self) -> Counters {
        self.handle.stop();
        self.thread.join().unwrap()
    }
}

#[test]
#[cfg(target_os = "linux")] // All of 127.0.0.0/8 is loopback.
fn who_is_not_in_the_networks_is_closed_without_a_word() {
    let guarded = guarded("127.0.0.1:0", "127.0.0.2,127.1.0.0/16");
    let hello = Some("hello\n".to_owned());
    for _ in 0..3 {
        assert_eq!(guarded.heard_from("127.0.0.1"), None);
        assert_eq!(guarded.heard_from("127.0.0.2"), hello);
        assert_eq!(guarded.heard_from("127.0.0.3"), None);
        assert_eq!(guarded.heard_from("127.1.255.255"), hello);
    }
    let counters = guarded.stop();
    assert_eq!((counters.accepted, counters.refused), (6, 6));
}

#[test]
#[cfg(target_os = "linux")]
fn ipv4_over_an_ipv6_socket_is_ipv4() {
    let guarded = guarded("[::ffff:127.0.0.1]:0", "127.0.0.2");
    assert_eq!(guarded.heard_from("::ffff:127.0.0.2"), Some("hello\n".to_owned()));
    assert_eq!(guarded.heard_from("::ffff:127.0.0.1"), None);
    assert_eq!(guarded.stop().refused, 1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_flood_of_those_kept_out_does_not_keep_out_the_others() {
    let guarded = guarded("127.0.0.1:0", "127.0.0.2");
    // More than are passed over in one go, and all in the queue at once.
    let kept_out: Vec<_> = (0..500).map(|_| TcpStream::connect(guarded.addr)).collect();
    assert_eq!(guarded.heard_from("127.0.0.2"), Some("hello\n".to_owned()));
    drop(kept_out);
    let counters = guarded.stop();
    assert_eq!((counters.accepted, counters.refused), (1, 500));
}

#[test]
fn a_unix_socket_has_the_mode_asked_for_and_never_a_wider_one() {
    let path = path("mode.sock");
    let mode = || fs::symlink_metadata(&path).map(|found| found.permissions().mode() & 0o7777);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Looks on while it is made again and again.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(seen) = mode() {
                    assert_eq!(seen & !0o620, 0, "{seen:#o}");
                }
            }
        });
        for _ in 0..300 {
            let mut reactor = Reactor::new().unwrap();
            let listen = Listen::at(path.as_path()).unwrap().unix_mode(0o620);
            let service: Service<()> = reactor.listen(listen, Callbacks::new()).unwrap();
            assert_eq!(mode().unwrap(), 0o620, "whatever the umask says");
            assert!(service.address().is_some());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(mode().is_err(), "the path is taken away at the end");
}

#[test]
fn networks_do_not_affect_unix_sockets_and_a_mode_does_not_affect_tcp() {
    let path = path("networks.sock");
    let mut reactor = Reactor::new().unwrap();
    let hello = Callbacks::new().on_connection(|cx| {
        cx.send("hello\n");
    });
    let listen = Listen::at(path.as_path()).unwrap().allow("192.0.2.0/24".parse().unwrap());
    let service: Service<()> = reactor.listen(listen, hello).unwrap();
    let tcp = Listen::at("127.0.0.1:0").unwrap().unix_mode(0o600);
    let tcp = reactor.bind(&service, tcp).unwrap();
    let mut unix = UnixStream::connect(&path).unwrap();
    unix.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client::connect(tcp.as_socket().unwrap());
    while reactor.counters().accepted < 2 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    client.expect("hello\n");
    let mut heard = [0; 6];
    unix.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello\n");
}

#[test]
fn a_mode_that_is_none_is_an_error_and_leaves_nothing_behind() {
    let path = path("bad.sock");
    let listen = Listen::at(path.as_path()).unwrap().unix_mode(0o1777);
    let error = Reactor::new().unwrap().listen(listen, Callbacks::new()).unwrap_err().to_string();
    assert!(error.contains("0o1777") && error.contains("up to 0o777"), "{error}");
    assert!(fs::symlink_metadata(&path).is_err());
}

/// Who this process is.
fn ourselves() -> Credentials {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let pid = Some(std::process::id().try_into().unwrap());
    Credentials { uid: uid.as_raw(), gid: gid.as_raw(), pid }
}

/// Says at this path who has come; with `uids`, only to them. Until a client says `stop`.
fn who(path: &Path, uids: Option<Vec<u32>>) -> JoinHandle<Counters> {
    let path = path.to_owned();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let listen = Listen::at(path.as_path()).unwrap().unix_mode(0o666);
        let listen = uids.into_iter().fold(listen, Listen::allow_uids);
        let mut reactor = Reactor::new().unwrap();
        let says = Callbacks::new()
            .on_connection(|cx| {
                let peer = cx.peer_credentials().expect("nobody knows who has come");
                writeln!(cx, "{peer}");
            })
            .on_line(|cx, line| {
                cx.close();
                if line == b"stop" {
                    cx.stop();
                }
            });
        let _: Service<()> = reactor.listen(listen, says).unwrap();
        tell.send(()).unwrap();
        assert_eq!(reactor.run().unwrap(), Exit::Clean);
        reactor.counters().clone()
    });
    told.recv_timeout(PATIENCE).unwrap();
    thread
}

/// What this process hears there; nothing where it is turned away.
fn heard(path: &Path, sent: &str) -> String {
    let mut unix = UnixStream::connect(path).unwrap();
    unix.set_read_timeout(Some(PATIENCE)).unwrap();
    // Somebody who is turned away may be so before.
    let _ = unix.write_all(sent.as_bytes());
    let mut text = String::new();
    match unix.read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => text,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn over_a_unix_socket_the_system_says_who_has_come() {
    let path = path("who.sock");
    let thread = who(&path, None);
    assert_eq!(heard(&path, "bye\n"), format!("{}\n", ourselves()));
    if let Some(text) = heard_by_stranger(&path, "bye\n") {
        assert!(text.starts_with(&format!("uid {STRANGER} pid ")), "{text}");
    }
    heard(&path, "stop\n");
    assert_eq!(thread.join().unwrap().refused, 0);
}

#[test]
fn a_server_has_credentials_too_and_tcp_has_none() {
    let path = path("server.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let seen = RefCell::new(Vec::new());
    let mut reactor = Reactor::new().unwrap();
    let notes = Callbacks::new().on_connection(|cx| {
        seen.borrow_mut().push(cx.peer_credentials());
    });
    let service: Service<()> = reactor.add(notes, Limits::default()).unwrap();
    for address in [Address::Unix(path.clone()), tcp.local_addr().unwrap().into()] {
        let before = seen.borrow().len();
        reactor.connect(&service, address).unwrap();
        while seen.borrow().len() == before {
            reactor.turn(Some(PATIENCE)).unwrap();
        }
    }
    assert_eq!(*seen.borrow(), [Some(ourselves()), None]);
    drop(listener);
    fs::remove_file(&path).unwrap();
}

#[test]
fn users_who_may_not_come_are_closed_without_a_word() {
    let path = path("users.sock");
    let own = ourselves().uid;
    let thread = who(&path, Some(vec![4_000_000_000, own]));
    assert_eq!(heard(&path, "bye\n"), format!("{}\n", ourselves()));
    let strangers = (0..3).map_while(|_| heard_by_stranger(&path, "bye\n"));
    let strangers = strangers.inspect(|text| assert_eq!(text, "")).count();
    heard(&path, "stop\n");
    let counters = thread.join().unwrap();
    assert_eq!((counters.accepted, counters.refused), (2, strangers as u64));
}

#[test]
fn nobody_is_exempt_not_even_the_servers_own_user() {
    let path = path("exempt.sock");
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::at(path.as_path()).unwrap().allow_uids([ourselves().uid + 1]);
    let hello = Callbacks::new().on_connection(|cx| {
        cx.send("hello\n");
    });
    let service: Service<()> = reactor.listen(listen, hello).unwrap();
    // It says nothing about TCP.
    let tcp = Listen::at("127.0.0.1:0").unwrap().allow_uids([]);
    let tcp = reactor.bind(&service, tcp).unwrap();
    let thread = std::thread::spawn({
        let path = path.clone();
        move || heard(&path, "")
    });
    let mut client = Client::connect(tcp.as_socket().unwrap());
    until("both were judged", || {
        reactor.turn(Some(PATIENCE)).unwrap();
        reactor.counters().accepted + reactor.counters().refused == 2
    });
    assert_eq!(reactor.counters().refused, 1);
    client.expect("hello\n");
    assert_eq!(thread.join().unwrap(), "");
}

/// It is the proxy that connects to the socket, whoever its client is.
#[test]
fn behind_a_proxy_it_is_the_proxys_user() {
    for (uid, hears) in [(ourselves().uid, "192.0.2.7:99\n"), (ourselves().uid + 1, "")] {
        let path = path("proxied.sock");
        let mut reactor = Reactor::new().unwrap();
        let says = Callbacks::new().on_connection(|cx| {
            assert_eq!(cx.peer_credentials(), Some(ourselves()));
            let peer = cx.peer_addr().unwrap();
            writeln!(cx, "{peer}");
            cx.close();
        });
        let listen = Listen::at(path.as_path()).unwrap().allow_uids([uid]);
        let listen = listen.proxy(reactor::Networks::loopback());
        let _: Service<()> = reactor.listen(listen, says).unwrap();
        let header = "PROXY TCP4 192.0.2.7 192.0.2.8 99 1\r\n";
        let client = std::thread::spawn(move || heard(&path, header));
        until("it was heard or turned away", || {
            reactor.turn(Some(std::time::Duration::from_millis(10))).unwrap();
            client.is_finished()
        });
        assert_eq!(client.join().unwrap(), hears);
        assert_eq!(reactor.counters().refused, u64::from(hears.is_empty()));
    }
}
