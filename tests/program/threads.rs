//! `--threads`: that several are one server, whatever is in front of a service and whoever asks. That
//! nothing else differs, all other tests of this binary say, if `REACTOR_TEST_THREADS` is set.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::util::folder::Folder;
use crate::util::http::ask_over;
use crate::util::program::{Program, REACTOR};
use crate::util::websocket::{self, TEXT, masked, plain};
use crate::util::{Client, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// Of so many clients each of three threads has some.
const CROWD: usize = 12;

fn crowd(at: SocketAddr) -> Vec<Client> {
    let mut clients: Vec<_> = (0..CROWD).map(|_| Client::connect(at)).collect();
    clients.iter_mut().for_each(|client| client.expect(GREETING));
    clients
}

/// Ends gracefully, and says what was logged.
fn ends(program: Program) -> String {
    program.signal("TERM");
    let (code, _, stderr) = program.end();
    assert_eq!(code, 0, "{stderr}");
    stderr
}

#[test]
fn several_threads_are_one_server() {
    let program = Program::serve(&["echo=0", "time=0", "--threads=3", "--max-connections=8"]);
    let at = program.addr("echo");
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(at)).collect();
    for client in &mut clients {
        client.expect(GREETING);
        client.send("hello\n");
        client.expect("> HELLO\n");
    }
    let refused = Client::connect(at).rest();
    assert_eq!(String::from_utf8_lossy(&refused), "Too many connections, try again later\n");
    drop(clients);
    program.signal("TERM");
    let (code, _, stderr) = program.end();
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("stopped after 8 connections; 1 were turned away"), "{stderr}");
}

#[test]
fn a_second_signal_ends_all_threads_at_once() {
    // The time it would wait for each is ten seconds. Lines are long, so that few are enough.
    let program = Program::serve(&["echo=0", "--threads=2", "--max-output=64M", "--max-line=1M"]);
    let at = program.addr("echo");
    let line = format!("{}\n", "x".repeat(1 << 20));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = Client::connect(at);
            client.expect(GREETING);
            // More than two kernels' buffers hold; nobody reads the answers.
            client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let line = line.clone();
            std::thread::spawn(move || {
                while client.stream.write_all(line.as_bytes()).is_ok() {}
                client
            })
        })
        .collect();
    let clients: Vec<_> = writers.into_iter().map(|thread| thread.join().unwrap()).collect();
    let began = Instant::now();
    program.signal("TERM");
    program.wait_for_log("a second one ends at once");
    program.signal("TERM");
    let (code, _, stderr) = program.end();
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("had all their output: 4 connections"), "{stderr}");
    drop(clients);
}

#[test]
fn a_wrong_number_of_threads_is_status_2() {
    for command in [&["serve", "echo=0"][..], &["forward", "0", "9"]] {
        for threads in ["0", "2000", "many"] {
            let option = format!("--threads={threads}");
            let mut args = command.to_vec();
            args.push(&option);
            let (code, _, stderr) = Program::run(&args);
            assert_eq!(code, 2, "{stderr}");
            assert!(stderr.contains("write a whole number from 1 to 1024, or auto"), "{stderr}");
        }
    }
}

#[cfg(feature = "tls")]
#[test]
fn each_thread_speaks_tls_and_reads_the_certificate_again() {
    let pem = crate::util::tls::Pem::new("threads");
    let [cert, key] = pem.options();
    let program = Program::serve(&["echo=tls:0", &cert, &key, "--threads=3"]);
    let at = program.place("echo").strip_prefix("tls:").unwrap().parse().unwrap();
    let come = || {
        let mut clients: Vec<_> = (0..CROWD).map(|_| pem.connect(at)).collect();
        clients.iter_mut().for_each(|client| client.expect(GREETING));
        clients
    };
    let mut old = come();
    // These clients trust the new certificate and no other.
    pem.renew(2041);
    program.signal("HUP");
    program.wait_for_log("cert.pem reloaded");
    for client in come().iter_mut().chain(&mut old) {
        client.send("hello\n");
        client.expect("> HELLO\n");
    }
    drop(old);
    ends(program);
}

