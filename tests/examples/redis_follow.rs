//! The follower of a Redis stream: through kills of a real server, and with what no server should say.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::util::example::{Example, binary};
use crate::util::{Client, DOOMED, PATIENCE, nobody, skip, until};

/// A Redis server that keeps whatever it has answered, in a folder that goes with this.
struct Redis {
    addr: SocketAddr,
    folder: PathBuf,
    child: Option<Child>,
}

impl Redis {
    /// None where it is not installed.
    fn start(name: &str) -> Option<Redis> {
        Command::new("redis-server").arg("--version").output().ok()?;
        let name = format!("reactor-redis-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut redis = Redis { addr: nobody(), folder, child: None };
        redis.run();
        Some(redis)
    }

    /// Starts it, after a [`kill`](Redis::kill) with what it has kept.
    fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &self.addr.ip().to_string()]);
        command.args(["--port", &self.addr.port().to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]).arg("--dir");
        command.arg(&self.folder).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        until("the server answers", || self.ask("PING").is_some_and(|said| said == "+PONG"));
    }

    /// Ends it with SIGKILL.
    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn ask(&self, command: &str) -> Option<String> {
        Asker::connect(self.addr)?.ask(command)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A client to whom it may happen that the server goes.
struct Asker(BufReader<TcpStream>);

impl Asker {
    fn connect(addr: SocketAddr) -> Option<Asker> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Asker(BufReader::new(stream)))
    }

    /// The answer, which is a line or a text; none if the connection is lost before.
    fn ask(&mut self, command: &str) -> Option<String> {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut line = String::new();
        for _ in 0..2 {
            line.clear();
            self.0.read_line(&mut line).ok()?;
            if !line.starts_with('$') {
                break;
            }
        }
        line.strip_suffix("\r\n").map(str::to_owned)
    }
}

/// Adds entries until `done` says so: those that were answered, as they are to be printed, and how many
/// those are. Never the same twice: what was lost with its answer may be there all the same.
fn add(addr: SocketAddr, answered: &AtomicUsize, done: &AtomicBool) -> Vec<String> {
    let (mut added, mut asker) = (Vec::new(), None);
    for number in 0_u64.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let Some(open) = asker.as_mut() else {
            asker = Asker::connect(addr);
            thread::yield_now();
            continue;
        };
        match open.ask(&format!("XADD news * number {number} text some-words")) {
            Some(id) if !id.starts_with('-') => {
                added.push(format!("{id} number {number} text some-words"));
                answered.store(added.len(), Ordering::Relaxed);
            }
            Some(_) => {} // it loads what it has kept
            None => asker = None,
        }
    }
    added
}

