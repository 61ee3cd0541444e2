//! `ws:` in front of an address: to listen, to connect, to forward; and whose pages may come.

use std::process::{Command, Stdio};

use crate::util::Client;
use crate::util::load::clean;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::websocket::{BINARY, CLOSE, TEXT, accepted, head, masked, open, plain, request};

const GREETING: [&str; 2] =
    ["Welcome to the Reactor Server.", "Send me text lines and conclude with the BYE command."];

const WELCOME: [&str; 6] = [
    "Welcome to the Presence Server",
    "  Tell me who you are with 'HELLO name'",
    "  Say something to other users with 'SAY message'",
    "  Ask me who is connected with 'WHO'",
    "  Leave with 'BYE'",
    "  Shutdown server with 'KILL'",
];

/// Where a service listens for WebSocket.
fn web(program: &Program, service: &str) -> std::net::SocketAddr {
    program.place(service).strip_prefix("ws:").expect("no WebSocket").parse().unwrap()
}

#[test]
fn browsers_and_terminals_are_in_one_room() {
    let program = Program::serve(&["presence=0,ws:0"]);
    let plain_addr = program.addr("presence");
    let mut web = open(web(&program, "presence"));
    // With several threads, who has passed a door first is not always in the room first.
    WELCOME.iter().for_each(|line| web.expect(plain(TEXT, line)));
    let mut terminal = Client::connect(plain_addr);
    (0..6).for_each(|_| drop(terminal.line()));
    web.send(masked(TEXT, "HELLO browser"));
    terminal.expect("browser is in the room.\n");
    terminal.send("HELLO terminal\n");
    terminal.send("SAY what is a page?\n");
    web.send(masked(CLOSE, ""));
    let said = web.rest();
    let joined = plain(TEXT, "terminal is in the room.");
    assert!(said.windows(joined.len()).any(|it| it == joined) || said.ends_with(&[CLOSE, 0]));
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

#[test]
fn connect_and_load_speak_it() {
    let server = Program::serve(&["echo=ws:0"]);
    let place = server.place("echo");
    assert!(place.starts_with("ws:127.0.0.1:"), "{place}");
    let script = format!("printf 'hi\\nbye\\n' | {REACTOR} connect {place}");
    let program = Program::spawn(Command::new("sh").arg("-c").arg(script));
    let said = format!("{}\n> HI\n> BYE\n", GREETING.join("\n"));
    assert_eq!(program.end(), (0, said, String::new()));
    let result = clean(&place, 3, &[]);
    assert_eq!(result["target"], place);

    let plain = Program::serve(&["echo=0"]);
    let at = format!("ws:{}", plain.addr("echo"));
    let (code, _, stderr) = Program::run(&["connect", &at]);
    assert!(code == 1 && stderr.contains("does it speak WebSocket?"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn forward_carries_bytes_either_way() {
    let server = Program::serve(&["echo=0"]);
    let target = server.addr("echo").to_string();
    let into = Program::spawn(Command::new(REACTOR).args(["forward", "ws:0", &target]));
    let at = into.place("forward");
    let mut client = open(at.strip_prefix("ws:").unwrap().parse().unwrap());
    client.send([masked(BINARY, "he"), masked(TEXT, "llo\nbye\n")].concat());
    let mut said = client.rest();
    let mut bytes = Vec::new();
    while said[0] == BINARY {
        let length = usize::from(said[1]);
        assert!(length < 126, "{said:?}");
        bytes.extend(said.drain(..2 + length).skip(2));
    }
    let heard = format!("{}\n> HELLO\n> BYE\n", GREETING.join("\n"));
    assert_eq!(String::from_utf8(bytes).unwrap(), heard);
    assert_eq!(said, plain(CLOSE, 1000_u16.to_be_bytes()));

    // And out again.
    let out = Program::spawn(Command::new(REACTOR).args(["forward", "0", &at]));
    let mut client = Client::connect(out.addr("forward"));
    client.send("hello\nbye\n");
    assert_eq!(String::from_utf8(client.rest()).unwrap(), heard);
}

#[test]
fn pages_and_names_that_are_not_ours_are_refused_and_logged() {
    let options = ["echo=ws:0", "--origin=https://page.example", "--web-host=room.example"];
    let program = Program::serve(&options);
    let addr = web(&program, "echo");
    let ask = |host: &str, headers: &str| {
        let mut client = Client::connect(addr);
        client.send(request(host, headers));
        client
    };
    accepted(&mut ask("room.example", "Origin: https://page.example\r\n"));
    accepted(&mut ask("room.example:80", "Origin: http://room.example\r\n"));
    let mut evil = ask("127.0.0.1", "Origin: http://evil.example\r\n");
    assert_eq!(head(&mut evil)[0], "HTTP/1.1 403 Forbidden");
    drop(evil);
    let line = program.wait_for_log("turning away");
    assert!(line.contains("WARN") && line.contains("echo: #"), "{line}");
    let mut rebound = ask("evil.example", "");
    assert_eq!(head(&mut rebound)[0], "HTTP/1.1 403 Forbidden");
}

#[test]
fn wrong_addresses_and_options_are_status_2() {
    for (args, words) in [
        (&["serve", "echo=ws:proxy:7"][..], "write proxy:ws:7"),
        (&["serve", "ws:echo=7"], "write echo=ws:7"),
        (&["serve", "echo=ws://127.0.0.1:7/"], "it is no URL: write ws:127.0.0.1:7"),
        (&["connect", "ws://127.0.0.1:7/chat"], "it is no URL: write ws:127.0.0.1:7"),
        (
            &["serve", "echo=0", "--origin=http://a"],
            "--origin goes with the service web or an address with ws:",
        ),
        (
            &["forward", "0", "9", "--web-host=a"],
            "--web-host goes with an address with ws:, and there is none",
        ),
        (&["serve", "echo=ws:0", "--origin=a.example"], "origin as SCHEME://HOST"),
        (&["serve", "echo=ws:0", "--web-host=a:80"], "without a port"),
        #[cfg(feature = "tls")]
        (&["connect", "wss://127.0.0.1:7"], "it is no URL: write tls:ws:127.0.0.1:7"),
        #[cfg(feature = "tls")]
        (&["serve", "echo=ws:tls:7"], "write tls:ws:7"),
    ] {
        let mut command = Command::new(REACTOR);
        fails(Program::spawn_with(command.args(args), Stdio::null()), 2, &[words]);
    }
}
