//! WebSocket clients and servers of others: two of Python, which share no code.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::GREETING;
use crate::util;
use crate::util::program::{Program, REACTOR};

/// Runs a script of Python that uses this module; gives what it prints, or none without the module.
fn python(module: &str, script: &str, args: &[&str]) -> Option<String> {
    let import = format!("import {module}");
    let there = Command::new("python3").args(["-c", &import]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        util::skip(&format!("Python has no module {module}"));
        return None;
    }
    let run = Command::new("timeout").args(["60", "python3", "-c", script]).args(args).output();
    let run = run.unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    Some(said)
}

fn echo() -> (Program, SocketAddr) {
    let program = Program::serve(&["echo=ws:0"]);
    let addr = program.place("echo").strip_prefix("ws:").unwrap().parse().unwrap();
    (program, addr)
}

/// What each of the clients below gets to hear.
fn heard() -> String {
    format!("{}\n> HELLO\n> A\n> B\n5000\n> BYE\n1000\n", GREETING.join("\n"))
}

#[test]
fn websockets_of_python() {
    let script = "
import sys
from websockets.sync.client import connect
from websockets.exceptions import ConnectionClosed
with connect('ws://' + sys.argv[1], max_size=None) as ws:
    print(ws.recv()); print(ws.recv())
    ws.send('hello'); print(ws.recv())
    ws.send(['a', '\\n', 'b']); print(ws.recv()); print(ws.recv())
    assert ws.ping(b'there?').wait(10)
    ws.send('x' * 5000); print(len(ws.recv()) - 2)
    ws.send('bye'); print(ws.recv())
    try:
        ws.recv()
    except ConnectionClosed as end:
        print(end.rcvd.code)
";
    let (_program, addr) = echo();
    let Some(said) = python("websockets", script, &[&addr.to_string()]) else { return };
    assert_eq!(said, heard());
}

#[test]
fn websocket_client_of_python() {
    let script = "
import sys, struct, websocket
ws = websocket.create_connection('ws://' + sys.argv[1], timeout=30)
print(ws.recv()); print(ws.recv())
ws.send('hello'); print(ws.recv())
ws.send('a\\nb'); print(ws.recv()); print(ws.recv())
ws.ping('there?')
ws.send('x' * 5000); print(len(ws.recv()) - 2)
ws.send('bye'); print(ws.recv())
opcode, data = ws.recv_data()
assert opcode == 8
print(struct.unpack('!H', data[:2])[0])
";
    let (_program, addr) = echo();
    let Some(said) = python("websocket", script, &[&addr.to_string()]) else { return };
    assert_eq!(said, heard());
}

#[test]
fn connect_talks_to_a_server_of_python() {
    let script = "
import subprocess, sys
from threading import Thread
from websockets.sync.server import serve
def talk(ws):
    ws.send('welcome')
    for message in ws:
        assert isinstance(message, str)
        ws.send(message[::-1])
        ws.ping()
with serve(talk, '127.0.0.1', 0) as server:
    Thread(target=server.serve_forever).start()
    port = server.socket.getsockname()[1]
    run = subprocess.Popen([sys.argv[1], 'connect', f'ws:127.0.0.1:{port}'],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in ['abc', 'x' * 100000, 'last']:
        print(line, file=run.stdin, flush=True)
    print(run.stdout.readline(), run.stdout.readline(), end='')
    print(len(run.stdout.readline()), run.stdout.readline(), end='')
    run.stdin.close()
    print(repr(run.stdout.read()), run.wait(10))
    server.shutdown()
";
    let Some(said) = python("websockets", script, &[REACTOR]) else { return };
    assert_eq!(said, "welcome\n cba\n100001 tsal\n'' 0\n");
}
