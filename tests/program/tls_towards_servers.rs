//! The program as a client with TLS, and as a server that asks for certificates.

use std::process::{Command, Stdio};

use rcgen::IsCa;

use crate::util::Client;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::tls::{Authority, Files, expired};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// A service with a certificate for `localhost`, and where it is.
fn serve(files: &Files, service: &str, options: &[&str]) -> (Program, String) {
    let [cert, key] = own(["tls-cert", "tls-key"], files);
    let program = Program::serve(
        &[&[&format!("{service}=tls:localhost:0")[..], &cert, &key], options].concat(),
    );
    let place = program.place(service);
    let port = place.rsplit(':').next().unwrap().to_owned();
    (program, format!("tls:localhost:{port}"))
}

fn own(options: [&str; 2], (cert, key): &Files) -> [String; 2] {
    let [one, two] = options;
    [format!("--{one}={}", cert.display()), format!("--{two}={}", key.display())]
}

fn ca(authority: &Authority) -> String {
    format!("--ca={}", authority.file().display())
}

/// `reactor connect`, which says hello and goodbye.
fn connect(server: &str, options: &[&str]) -> Program {
    let script = format!("printf 'hello\\nbye\\n' | {REACTOR} connect \"$@\"");
    let mut command = Command::new("sh");
    Program::spawn(command.arg("-c").arg(script).arg("sh").arg(server).args(options))
}

#[track_caller]
fn answered(program: Program) {
    let all = format!("{GREETING}> HELLO\n> BYE\n");
    assert_eq!(program.end(), (0, all, String::new()));
}

#[test]
fn connect_talks_to_a_server_that_it_trusts() {
    let authority = Authority::new("connect");
    let (_server, at) = serve(&authority.issue("localhost", |_| ()), "echo", &[]);
    answered(connect(&at, &[&ca(&authority)]));
    let address = at.replace("localhost", "127.0.0.1");
    answered(connect(&address, &[&ca(&authority), "--server-name=localhost"]));
    // The system does not know this CA.
    let words = ["reactor: cannot connect to tls:localhost:", "was issued by CN=connect CA"];
    fails(connect(&at, &[]), 1, &words);
    let words = ["its certificate is for localhost and not for 127.0.0.1"];
    fails(connect(&address, &[&ca(&authority)]), 1, &words);
    // It speaks plainly there.
    let plain = Program::serve(&["echo=0"]);
    let at = format!("tls:{}", plain.addr("echo"));
    fails(connect(&at, &[&ca(&authority)]), 1, &["what it sends is no TLS"]);
}

#[test]
fn the_roots_of_the_system_are_those_that_the_variable_names() {
    let authority = Authority::new("system");
    let (_server, at) = serve(&authority.issue("localhost", |_| ()), "echo", &[]);
    let run = |roots: &std::path::Path| {
        let mut command = Command::new(REACTOR);
        command.args(["connect", &at]).env("SSL_CERT_FILE", roots).env("SSL_CERT_DIR", "/nowhere");
        Program::spawn_with(&mut command, Stdio::null())
    };
    let (status, stdout, stderr) = run(&authority.file()).end();
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (0, GREETING, ""));
    let words = ["the system's root certificates: there are none", "--ca FILE"];
    fails(run("/nowhere/roots.pem".as_ref()), 1, &words);
}

#[test]
fn forward_passes_the_plaintext_on_in_tls() {
    let authority = Authority::new("forward");
    let (_server, at) = serve(&authority.issue("localhost", |_| ()), "echo", &[]);
    let forward = |options: &[&str]| {
        Program::spawn(Command::new(REACTOR).args(["forward", "0", &at]).args(options))
    };
    let program = forward(&[&ca(&authority)]);
    let mut client = Client::connect(program.addr("forward"));
    client.expect(GREETING);
    client.send("hello\nbye\n");
    assert_eq!(client.rest(), b"> HELLO\n> BYE\n");

    let program = forward(&[]);
    assert_eq!(Client::connect(program.addr("forward")).rest(), b"");
    let line = program.wait_for_log("cannot be reached: its certificate");
    assert!(line.contains("was issued by CN=forward CA, whom we do not trust"), "{line}");
}

#[test]
fn load_measures_a_server_with_tls() {
    let authority = Authority::new("load");
    let (_server, at) = serve(&authority.issue("localhost", |_| ()), "echo", &[]);
    let load = |options: &[&str]| {
        let all = [&["load", &at, "--duration=300ms", "--clients=8"], options].concat();
        Program::spawn(Command::new(REACTOR).args(all))
    };
    for mode in ["--mode=echo", "--mode=churn"] {
        let (status, stdout, stderr) = load(&[&ca(&authority), mode]).end();
        assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    }
    fails(load(&[]), 1, &["cannot connect to tls:localhost", "whom we do not trust"]);
}

