//! `reactor check` against `reactor serve`, and against servers that do one thing wrong.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::util::folder::Folder;
use crate::util::load::{GREETING, SERVICES, server};
use crate::util::program::{Program, REACTOR, Running, fails, wait};
use crate::util::{nobody, quiet};

/// Those that every server of lines can be asked for without its process.
const KINDS: [&str; 14] = [
    "split",
    "segment",
    "crlf",
    "last-line",
    "half-close",
    "bytes",
    "endless-line",
    "at-once",
    "silent",
    "slow-reader",
    "flood",
    "reset",
    "churn",
    "restart",
];

/// The result as JSON, with the exit status.
#[track_caller]
fn check(place: &str, args: &[&str]) -> (Value, i32) {
    let program = Program::spawn(Command::new(REACTOR).args(["check", place, "--json"]).args(args));
    let (status, stdout, stderr) = program.end();
    assert_eq!(stderr, "", "{stdout}");
    (serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}")), status)
}

fn verdicts(result: &Value) -> Vec<(String, String)> {
    let of = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = result["results"].as_array().unwrap();
    rows.iter().map(|row| (of(row, "name"), of(row, "verdict"))).collect()
}

/// That this kind of client fails, with these words in what came.
#[track_caller]
fn fails_at(place: &str, kind: &str, args: &[&str], words: &str) -> Value {
    let (result, status) = check(place, &[args, &["--only", kind]].concat());
    let row = result["results"][0].clone();
    assert_eq!(
        (status, &row["name"], &row["verdict"]),
        (1, &kind.into(), &"fail".into()),
        "{result}"
    );
    assert!(row["came"].as_str().unwrap().contains(words), "{row}");
    for key in ["does", "why", "sent", "expected"] {
        assert!(row[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {row}");
    }
    row
}

#[track_caller]
fn passes(place: &str, kind: &str, args: &[&str]) {
    let (result, status) = check(place, &[args, &["--only", kind]].concat());
    assert_eq!((status, &result["results"][0]["verdict"]), (0, &"pass".into()), "{result}");
}

// ---- Servers that do as they should ----

#[test]
fn our_own_services_pass() {
    let _quiet = quiet();
    let services = [&SERVICES[..], &["roulette=0", "roulette2=0"]].concat();
    let program = Program::serve(&services);
    let pid = program.pid().to_string();
    let names = ["echo", "presence", "time", "roulette", "roulette2"];
    let places = names.map(|name| program.place(name));
    for (name, place) in names.into_iter().zip(places) {
        let mut args = vec!["--protocol", name];
        if cfg!(target_os = "linux") {
            args.extend(["--server-pid", &pid]);
        }
        let (result, status) = check(&place, &args);
        assert_eq!((status, &result["failed"]), (0, &0.into()), "{result}");
        assert_eq!(result["protocol"], name);
        assert!(result["elapsed_s"].as_f64().unwrap() < 50.0, "{result}");
        let mut notes: Vec<_> =
            verdicts(&result).into_iter().filter(|row| row.1 == "note").map(|row| row.0).collect();
        if name == "presence" {
            // The room lets a client go that does not keep up with the flood, as one on a busy machine.
            notes.retain(|kind| *kind != "flood");
        }
        // The clock does not ask, so there is nothing to send.
        let asked = [
            "split",
            "segment",
            "crlf",
            "last-line",
            "half-close",
            "slow-reader",
            "flood",
            "reset",
        ];
        let expected =
            if name == "time" { [&asked[..], &["restart"]].concat() } else { vec!["restart"] };
        assert_eq!(notes, expected, "{name}: {result}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_of_ones_own_command_is_killed_and_started_again() {
    let _quiet = quiet();
    let address = nobody().to_string();
    let command = format!("{REACTOR} serve echo={address} --log off");
    let (result, status) =
        check(&address, &["--run", &command, "--only", "restart", "--only", "churn"]);
    assert_eq!(status, 0, "{result}");
    let said = result["results"][0]["said"].as_str().unwrap();
    assert!(said.starts_with("200 visits; ") && said.contains("descriptors before"), "{said}");
    // It has gone with the checker.
    assert!(TcpStream::connect(&address).is_err());
}

/// A server is often the child of what was started: of npm, of a reloader, of a master of workers.
#[test]
#[cfg(target_os = "linux")]
fn the_children_of_a_server_end_with_it() {
    let folder = Folder::new("children");
    let address = nobody();
    let script = folder.file("server.sh");
    let text =
        format!("{REACTOR} serve echo={address} --log off &\nif [ \"$WAIT\" ]; then wait; fi\n");
    std::fs::write(&script, text).unwrap();
    let command = format!("WAIT=yes sh {}", script.display());
    let (result, status) = check(&address.to_string(), &["--run", &command, "--only=restart"]);
    assert_eq!(status, 0, "{result}");
    let gone = || TcpStream::connect(address).is_err();
    crate::util::until("the server has ended", gone);

    // It is no server that leaves its child alone.
    let command = format!("sh {}", script.display());
    let args = ["check", &address.to_string(), "--run", &command, "--only=silent"];
    let (status, said, errors) = Program::run(&args);
    let words = (said + &errors).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(status == 1 && words.contains("(it must stay in the foreground)"), "{words}");
    crate::util::until("the child has ended", gone);

    let command = format!("WAIT=yes sh {}", script.display());
    for signal in ["HUP", "INT", "TERM"] {
        let mut program = Command::new(REACTOR);
        program.args(["check", &address.to_string(), "--run", &command]);
        program.stdout(Stdio::null());
        let mut program = Running(program.spawn().unwrap());
        crate::util::until("the server listens", || !gone());
        let kill = Command::new("kill").args(["-s", signal, &program.0.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert_eq!(wait(&mut program.0).code(), None, "the signal is the reason");
        crate::util::until("the server has ended", gone);
    }
}

/// Its time for one byte after the other is not the server's.
#[test]
fn a_dialogue_of_many_lines_byte_by_byte() {
    let folder = Folder::new("slowly");
    let protocol = folder.file("slowly.toml").display().to_string();
    let send = "{ send = '{99*x}' }, ".repeat(10);
    let expect = "{ expect = '> {99*X}' }, ".repeat(10);
    let text = format!(
        "name = 'slowly'\ngreeting = ['{{any}}', '{{any}}']\n[[dialogue]]\nname = 'ask'\nsteps = [{send}{expect}]\n"
    );
    std::fs::write(&protocol, text).unwrap();
    let place = lines(say);
    passes(&place, "split", &["--protocol", &protocol, "--patience=800ms"]);
}

// ---- What each kind of client fails at ----

/// An echo server: a thread a client, lines as they should be, but for what is done with them.
fn lines(reply: impl Fn(&mut TcpStream, &str) -> bool + Send + Clone + 'static) -> String {
    server(move |mut stream| {
        let _ = stream.write_all(GREETING.as_bytes());
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            if !reply(&mut stream, &String::from_utf8_lossy(&line)) {
                return;
            }
            line.clear();
        }
    })
}

fn say(stream: &mut TcpStream, line: &str) -> bool {
    stream
        .write_all(format!("> {}\n", line.trim_end_matches(['\r', '\n']).to_uppercase()).as_bytes())
        .is_ok()
}

#[test]
fn who_greets_late_or_otherwise() {
    let late = server(|mut stream| {
        let _ = stream.read(&mut [0; 1]);
        let _ = stream.write_all(GREETING.as_bytes());
    });
    let row = fails_at(&late, "greeting", &["--patience=300ms"], "nothing");
    assert_eq!(row["expected"], "Welcome to the Reactor Server.");
    let other = server(|mut stream| {
        let _ = stream.write_all(b"220 hello\r\n");
        let _ = stream.read(&mut [0; 1]);
    });
    fails_at(&other, "greeting", &[], "220 hello\\r");
    let more = server(|mut stream| {
        let _ = stream.write_all(format!("{GREETING}> ").as_bytes());
        let _ = stream.read(&mut [0; 1]);
    });
    let row = fails_at(&more, "greeting", &[], "> ");
    assert_eq!(row["expected"], "nothing");
    // Then nothing that is built on it is tried.
    let (result, _) = check(&other, &[]);
    let tried: Vec<_> = verdicts(&result).into_iter().filter(|row| row.1 != "note").collect();
    assert_eq!((tried.len(), &result["passed"]), (7, &0.into()), "{result}");
}

#[test]
fn who_takes_a_read_for_a_line() {
    let place = server(|mut stream| {
        let _ = stream.write_all(GREETING.as_bytes());
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            if !say(&mut stream, &String::from_utf8_lossy(&chunk[..count])) {
                return;
            }
        }
    });
    passes(&place, "upper case", &[]);
    fails_at(&place, "split", &[], "> H");
    fails_at(&place, "segment", &[], "HELLO FROM CLIENT");
}

#[test]
fn who_answers_once_a_read() {
    let place = server(|mut stream| {
        let _ = stream.write_all(GREETING.as_bytes());
        let mut rest = String::new();
        let mut chunk = [0; 100_000];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            rest.push_str(&String::from_utf8_lossy(&chunk[..count]));
            if let Some((line, _)) = rest.clone().split_once('\n') {
                rest.clear();
                say(&mut stream, line);
            }
        }
    });
    passes(&place, "split", &[]);
    fails_at(&place, "segment", &["--patience=300ms"], "nothing");
}

#[test]
fn who_takes_the_cr_for_a_letter() {
    let place = lines(|stream, line| {
        stream
            .write_all(format!("> {}\n", line.trim_end_matches('\n').to_uppercase()).as_bytes())
            .is_ok()
    });
    let row = fails_at(&place, "crlf", &[], "ROUND 1\\r");
    assert!(row["sent"].as_str().unwrap().ends_with("\\r\\n"), "{row}");
}

#[test]
fn who_drops_the_last_line() {
    let place = lines(|stream, line| !line.ends_with('\n') || say(stream, line));
    fails_at(&place, "last-line", &["--patience=300ms"], "the end of the connection");
    passes(&place, "half-close", &[]);
}

#[test]
fn who_closes_at_the_end_of_input_or_never() {
    // It looks for the end before it answers.
    let hasty = lines(|stream, line| {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        !matches!(stream.peek(&mut [0; 1]), Ok(0)) && say(stream, line)
    });
    passes(&hasty, "upper case", &[]);
    fails_at(&hasty, "half-close", &["--patience=1s"], "the end of the connection");
    let kept: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let never = lines(move |stream, line| {
        kept.lock().unwrap().push(stream.try_clone().unwrap());
        say(stream, line)
    });
    let row = fails_at(&never, "half-close", &["--patience=300ms"], "nothing");
    assert_eq!(row["expected"], "the end of the connection");
}

/// A server of which one client may be the end; without it, it is gone.
fn mortal(dies: impl Fn(&[u8]) -> bool + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(GREETING.as_bytes());
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut line = Vec::new();
            loop {
                line.clear();
                match lines.read_until(b'\n', &mut line) {
                    Ok(0) => break,
                    Ok(_) if dies(&line) => return,
                    Ok(_) => drop(say(&mut stream, &String::from_utf8_lossy(&line))),
                    Err(error) if dies(error.kind().to_string().as_bytes()) => return,
                    Err(_) => break,
                }
            }
        }
    });
    place
}

