//! A graceful shutdown: nobody new, everybody gets what is due to them, and it ends by a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reactor::{
    CloseReason, Context, Counters, Error, Exit, Handle, Handler, Limits, Reactor, ServiceContext,
};
use socket2::{Domain, Socket, Type};

use crate::util::{self, Client, DOOMED, PATIENCE, again};

/// Sends what it is asked for, and one line to everybody at the end.
struct Sender {
    ends: mpsc::Sender<CloseReason>,
}

impl Handler for Sender {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("hello\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"STOP" => cx.stop(),
            _ => {
                let count: usize = str::from_utf8(line).unwrap().parse().unwrap();
                for n in 0..count {
                    cx.send(numbered(n));
                }
            }
        }
    }

    fn on_close(&mut self, _cx: &mut Context<'_, ()>, reason: CloseReason) {
        let _ = self.ends.send(reason);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, ()>) {
        assert!(matches!(cx.connect("127.0.0.1:1", ()), Err(Error::ShuttingDown)));
        cx.broadcast("bye, all\n");
    }
}

/// Lines so long that a thousand of them fit into no socket.
fn numbered(n: usize) -> String {
    format!("{n:>15999}\n")
}

struct Running {
    addr: SocketAddr,
    handle: Handle<()>,
    ends: mpsc::Receiver<CloseReason>,
    thread: JoinHandle<(Exit, Counters)>,
}

fn start(shutdown_timeout: Duration) -> Running {
    start_with(shutdown_timeout, Limits::default())
}

fn start_with(shutdown_timeout: Duration, limits: Limits) -> Running {
    let (tell, told) = mpsc::channel();
    let (end, ends) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        reactor.set_shutdown_timeout(shutdown_timeout);
        let service = reactor.listen_with(DOOMED, Sender { ends: end }, limits).unwrap();
        tell.send((service.address().unwrap().as_socket().unwrap(), service.handle())).unwrap();
        let exit = reactor.run().unwrap();
        (exit, reactor.counters())
    });
    let (addr, handle) = told.recv_timeout(PATIENCE).unwrap();
    Running { addr, handle, ends, thread }
}

impl Running {
    fn client(&self) -> Client {
        let mut client = Client::connect(self.addr);
        client.expect("hello\n");
        client
    }

    fn ending(&self) -> CloseReason {
        self.ends.recv_timeout(PATIENCE).expect("no end came")
    }
}

#[test]
fn stop_lets_everybody_have_the_last_word_and_ends_cleanly() {
    let server = start(PATIENCE);
    let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
    server.handle.stop();
    for client in &mut clients {
        assert_eq!(client.rest(), b"bye, all\n");
    }
    let refused = TcpStream::connect(server.addr).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    drop(clients);
    for _ in 0..10 {
        assert_eq!(server.ending(), CloseReason::Shutdown);
    }
    let (exit, counters) = server.thread.join().unwrap();
    assert_eq!(exit, Exit::Clean);
    assert_eq!((counters.open, counters.closed(CloseReason::Shutdown)), (0, 10));
}

#[test]
fn a_thousand_lines_still_to_be_sent_all_arrive() {
    let server = start(PATIENCE);
    let mut client = server.client();
    client.send("1000\nSTOP\n");
    // 16 MB: this client is held back, so a handle has to do it.
    client.expect(numbered(0));
    server.handle.stop();
    // Nobody can connect any more once the shutdown is under way; only now it reads on.
    util::until("it stops", || TcpStream::connect(server.addr).is_err());
    for n in 1..1000 {
        client.expect(numbered(n));
    }
    assert_eq!(client.rest(), b"bye, all\n");
    drop(client);
    assert_eq!(server.ending(), CloseReason::Shutdown);
    assert_eq!(server.thread.join().unwrap().0, Exit::Clean);
}

#[test]
fn input_in_flight_does_not_destroy_replies() {
    // During a shutdown it lingers for half a second only: a machine that pauses for longer may
    // spoil one or two. Without lingering more than half of them would be.
    let spoilt: Vec<_> = (0..20).filter_map(|_| stop_with_input_in_flight().err()).collect();
    assert!(spoilt.len() <= 2, "{spoilt:?}");
}

/// Or how the replies ended instead.
fn stop_with_input_in_flight() -> Result<(), String> {
    let server = start(PATIENCE);
    // One whose kernel takes little, so that much is on its way when the server has sent it all.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    let mut client = Client::from(TcpStream::from(socket));
    client.expect("hello\n");
    client.send("100\n");
    client.expect(numbered(0));
    let mut writer = client.stream.try_clone().unwrap();
    let (more, lots) = mpsc::channel();
    let (done, over) = mpsc::channel::<()>();
    let flood = std::thread::spawn(move || {
        // Not a line at all, so the handler sees nothing of it; and no end of it, until all is read.
        let unread = || over.try_recv() == Err(TryRecvError::Empty);
        while unread() && writer.write_all(&[b'x'; 1024]).is_ok() {
            let _ = more.send(());
        }
    });
    (0..32).for_each(|_| lots.recv_timeout(PATIENCE).unwrap());
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        let outcome = client.stream.read_to_end(&mut all);
        (all, outcome)
    });
    server.handle.stop();
    let (all, outcome) = reading.join().unwrap();
    drop(done);
    flood.join().unwrap();
    assert_eq!(server.thread.join().unwrap().0, Exit::Clean);

    let replies: String = (1..100).map(numbered).collect();
    let farewells = ["bye, all\n", "Line too long (limit 65536 bytes)\n"];
    let whole = farewells.iter().any(|farewell| all == (replies.clone() + farewell).into_bytes());
    match outcome {
        Ok(_) if whole => Ok(()),
        outcome => Err(format!("{outcome:?} after {} bytes", all.len())),
    }
}