#[test]
fn who_has_no_certificate_is_not_let_in() {
    let (authority, members) = (Authority::new("doors"), Authority::new("members"));
    let asks = format!("--tls-client-ca={}", members.file().display());
    let (server, at) =
        serve(&authority.issue("localhost", |_| ()), "echo", &[&asks, "--log=debug"]);
    let (ca, alice) = (ca(&authority), members.issue("alice", |_| ()));
    let [cert, key] = own(["cert", "key"], &alice);
    answered(connect(&at, &[&ca, &cert, &key]));

    let words = ["it lets in only clients with a certificate; give one that its CA has issued"];
    fails(connect(&at, &[&ca]), 1, &words);
    server.wait_for_log("no handshake: it gave no certificate");
    let load = ["load", &at, &ca, "--duration=300ms", "--clients=3"];
    let words = ["reactor: cannot connect to tls:localhost", words[0]];
    fails(Program::spawn(Command::new(REACTOR).args(load)), 1, &words);
    let [cert, key] = own(["cert", "key"], &authority.issue("mallory", |_| ()));
    let words = ["it refuses our certificate: it does not trust who issued it"];
    fails(connect(&at, &[&ca, &cert, &key]), 1, &words);
    server.wait_for_log("no handshake: its certificate was issued by nobody whom we trust");

    // What is wrong with our own is found before anybody is dialled.
    let [cert, key] = own(["cert", "key"], &members.issue("alice", expired));
    fails(connect(&at, &[&ca, &cert, &key]), 1, &["--cert ", "it expired at 2001-01-01", "renew"]);
}

#[test]
fn that_a_client_is_refused_is_logged_once_in_a_while() {
    let (authority, members) = (Authority::new("log"), Authority::new("logged"));
    let asks = format!("--tls-client-ca={}", members.file().display());
    // Each thread keeps its log short by itself.
    let (server, at) =
        serve(&authority.issue("localhost", |_| ()), "echo", &[&asks, "--threads=1"]);
    for _ in 0..3 {
        fails(connect(&at, &[&ca(&authority)]), 1, &["only clients with a certificate"]);
    }
    server
        .wait_for_log("it gave no certificate; it needs one that the clients' CA has issued: turn");
    server.signal("TERM");
    let (_, _, stderr) = server.end();
    assert_eq!(stderr.matches("it gave no certificate").count(), 1, "{stderr}");
}

#[test]
fn hangup_forgets_the_clients_of_a_ca_that_was_taken_away() {
    let (authority, members) = (Authority::new("hangup"), Authority::new("old members"));
    let trusted = members.file().with_file_name("trusted.pem");
    std::fs::copy(members.file(), &trusted).unwrap();
    let asks = format!("--tls-client-ca={}", trusted.display());
    let (server, at) = serve(&authority.issue("localhost", |_| ()), "echo", &[&asks]);
    let [cert, key] = own(["cert", "key"], &members.issue("alice", |_| ()));
    let ca = ca(&authority);
    let options = [&ca, &cert, &key].map(String::as_str);
    answered(connect(&at, &options));
    // The forwarder keeps her session and resumes it.
    let forward = Program::spawn(Command::new(REACTOR).args(["forward", "0", &at]).args(options));
    let forward_at = forward.addr("forward");
    Client::connect(forward_at).expect(GREETING);
    std::fs::copy(authority.file(), &trusted).unwrap();
    server.signal("HUP");
    server.wait_for_log("reloaded");
    let _refused = Client::connect(forward_at);
    forward.wait_for_log("it refuses our certificate: it does not trust who issued it");
}

#[test]
fn files_that_cannot_be_used_are_status_1() {
    let authority = Authority::new("unusable");
    let files = authority.issue("localhost", |_| ());
    let [cert, key] = own(["cert", "key"], &files);
    let (ca, key_file) = (ca(&authority), files.1.display().to_string());
    let cert_of_none = format!("--cert={key_file}");
    for (options, words) in [
        (&["--ca=/nowhere/ca.pem"][..], "--ca /nowhere/ca.pem: cannot be read (No such file"),
        (&[&format!("--ca={key_file}")], "no certificate in it"),
        (&[&ca, &cert_of_none, &key], "no certificate in it"),
        (&[&ca, &cert, "--key=/nowhere/key.pem"], "--key /nowhere/key.pem: cannot be read"),
    ] {
        fails(connect("tls:127.0.0.1:9", options), 1, &[words]);
    }
    let [cert, key] = own(["tls-cert", "tls-key"], &files);
    let serve = ["echo=tls:0", &cert, &key, "--tls-client-ca=/nowhere/ca.pem"];
    fails(Program::serve(&serve), 1, &["--tls-client-ca /nowhere/ca.pem: cannot be read"]);
    // As the command of docs/operating.md made them once.
    let unlimited = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let files = authority.self_signed("localhost", unlimited);
    let (_server, at) = self::serve(&files, "echo", &[]);
    let own = format!("--ca={}", files.0.display());
    let words = ["its certificate is that of a CA", "-addext basicConstraints=critical,CA:FALSE"];
    fails(connect(&at, &[&own]), 1, &words);
}

#[test]
fn options_that_do_not_go_together_are_status_2() {
    let files = Authority::new("usage").issue("localhost", |_| ());
    let [cert, key] = own(["cert", "key"], &files);
    for (args, words) in [
        (&["connect", "9", "--ca=/a"][..], "--ca goes with a server with TLS; write tls:ADDR"),
        (&["load", "9", "--server-name=a"], "--server-name goes with a server with TLS"),
        (&["forward", "0", "9", &cert, &key], "--cert goes with a server with TLS"),
        (&["connect", "tls:9", &cert], "--key"),
        (&["connect", "tls:9", &key], "--cert"),
        (&["connect", "tls:unix:/a"], "give --server-name NAME"),
        (&["connect", "tls:9", "--server-name=a:9"], "--server-name \"a:9\": no name of a server"),
        (&["connect", "tls:9", "--insecure"], "--insecure"),
        (&["serve", "echo=0", "--tls-client-ca=/a"], "--tls-cert"),
    ] {
        fails(Program::spawn(Command::new(REACTOR).args(args)), 2, &[words]);
    }
}
