//! What the tests share: a reactor in a thread of its own, and blocking clients that assert raw
//! bytes. Nothing here sleeps to synchronise; every wait ends at a deadline with a message.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod example;
pub mod folder;
pub mod frames;
pub mod http;
#[cfg(feature = "cli")]
pub mod load;
pub mod namespace;
#[cfg(feature = "cli")]
pub mod program;
#[cfg(feature = "cli")]
pub mod redis;
pub mod stranger;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "cli")]
pub mod transcript;
pub mod websocket;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reactor::{Address, Core, Cores, Counters, Exit, Handle, Handler, Limits, Reactor};

/// How long anything may take before a test fails: generous, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where listeners are that are to go while the test runs: an address apart, so that nobody else
/// gets their port meanwhile, neither another test nor a client of one.
pub const DOOMED: &str = "127.0.0.4:0";

/// Held by a test that needs the machine to itself.
pub type Quiet = MutexGuard<'static, ()>;

/// Tests that measure a time or the memory, and those that take thousands of sockets, go one at a
/// time. What neither disturbs nor is disturbed does not ask.
pub fn quiet() -> Quiet {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address at which nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind(DOOMED).unwrap().local_addr().unwrap()
}

/// As often as it takes: a process that was stopped and goes on has its reads from a socket with a
/// timeout interrupted.
pub fn again(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// A reactor with one service on a free port, run by a thread until [`stop`](Server::stop).
pub struct Server<M> {
    pub addr: SocketAddr,
    pub handle: Handle<M>,
    thread: Option<JoinHandle<(Exit, Counters)>>,
}

impl<M: Send + 'static> Server<M> {
    /// `make` runs in the reactor's thread, so the handler need not be `Send`.
    pub fn start<H>(limits: Limits, make: impl FnOnce() -> H + Send + 'static) -> Server<M>
    where
        H: Handler<Message = M> + 'static,
    {
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::new().unwrap();
            let service = reactor.listen_with("127.0.0.1:0", make(), limits).unwrap();
            let addr = service.address().unwrap().as_socket().unwrap();
            tell.send((addr, service.handle())).unwrap();
            let exit = reactor.run().unwrap();
            (exit, reactor.counters())
        });
        let (addr, handle) = told.recv_timeout(PATIENCE).expect("the reactor did not start");
        Server { addr, handle, thread: Some(thread) }
    }

    /// The same with a handler on each of several cores.
    pub fn on_cores<H>(
        count: usize,
        limits: Limits,
        make: impl Fn(Core<M>) -> H + Send + Sync + 'static,
    ) -> Server<M>
    where
        H: Handler<Message = M> + 'static,
    {
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut cores = Cores::new(count).unwrap();
            let service = cores.listen_with("127.0.0.1:0", make, limits).unwrap();
            let addr = service.address().and_then(Address::as_socket).unwrap();
            tell.send((addr, service.handles()[0].clone())).unwrap();
            let exit = cores.run().unwrap();
            (exit, cores.status().counters)
        });
        let (addr, handle) = told.recv_timeout(PATIENCE).expect("the cores did not start");
        Server { addr, handle, thread: Some(thread) }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Shuts down gracefully; gives how it ended and what was counted.
    pub fn stop(mut self) -> (Exit, Counters) {
        self.handle.stop();
        self.thread.take().unwrap().join().expect("the reactor panicked")
    }
}

impl Server<mpsc::Sender<Counters>> {
    /// What the loop has counted so far; the handler must answer its messages with it.
    pub fn counters(&self) -> Counters {
        let (tell, told) = mpsc::channel();
        self.handle.post(tell).unwrap();
        told.recv_timeout(PATIENCE).expect("the loop does not answer")
    }
}

impl<M> Drop for Server<M> {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// A blocking client.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    /// Read but not asked for yet.
    ahead: Vec<u8>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        Client::from(TcpStream::connect(addr).unwrap())
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Ends the client's side, as `nc -N` does.
    pub fn end(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next line, its LF included.
    pub fn line(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                return String::from_utf8(line).unwrap();
            }
            let mut buf = [0; 64 * 1024];
            let count = again(|| self.stream.read(&mut buf)).expect("no line came");
            assert!(count > 0, "the end came instead of a line, after {:?}", self.ahead);
            assert!(Instant::now() < deadline, "no line came in time");
            self.ahead.extend(&buf[..count]);
        }
    }

    /// Asserts that exactly these bytes come next.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let wanted = bytes.as_ref();
        while self.ahead.len() < wanted.len() {
            let mut buf = vec![0; wanted.len() - self.ahead.len()];
            match again(|| self.stream.read(&mut buf)) {
                Ok(count) if count > 0 => self.ahead.extend(&buf[..count]),
                other => panic!(
                    "{other:?} after {:?}, wanted {:?}",
                    String::from_utf8_lossy(&self.ahead),
                    String::from_utf8_lossy(wanted)
                ),
            }
        }
        let rest = self.ahead.split_off(wanted.len());
        let got = std::mem::replace(&mut self.ahead, rest);
        assert!(
            got == wanted,
            "got {:?}, wanted {:?}",
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(wanted)
        );
    }

    /// All that comes until the server ends its side; an error (a reset) fails the test.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.ahead);
        self.stream.read_to_end(&mut all).expect("a reset or a timeout instead of the end");
        all
    }

    /// Resets the connection when dropped, instead of ending it.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, ahead: Vec::new() }
    }
}

/// Says that this test is skipped and why, unless it must not be: where the environment variable
/// `CI` or `REACTOR_SKIP_NOTHING` is set it fails.
#[track_caller]
pub fn skip(why: &str) {
    let set = |name| std::env::var_os(name).is_some();
    assert!(!set("CI") && !set("REACTOR_SKIP_NOTHING"), "it must not be skipped: {why}");
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{test}: skipped: {why}");
}

/// The most memory that a process has ever had, in bytes; Linux says so.
pub fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Waits until something is so, by asking again and again.
#[track_caller]
pub fn until(what: &str, so: impl FnMut() -> bool) {
    until_within(PATIENCE, what, so);
}

/// The same, where there is more to do than can be asked of a busy machine in that time.
#[track_caller]
pub fn until_within(patience: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}