/// Has more messages than the shutdown has time for.
struct Busy {
    handle: std::cell::OnceCell<Handle<Duration>>,
}

impl Handler for &Busy {
    type Session = ();
    type Message = Duration;

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _line: &[u8]) {
        let handle = self.handle.get().unwrap();
        handle.post(TIMEOUT * 2).unwrap();
        (0..10_000).for_each(|_| handle.post(Duration::ZERO).unwrap());
        cx.stop();
    }

    fn on_message(&mut self, _: &mut ServiceContext<'_, ()>, takes: Duration) {
        std::thread::sleep(takes);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, ()>) {
        cx.broadcast("bye, all\n");
    }
}

const TIMEOUT: Duration = Duration::from_millis(50);

/// The farewell and the cut came in one turn, and nothing was written between them.
#[test]
fn the_last_word_leaves_even_if_messages_have_used_up_the_time() {
    let busy = Busy { handle: std::cell::OnceCell::new() };
    let mut reactor = Reactor::new().unwrap();
    reactor.set_shutdown_timeout(TIMEOUT);
    let service = reactor.listen(DOOMED, &busy).unwrap();
    busy.handle.set(service.handle()).unwrap();
    let mut client = Client::connect(service.address().unwrap().as_socket().unwrap());
    client.send("STOP\n");
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    assert!(reactor.counters().messages_lost > 0);
    assert_eq!(client.rest(), b"bye, all\n");
}

#[test]
fn who_takes_nothing_is_cut_at_the_deadline() {
    let server = start(Duration::from_millis(300));
    let mut sloth = server.client();
    let other = server.client();
    sloth.send("4000\n");
    sloth.expect(numbered(0));
    let began = Instant::now();
    server.handle.stop();
    let (exit, counters) = server.thread.join().unwrap();
    assert_eq!(exit, Exit::Cut { connections: 1 });
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((counters.open, counters.closed(CloseReason::Shutdown)), (0, 2));
    assert_eq!(server.ends.iter().count(), 2);
    drop((sloth, other));
}

#[test]
fn a_peer_that_never_ends_its_side_does_not_hold_it_up() {
    let server = start_with(PATIENCE, Limits { linger: 2 * PATIENCE, ..Limits::default() });
    let mut client = server.client();
    let began = Instant::now();
    server.handle.stop();
    assert_eq!(server.thread.join().unwrap().0, Exit::Clean);
    assert!(began.elapsed() < PATIENCE / 2, "less than the usual linger");
    assert_eq!(client.rest(), b"bye, all\n");
}

#[test]
fn a_handler_can_stop_it() {
    let server = start(PATIENCE);
    let mut client = server.client();
    client.send("1\nSTOP\n");
    client.expect(numbered(0));
    assert_eq!(client.rest(), b"bye, all\n");
    drop(client);
    assert_eq!(server.thread.join().unwrap().0, Exit::Clean);
}

#[test]
fn dropping_a_reactor_tells_everybodys_end() {
    let (end, ends) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen("127.0.0.1:0", Sender { ends: end }).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(addr)).collect();
    while reactor.counters().open < 3 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    clients.iter_mut().for_each(|client| client.expect("hello\n"));
    assert_eq!(reactor.exit(), None);
    drop(reactor);
    assert_eq!(ends.iter().collect::<Vec<_>>(), [CloseReason::Shutdown; 3]);
    let mut buf = [0; 1];
    let mut ended = |client: &mut Client| again(|| client.stream.read(&mut buf)).unwrap() == 0;
    assert!(clients.iter_mut().all(&mut ended));
    assert!(service.handle().post(()).is_err(), "a message comes back");
}

#[test]
fn nothing_new_begins_while_it_shuts_down() {
    let (end, _ends) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen("127.0.0.1:0", Sender { ends: end.clone() }).unwrap();
    let client = Client::connect(service.address().unwrap().as_socket().unwrap());
    while reactor.counters().open < 1 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    reactor.stop();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.exit(), None, "there is somebody to wait for");
    let listening = reactor.listen("127.0.0.1:0", Sender { ends: end });
    assert!(matches!(listening, Err(Error::ShuttingDown)));
    let bound = reactor.bind(&service, "127.0.0.1:0");
    assert!(matches!(bound, Err(Error::ShuttingDown)));
    let dialled = reactor.connect(&service, "127.0.0.1:1");
    assert!(matches!(dialled, Err(Error::ShuttingDown)));
    drop(client);
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
}

