//! Other people's TLS: servers that `connect` and `load` talk to, and clients that have to show a
//! certificate.

use std::fs;
use std::io::{Write, pipe};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::util::folder::Folder;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::tls::{Authority, Files, expired};
use crate::util::{nobody, until};
use crate::{GREETING, STREAM_MODULE, installed, stream_module};

/// Starts a server that listens there, and waits until it does.
fn started(command: &mut Command, at: SocketAddr) -> Program {
    let program = Program::spawn_with(command, Stdio::piped());
    until("it listens", || TcpStream::connect(at).is_ok());
    program
}

/// `openssl s_server`, which turns each line around.
fn s_server((cert, key): &Files, at: SocketAddr, options: &[&str]) -> Program {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_server", "-quiet", "-rev", "-accept", &at.to_string()]);
    openssl.arg("-cert").arg(cert).arg("-key").arg(key).args(options);
    started(&mut openssl, at)
}

/// `reactor connect`, which says so much, to a server by the name of `localhost`.
fn connect(says: &str, at: SocketAddr, ca: &Path, options: &[&str]) -> Program {
    let script = format!("printf '{says}' | {REACTOR} connect \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).args(["sh", &format!("tls:{at}"), "--server-name=localhost"]);
    Program::spawn(command.arg("--ca").arg(ca).args(options))
}

/// As [`connect`], with input that does not end before so many lines have come: these servers take an
/// end of one side for that of both.
#[track_caller]
fn talk(says: &str, lines: usize, at: SocketAddr, ca: &Path, options: &[&str]) -> Vec<String> {
    let (stdin, mut typing) = pipe().unwrap();
    let mut command = Command::new(REACTOR);
    command.args(["connect", &format!("tls:{at}"), "--server-name=localhost", "--ca"]);
    let program = Program::spawn_with(command.arg(ca).args(options), stdin);
    typing.write_all(says.as_bytes()).unwrap();
    let said = (0..lines).map(|_| program.line()).collect();
    drop(typing);
    assert_eq!(program.end(), (0, String::new(), String::new()));
    said
}

fn own((cert, key): &Files) -> [String; 2] {
    [format!("--cert={}", cert.display()), format!("--key={}", key.display())]
}

#[test]
fn connect_talks_to_s_server_or_says_what_is_wrong_with_it() {
    if !installed("openssl", "version", "OpenSSL") {
        return;
    }
    let (ca, other) = (Authority::new("openssl"), Authority::new("another"));
    for version in ["-tls1_3", "-tls1_2"] {
        let tried = |files: &Files, trusted: &Path| {
            let at = nobody();
            let _server = s_server(files, at, &[version]);
            connect("olleh\\nCLOSE\\n", at, trusted, &[]).end()
        };
        let (status, stdout, stderr) = tried(&ca.issue("localhost", |_| ()), &ca.file());
        assert_eq!((status, stderr.as_str()), (0, ""), "{version}: {stdout}");
        assert!(stdout.starts_with("hello\n"), "{version}: {stdout}");
        for (files, words) in [
            (ca.issue("localhost", expired), "its certificate expired at 2001-01-01T00:00:00Z"),
            (ca.issue("elsewhere", |_| ()), "is for elsewhere and not for localhost"),
            (ca.self_signed("localhost", rcgen::IsCa::NoCa), "is self-signed"),
            (other.issue("localhost", |_| ()), "was issued by CN=another CA"),
        ] {
            let (status, stdout, stderr) = tried(&files, &ca.file());
            assert_eq!((status, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{stderr}");
            assert!(stderr.contains(words), "{version}: {words:?} is not in {stderr}");
        }
    }
}

#[test]
fn s_server_asks_connect_for_a_certificate() {
    if !installed("openssl", "version", "OpenSSL") {
        return;
    }
    let (ca, members) = (Authority::new("asking"), Authority::new("members"));
    let server = ca.issue("localhost", |_| ());
    let trusted = members.file().display().to_string();
    for (version, missing) in [
        ("-tls1_3", "it lets in only clients with a certificate"),
        ("-tls1_2", "it agrees to no handshake; it may want a client's certificate"),
    ] {
        let at = nobody();
        let asks = [version, "-Verify", "1", "-verify_return_error", "-CAfile", &trusted];
        let _server = s_server(&server, at, &asks);
        let [cert, key] = own(&members.issue("alice", |_| ()));
        let (status, stdout, stderr) =
            connect("olleh\\nCLOSE\\n", at, &ca.file(), &[&cert, &key]).end();
        assert_eq!((status, stderr.as_str()), (0, ""), "{version}: {stdout}");
        assert!(stdout.starts_with("hello\n"), "{version}: {stdout}");
        fails(connect("olleh\\n", at, &ca.file(), &[]), 1, &[missing]);
        let [cert, key] = own(&ca.issue("mallory", |_| ()));
        let words = ["it refuses our certificate: it does not trust who issued it"];
        fails(connect("olleh\\n", at, &ca.file(), &[&cert, &key]), 1, &words);
    }
}

/// `openssl s_client`, which says hello and goodbye; what it says and what it is told.
fn s_client(at: &str, ca: &Path, identity: Option<&Files>, version: &str) -> String {
    let script = "printf 'hello\\nbye\\n' | openssl s_client -quiet \"$@\" 2>&1";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", version, "-connect", at, "-CAfile"]).arg(ca);
    if let Some((cert, key)) = identity {
        command.arg("-cert").arg(cert).arg("-key").arg(key);
    }
    Program::spawn(&mut command).end().1
}

#[test]
fn s_client_needs_a_certificate() {
    if !installed("openssl", "version", "OpenSSL") {
        return;
    }
    let (ca, members) = (Authority::new("server"), Authority::new("clients"));
    let (cert, key) = ca.issue("localhost", |_| ());
    let options = [("tls-cert", cert), ("tls-key", key), ("tls-client-ca", members.file())];
    let options = options.map(|(name, file)| format!("--{name}={}", file.display()));
    let [cert, key, trusted] = &options;
    let server = Program::serve(&["echo=tls:0", cert, key, trusted, "--log=debug"]);
    let place = server.place("echo");
    let at = place.strip_prefix("tls:").unwrap();
    for version in ["-tls1_3", "-tls1_2"] {
        let alice = members.issue("alice", |_| ());
        let said = s_client(at, &ca.file(), Some(&alice), version);
        assert!(said.contains("> HELLO\n> BYE\n"), "{version}: {said}");
        for (identity, words, alert) in [
            (None, "it gave no certificate", "alert"),
            (
                Some(members.issue("alice", expired)),
                "its certificate expired at 2001-01-01T00:00:00Z",
                "certificate expired",
            ),
            (
                Some(ca.issue("mallory", |_| ())),
                "its certificate was issued by nobody whom we trust",
                "unknown ca",
            ),
            (
                Some(members.self_signed("mallory", rcgen::IsCa::NoCa)),
                "its certificate was issued by nobody whom we trust",
                "unknown ca",
            ),
        ] {
            let said = s_client(at, &ca.file(), identity.as_ref(), version);
            assert!(said.contains(alert) && !said.contains("HELLO"), "{version} {words}: {said}");
            let line = server.wait_for_log("no handshake: ");
            assert!(line.contains(words), "{version}: {line}");
        }
    }
}

#[test]
fn ncat_on_either_side() {
    if !installed("ncat", "--version", "Ncat") {
        return;
    }
    let ca = Authority::new("ncat");
    let (cert, key) = ca.issue("localhost", |_| ());
    let tls = [format!("--tls-cert={}", cert.display()), format!("--tls-key={}", key.display())];
    let server = Program::serve(&["echo=tls:localhost:0", &tls[0], &tls[1]]);
    let place = server.place("echo");
    let port = place.rsplit(':').next().unwrap();
    let script = "printf 'hello\\nbye\\n' | ncat --ssl-verify --ssl-trustfile \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(ca.file()).args(["localhost", port]);
    let (_, stdout, stderr) = Program::spawn(&mut command).end();
    assert_eq!(stdout, format!("{}\n> HELLO\n> BYE\n", GREETING.join("\n")), "{stderr}");

    let at = nobody();
    let mut ncat = Command::new("ncat");
    ncat.args(["-l", "-k", "--ssl", "-c", "cat", &at.ip().to_string(), &at.port().to_string()]);
    ncat.arg("--ssl-cert").arg(cert).arg("--ssl-key").arg(key);
    let _ncat = started(&mut ncat, at);
    assert_eq!(talk("hello\n", 1, at, &ca.file(), &[]), ["hello"]);
    let other = Authority::new("other");
    fails(connect("hello\\n", at, &other.file(), &[]), 1, &["was issued by CN=ncat CA"]);
}

#[test]
fn nginx_takes_tls_off_for_connect_and_load() {
    if !installed("nginx", "-v", "nginx") || !stream_module() {
        return;
    }
    let (ca, members) = (Authority::new("nginx"), Authority::new("members"));
    let (cert, key) = ca.issue("localhost", |_| ());
    let echo = Program::serve(&["echo=0"]);
    let (target, folder) = (echo.addr("echo"), Folder::new("nginx-tls"));
    let (open, closed) = (nobody(), nobody());
    let tls = format!(
        "ssl_certificate {}; ssl_certificate_key {}; proxy_pass {target};",
        cert.display(),
        key.display()
    );
    let asks =
        format!("ssl_client_certificate {}; ssl_verify_client on;", members.file().display());
    let (config, pid) = (folder.file("nginx.conf"), folder.file("pid"));
    fs::write(
        &config,
        format!(
            "load_module {STREAM_MODULE};\ndaemon off;\nmaster_process off;\npid {};\n\
             error_log stderr;\nevents {{}}\nstream {{\n\
             server {{ listen {open} ssl; {tls} }}\n\
             server {{ listen {closed} ssl; {tls} {asks} }}\n}}\n",
            pid.display()
        ),
    )
    .unwrap();
    let _nginx = started(Command::new("nginx").arg("-c").arg(config), closed);
    let answers = [&GREETING[..], &["> HELLO", "> BYE"]].concat();
    assert_eq!(talk("hello\nbye\n", 4, open, &ca.file(), &[]), answers);
    let load = |at: SocketAddr, options: &[&str]| {
        let mut command = Command::new(REACTOR);
        command.args(["load", &format!("tls:{at}"), "--server-name=localhost"]);
        command.args(["--clients=8", "--duration=300ms"]).arg("--ca").arg(ca.file()).args(options);
        Program::spawn(&mut command).end()
    };
    let (status, stdout, stderr) = load(open, &[]);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");

    let [cert, key] = own(&members.issue("alice", |_| ()));
    assert_eq!(talk("hello\nbye\n", 4, closed, &ca.file(), &[&cert, &key]), answers);
    let (status, stdout, stderr) = load(closed, &[&cert, &key, "--mode=churn"]);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
}

/// What docs/operating.md tells everybody to type.
#[test]
fn the_certificate_that_the_documentation_makes_is_one_that_connect_takes() {
    if !installed("openssl", "version", "OpenSSL") {
        return;
    }
    let text = include_str!("../../docs/operating.md");
    let from = text.find("openssl req ").expect("it makes a certificate");
    let command = &text[from..from + text[from..].find("$ reactor").unwrap() - 1];
    let folder = Folder::new("documentation");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).current_dir(folder.file("."));
    let (status, _, stderr) = Program::spawn(&mut shell).end();
    assert_eq!(status, 0, "{command}: {stderr}");
    let (cert, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    let tls = [format!("--tls-cert={}", cert.display()), format!("--tls-key={}", key.display())];
    let server = Program::serve(&["echo=tls:0", &tls[0], &tls[1]]);
    let ca = format!("--ca={}", cert.display());
    let (status, stdout, stderr) = Program::run(&["connect", &server.place("echo"), &ca]);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
}
