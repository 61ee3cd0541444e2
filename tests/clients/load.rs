//! `reactor load` against real servers, as docs/load.md has it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::installed;
use crate::util::folder::Folder;
use crate::util::load::json;
use crate::util::program::Program;
use crate::util::{nobody, until};

/// A server at a free place, once it listens.
fn started(command: &mut Command, at: SocketAddr) -> Program {
    let program = Program::spawn(command);
    until("the server listens", || TcpStream::connect(at).is_ok());
    program
}

/// A thousand requests with eight clients, all of them answered and all right.
#[track_caller]
fn thousand(at: SocketAddr, args: &[&str]) {
    let args = [args, &["-c8", "-n1000"]].concat();
    let (result, status, stderr) = json(&at.to_string(), &args);
    assert_eq!((status, stderr.as_str()), (0, ""), "{result}");
    assert_eq!((&result["lines"], &result["errors"]), (&1000.into(), &0.into()), "{result}");
}

#[test]
fn redis_is_pinged() {
    if !installed("redis-server", "--version", "Redis") {
        return;
    }
    let (at, folder) = (nobody(), Folder::new("load-redis"));
    let mut command = Command::new("redis-server");
    command.args(["--bind", &at.ip().to_string(), "--save", "", "--port", &at.port().to_string()]);
    let _redis = started(command.current_dir(folder.path()), at);
    thousand(at, &["--send=PING", "--expect=+PONG"]);
    thousand(at, &["--send=PING", "--expect=+PONG", "--mode=churn"]);
    let echo = ["--send=PING c{client}-{n}", "--expect=${any}", "--expect=c{client}-{n}"];
    thousand(at, &echo);
    thousand(at, &[&echo[..], &["--mode=pipeline", "--threads=2"]].concat());
    let wrong = ["--send=PIN", "--expect=+PONG", "-c1", "-n1"];
    let (result, status, _) = json(&at.to_string(), &wrong);
    assert_eq!((status, &result["first_wrong_sent"]), (1, &"PIN\\n".into()), "{result}");
    assert!(result["first_wrong"].as_str().unwrap().starts_with("-ERR unknown command"));
}

#[test]
fn memcached_tells_its_version_and_keeps_values() {
    if !installed("memcached", "-h", "memcached") {
        return;
    }
    let at = nobody();
    let (ip, port) = (at.ip().to_string(), at.port().to_string());
    let args = ["-u", "nobody", "-l", &ip, "-U", "0", "-p", &port];
    let _memcached = started(Command::new("memcached").args(args), at);
    thousand(at, &["--send=version", "--expect=VERSION {any}"]);
    thousand(at, &["--script=docs/load/memcached.toml"]);
    thousand(at, &["--script=docs/load/memcached.toml", "--mode=pipeline", "--depth=4"]);
}

#[test]
fn nginx_answers_http() {
    if !installed("nginx", "-v", "nginx") {
        return;
    }
    let (at, folder) = (nobody(), Folder::new("load-nginx"));
    let config = folder.file("nginx.conf");
    let text = format!(
        "daemon off;\nmaster_process off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\n\
         access_log off;\nserver {{ listen {at}; location / {{ return 200 \"hello\\n\"; }} }} }}\n",
        folder.file("pid").display()
    );
    fs::write(&config, text).unwrap();
    let _nginx = started(Command::new("nginx").arg("-c").arg(config), at);
    thousand(at, &["--script=docs/load/nginx.toml"]);
    thousand(at, &["--script=docs/load/nginx.toml", "--mode=pipeline"]);
}

const SMTP: &str = "
import asyncio, sys
from aiosmtpd.smtp import SMTP
class Handler:
    async def handle_DATA(self, server, session, envelope):
        good = envelope.content.endswith(b'Hello.\\r\\n') and len(envelope.rcpt_tos) == 1
        return '250 taken' if good else '554 not so'
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler()), sys.argv[1], int(sys.argv[2]))
    await server.serve_forever()
asyncio.run(main())
";

#[test]
fn a_mail_server_takes_mail() {
    if !installed("python3", "-cimport aiosmtpd.smtp as it; print(it)", "<module 'aiosmtpd.smtp'") {
        return;
    }
    let at = nobody();
    let _smtp = started(
        Command::new("python3").args(["-c", SMTP, &at.ip().to_string(), &at.port().to_string()]),
        at,
    );
    thousand(at, &["--script=docs/load/smtp.toml"]);
}
