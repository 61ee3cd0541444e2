//! Programs that connect outward: a forwarder under a storm, a tester of a server that is none.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use crate::churn::storm;
use crate::swarm::size;
use crate::util::program::Program;
use crate::util::quiet;
use crate::victim::Victim;

#[test]
fn a_forwarder_in_a_storm() {
    let target = Victim::start(&["echo"], &[]);
    let victim = target.forwarder();
    let count = size(3_000, 50_000);
    storm(&victim, count);
    victim.is_well(&format!("a storm of {count} through a forwarder"), 8 << 20);
    target.is_well("its target", 8 << 20);
    victim.ends();
    target.ends();
}

/// What a server may do to the tester: each is an error in its result, and none takes its memory.
#[test]
fn a_tester_of_servers_that_are_none() {
    let _quiet = quiet();
    let endless = |what: &'static [u8]| {
        move |mut stream: TcpStream| {
            let block = what.repeat(65_536 / what.len());
            while stream.write_all(&block).is_ok() {}
        }
    };
    let places = [serve(endless(b"x")), serve(endless(b"x\n")), serve(endless(b"\0\xff\n"))];
    for place in &places {
        for mode in ["echo", "presence", "time"] {
            // Half a gigabyte of addresses is room enough for what it is, and for nothing else.
            let script = "ulimit -v 600000 && exec \"$0\" load \"$@\"";
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script, crate::util::program::REACTOR, place, "--clients=3"]);
            command.args(["--duration=200ms", "--mode", mode]);
            let (code, _, said) = Program::spawn(&mut command).end();
            assert_eq!(code, 1, "{mode}: {said}");
            assert_eq!(said.lines().count(), 1, "{mode}: {said}");
        }
    }
}

/// A server that does this with every connection.
fn serve(handle: impl Fn(TcpStream) + Send + Copy + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || handle(stream));
        }
    });
    place
}
