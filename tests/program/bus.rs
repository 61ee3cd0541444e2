//! `serve presence --presence-bus`: what the options say, how it fails at the start, and one room of two
//! servers over a real Redis. What happens at faults is in `tests/room`.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::util::program::{Program, REACTOR, fails};
use crate::util::redis::{Asker, Redis, installed};
use crate::util::{Client, nobody, until};

const WELCOME: &str = "Welcome to the Presence Server
  Tell me who you are with 'HELLO name'
  Say something to other users with 'SAY message'
  Ask me who is connected with 'WHO'
  Leave with 'BYE'
  Shutdown server with 'KILL'
";

/// A server of that room.
fn serve(url: &str, more: &[&str]) -> Program {
    Program::serve(&[&["presence=0", "--presence-bus", url], more].concat())
}

/// A member with a name, who has heard of nobody else.
fn join(program: &Program, name: &str) -> Client {
    let mut client = Client::connect(program.addr("presence"));
    client.expect(WELCOME);
    client.send(format!("HELLO {name}\n"));
    client.expect(format!("{name} is in the room.\n"));
    client
}

fn url(redis: &Redis) -> String {
    format!("redis://{}", redis.addr)
}

#[test]
fn two_servers_are_one_room() {
    if !installed() {
        return;
    }
    let redis = Redis::start();
    for threads in ["1", "2"] {
        let url = format!("{}?room=with-{threads}", url(&redis));
        let one = serve(&url, &["--threads", threads]);
        let mut alice = join(&one, "alice");
        let other = serve(&url, &["--threads", threads]);
        let mut bob = join(&other, "bob");
        alice.expect("Someone has arrived...\nbob is in the room.\n");
        alice.send("SAY hello from here\n");
        bob.expect("alice says: hello from here\n");
        bob.send("SAY and from there\nWHO\n");
        alice.expect("alice says: hello from here\nbob says: and from there\n");
        bob.expect("bob says: and from there\nCurrently connected users:\n - alice\n - bob\n");
        alice.send("WHO\n");
        alice.expect("Currently connected users:\n - alice\n - bob\n");

        // Who ends gracefully is not waited for.
        let began = Instant::now();
        other.signal("TERM");
        alice.expect("bob has left the room.\n");
        assert_eq!(other.end().0, 0);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        alice.send("BYE\n");
        alice.expect("alice is about to leave the room.\n");
        assert_eq!(alice.rest(), b"");
        one.signal("TERM");
        assert_eq!(one.end().0, 0);
    }
}

#[test]
fn rooms_of_two_names_do_not_hear_each_other() {
    if !installed() {
        return;
    }
    let redis = Redis::start();
    let url = url(&redis);
    let one = serve(&format!("{url}?room=one"), &[]);
    let mut alice = join(&one, "alice");
    let other = serve(&format!("{url}/1?room=one"), &[]);
    let mut bob = join(&other, "bob");
    alice.send("WHO\n");
    alice.expect("Currently connected users:\n - alice\n");
    bob.send("SAY x\n");
    bob.expect("bob says: x\n");
}

#[test]
fn names_are_unique_over_all_servers() {
    if !installed() {
        return;
    }
    let redis = Redis::start();
    let one = serve(&url(&redis), &["--unique-names"]);
    let mut alice = join(&one, "alice");
    let other = serve(&url(&redis), &["--unique-names"]);
    let mut bob = join(&other, "bob");
    alice.expect("Someone has arrived...\nbob is in the room.\n");
    bob.send("HELLO ALICE\n");
    bob.expect("The name ALICE is taken; choose another with 'HELLO name'\n");
}

#[test]
fn kill_stops_its_own_server() {
    if !installed() {
        return;
    }
    let redis = Redis::start();
    let one = serve(&url(&redis), &["--allow-kill"]);
    let mut alice = join(&one, "alice");
    let other = serve(&url(&redis), &["--allow-kill"]);
    let mut bob = join(&other, "bob");
    alice.expect("Someone has arrived...\nbob is in the room.\n");
    bob.send("KILL\n");
    bob.expect("KILL command received. Bringing server down...\n");
    assert_eq!(other.end().0, 0);
    alice.expect("bob has left the room.\n");
    alice.send("SAY still here\n");
    alice.expect("alice says: still here\n");
}

