//! Whether every peer speaks the protocol: without that, its figures mean nothing.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::load::Span;
use crate::peers::{Peer, Service};
use crate::protocol::{ARRIVED, GREETING, HINT, WELCOME};
use crate::scenario::{NothingServed, Scenario};
use crate::server::Server;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pieces of input, so that they arrive apart.
const APART: Duration = Duration::from_millis(2);
const SPAN: Span = Span { warm: Duration::from_millis(20), measured: Duration::from_millis(80) };
/// Where nothing was served in that, which a pause of the machine may be the reason of.
const LONG_SPAN: Span = Span { measured: Duration::from_secs(5), ..SPAN };

pub fn run(peers: &[&'static Peer], scenarios: &[&Scenario], core: Option<usize>) -> Result<()> {
    let (mut right, mut wrong) = (0, 0);
    let mut tell = |server: &Server, what: &str, result: Result<()>| match result {
        Ok(()) => right += 1,
        Err(error) => {
            wrong += 1;
            println!("{}, {what}: {error}", server.name());
        }
    };
    let servers = super::start(peers, scenarios, core)?;
    for server in &servers {
        match server.service() {
            Service::Echo => tell(server, "the words of echo", echo(server)),
            Service::Presence => tell(server, "the words of presence", presence(server)),
            Service::Clock => {}
        }
        for scenario in scenarios.iter().filter(|it| it.service() == server.service()) {
            // A room still hears of those who left it.
            server.quiet()?;
            let measure = |span| scenario.brief().measure(server, span, core).map(drop);
            let result = measure(SPAN).or_else(|error| match error.is::<NothingServed>() {
                true => measure(LONG_SPAN),
                false => Err(error),
            });
            tell(server, scenario.name, result);
        }
    }
    println!("{right} passed, {wrong} failed");
    if wrong > 0 { Err("not every reply is right".into()) } else { Ok(()) }
}

struct Client(TcpStream);

impl Client {
    fn connect(server: &Server, hello: &str) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", server.port()))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Client(stream);
        client.hear(hello)?;
        Ok(client)
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.0.write_all(bytes.as_ref())?)
    }

    fn hear(&mut self, expected: impl AsRef<[u8]>) -> Result<()> {
        let expected = expected.as_ref();
        let mut got = vec![0; expected.len()];
        let mut count = 0;
        while count < got.len() {
            match self.0.read(&mut got[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if got[..count] == *expected {
            return Ok(());
        }
        let common = got.iter().zip(expected).take_while(|(got, wanted)| got == wanted).count();
        let around = |bytes: &[u8]| {
            let end = bytes.len().min(common + 60);
            String::from_utf8_lossy(&bytes[common.min(end)..end]).into_owned()
        };
        let (wanted, got) = (around(expected), around(&got[..count]));
        Err(format!("{got:?} instead of {wanted:?}, after {common} right bytes").into())
    }

    /// No more comes, and the connection is closed.
    fn end(mut self) -> Result<()> {
        match self.0.read(&mut [0; 64])? {
            0 => Ok(()),
            more => Err(format!("{more} bytes instead of an end").into()),
        }
    }
}

fn echo(server: &Server) -> Result<()> {
    const LINES: &[u8] = "hello, été\r\n\n\r\nStraße ŉ\nbye bye\n bye\na\rb\nBye\n".as_bytes();
    const REPLIES: &str = "> HELLO, ÉTÉ\n> \n> \n> STRASSE ʼN\n> BYE BYE\n>  BYE\n> A\rB\n> BYE\n";
    // Whole, byte by byte, and cut in two at every place: in a character, between CR and LF.
    let mut cuts: Vec<Vec<&[u8]>> = vec![vec![LINES], LINES.chunks(1).collect()];
    cuts.extend((1..LINES.len()).map(|at| vec![&LINES[..at], &LINES[at..]]));
    for pieces in cuts {
        let mut client = Client::connect(server, GREETING)?;
        for piece in pieces {
            client.say(piece)?;
            thread::sleep(APART);
        }
        client.hear(REPLIES)?;
        client.end()?;
    }
    if server.peer().any_bytes {
        let mut client = Client::connect(server, GREETING)?;
        client.say(b"caf\xe9 \xff\x00\nand on\nbye\r\n")?;
        client.hear(b"> CAF\xe9 \xff\x00\n> AND ON\n> BYE\n")?;
        client.end()?;
    }
    partial_writes(server)
}

/// More replies than the sockets take, to a client that does not read them for a while.
fn partial_writes(server: &Server) -> Result<()> {
    let line = |number: usize| format!("{number:06} {}\n", "the quick brown fox ".repeat(50));
    let all: String = (0..8000).map(line).collect();
    let replies: String = all.lines().map(|line| format!("> {}\n", line.to_uppercase())).collect();
    let mut client = Client::connect(server, GREETING)?;
    let mut writer = Client(client.0.try_clone()?);
    let sender = thread::spawn(move || writer.say(all).map_err(|error| error.to_string()));
    thread::sleep(Duration::from_millis(100));
    client.hear(replies)?;
    sender.join().map_err(|_| "the sender panicked")??;
    client.say("bye\n")?;
    client.hear("> BYE\n")?;
    client.end()
}

fn presence(server: &Server) -> Result<()> {
    let mut alice = Client::connect(server, WELCOME)?;
    let mut bob = Client::connect(server, WELCOME)?;
    alice.hear(ARRIVED)?;
    alice.say("HEL")?;
    thread::sleep(APART);
    alice.say("LO alice smith\r\n")?;
    for client in [&mut alice, &mut bob] {
        client.hear("alice is in the room.\n")?;
    }
    bob.say("say hi \x1b[2J\nSAY\n")?;
    for client in [&mut alice, &mut bob] {
        client.hear("An anonymous user says: hi ?[2J\nAn anonymous user says: nothing...\n")?;
    }
    bob.say("sing\n")?;
    bob.hear(HINT)?;
    alice.say("BYE\n")?;
    alice.hear("alice is about to leave the room.\n")?;
    alice.end()?;
    bob.hear("alice is about to leave the room.\nalice has left the room.\n")
}