#[test]
fn each_thread_speaks_web_socket() {
    let program = Program::serve(&["echo=ws:0", "--threads=3"]);
    let at = program.place("echo").strip_prefix("ws:").unwrap().parse().unwrap();
    let mut clients: Vec<_> = (0..CROWD).map(|_| websocket::open(at)).collect();
    for client in &mut clients {
        for line in GREETING.lines() {
            client.expect(plain(TEXT, line));
        }
        client.send(masked(TEXT, "hello"));
        client.expect(plain(TEXT, "> HELLO"));
    }
    drop(clients);
    ends(program);
}

#[test]
fn each_thread_forwards_and_they_count_together() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap().to_string();
    let most = format!("--max-connections={CROWD}");
    let args = ["forward", "0", &to, "--threads=3", &most];
    let program = Program::spawn(Command::new(REACTOR).args(args));
    let at = program.addr("forward");
    let mut pairs: Vec<_> = (0..CROWD)
        .map(|_| {
            let client = Client::connect(at);
            (client, Client::from(target.accept().unwrap().0))
        })
        .collect();
    for (number, (client, server)) in pairs.iter_mut().enumerate() {
        client.send(format!("there {number}\n"));
        server.expect(format!("there {number}\n"));
        server.send(format!("back {number}\n"));
        client.expect(format!("back {number}\n"));
    }
    assert_eq!(Client::connect(at).rest(), b"");
    drop(pairs);
    ends(program);
}

#[test]
fn the_control_socket_and_the_page_see_and_close_clients_of_all_threads() {
    let runtime = Folder::new("threads");
    let reactor = |args: &[&str]| {
        Program::spawn(Command::new(REACTOR).args(args).env("XDG_RUNTIME_DIR", runtime.path()))
    };
    let program = reactor(&["serve", "echo=0", "web=0", "--web-admin", "--threads=3"]);
    let (echo, web) = (program.addr("echo"), program.addr("web"));
    let mut clients = crowd(echo);
    let pid = program.pid().to_string();
    let status = || {
        let (code, stdout, stderr) = reactor(&["status", "--json", &pid]).end();
        assert_eq!((code, &*stderr), (0, ""));
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let object = status();
    let service = &object["services"][0];
    assert_eq!((&service["name"], &service["connections"]), (&"echo".into(), &CROWD.into()));
    let threads = object["threads"].as_array().unwrap();
    let connections: u64 = threads.iter().map(|it| it["connections"].as_u64().unwrap()).sum();
    // And whoever asks.
    assert_eq!((threads.len(), connections), (3, CROWD as u64 + 1));
    let (_, stdout, _) = reactor(&["status", &pid]).end();
    assert!((0..3).all(|thread| stdout.contains(&format!("\nthread {thread}: "))), "{stdout}");
    let metrics = format!("GET /metrics HTTP/1.1\r\nHost: {web}\r\n\r\n");
    let metrics = ask_over(&mut Client::connect(web), &metrics).body;
    for sample in ["reactor_threads 3", "reactor_thread_connections{thread=\"2\"} "] {
        assert!(metrics.contains(sample), "{metrics}");
    }
    let rows = object["connections"]["shown"].as_array().unwrap();
    let of = |client: &Client| {
        let peer = client.stream.local_addr().unwrap().to_string();
        rows.iter().find(|row| row["peer"] == *peer).unwrap()["id"].as_u64().unwrap()
    };
    // Numbers go by threads: of these, each thread has some.
    let threads: BTreeSet<_> = clients.iter().map(|client| of(client) % 3).collect();
    assert_eq!(threads.len(), 3);

    for (number, client) in clients.iter_mut().enumerate() {
        let id = of(client);
        if number % 2 == 0 {
            assert_eq!(reactor(&["close", &pid, &format!("#{id}")]).end().0, 0);
        } else {
            let from = format!("Host: {web}\r\nOrigin: http://{web}\r\n");
            let request = format!("POST /close/{id} HTTP/1.1\r\n{from}\r\n");
            assert_eq!(ask_over(&mut Client::connect(web), &request).status, 200);
        }
        client.rest();
    }
    until("nobody is left", || status()["services"][0]["connections"] == 0);
    ends(program);
}