#[test]
fn who_dies_of_bytes_or_of_a_reset() {
    let strict = mortal(|line| str::from_utf8(line).is_err());
    passes(&strict, "reset", &[]);
    let (result, _) = check(&strict, &["--only=bytes", "--only=churn"]);
    assert_eq!(verdicts(&result)[0], ("bytes".into(), "fail".into()), "{result}");
    let came = result["results"][0]["came"].as_str().unwrap();
    assert!(came.contains("nobody listens there any more"), "{came}");
    let said = result["results"][1]["said"].as_str().unwrap();
    assert_eq!(said, "not tried: since 'bytes' nobody listens there");
    let reset = mortal(|line| line == ErrorKind::ConnectionReset.to_string().as_bytes());
    passes(&reset, "bytes", &[]);
    fails_at(&reset, "reset", &[], "");
}

#[test]
fn who_serves_one_at_a_time() {
    let place = mortal(|_| false);
    passes(&place, "segment", &[]);
    fails_at(&place, "at-once", &["--patience=300ms"], "one of them, one at a time");
    fails_at(&place, "silent", &["--patience=300ms"], "nothing");
    fails_at(&place, "flood", &["--patience=300ms"], "nothing");
    fails_at(&place, "slow-reader", &["--patience=1s"], "nothing");
    passes(&place, "churn", &[]);
}

