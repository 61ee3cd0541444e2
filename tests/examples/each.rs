//! The examples, each started as a program and talked to over real sockets.

use std::io::{Read as _, Write as _, pipe};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use crate::util::example::{Example, binary};
use crate::util::namespace::inside;
use crate::util::websocket::{BINARY, TEXT, masked, open, plain};
use crate::util::{Client, DOOMED, PATIENCE, again, until};

#[test]
fn hello_says_hello_and_hangs_up() {
    let example = Example::start("hello");
    for _ in 0..3 {
        assert_eq!(example.connect().rest(), b"Hello, world!\n");
    }
}

#[test]
fn websocket_echoes_lines_and_bytes() {
    let mut command = Command::new(binary("websocket"));
    let example = Example::start_by(command.args(["127.0.0.1:0", "127.0.0.1:0"]));
    let mut lines = open(example.addr);
    lines.send(masked(TEXT, "hello\nyou"));
    lines.expect([plain(TEXT, "hello"), plain(TEXT, "you")].concat());
    let second = example.line();
    let mut bytes = open(second.strip_prefix("listening for bytes on ").unwrap().parse().unwrap());
    bytes.send(masked(BINARY, b"\xFF\n"));
    bytes.expect(plain(BINARY, b"\xFF\n"));
}

#[test]
fn upgrading_goes_on_in_another_process_in_the_middle_of_a_line() {
    /// Ended however the test ends.
    struct Next(Option<u32>);
    impl Drop for Next {
        fn drop(&mut self) {
            let pid = self.0.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
            pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
    }

    let example = Example::start("upgrading");
    let (mut first, mut second) = (example.connect(), example.connect());
    first.send("hello\nin the mid");
    first.expect("line 1 of yours, 1 of all\n");
    second.send("upgrade\n");
    // The two processes print these in any order.
    let mut said = [example.line(), example.line()];
    said.sort_unstable();
    let pid = said[1].strip_prefix("process ").and_then(|rest| rest.split_once(' '));
    let (pid, rest) = pid.expect(&said[1]);
    let mut next = Next(Some(pid.parse().unwrap()));
    assert_eq!(
        (&*said[0], rest),
        (&*format!("listening on {}", example.addr), "goes on with 2 clients")
    );
    first.send("dle\n");
    first.expect("line 2 of yours, 2 of all\n");
    example.connect().send("stop\n");
    assert_eq!((first.rest(), second.rest()), (vec![], vec![]));
    next.0 = None;
}

#[test]
fn callbacks_upper_case_lines_and_share_their_counts() {
    let example = Example::start("callbacks");
    let mut first = example.connect();
    first.expect("Welcome! You are 1 of 1. Say `bye` to leave.\n");
    let mut second = example.connect();
    second.expect("Welcome! You are 2 of 2. Say `bye` to leave.\n");
    second.send("hello, été\r\nbye\nnever\n");
    assert_eq!(second.rest(), "HELLO, ÉTÉ\nBYE\n".as_bytes());
    assert_eq!(example.line(), "one left (closed by the handler), 1 still here");
    first.send("the last words");
    first.end();
    assert_eq!(first.rest(), b"THE LAST WORDS\n");
    assert_eq!(example.line(), "one left (closed by the peer), 0 still here");
    example.connect().expect("Welcome! You are 1 of 3. Say `bye` to leave.\n");
}

#[test]
fn auction_has_one_highest_bid_on_all_cores() {
    let example = Example::start("auction");
    let mut bidders: Vec<Client> = Vec::new();
    let mut highest = 0;
    for number in 0..6 {
        let mut bidder = example.connect();
        bidder.expect(format!("Bids are above {highest}. Who are you?\n"));
        bidder.send(format!("b{number}\n{}\n{highest}\nhi\n", highest + 7));
        highest += 7;
        bidders.push(bidder);
        let heard = format!(
            "b{number} bids {highest}\nb{number}, bids are above {highest}\nb{number}: hi\n"
        );
        bidders.iter_mut().for_each(|bidder| bidder.expect(&heard));
    }
    let mut other = example.connect();
    other.send("B3\n99\n");
    other.expect(format!(
        "Bids are above {highest}. Who are you?\n\
         Another B3 bids here: come again as somebody else.\n"
    ));
    bidders[0].send("bye");
    bidders[0].end();
    bidders.iter_mut().for_each(|bidder| bidder.expect("b0: bye\n"));
    assert_eq!(bidders[0].rest(), b"");
}

#[cfg(all(feature = "cli", target_os = "linux"))]
#[test]
fn auction_is_one_with_others_over_redis() {
    if !crate::util::redis::installed() {
        return;
    }
    let redis = crate::util::redis::Redis::start();
    let url = format!("redis://{}/1?room=stamps", redis.addr);
    let start = || Example::start_by(Command::new(binary("auction")).args(["127.0.0.1:0", &url]));
    let (here, there) = (start(), start());
    let (mut ann, mut bob) = (here.connect(), there.connect());
    for bidder in [&mut ann, &mut bob] {
        bidder.expect("Bids are above 0. Who are you?\n");
    }
    ann.send("ann\n20\n");
    for bidder in [&mut ann, &mut bob] {
        bidder.expect("ann bids 20\n");
    }
    bob.send("ANN\n");
    bob.expect("Another ANN bids here: come again as somebody else.\n");
}

#[test]
fn embed_is_a_chat_of_those_who_say_their_name() {
    let example = Example::start("embed");
    let join = |name: &str| {
        let mut client = example.connect();
        client.expect("Who are you? Ten seconds to say it.\n");
        client.send(format!("{name}\n"));
        client
    };
    let mut shy = example.connect();
    let mut ann = join("ann");
    ann.expect("* ann is here\n");
    let mut bob = join("b\x1b[31mob");
    bob.expect("* b?[31mob is here\n");
    bob.send("hello\n");
    bob.end();
    assert_eq!(bob.rest(), b"b?[31mob: hello\n");
    ann.expect("* b?[31mob is here\nb?[31mob: hello\n* b?[31mob left\n");
    assert_eq!(shy.rest(), b"Who are you? Ten seconds to say it.\n* too late\n");
    // Ann hears nothing of one that never said its name.
    ann.send("still here\n");
    ann.expect("ann: still here\n");
}

#[test]
fn foreign_loop_serves_the_guest_and_minds_its_own_socket() {
    let example = Example::start("foreign_loop");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = || {
        udp.send_to(b"\n", example.addr).unwrap();
        let mut buf = [0; 64];
        let count = again(|| udp.recv(&mut buf)).expect("no answer from the host");
        String::from_utf8(buf[..count].to_vec()).unwrap()
    };
    assert_eq!(ask(), "clients of the guest: 0\n");
    // On a busy machine their two seconds may be over before it is asked.
    until("the guest's clients are counted", || {
        let mut clients = [example.connect(), example.connect()];
        clients.iter_mut().for_each(|client| client.expect("One moment...\n"));
        let counted = ask();
        for mut client in clients {
            assert_eq!(client.rest(), b"Thank you for waiting.\n");
        }
        until("the guest's clients are gone", || ask() == "clients of the guest: 0\n");
        counted == "clients of the guest: 2\n"
    });
}

#[test]
fn offload_answers_in_order_and_others_meanwhile() {
    let example = Example::start("offload");
    let mut slow = example.connect();
    // Far more than it can do while this test lasts.
    slow.send("1000000000\n10\n");
    let mut client = example.connect();
    client.send("200000\nten\n100\n\n0\n10");
    client.end();
    let answers = "17984 primes below 200000\na number, please\n25 primes below 100\n\
                   a number, please\n0 primes below 0\n4 primes below 10\n";
    assert_eq!(String::from_utf8_lossy(&client.rest()), answers);
    slow.stream.set_nonblocking(true).unwrap();
    let early = slow.stream.read(&mut [0; 64]);
    assert!(early.is_err(), "an answer overtook the one before it: {early:?}");
}

#[test]
fn admin_console_shows_and_changes_the_program() {
    let example = Example::start("admin_console");
    let mut client = example.connect();
    let jobs = |client: &mut Client| -> u64 {
        client.send("status\n");
        let line = client.line();
        let (jobs, rest) = line.split_once(' ').unwrap();
        assert!(rest.starts_with("jobs done, pause "), "{line:?}");
        jobs.parse().unwrap()
    };
    client.send("pause 1\r\npause a\npause\n");
    client.expect("pause 1 ms\n");
    client.expect("Say `status` or `pause MILLISECONDS`.\n".repeat(2));
    let before = jobs(&mut client);
    until("the program works while it is asked", || jobs(&mut client) > before + 2);
    client.send("pause 86400000\n");
    client.expect("pause 86400000 ms\n");
    let mut other = example.connect();
    other.send("status\n");
    assert!(other.line().ends_with(" jobs done, pause 86400000 ms\n"));
}

#[test]
fn client_prints_what_the_server_says_and_tells_how_it_ended() {
    let listener = TcpListener::bind(DOOMED).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut command = Command::new(binary("client"));
    let command = command.arg(addr.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().expect("is it built? cargo build --examples");
    let mut server = Client::from(listener.accept().unwrap().0);
    server.expect("hello\nhow are you\nbye\n");
    server.send("one\ntwo\r\n");
    drop((server, listener));
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"one\ntwo\n");
    assert!(output.status.success());

    let output = Command::new(binary("client")).arg(addr.to_string()).output().unwrap();
    assert_eq!(output.stderr, b"the server is gone: connection refused\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn discover_hears_two_announcers_and_forgets_one_that_is_killed() {
    if !inside("true") {
        return;
    }
    let echo = Example::run("announce", &[]);
    let discover = Example::run("discover", &[]);
    assert_eq!(discover.line(), "+ echo 127.0.0.1:2323");
    let time = Example::run("announce", &["ti\x1b[2Jme", "127.0.0.1:2205"]);
    // On a busy machine others may come and go.
    let next_about_time = || loop {
        let line = discover.line();
        if line.contains("2205") {
            return line;
        }
    };
    assert_eq!(next_about_time(), "+ ti?[2Jme 127.0.0.1:2205");
    drop(time);
    assert_eq!(next_about_time(), "- ti?[2Jme 127.0.0.1:2205");
    // One that comes later asks, and is heard by all.
    assert_eq!(Example::run("discover", &[]).line(), "+ echo 127.0.0.1:2323");
    drop(echo);
}

#[test]
fn dumb_http_client_prints_every_byte_until_the_server_closes() {
    let listener = TcpListener::bind(DOOMED).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut command = Command::new(binary("dumb_http_client"));
    let command = command.arg(addr.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().expect("is it built? cargo build --examples");
    let mut server = Client::from(listener.accept().unwrap().0);
    server.expect("Hello, sorry, but I don't speak HTTP...\r\n\r\n");
    let mut answer =
        b"HTTP/1.1 400 Bad Request\r\n\r\n\0\xff a last line without its end ".to_vec();
    // More than the limit of a line, which this is not.
    answer.extend([b'x'; 200_000]);
    answer.chunks(7001).for_each(|piece| server.send(piece));
    drop((server, listener));
    let output = running.wait_with_output().unwrap();
    assert!(output.stdout == answer, "{} bytes instead of {}", output.stdout.len(), answer.len());
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));

    let output = Command::new(binary("dumb_http_client")).arg(addr.to_string()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{addr}: connection refused\n"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn changing_follows_commands_while_it_serves() {
    let (stdin, mut typing) = pipe().unwrap();
    let mut command = Command::new(binary("changing"));
    let example = Example::start_typing(command.arg("127.0.0.1:0"), stdin);
    let mut say = |line: &str| {
        typing.write_all(format!("{line}\n").as_bytes()).unwrap();
        example.line()
    };
    let mut early = example.connect();
    early.send("hello\n");
    early.expect("hello!\n");
    let opened = say("open 127.0.0.1:0");
    let second = opened.strip_prefix("listening on ").unwrap();
    let mut client = Client::connect(second.parse().unwrap());
    client.send("you\n");
    client.expect("you!\n");
    assert!(say("max-line none").starts_with("bad limit max_line"));
    assert_eq!(say("max-line 3"), "lines of 3 bytes");
    assert_eq!(say(&format!("close {second}")), format!("not listening on {second}"));
    assert!(say(&format!("allow {second} ::1")).starts_with("not listening on"));
    let first = example.addr.to_string();
    assert_eq!(say(&format!("allow {first} 10.0.0.0/8")), format!("10.0.0.0/8 at {first}"));
    // Clients that were connected before stay.
    for client in [&mut early, &mut client] {
        client.send("you\n");
        client.expect("you!\n");
    }
}

#[test]
fn watch_stdin_says_whether_there_is_input_within_five_seconds() {
    let run = |stdin: Stdio| {
        let output = Command::new(binary("watch_stdin")).stdin(stdin).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (stdin, mut typing) = pipe().unwrap();
    let nothing = typing.try_clone().unwrap();
    typing.write_all(b"x").unwrap();
    assert_eq!(run(stdin.try_clone().unwrap().into()), "Data is available now.\n");
    assert_eq!(run(Stdio::null()), "Data is available now.\n");
    // The first has taken what there was, and the other end is still open.
    assert_eq!(run(stdin.into()), "No data within five seconds.\n");
    drop(nothing);
}

#[test]
fn presence_client_says_what_is_typed_and_prints_what_it_hears() {
    let listener = TcpListener::bind(DOOMED).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (stdin, mut typing) = pipe().unwrap();
    let mut command = Command::new(binary("presence_client"));
    command.args([&addr, "olivier"]).stdin(stdin).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    let mut server = Client::from(listener.accept().unwrap().0);
    server.expect("HELLO olivier\n");
    server.send("Welcome\nolivier is in the room.\n");
    typing.write_all("hello, été\n\nWHO\nwho is here?\nlast".as_bytes()).unwrap();
    server.expect("SAY hello, été\nSAY \nWHO\nSAY who is here?\n");
    drop(typing);
    server.expect("SAY last\nBYE\n");
    server.send("olivier is about to leave the room.\n");
    server.end();
    let output = child.wait_with_output().unwrap();
    let heard = "Welcome\nolivier is in the room.\nolivier is about to leave the room.\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), heard);
    assert!(output.status.success());

    // What the welcome offers is what one types.
    let (stdin, mut typing) = pipe().unwrap();
    let mut command = Command::new(binary("presence_client"));
    let child = command.args([&addr, "zoe"]).stdin(stdin).spawn().unwrap();
    let mut server = Client::from(listener.accept().unwrap().0);
    typing.write_all(b"BYE\n").unwrap();
    server.expect("HELLO zoe\nBYE\n");
    server.end();
    assert!(child.wait_with_output().unwrap().status.success());

    drop(listener);
    let output = Command::new(binary("presence_client")).arg(addr).output().unwrap();
    assert_eq!(output.stderr, b"it ended: connection refused\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn stream_counts_as_far_as_one_reads() {
    let example = Example::start("stream");
    let mut client = example.connect();
    client.send("1000000000000\n");
    client.expect("0\n1\n2\n");
    let mut other = example.connect();
    other.send("many\n0\n100000\n2");
    other.end();
    let numbers: String = (0..100_000).chain(0..2).map(|number| format!("{number}\n")).collect();
    assert!(other.rest() == format!("a number, please\n{numbers}").into_bytes());
}

#[test]
fn testing_runs_its_checks() {
    let output = Command::new(binary("testing")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = "a question may come in pieces: ok\na reset takes nobody else along: ok\n\
                who stays for too long is sent away: ok\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), told);
}

#[test]
fn a_taken_port_is_an_error_with_the_remedy() {
    let example = Example::start("hello");
    let mut command = Command::new(binary("callbacks"));
    let output = command.arg(example.addr.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("choose another one"), "{error}");
}

#[test]
fn each_is_short_and_says_what_to_try() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["README", "tutorial"].contains(&&*name) {
            // The steps of the tutorial are run by tests/program/tutorial.rs.
            continue;
        }
        // The one that is a folder has several servers in it and is told which.
        let (path, run) = match path.is_dir() {
            true => (path.join("main.rs"), format!("$ cargo run --example {name} -- ")),
            false => (path, format!("$ cargo run --example {name}\n")),
        };
        let text = std::fs::read_to_string(&path).unwrap();
        // Whole programs are measured by their code, the others as they are.
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let (lines, most) = match &*name {
            "memcached" | "redis_follow" | "upgrading" => {
                (text.lines().filter(is_code).count(), 150)
            }
            // Its comments say what two ways of running it are.
            "auction" => (text.lines().filter(is_code).count(), 60),
            _ => (text.lines().count(), 60),
        };
        assert!(lines < most || path.ends_with("main.rs"), "{name} has {lines} lines");
        let head: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let head = head.join("\n");
        assert!(head.contains(&run), "{name}: how to run it");
        let tries = head.contains("nc 127.0.0.1 ") || head.contains("nc -l 127.0.0.1 80");
        // Those without a server.
        let alone = ["testing", "announce", "discover", "watch_stdin"].contains(&&*name);
        assert!(alone || tries, "{name}: the nc line");
        names.push(name);
    }
    names.sort();
    let wanted = [
        "admin_console",
        "announce",
        "auction",
        "callbacks",
        "changing",
        "client",
        "discover",
        "dumb_http_client",
        "embed",
        "foreign_loop",
        "hello",
        "memcached",
        "models",
        "offload",
        "presence_client",
        "redis_follow",
        "stream",
        "testing",
        "upgrading",
        "watch_stdin",
        "websocket",
    ];
    assert_eq!(names, wanted);
}
