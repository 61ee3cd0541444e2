//! Promise 7: idle is free. And the part of promise 1 that only an allocator sees: no allocation
//! for a line. And that a LIST of the roulette copies nothing of the store.
//!
//! All is measured on the heap, to the byte, by an allocator that counts what the reactor's turns
//! allocate and nothing else. Only the ten thousand connections are measured in resident memory as
//! well, in a process of their own, because that is what the figure is promised in.

#[path = "../util/mod.rs"]
mod util;

use std::cell::Cell;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use reactor::{Context, Handler, Limits, Reactor, Service, ServiceContext};

const BIG: usize = 8 * 1024 * 1024;

/// Answers each line with `ok`, and `big` with a lot. Behind `set` a block of 100 bytes follows,
/// which has the answer.
struct Frugal {
    big: Vec<u8>,
    /// What the turns have left on the heap.
    heap: Rc<Cell<i64>>,
}

impl Handler for Frugal {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("hello\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"set" => cx.take_block(100),
            b"big" => _ = cx.send(&self.big),
            _ => _ = cx.send("ok\n"),
        }
    }

    fn on_block(&mut self, cx: &mut Context<'_, ()>, _: &[u8], end: bool) {
        if end {
            cx.send("ok\n");
        }
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        println!("{} {} {}", cx.counters().open, self.heap.get(), resident());
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

struct World {
    reactor: Reactor<'static>,
    service: Service<()>,
    addr: SocketAddr,
    /// Bytes that the turns have left on the heap: fewer than none where they gave back what was
    /// there before.
    heap: Rc<Cell<i64>>,
    allocations: u64,
}

impl World {
    fn new(limits: Limits) -> World {
        let (mut reactor, heap) = (Reactor::new().unwrap(), Rc::default());
        let handler = Frugal { big: vec![b'x'; BIG], heap: Rc::clone(&heap) };
        let service = reactor.listen_with("127.0.0.1:0", handler, limits).unwrap();
        let addr = service.address().unwrap().as_socket().unwrap();
        World { reactor, service, addr, heap, allocations: 0 }
    }

    fn turn(&mut self, timeout: Option<Duration>) {
        let turn = measure(|| self.reactor.turn(timeout).unwrap());
        self.heap.set(self.heap.get() + turn.bytes_current);
        self.allocations += turn.count_total;
    }

    fn heap(&self) -> i64 {
        self.heap.get()
    }

    fn connect(&mut self) -> TcpStream {
        let mut client = connect(self.addr);
        client.set_nonblocking(true).unwrap();
        self.read(&mut client, b"hello\n".len());
        client
    }

    /// Turns until the client has got so many bytes.
    fn read(&mut self, client: &mut TcpStream, mut count: usize) {
        let mut buf = [0; 16 * 1024];
        let deadline = Instant::now() + util::PATIENCE;
        while count > 0 {
            let most = buf.len().min(count);
            match client.read(&mut buf[..most]) {
                Ok(0) => panic!("the end came"),
                Ok(got) => count -= got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "{count} bytes did not come");
                    self.turn(Some(Duration::from_millis(1)));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Turns until the reactor has read it all.
    fn write(&mut self, client: &mut TcpStream, mut bytes: &[u8]) {
        let wanted = self.reactor.counters().bytes_in + bytes.len() as u64;
        let deadline = Instant::now() + util::PATIENCE;
        while self.reactor.counters().bytes_in < wanted {
            assert!(Instant::now() < deadline, "{} bytes did not leave", bytes.len());
            match client.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            self.turn(Some(Duration::from_millis(1)));
        }
    }
}

/// A client whose end leaves no port behind that waits for stragglers.
fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    client
}

#[test]
fn after_a_long_line_an_idle_connection_owns_no_buffer() {
    let most = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let count = (most / 2).saturating_sub(200).min(1_000) as usize;
    let mut world = World::new(Limits::default());
    let mut clients: Vec<_> = (0..count).map(|_| world.connect()).collect();
    let line = vec![b'x'; 60_000];
    let before = world.heap();
    let (mut most, mut level) = (0, before);
    for (number, client) in clients.iter_mut().enumerate() {
        world.write(client, &line);
        most = most.max(world.heap() - before);
        // The end of the line, and a short one that comes in two pieces: what is kept of it is
        // as small as it is.
        world.write(client, b"\nsho");
        let more = world.heap() - level;
        assert!(number == 0 || more < 3_000, "{more} for 3");
        world.write(client, b"rt\n");
        world.read(client, 6);
        // The deadline of the unfinished line stays with the loop until it has passed.
        level = world.heap();
        if number == 0 {
            // The scratch buffer and the arena are there now.
            assert!(most >= 60_000, "an unfinished line is kept: {most}");
        }
    }
    let after = world.heap() - before;
    println!("{count} connections after lines of 60 KB own {after} bytes more than before");
    // What all share has grown once.
    assert!(after < 350_000, "{after}");
    level = world.heap();
    for client in &mut clients {
        world.write(client, &line);
        world.write(client, b"\n");
        world.read(client, 3);
    }
    let more = world.heap() - level;
    assert!(more <= 0, "{more} more after another round");
}

#[test]
fn after_a_backlog_an_idle_connection_owns_no_buffer() {
    let mut world = World::new(Limits::default());
    let mut clients: Vec<_> = (0..20).map(|_| world.connect()).collect();
    let mut level = 0;
    for (number, client) in clients.iter_mut().enumerate() {
        if number == 1 {
            level = world.heap();
        }
        world.write(client, b"big\n");
        for _ in 0..5 {
            world.turn(Some(Duration::ZERO));
        }
        assert!(number == 0 || world.heap() > level + 100_000, "the kernel took all of it");
        world.read(client, BIG);
        world.turn(Some(Duration::ZERO));
    }
    let more = world.heap() - level;
    assert!(more <= 1_000, "{more} more for 19 backlogs");
}

#[test]
fn nothing_is_allocated_for_a_line() {
    let mut world = World::new(Limits::default());
    let mut client = world.connect();
    let lines = b"a line of the usual length\n".repeat(1_000);
    world.write(&mut client, &lines);
    world.read(&mut client, 3_000);
    let before = world.allocations;
    for _ in 0..20 {
        world.write(&mut client, &lines);
        world.read(&mut client, 3_000);
    }
    let count = world.allocations - before;
    println!("{count} allocations for 20000 lines");
    assert!(count < 500, "{count} allocations for 20000 lines");
}

/// Whatever is loaded while they are under way.
#[test]
#[cfg(feature = "services")]
fn unread_lists_cost_the_same_however_long_they_are() {
    use reactor::services::roulette::{Roulette, Version};
    use reactor::testing::Harness;

    let heap = |names: usize| {
        let mut store = Roulette::new(Version::Two, 64 << 20);
        // Two of them do not fit into one chunk.
        let text = format!("{}\n", "x".repeat(20_000)).repeat(names);
        assert_eq!(store.load(text.as_bytes()), Ok(names));
        let mut server = Harness::new(store);
        let other = server.connect();
        let clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
        clients.iter().for_each(|client| server.take_only(*client, Some(0)));
        let lists = measure(|| {
            for client in clients {
                server.feed(client, "LIST\n");
                server.feed(other, "LOAD\nnew\nENDOFDATA\n");
            }
        });
        lists.bytes_current
    };
    let (short, long) = (heap(10), heap(1_000));
    println!("100 unread LISTs: {short} bytes for 10 names, {long} for 1,000");
    assert!(long - short < 10_000, "{long} bytes for a long list, {short} for a short one");
}

#[test]
fn nothing_is_allocated_for_a_block() {
    let mut world = World::new(Limits::default());
    let mut client = world.connect();
    let block = [b"set\n", &[b'x'; 100][..]].concat();
    let many = block.repeat(1_000);
    let round = |world: &mut World, client: &mut TcpStream| {
        world.write(client, &many);
        world.read(client, 3_000);
        // Also where blocks come one at a time, each in two pieces.
        for _ in 0..5 {
            world.write(client, &block[..50]);
            world.write(client, &block[50..]);
            world.read(client, 3);
        }
    };
    round(&mut world, &mut client);
    let (before, heap) = (world.allocations, world.heap());
    for _ in 0..20 {
        round(&mut world, &mut client);
    }
    let count = world.allocations - before;
    println!("{count} allocations for 20100 blocks");
    assert!(count < 500, "{count} allocations for 20100 blocks");
    assert!(world.heap() - heap <= 0, "{} bytes more", world.heap() - heap);
}

/// The process that is measured: it serves, and reports when asked.
fn serves_and_reports() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let limits = Limits { max_connections: 20_000, ..Limits::default() };
    let mut world = World::new(limits);
    println!("\nport {}", world.addr.port());
    let handle = world.service.handle();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            handle.post(()).unwrap();
        }
        handle.stop();
    });
    while world.reactor.exit().is_none() {
        world.turn(None);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_idle_connections() {
    const SERVES: &str = "REACTOR_TEST_SERVES";
    if std::env::var_os(SERVES).is_some() {
        return serves_and_reports();
    }
    let most = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let count = most.saturating_sub(200).min(10_000) as usize;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ten_thousand_idle_connections", "--nocapture"])
        .env(SERVES, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let port = answers.find_map(|line| line.strip_prefix("port ").map(str::to_owned)).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let mut report = || {
        ask.write_all(b"\n").unwrap();
        let line = answers.next().unwrap();
        let mut numbers = line.split(' ').map(|number| number.parse::<usize>().unwrap());
        [numbers.next().unwrap(), numbers.next().unwrap(), numbers.next().unwrap()]
    };
    let mut greeting = [0; 6];
    let mut clients = Vec::new();
    let mut grow = |to| {
        while clients.len() < to {
            let mut client = connect(addr);
            client.read_exact(&mut greeting).unwrap();
            clients.push(client);
        }
    };
    // What one connection needs, all share from then on.
    grow(10);
    report();
    let [_, heap, resident] = report();
    grow(count);
    let [open, heap_after, resident_after] = report();
    assert_eq!(open, count);
    let resident = (resident_after - resident) / (count - 10);
    // The tables double, and so have room for more.
    let places = count.next_power_of_two();
    let heap = (heap_after - heap) / places;
    println!(
        "{count} idle connections: {resident} bytes of resident memory each \
         ({heap} asked of the heap for each of {places} places)"
    );
    assert!(heap < 128, "{heap} bytes each");
    // Resident memory comes in pages, and where the system likes huge ones two megabytes at once.
    let pages = (4 << 20) / count;
    assert!(resident < 160 + pages, "{resident} bytes each");
    drop((clients, ask));
    assert!(child.wait().unwrap().success());
}