#[test]
fn who_serves_ten_at_once() {
    let served = Arc::new(AtomicUsize::new(0));
    let place = server(move |mut stream| {
        while served.fetch_add(1, Relaxed) >= 10 {
            served.fetch_sub(1, Relaxed);
            thread::sleep(Duration::from_millis(5));
        }
        let _ = stream.write_all(GREETING.as_bytes());
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        lines.map_while(Result::ok).all(|line| say(&mut stream, &line));
        served.fetch_sub(1, Relaxed);
    });
    fails_at(&place, "at-once", &["--patience=500ms"], "that for 10 of them");
}

/// As long as one client after the other gets on, the server may be slow: the last ten take a second and a half.
#[test]
fn who_serves_a_hundred_slowly() {
    let (greeted, turn) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
    let place = server(move |mut stream| {
        if greeted.fetch_add(1, Relaxed) > 90 {
            let _turn = turn.lock().unwrap();
            thread::sleep(Duration::from_millis(150));
        }
        let _ = stream.write_all(GREETING.as_bytes());
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        lines.map_while(Result::ok).all(|line| say(&mut stream, &line));
    });
    passes(&place, "at-once", &["--patience=300ms"]);
}

/// The server has to wait for as long as the checker does, since both want the same processor.
#[test]
fn a_checker_without_a_processor_does_not_judge() {
    let _quiet = quiet();
    let (connected, frozen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
    let until_it_goes_on = frozen.lock().unwrap();
    let (count, gate) = (Arc::clone(&connected), Arc::clone(&frozen));
    let place = server(move |mut stream| {
        count.fetch_add(1, Relaxed);
        drop(gate.lock());
        let _ = stream.write_all(GREETING.as_bytes());
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        lines.map_while(Result::ok).all(|line| say(&mut stream, &line));
    });
    let args = ["check", &place, "--only=at-once", "--patience=1s"];
    let checker = Program::spawn(Command::new(REACTOR).args(args));
    // The first is whether anybody listens at all.
    crate::util::until("all are connected", || connected.load(Relaxed) > 100);
    checker.signal("STOP");
    // Longer than anybody has patience for; that is what is tried.
    thread::sleep(Duration::from_millis(2500));
    checker.signal("CONT");
    drop(until_it_goes_on);
    let (status, stdout, stderr) = checker.end();
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
}

/// One thread that never waits in a write: what is not taken is kept.
fn hoarder() -> String {
    server(|mut stream| {
        let mut output: Vec<u8> = GREETING.as_bytes().to_vec();
        let mut input = vec![0; 64 * 1024];
        let mut line = Vec::new();
        stream.set_nonblocking(true).unwrap();
        loop {
            match stream.read(&mut input) {
                Ok(0) => return,
                Ok(count) => {
                    for byte in &input[..count] {
                        match byte {
                            b'\n' => {
                                output.extend(b"> ");
                                output.extend(line.to_ascii_uppercase());
                                output.push(b'\n');
                                line.clear();
                            }
                            byte => line.push(*byte),
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return,
            }
            match stream.write(&output) {
                Ok(count) => drop(output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    })
}

#[test]
#[cfg(target_os = "linux")]
fn whose_memory_grows() {
    let _quiet = quiet();
    let place = hoarder();
    let own = std::process::id().to_string();
    let args = ["--server-pid", &own, "--patience=4s"];
    let row = fails_at(&place, "slow-reader", &args, "it reads on and on: ");
    assert!(row["came"].as_str().unwrap().contains("more memory"), "{row}");
    fails_at(&place, "endless-line", &args, "MiB more memory");
    // Without its process one cannot know.
    let (result, status) = check(&place, &["--only=endless-line"]);
    assert_eq!((status, &result["notes"]), (0, &1.into()), "{result}");
    // Each client leaves a descriptor behind.
    let kept: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let leaky = lines(move |stream, line| {
        kept.lock().unwrap().push(stream.try_clone().unwrap());
        say(stream, line)
    });
    fails_at(&leaky, "churn", &["--server-pid", &own, "--patience=2s"], "open descriptors");
}

#[test]
fn a_server_that_cannot_start_again() {
    let folder = Folder::new("restart");
    let address = nobody().to_string();
    // It starts once.
    let once = folder.file("once").display().to_string();
    let script = folder.file("server.sh");
    let text = format!(
        "mkdir {once} || {{ printf '\\033[2Jit is my second time\\n' >&2; exit 3; }}\n\
         exec {REACTOR} serve echo={address} --log off\n"
    );
    std::fs::write(&script, text).unwrap();
    let command = format!("sh {}", script.display());
    let words = "\\u{1b}[2Jit is my second time";
    let row = fails_at(&address, "restart", &["--run", &command], words);
    assert!(row["came"].as_str().unwrap().contains("exit status: 3"), "{row}");
    let program =
        Program::spawn(Command::new(REACTOR).args(["check", &address, "--run", &command]));
    fails(program, 1, &["--run sh", "the server ended, exit status: 3", "it is my second time"]);
}

/// A server that dies of a client is started again, for the others.
#[test]
#[cfg(target_os = "linux")]
fn a_server_that_dies_is_started_again() {
    let folder = Folder::new("dies");
    let address: SocketAddr = nobody();
    let script = folder.file("server.py");
    let text = format!(
        "import socket, sys\n\
         s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('{}', {})); s.listen(128)\n\
         while True:\n\
         \x20   c, _ = s.accept(); c.sendall({GREETING:?}.encode())\n\
         \x20   for line in c.makefile('rb'): c.sendall(b'> ' + line.decode().strip().upper().encode() + b'\\n')\n",
        address.ip(),
        address.port()
    );
    std::fs::write(&script, text).unwrap();
    if Command::new("python3").arg("--version").output().is_err() {
        return crate::util::skip("python3 is not installed");
    }
    let command = format!("python3 {}", script.display());
    let args = ["--run", &command, "--only=bytes", "--only=churn", "--patience=5s"];
    let (result, status) = check(&address.to_string(), &args);
    assert_eq!(status, 1, "{result}");
    let came = result["results"][0]["came"].as_str().unwrap();
    assert!(came.contains("the server ended") && came.contains("UnicodeDecodeError"), "{result}");
    assert_eq!(verdicts(&result)[1], ("churn".into(), "pass".into()), "{result}");
}

// ---- Servers that do not let themselves be judged ----

/// It ends in time, whatever the server does.
#[test]
fn servers_that_hang_or_flood_or_never_read() {
    let hangs = server(|stream| {
        let _ = stream.set_nonblocking(false);
        thread::sleep(Duration::from_secs(90));
    });
    let floods = server(|mut stream| while stream.write_all(&[b'x'; 65_536]).is_ok() {});
    let floods_lines = server(|mut stream| while stream.write_all(&[b'\n'; 65_536]).is_ok() {});
    let never_reads = server(|mut stream| {
        let _ = stream.write_all(GREETING.as_bytes());
        thread::sleep(Duration::from_secs(90));
    });
    let resets = server(|stream| {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let closes = server(|stream| drop(stream.shutdown(Shutdown::Both)));
    for place in [hangs, floods, floods_lines, never_reads, resets, closes] {
        let begun = Instant::now();
        let (result, status) = check(&place, &["--patience=500ms"]);
        assert_eq!(
            (status, &result["passed"].as_u64().is_some_and(|passed| passed <= 1)),
            (1, &true)
        );
        assert!(begun.elapsed() < Duration::from_secs(30), "{result}");
    }
}

#[test]
fn what_is_not_judged_in_time_has_neither_passed_nor_failed() {
    let program = Program::serve(&["echo=0"]);
    let (result, status) = check(&program.place("echo"), &["--time-limit=1ms"]);
    assert_eq!((status, &result["failed"]), (1, &0.into()), "{result}");
    let last = result["results"].as_array().unwrap().last().unwrap();
    assert_eq!(last["verdict"], "note", "{last}");
    assert!(last["said"].as_str().unwrap().contains("the time is over"), "{last}");
}

/// The longest a check of everything lasts.
#[test]
fn lines_that_are_let_pass_are_not_listened_to_without_end() {
    let folder = Folder::new("chatter");
    let protocol = folder.file("chatter.toml").display().to_string();
    let text = "name = 'chatter'\nignore = ['{any}']\n[[dialogue]]\nname = 'ask'\n\
                steps = [{ send = 'a' }, { expect = 'b' }]\n";
    std::fs::write(&protocol, text).unwrap();
    let place = server(|mut stream| while stream.write_all(b"news\nnews\n").is_ok() {});
    let begun = Instant::now();
    let args = ["--protocol", &protocol, "--patience=500ms"];
    let (result, status) = check(&place, &args);
    assert_eq!(status, 1, "{result}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{result}");
}

/// All connections that it made are over when it has ended.
#[test]
fn it_leaves_no_connection_behind() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let place = server(move |mut stream| {
        count.fetch_add(1, Relaxed);
        let _ = stream.write_all(GREETING.as_bytes());
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        lines.map_while(Result::ok).all(|line| say(&mut stream, &line));
        count.fetch_sub(1, Relaxed);
    });
    let (result, _) =
        check(&place, &["--only=at-once", "--only=silent", "--only=reset", "--only=flood"]);
    assert_eq!(result["failed"], 0, "{result}");
    crate::util::until("all have gone", || open.load(Relaxed) == 0);
}

// ---- What is said ----

#[test]
fn people_get_a_table_that_fits() {
    let place = mortal(|_| false);
    let args = [
        "check",
        &place,
        "--only=upper case",
        "--only=silent",
        "--only=restart",
        "--patience=300ms",
    ];
    let (status, stdout, stderr) = Program::run(&args);
    assert_eq!((status, stderr.as_str()), (1, ""));
    assert!(
        stdout.starts_with(&format!("echo at {place}\n\npass  upper case  1 sent, 1 right\n")),
        "{stdout}"
    );
    for words in [
        "FAIL  silent ",
        "\n      expected  Welcome",
        "\n      came      nothing\n",
        "note  restart ",
    ] {
        assert!(stdout.contains(words), "{words:?} is not in {stdout}");
    }
    assert!(stdout.contains("\n1 passed, 1 failed, 1 note in "), "{stdout}");
    assert!(
        stdout.lines().all(|line| line.chars().count() <= 80 && line == line.trim_end()),
        "{stdout}"
    );
    assert!(!stdout.contains('\x1b'), "{stdout}");
}

/// A file, too, says nothing to the terminal.
#[test]
fn reasons_are_shown_safely() {
    let folder = Folder::new("reasons");
    let protocol = folder.file("a.toml").display().to_string();
    let text = "name = 'a'\n[[dialogue]]\nname = 'b'\nwhy = \"\\u001b[2J\\u009b\"\nsteps = [{ end = 'client' }, { expect = 'a' }]\n";
    std::fs::write(&protocol, text).unwrap();
    let place = lines(say);
    let (status, stdout, _) = Program::run(&["check", &place, "--only=b", "--protocol", &protocol]);
    assert!(status == 1 && stdout.contains("why       ?[2J?\n"), "{stdout}");
}

#[test]
fn the_list_names_every_kind() {
    let (status, stdout, _) = Program::run(&["check", "--list"]);
    assert_eq!(status, 0);
    let names = [&["greeting", "upper case", "long line"], &KINDS[..]].concat();
    for name in names {
        assert!(stdout.lines().any(|line| line.starts_with(name)), "{name} is not in {stdout}");
    }
}

#[test]
fn what_is_wrong_on_the_command_line() {
    for (args, words) in [
        (&["check"][..], "ADDR"),
        (&["check", "1", "--only=nothing"], "--only nothing: there are greeting, upper case, "),
        (&["check", "unix:/a"], "check speaks TCP: write PORT or HOST:PORT"),
        (&["check", "ws:7"], "check speaks plain TCP: write 127.0.0.1:7"),
        (&["check", "1", "--run=a", "--server-pid=1"], "cannot be used with"),
        (&["check", "127.0.0.1"], "the port is missing"),
        (&["check", "2323", "80"], "write HOST:80"),
    ] {
        let program = Program::spawn(Command::new(REACTOR).args(args));
        fails(program, 2, &[words]);
    }
    let place = nobody().to_string();
    let folder = Folder::new("protocols");
    let file = |name: &str, text: &[u8]| {
        let path = folder.file(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let empty = file("empty.toml", b"name = 'a'\n[[dialogue]]\nname = 'b'\nsteps = []\n");
    let latin = file("latin.toml", b"name = 'a'\n# caf\xe9\n");
    let split = "name = 'a'\n[[dialogue]]\nname = 'split'\nsteps = [{ expect = 'a' }]\n";
    let split = file("split.toml", split.as_bytes());
    let kinds = file("kinds.toml", b"name = 'a'\ngreeting = ['a']\nleave_out = ['crfl']\n");
    for (args, words) in [
        (&[][..], "nobody listens there; start the server first"),
        (
            &["--protocol", "/nowhere"],
            "give a file, or one of echo, time, presence, roulette, roulette2",
        ),
        (&["--protocol", &empty], "empty.toml:4: the dialogue is empty: write steps"),
        (&["--protocol", &latin], "latin.toml:2: it is not UTF-8; a byte is written {0xE9}"),
        (&["--protocol", &kinds], "leave_out: no \"crfl\", there are greeting, split"),
        (&["--protocol", &split], "the dialogue \"split\" is called as a kind of client is"),
        #[cfg(target_os = "linux")]
        (&["--server-pid=4294967295"], "no such process in /proc"),
        (&["--run", "exit 3"], "the server ended, exit status"),
    ] {
        let program = Program::spawn(Command::new(REACTOR).args(["check", &place]).args(args));
        fails(program, 1, &[words]);
    }
    let taken = mortal(|_| false);
    let program = Program::spawn(Command::new(REACTOR).args(["check", &taken, "--run", "true"]));
    fails(program, 1, &["somebody listens on", "end it, or leave --run out"]);
}

#[test]
fn the_help_teaches_the_files() {
    let (status, stdout, _) = Program::run(&["check", "--help"]);
    assert_eq!(status, 0);
    for words in ["[default: echo]", "[default: 2s]", "{ expect = \"key {key}\" }", "elapsed_s"] {
        assert!(stdout.contains(words), "{words} is not in {stdout}");
    }
}