#[test]
fn a_stop_waits_for_a_frozen_redis_a_second_at_most() {
    if !installed() {
        return;
    }
    let redis = Redis::start();
    let one = serve(&url(&redis), &[]);
    let mut alice = join(&one, "alice");
    redis.signal("STOP");
    let began = Instant::now();
    one.signal("TERM");
    assert_eq!(alice.rest(), b"");
    let (status, _, stderr) = one.end();
    let took = began.elapsed();
    redis.signal("CONT");
    assert_eq!(status, 0, "{stderr}");
    let second = Duration::from_secs(1);
    assert!(took >= second && took < 10 * second, "{took:?}");
}

#[test]
fn without_redis_it_does_not_start() {
    let addr = nobody();
    let program = serve(&format!("redis://{addr}"), &[]);
    let (url, remedy) = (format!("no connection to redis://{addr}: "), "add --bus-optional");
    fails(program, 1, &[&url, "refused", remedy]);
    let program = serve("redis://no-such-host.invalid", &[]);
    fails(program, 1, &["no connection to redis://no-such-host.invalid:6379: ", remedy]);
    let program = serve("redis+unix:/no/such.sock", &[]);
    fails(program, 1, &["no connection to redis+unix:/no/such.sock: ", remedy]);

    // A server that says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let program = serve(&url, &["--bus-timeout", "300ms"]);
    fails(program, 1, &[&url, "no reply within 300ms"]);
}

#[test]
fn a_room_that_may_be_cut_off_starts_so_and_is_whole_later() {
    if !installed() {
        return;
    }
    let mut redis = Redis::start();
    redis.kill();
    let one = serve(&url(&redis), &["--bus-optional", "--bus-timeout", "300ms"]);
    let mut alice = Client::connect(one.addr("presence"));
    alice.expect(WELCOME);
    alice.send("SAY anybody?\n");
    alice.expect("An anonymous user says: anybody?\n");
    redis.resume();
    alice.expect("Some messages may be missing.\nThe room is whole again.\n");
}

#[test]
fn a_password_is_taken_from_the_environment() {
    if !installed() {
        return;
    }
    let mut redis = Redis::start_with(&["--requirepass", "pass word"]);
    let serve = |url: &str, password: Option<&str>, more: &[&str]| {
        let mut command = Command::new(REACTOR);
        command.args(["serve", "presence=0", "--presence-bus", url]).args(more);
        password.map(|password| command.env("REACTOR_REDIS_PASSWORD", password));
        Program::spawn(&mut command)
    };
    let url = url(&redis);
    drop(join(&serve(&url, Some("pass word"), &[]), "alice"));
    for (password, words) in [(None, "NOAUTH"), (Some("wrong"), "WRONGPASS")] {
        for more in [&[][..], &["--bus-optional"]] {
            let program = serve(&url, password, more);
            fails(program, 1, &[&url, "refuses the login", words, "REACTOR_REDIS_PASSWORD"]);
        }
    }
    redis.password = None;
    let asker = &mut Asker::dial(redis.addr).unwrap();
    let words = ["AUTH", "pass word"].map(|word| format!("${}\r\n{word}\r\n", word.len()));
    assert_eq!(asker.raw(&format!("*2\r\n{}", words.concat())), "OK");
    asker.ask("ACL SETUSER me on >secret ~* &* +@all");
    let host = url.strip_prefix("redis://").unwrap();
    drop(join(&serve(&format!("redis://me@{host}/2"), Some("secret"), &[]), "alice"));
    let program = serve(&format!("redis://you@{host}"), Some("secret"), &[]);
    fails(program, 1, &["you@", "refuses the login"]);
    let program = serve(&format!("{url}/99"), Some("pass word"), &[]);
    fails(program, 1, &["/99", "refuses the login", "DB index is out of range"]);
}