#[test]
fn redis_follow_loses_and_repeats_nothing_while_the_server_is_killed() {
    let Some(mut redis) = Redis::start("kills") else {
        return skip("redis-server is not installed");
    };
    let follow = Example::run("redis_follow", &[&redis.addr.to_string()]);
    let (answered, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let addr = redis.addr;
    let added = thread::scope(|scope| {
        let adding = scope.spawn(|| add(addr, &answered, &done));
        let more = |count: usize| {
            let wanted = answered.load(Ordering::Relaxed) + count;
            until("entries are added", || answered.load(Ordering::Relaxed) >= wanted);
        };
        for _ in 0..4 {
            more(200);
            redis.kill();
            redis.run();
            more(100);
            // The follower's connection and the adder's, at whatever point they are.
            let killed = redis.ask("CLIENT KILL TYPE normal").unwrap();
            assert!(killed.starts_with(':'), "{killed}");
        }
        more(100);
        done.store(true, Ordering::Relaxed);
        adding.join().unwrap()
    });
    let mut printed = Vec::new();
    while printed.last() != added.last() {
        printed.push(follow.line());
        // Each of the eight losses may have taken an answer along.
        assert!(printed.len() <= added.len() + 8, "more is printed than was added");
    }
    let number = |line: &str| -> u64 { line.split(' ').nth(2).unwrap().parse().unwrap() };
    assert!(printed.is_sorted_by(|one, next| number(one) < number(next)), "{printed:#?}");
    // An entry whose answer was lost may be there, or not.
    let is_added = |line: &str| added.binary_search_by_key(&number(line), |line| number(line));
    printed.retain(|line| is_added(line).is_ok());
    assert!(printed == added, "{} printed, {} added", printed.len(), added.len());
}

#[test]
fn redis_follow_prints_texts_of_any_kind_and_goes_on_where_it_is_told() {
    let Some(redis) = Redis::start("texts") else { return skip("redis-server is not installed") };
    let long = "x".repeat(300_000);
    let mut asker = Client::connect(redis.addr);
    asker.send("XADD my-news 1-1 a 1 b 2\r\nXADD my-news 2-1 \"\" \"\\x1b[2J\\n\"\r\n");
    asker.send("*5\r\n$4\r\nXADD\r\n$7\r\nmy-news\r\n$3\r\n3-1\r\n$5\r\nafter\r\n");
    asker.send(format!("${}\r\n{long}\r\n", long.len()));
    asker.expect("$3\r\n1-1\r\n$3\r\n2-1\r\n$3\r\n3-1\r\n");
    let follow = Example::run("redis_follow", &[&redis.addr.to_string(), "my-news"]);
    assert_eq!(follow.line(), "1-1 a 1 b 2");
    assert_eq!(follow.line(), "2-1  ?[2J?");
    assert!(follow.line() == format!("3-1 after {long}"));
    let follow = Example::run("redis_follow", &[&redis.addr.to_string(), "my-news", "3-1"]);
    asker.send("XADD my-news 4-1 c 3\r\n");
    assert_eq!(follow.line(), "4-1 c 3");
    // What is no stream.
    asker.send("SET news word\r\n");
    let output = run(redis.addr);
    let error = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{}: {error}\n", redis.addr));
    assert_eq!(output.status.code(), Some(1));
}

fn run(addr: SocketAddr) -> Output {
    let mut command = Command::new(binary("redis_follow"));
    command.arg(addr.to_string()).stdin(Stdio::null()).output().unwrap()
}

/// What it asks for behind an ID.
fn request(id: &str) -> String {
    let read = "*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$3\r\n100\r\n$5\r\nBLOCK\r\n$4\r\n5000\r\n";
    format!("{read}$7\r\nSTREAMS\r\n$4\r\nnews\r\n${}\r\n{id}\r\n", id.len())
}

/// A reply to the point where the first entry's fields are.
const HEAD: &str = "*1\r\n*2\r\n$4\r\nnews\r\n*2\r\n*2\r\n$3\r\n1-1\r\n";

#[test]
fn redis_follow_asks_again_for_what_was_cut_off() {
    let listener = TcpListener::bind(DOOMED).unwrap();
    let follow = Example::run("redis_follow", &[&listener.local_addr().unwrap().to_string()]);
    let mut server = Client::from(listener.accept().unwrap().0);
    server.expect(request("0"));
    server.send("*-1\r\n");
    server.expect(request("0"));
    // The second entry lacks its last byte.
    server.send(format!(
        "{HEAD}*2\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$3\r\n2-1\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r"
    ));
    assert_eq!(follow.line(), "1-1 a 1");
    server.reset();
    // It may be accepted, and have to wait.
    for passing in ["LOADING Redis is loading the dataset in memory", "BUSY Redis is busy"] {
        let mut server = Client::from(listener.accept().unwrap().0);
        server.expect(request("1-1"));
        server.send(format!("-{passing}\r\n"));
        server.end();
        server.rest();
    }
    let mut server = Client::from(listener.accept().unwrap().0);
    server.expect(request("1-1"));
    let entries = HEAD.replace("1-1", "2-1").replace("*2\r\n*2\r\n", "*1\r\n*2\r\n");
    server.send(format!("{entries}*2\r\n$1\r\nb\r\n$1\r\n2\r\n"));
    server.expect(request("2-1"));
    assert_eq!(follow.line(), "2-1 b 2");
}

#[test]
fn redis_follow_ends_with_a_line_where_the_server_says_what_it_should_not() {
    let huge = "an entry of more than 16777216 bytes";
    let not = |line: &str| format!("no reply to XREAD: {line}");
    let longer = not("a text that is longer than announced");
    for (said, told) in [
        ("-ERR unknown\x1b[2J command\r\n".to_owned(), "ERR unknown?[2J command".to_owned()),
        ("-NOAUTH Authentication required.\r\n".into(), "NOAUTH Authentication required.".into()),
        ("HTTP/1.1 400 Bad Request\r\n".into(), not("HTTP/1.1 400 Bad Request")),
        ("\r\n".into(), not("")),
        ("+OK\r\n".into(), not("+OK")),
        ("$-1\r\n".into(), not("$-1")),
        ("*1\r\n*-1\r\n".into(), not("*-1")),
        ("*1\r\n*3\r\n".into(), not("*3")),
        ("*99999999999999999999\r\n".into(), not("*99999999999999999999")),
        (format!("{HEAD}*-1\r\n"), not("*-1")),
        (format!("{HEAD}$1\r\n"), not("$1")),
        (format!("{HEAD}*2\r\n$-1\r\n"), not("$-1")),
        (format!("{HEAD}*2\r\n*1\r\n"), not("*1")),
        (format!("{HEAD}*2\r\n$1\r\nabcd"), longer),
        (format!("{HEAD}*2\r\n$18446744073709551615\r\n"), huge.into()),
        (format!("{HEAD}*2\r\n$16777213\r\n"), huge.into()),
    ] {
        let listener = TcpListener::bind(DOOMED).unwrap();
        let addr = listener.local_addr().unwrap();
        let output = thread::scope(|scope| {
            let running = scope.spawn(|| run(addr));
            let mut server = Client::from(listener.accept().unwrap().0);
            server.expect(request("0"));
            server.send(&said);
            running.join().unwrap()
        });
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{addr}: {told}\n"));
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]), "{said:?}");
    }
}