#[test]
fn a_unix_sockets_path_goes_at_once_while_the_others_are_still_served() {
    let path = std::env::temp_dir().join(format!("reactor-shutdown-{}.sock", std::process::id()));
    let (end, _ends) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    reactor.listen(path.as_path(), Sender { ends: end }).unwrap();
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    while reactor.counters().open < 1 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    reactor.stop();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(!path.exists());
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "hello\nbye, all\n");
}

#[test]
fn several_reactors_in_a_process_do_not_know_of_each_other() {
    let (first, second) = (start(PATIENCE), start(PATIENCE));
    let (mut one, mut two) = (first.client(), second.client());
    first.handle.stop();
    assert_eq!(one.rest(), b"bye, all\n");
    drop(one);
    assert_eq!(first.thread.join().unwrap().0, Exit::Clean);
    two.send("1\n");
    two.expect(numbered(0));
    drop(two);
    assert_eq!(second.ending(), CloseReason::PeerClosed);
    second.handle.stop();
    let (_, counters) = second.thread.join().unwrap();
    assert_eq!((counters.accepted, counters.lines_in), (1, 1));
}

/// Keeps its connections for a while, and may close them before.
struct Keeper {
    time: Duration,
}

impl Handler for Keeper {
    type Session = ();
    type Message = &'static str;

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"DONE" => cx.close(),
            line => _ = cx.send([line, b"\n"].concat()),
        }
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, message: &'static str) {
        cx.broadcast(message);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, ()>) {
        cx.broadcast("last words?\n");
        cx.keep_open(self.time);
    }
}

/// A reactor with a service that keeps its connections, and one that does not.
fn keeper(time: Duration) -> (SocketAddr, SocketAddr, Handle<&'static str>, JoinHandle<Exit>) {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        reactor.set_shutdown_timeout(PATIENCE);
        let keeper = reactor.listen("127.0.0.1:0", Keeper { time }).unwrap();
        let (ends, _) = mpsc::channel();
        let other = reactor.listen("127.0.0.1:0", Sender { ends }).unwrap();
        let addr = |address: Option<&reactor::Address>| address.unwrap().as_socket().unwrap();
        tell.send((addr(keeper.address()), addr(other.address()), keeper.handle())).unwrap();
        reactor.run().unwrap()
    });
    let (keeper, other, handle) = told.recv_timeout(PATIENCE).unwrap();
    (keeper, other, handle, thread)
}

#[test]
fn a_handler_may_keep_its_connections_until_it_has_done_with_them() {
    let (addr, other, handle, thread) = keeper(10 * PATIENCE);
    let (mut kept, mut gone) = (Client::connect(addr), Client::connect(other));
    gone.expect("hello\n");
    kept.send("a\n");
    kept.expect("a\n");
    handle.stop();
    kept.expect("last words?\n");
    gone.expect("bye, all\n");
    assert_eq!(gone.rest(), b"");
    // It is served, and so are messages that come after the shutdown has begun.
    kept.send("b\n");
    kept.expect("b\n");
    handle.post("c\n").unwrap();
    kept.expect("c\n");
    kept.send("DONE\n");
    assert_eq!(kept.rest(), b"");
    drop((kept, gone));
    assert_eq!(thread.join().unwrap(), Exit::Clean);
}

#[test]
fn what_is_kept_open_is_closed_when_the_time_is_over() {
    let (addr, _, handle, thread) = keeper(Duration::from_millis(200));
    let mut kept = Client::connect(addr);
    kept.send("a\n");
    kept.expect("a\n");
    let began = Instant::now();
    handle.stop();
    kept.expect("last words?\n");
    assert_eq!(kept.rest(), b"");
    assert!(began.elapsed() >= Duration::from_millis(200));
    drop(kept);
    assert_eq!(thread.join().unwrap(), Exit::Clean);
}

/// Wants to keep its connections before it is told of the shutdown.
struct Hasty;

impl Handler for Hasty {
    type Session = ();
    type Message = ();

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, _message: ()) {
        cx.keep_open(10 * PATIENCE);
    }
}

#[test]
fn nothing_is_kept_open_before_the_handler_is_told_of_the_shutdown() {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        reactor.set_shutdown_timeout(2 * PATIENCE);
        let service = reactor.listen("127.0.0.1:0", Hasty).unwrap();
        tell.send((service.address().unwrap().as_socket().unwrap(), service.handle())).unwrap();
        reactor.run().unwrap()
    });
    let (addr, handle) = told.recv_timeout(PATIENCE).unwrap();
    let mut client = Client::connect(addr);
    // More than a turn takes, so that some are handled while the shutdown waits for them.
    (0..100_000).for_each(|_| handle.post(()).unwrap());
    handle.stop();
    assert_eq!(client.rest(), b"");
    drop(client);
    assert_eq!(thread.join().unwrap(), Exit::Clean);
}
