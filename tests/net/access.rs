//! Who may connect: networks for TCP, permissions for Unix sockets.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use reactor::{Callbacks, Counters, Handle, Listen, Reactor, Service};

use crate::util::{Client, PATIENCE};

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