#[test]
fn a_password_that_is_wrong_later_is_said_once() {
    if !installed() {
        return;
    }
    let mut redis = Redis::start();
    let one = serve(&url(&redis), &["--bus-timeout", "500ms"]);
    let mut alice = join(&one, "alice");
    redis.ask("CONFIG SET requirepass secret");
    redis.password = Some("secret".to_owned());
    redis.ask("CLIENT KILL TYPE normal SKIPME yes");
    one.wait_for_log("NOAUTH");
    alice.expect("The room is cut off from the other servers.\n");
    redis.ask("CONFIG SET requirepass none");
    redis.password = None;
    // Another one is not heard before the 30 seconds are over.
    alice.send("SAY x\n");
    alice.expect("alice says: x\n");
    one.signal("TERM");
    let (status, _, stderr) = one.end();
    assert_eq!((status, stderr.matches("NOAUTH").count()), (0, 2), "one a connection: {stderr}");
}

#[test]
fn wrong_options_are_named() {
    for (args, words) in [
        (&["--presence-bus", "redis://me:secret@h"][..], "REACTOR_REDIS_PASSWORD"),
        (&["--presence-bus", "redis://:secret@h"], "REACTOR_REDIS_PASSWORD"),
        (&["--presence-bus", "localhost:6379"], "write redis://"),
        (&["--presence-bus", "redis://h/x"], "the database must be a number"),
        (&["--presence-bus", "redis://h?name=x"], "only room=NAME"),
        (&["--presence-bus", ""], "write redis://"),
        (&["--bus-timeout", "1s"], "--bus-timeout goes with --presence-bus"),
        (&["--bus-lease", "1s"], "--bus-lease goes with --presence-bus"),
        (&["--bus-keep", "1M"], "--bus-keep goes with --presence-bus"),
        (&["--bus-optional"], "--bus-optional goes with --presence-bus"),
        (&["--presence-bus", "redis://h", "--bus-timeout", "6s"], "at least twice --bus-timeout"),
        (&["--presence-bus", "redis://h", "presence=0"], "for one room"),
    ] {
        let program = Program::serve(&[&["presence=0"], args].concat());
        let (status, stdout, stderr) = program.end();
        assert_eq!((status, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(words) && !stderr.contains("secret"), "{args:?}: {stderr}");
    }
    fails(Program::serve(&["echo=0", "--presence-bus", "redis://h"]), 2, &["the service presence"]);
}

#[cfg(feature = "tls")]
#[test]
fn over_tls_with_the_options_of_trust() {
    use crate::util::tls::Pem;

    if !installed() {
        return;
    }
    let pem = Pem::new("bus-tls");
    let (redis, address) = Redis::start_with_tls(&pem);
    let cert = pem.cert().display().to_string();
    let url = format!("rediss://{address}");
    let secure = serve(&url, &["--ca", &cert, "--server-name", "localhost"]);
    let mut alice = join(&secure, "alice");
    // The same Redis, without.
    let plain = serve(&format!("redis://{}", redis.addr), &[]);
    let mut bob = join(&plain, "bob");
    alice.expect("Someone has arrived...\nbob is in the room.\n");
    bob.send("SAY psst\n");
    alice.expect("bob says: psst\n");

    fails(serve(&url, &["--ca", &cert]), 1, &[&url, "certificate"]);
    let plain = format!("redis://{}", redis.addr);
    fails(serve(&plain, &["--ca", &cert]), 2, &["--ca goes with a bus with TLS", "rediss://"]);
}

#[test]
fn the_control_socket_shows_both_connections() {
    if !installed() {
        return;
    }
    let redis = Redis::start();
    let folder = crate::util::folder::Folder::new("bus-admin");
    let socket = folder.file("admin.sock").display().to_string();
    let program = serve(&url(&redis), &["--admin", &socket]);
    program.addr("presence");
    until("both are there", || {
        let (status, stdout, _) = Program::run(&["status", &socket]);
        status == 0 && stdout.contains("redis-reader")
    });
}
