//! The concurrency models of `examples/models`: each speaks the whole echo protocol, and each does
//! it with the processes and threads that it is about.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::process::Command;
use std::time::Duration;

use crate::util::example::{Example, binary};
use crate::util::{Client, until};

const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";
const MAX_LINE: usize = 64 * 1024;

const ONE: &str = "one-at-a-time";
const POOL: &str = "thread-pool";
const PROCESSES: &str = "process-per-client";
const THREADS: &str = "thread-per-client";
const SINGLE: [&str; 3] = ["readiness", "callbacks", "reactor"];

fn models() -> impl Iterator<Item = &'static str> {
    [ONE, PROCESSES, THREADS, POOL].into_iter().chain(SINGLE)
}

fn start(model: &str) -> Example {
    Example::start_by(Command::new(binary("models")).args([model, "127.0.0.1:0"]))
}

/// Greeted.
fn join(server: &Example) -> Client {
    let mut client = server.connect();
    client.stream.set_nodelay(true).unwrap();
    client.expect(GREETING);
    client
}

#[track_caller]
fn echo(client: &mut Client, text: &str) {
    client.send(format!("{text}\n"));
    client.expect(format!("> {}\n", text.to_uppercase()));
}

/// Connected, and not served: nothing has come.
#[track_caller]
fn expect_silence(client: &mut Client, model: &str) {
    client.stream.set_nonblocking(true).unwrap();
    let heard = client.stream.read(&mut [0; 1]);
    assert!(heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{model}");
    client.stream.set_nonblocking(false).unwrap();
}

#[test]
fn every_model_gives_the_same_answers_however_the_lines_are_cut() {
    let lines = "hello, été\r\n\n\r\nStraße ŉ\nbye bye\n bye\na\rb\r\r\nBye\n".as_bytes();
    let replies =
        "> HELLO, ÉTÉ\n> \n> \n> STRASSE ʼN\n> BYE BYE\n>  BYE\n> A\rB\r\n> BYE\n".as_bytes();
    for model in models() {
        let server = start(model);
        for size in [lines.len(), 1, 2, 3, 7] {
            let mut client = join(&server);
            lines.chunks(size).for_each(|piece| client.send(piece));
            assert_eq!(client.rest(), replies, "{model}, {size} bytes at once");
        }
        // What is not UTF-8 comes back as it is, but for the ASCII letters.
        let mut client = join(&server);
        client.send(b"caf\xe9 \xff\x00\nand on\nbye\nnever\n");
        assert_eq!(client.rest(), b"> CAF\xe9 \xff\x00\n> AND ON\n> BYE\n", "{model}");
    }
}

#[test]
fn every_model_answers_those_who_have_ended_their_side() {
    for model in models() {
        let server = start(model);
        for (sent, heard) in [
            ("one\ntwo", "> ONE\n> TWO\n"),
            ("one\r\ntwo\r", "> ONE\n> TWO\n"),
            ("one\n", "> ONE\n"),
            ("bye", "> BYE\n"),
            ("", ""),
        ] {
            let mut client = join(&server);
            client.send(sent);
            client.end();
            assert_eq!(String::from_utf8_lossy(&client.rest()), heard, "{model}, {sent:?}");
        }
    }
}

#[test]
fn every_model_has_the_same_limit_of_a_line() {
    let longest = vec![b'x'; MAX_LINE];
    let complaint = format!("Line too long (limit {MAX_LINE} bytes)\n");
    for model in models() {
        let server = start(model);
        for end in ["\n", "\r\n"] {
            let mut client = join(&server);
            client.send(&longest);
            client.send(end);
            client.expect([b"> ", &longest.to_ascii_uppercase()[..], b"\n"].concat());
            echo(&mut client, "and on");
        }
        // One too many, with and without an end, and with much behind it that nobody reads.
        for more in [&b"y"[..], b"\r\r", b"y\n", b"y\r\n", &[b'y'; 300_000]] {
            let mut client = join(&server);
            client.send(&longest);
            client.send(more);
            let told = String::from_utf8_lossy(&client.rest()).into_owned();
            assert!(told == complaint, "{model}, {:?}...: {:.80}", more[0] as char, told);
        }
    }
}

#[test]
fn those_who_are_served_at_once_do_not_wait_for_each_other() {
    for model in models().filter(|model| *model != ONE) {
        let server = start(model);
        let mut clients: Vec<Client> = (0..5).map(|_| join(&server)).collect();
        for round in 0..3 {
            for (n, client) in clients.iter_mut().enumerate().rev() {
                echo(client, &format!("client {n} round {round}"));
            }
        }
        // One that does not read what it asks for: it is held back, and alone.
        let rude = &mut clients[0];
        rude.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let flood = "the quick brown fox\n".repeat(1000);
        while rude.stream.write_all(flood.as_bytes()).is_ok() {}
        // Two that are gone without goodbye.
        clients.pop().unwrap().reset();
        drop(clients.pop());
        for client in &mut clients[1..] {
            echo(client, "still here");
        }
        echo(&mut join(&server), "and new ones come");
    }
}

#[test]
fn one_at_a_time_lets_the_next_wait_until_this_one_has_left() {
    let server = start(ONE);
    let mut first = join(&server);
    let mut second = server.connect();
    let mut third = server.connect();
    second.send("asked long ago\n");
    for _ in 0..3 {
        echo(&mut first, "all for me");
    }
    expect_silence(&mut second, ONE);
    first.reset();
    second.expect(GREETING);
    second.expect("> ASKED LONG AGO\n");
    expect_silence(&mut third, ONE);
    second.send("bye\n");
    assert_eq!(second.rest(), b"> BYE\n");
    drop(second);
    third.expect(GREETING);
}

#[test]
fn a_pool_serves_as_many_as_it_has_threads() {
    let server = start(POOL);
    let mut served: Vec<Client> = (0..64).map(|_| join(&server)).collect();
    let mut next = server.connect();
    for client in &mut served {
        echo(client, "one of 64");
    }
    expect_silence(&mut next, POOL);
    drop(served.swap_remove(30));
    next.expect(GREETING);
    echo(&mut next, "at last");
}

/// With five clients: the model is what it is called.
#[test]
#[cfg(target_os = "linux")]
fn each_model_has_the_processes_and_threads_it_is_about() {
    let wanted = [(ONE, 1, 0), (PROCESSES, 1, 5), (THREADS, 6, 0), (POOL, 65, 0)];
    for (model, threads, processes) in wanted.into_iter().chain(SINGLE.map(|name| (name, 1, 0))) {
        let server = start(model);
        let clients = if model == ONE { 1 } else { 5 };
        let _clients: Vec<Client> = (0..clients).map(|_| join(&server)).collect();
        let tasks = format!("/proc/{}/task", server.pid());
        // The pool may still be starting the rest of its own.
        until(model, || fs::read_dir(&tasks).unwrap().count() == threads);
        assert_eq!(children(&server).len(), processes, "{model}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_dies_takes_its_own_client_only_and_is_buried() {
    let server = start(PROCESSES);
    let mut first = join(&server);
    let doomed = children(&server)[0];
    let mut second = join(&server);
    kill(doomed);
    assert_eq!(first.rest(), b"");
    echo(&mut second, "not me");
    until("the process has ended", || state(doomed) == Some('Z'));
    // Each newcomer has the dead buried before it is served.
    let mut third = join(&server);
    echo(&mut third, "who was that");
    assert_eq!(state(doomed), None);
    assert_eq!(children(&server).len(), 2);
    // The sessions outlive their server.
    drop(server);
    echo(&mut second, "on and on");
    third.send("bye\n");
    assert_eq!(third.rest(), b"> BYE\n");
}

#[test]
fn without_a_descriptor_for_a_newcomer_the_servers_wait_for_one() {
    for model in [THREADS, POOL, "readiness"] {
        let script = "ulimit -n 20 && exec \"$0\" \"$@\" 2>&1";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(binary("models")).args([model, "127.0.0.1:0"]);
        let server = Example::start_by(&mut shell);
        let mut first = join(&server);
        let crowd: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        assert!(server.line().starts_with("cannot accept: "), "{model}");
        echo(&mut first, "not in the way");
        drop(crowd);
        echo(&mut join(&server), "room again");
    }
}

#[test]
fn what_cannot_be_served_is_told_in_a_line() {
    let run = |args: &[&str]| {
        let output = Command::new(binary("models")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let server = start(ONE);
    let taken = server.addr.to_string();
    for model in models() {
        let (status, error) = run(&[model, &taken]);
        let told = error.contains("cannot listen") && error.contains("choose another");
        assert!(status == Some(1) && told && error.lines().count() == 1, "{model}: {error}");
    }
    let (status, error) = run(&["fork"]);
    assert!(status == Some(2) && error.starts_with("models: there is no \"fork\""), "{error}");
    assert!(error.lines().count() == 1 && models().all(|model| error.contains(model)), "{error}");
    for args in [&[][..], &[ONE, &taken, "more"]] {
        let (status, error) = run(args);
        assert!(status == Some(2) && error.starts_with("Usage: models MODEL"), "{error}");
        assert!(models().all(|model| error.contains(model)), "{error}");
    }
    let (status, error) = run(&["session"]);
    assert!(status == Some(1) && error.contains("start process-per-client"), "{error}");
}

fn children(server: &Example) -> Vec<u32> {
    let pid = server.pid();
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn kill(pid: u32) {
    let status = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
    assert!(status.expect("no kill").success());
}

/// `Z` for a zombie; none where there is no such process.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
