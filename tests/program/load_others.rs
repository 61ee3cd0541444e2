//! `reactor load` against servers that are not ours, and what a run can be asked for beside that.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::util::folder::Folder;
use crate::util::load::{Servers, faulty, json, latencies, load, number, server};
use crate::util::program::Program;

/// A server that answers a line with this, and says this before.
fn answering(
    greeting: &'static str,
    answer: impl Fn(&str) -> String + Send + Clone + 'static,
) -> String {
    server(move |mut stream| {
        let _ = stream.write_all(greeting.as_bytes());
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if stream.write_all(answer(&line).as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn plain() -> String {
    answering("", |line| format!("{line}\n"))
}

/// An echo server that does not answer more than so many lines a second, whoever asks.
fn limited(per_second: u64) -> String {
    let next = Arc::new(Mutex::new(None));
    answering("", move |line| {
        let due = {
            let mut next = next.lock().unwrap();
            let due: Instant = next.unwrap_or_else(Instant::now);
            // What it was late is made up for, so that its capacity is exact.
            *next = Some(due + Duration::from_secs(1) / per_second as u32);
            due
        };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        format!("{line}\n")
    })
}

/// A run without a fault.
#[track_caller]
fn right(place: &str, args: &[&str]) -> Value {
    let (result, status, stderr) = json(place, args);
    assert_eq!((status, stderr.as_str(), &result["errors"]), (0, "", &0.into()), "{result}");
    result
}

// ---- What is said ----

#[test]
fn any_echo_server() {
    let place = plain();
    for mode in ["echo", "pipeline", "churn"] {
        let result = right(&place, &["--plain", "--mode", mode, "-c3", "-d300ms", "--size=100"]);
        assert!(number(&result, "lines") > 0.0, "{result}");
    }
    let result = right(&place, &["--plain", "--mode=idle", "-c3", "-d300ms"]);
    assert_eq!(result["connected"], 3);
    // It does not greet.
    let (status, _, stderr) = load(&place, &["-d1s", "-c2"]);
    assert!(status == 1 && stderr.contains("other servers there are --plain"), "{stderr}");
}

#[test]
fn requests_and_replies_as_they_are_given() {
    let place = answering("", |line| line.replace("PING", "PONG 12:") + "\r\n");
    let words = ["--send", "PING {client} {n}", "--expect", "PONG {any}: {client} {n}"];
    for mode in ["echo", "pipeline", "churn"] {
        let args = [&words[..], &["--mode", mode, "-c3", "-n100"]].concat();
        let result = right(&place, &args);
        assert_eq!((&result["lines"], &result["sent"]), (&100.into(), &100.into()), "{result}");
    }
    let (_, stdout, _) = load(&place, &[&words[..], &["-c1", "-n1"]].concat());
    assert!(stdout.starts_with("\"PING {client} {n}\" to 127.0.0.1:"), "{stdout}");
    assert!(stdout.contains("replies    1 in "), "{stdout}");
}

#[test]
fn a_reply_of_several_lines() {
    let place = answering("", |line| format!("{line} follows\nyes\n"));
    let args = ["--send={n}", "--expect={n} follows", "--expect=yes", "--mode=pipeline", "-n=500"];
    let result = right(&place, &args);
    assert_eq!((&result["lines"], latencies(&result)), (&500.into(), 500));
}

#[test]
fn the_first_wrong_reply_is_told_with_what_was_sent() {
    let place = answering("", |line| line.replace("3", "three") + "\n");
    let args = ["--send=say {n}", "--expect=say {n}", "-c1", "-n5"];
    let (result, status, stderr) = json(&place, &args);
    assert_eq!((status, &result["errors_by_kind"]["wrong_reply"]), (1, &1.into()), "{result}");
    assert_eq!(stderr, "reactor: 1 error, 4 of 5 requests answered\n");
    assert_eq!(result["first_wrong"], "say three\\n");
    assert_eq!(result["first_wrong_sent"], "say 3\\n");
    assert_eq!(result["first_wrong_expected"], "say 3");
    let (_, stdout, _) = load(&place, &args);
    let told = "sent       \"say 3\\n\"\nwrong      \"say three\\n\"\nnot        \"say 3\"\n";
    assert!(stdout.ends_with(told), "{stdout}");
}

/// Where a dialogue goes wrong nobody knows where its next reply begins.
#[test]
fn a_dialogue_that_goes_wrong_is_over() {
    let place = answering("", |line| format!("{line}\n"));
    let args = ["--send={n}", "--expect={n}", "--expect=more", "-c3", "-n30"];
    let (result, status, _) = json(&place, &args);
    assert_eq!((status, &result["lines"]), (1, &0.into()), "{result}");
    // The next reply to each is not even due: it has asked once.
    assert_eq!(result["errors_by_kind"], serde_json::json!({ "missing_reply": 3 }), "{result}");
    let args = ["--send={n}", "--expect=no", "--expect=more", "-c3", "-n30"];
    let (result, status, _) = json(&place, &args);
    assert_eq!((status, &result["sent"]), (1, &3.into()), "{result}");
    assert_eq!(result["errors_by_kind"], serde_json::json!({ "wrong_reply": 3 }), "{result}");
}

#[test]
fn greetings() {
    let hello = answering("hello\r\nI am 7\r\n", |line| format!("{line}\n"));
    let words = ["--send={n}", "--expect={n}", "-c3", "-n30"];
    right(&hello, &[&words[..], &["--greeting=hello\\nI am 7"]].concat());
    right(&hello, &[&words[..], &["--greeting=2"]].concat());
    right(&hello, &["--plain", "--greeting=2", "-c3", "-n30"]);
    let kinds = faulty(&hello, &[&words[..3], &["--greeting=help"]].concat());
    assert_eq!(kinds, serde_json::json!({ "wrong_greeting": 3 }));
    // Ours, as if it did not greet.
    let silent = answering("", |line| format!("> {}\n", line.to_uppercase()));
    let (result, _, _) = json(&silent, &["--no-greeting", "-c3", "-n30"]);
    assert_eq!(result["lines"], 30, "{result}");
}

const LOGIN: &str = r#"
name = "login"
greeting = ["hello {session}"]
ignore = ["news {any}"]

[[dialogue]]
name = "log in and out"
steps = [
    { send = "login {client}" },
    { expect = "key {key}" },
    { send = "logout {key} {session}" },
    { expect = "bye {client} {n}" },
]

[[dialogue]]
name = "leave"
steps = [{ send = "quit" }, { end = "server" }]
"#;

#[test]
fn dialogues_of_a_file() {
    let folder = Folder::new("script");
    let file = folder.file("login.toml");
    fs::write(&file, LOGIN).unwrap();
    let script = format!("--script={}", file.display());
    let place = server(|mut stream| {
        let _ = stream.write_all(b"hello s17\n");
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let (mut client, mut round) = (String::new(), 0);
        for line in lines.map_while(Result::ok) {
            let words: Vec<_> = line.split(' ').collect();
            let answer = match words[..] {
                ["login", number] => {
                    client = number.to_owned();
                    round += 1;
                    format!("news of today\nkey k{round}\nnews of tomorrow\n")
                }
                ["logout", key, "s17"] if key == format!("k{round}") => {
                    format!("bye {client} {round}\nnews of old\n")
                }
                _ => "what?\n".to_owned(),
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    for args in [&["-c5", "-n50"][..], &["-c5", "-n50", "--threads=2"]] {
        let result = right(&place, &[&[&*script], args].concat());
        assert_eq!((&result["lines"], latencies(&result)), (&50.into(), 50), "{result}");
    }
    // What the server said cannot be said ahead.
    let (status, _, stderr) = load(&place, &[&script, "--mode=pipeline"]);
    assert!(status == 2 && stderr.contains("cannot be pipelined"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn our_own_protocols_by_name_and_through_every_layer() {
    let servers = Servers::start();
    let result = right(&servers.echo, &["--script=echo", "-c6", "-n600", "--mode=pipeline"]);
    assert_eq!(result["lines"], 600);
    let program =
        Program::serve(&["echo=proxy:ws:127.0.0.1:0", "--proxy-from=127.0.0.1", "--log=off"]);
    let place = program.line().rsplit(' ').next().unwrap().to_owned();
    let words = ["--send=a {n}", "--expect=> A {n}", "--greeting=2", "-c3", "-n99", "--threads=3"];
    let result = right(&place, &words);
    assert_eq!(result["lines"], 99);
}

// ---- How much, how long ----

/// Whether a figure is within a share of what it should be.
fn is_near(figure: f64, right: f64, share: f64) -> bool {
    (figure / right - 1.0).abs() < share
}

/// That a run of five gives these figures. A machine that is busy at the end of a run spoils it; a load
/// tester that measures wrongly spoils all of them.
#[track_caller]
fn once_in_five(run: impl Fn() -> Value, is_right: impl Fn(&Value) -> bool) {
    let results: Vec<_> = (0..5).map(|_| run()).take_while(|it| !is_right(it)).collect();
    assert!(results.len() < 5, "{results:#?}");
}

#[test]
fn the_capacity_of_a_server_is_found() {
    for args in [&["--threads=1"][..], &["--threads=2"], &["--warm-up=500ms"]] {
        let run = || right(&limited(1000), &[&["--plain", "-c16", "-d3s"], args].concat());
        once_in_five(run, |result| {
            is_near(number(result, "lines_per_s"), 1000.0, 0.02)
                // Sixteen wait for one place each millisecond.
                && is_near(number(&result["latency_us"], "p50"), 16_000.0, 0.1)
        });
    }
}

/// Half of the lines wait longer and longer. Who measured from when they could be sent saw nothing of it.
#[test]
fn a_rate_that_is_twice_the_capacity_is_waited_for() {
    let run = || right(&limited(500), &["--plain", "-c8", "-d2s", "-q1000"]);
    once_in_five(run, |result| {
        is_near(number(result, "lines_per_s"), 500.0, 0.02)
            && number(&result["latency_us"], "p99") > 900_000.0
            && is_near(number(result, "unsent"), 1000.0, 0.1)
    });
}

#[test]
fn exactly_so_many_requests() {
    let came = Arc::new(AtomicU64::new(0));
    let count = came.clone();
    let place = answering("", move |line| {
        count.fetch_add(1, Ordering::SeqCst);
        format!("{line}\n")
    });
    for (number, args) in [
        (1001, &["-c7"][..]),
        (1001, &["-c7", "--mode=pipeline", "--depth=64"]),
        (1001, &["-c7", "--threads=3"]),
        (3, &["-c7", "--threads=3"]),
        (501, &["-c7", "-q1000", "--threads=2"]),
        (101, &["-c7", "--mode=churn", "--threads=2"]),
    ] {
        came.store(0, Ordering::SeqCst);
        let asked = format!("-n{number}");
        let result = right(&place, &[&["--plain", &asked], args].concat());
        let all = ["lines", "sent", "requests"].map(|name| result[name].as_u64());
        assert_eq!(all, [Some(number); 3], "{args:?}: {result}");
        assert_eq!((came.load(Ordering::SeqCst), latencies(&result)), (number, number), "{args:?}");
        if args.contains(&"-q1000") {
            // The threads have the rate together; if each had it, it would take half of the time.
            assert!(crate::util::load::number(&result, "elapsed_s") > 0.45, "{result}");
        }
    }
}

#[test]
fn a_warm_up_does_not_count() {
    let came = Arc::new(AtomicU64::new(0));
    let count = came.clone();
    let place = answering("", move |line| {
        // The first lines take long.
        if count.fetch_add(1, Ordering::SeqCst) < 3 {
            std::thread::sleep(Duration::from_millis(200));
        }
        format!("{line}\n")
    });
    let result = right(&place, &["--plain", "-c3", "--warm-up=300ms", "-n100"]);
    assert_eq!((&result["lines"], latencies(&result)), (&100.into(), 100), "{result}");
    assert!(came.load(Ordering::SeqCst) > 103);
    assert!(number(&result["latency_us"], "max") < 200_000.0, "{result}");
    assert_eq!(result["warm_up_s"], 0.3);
}

// ---- Servers that are slow, silent or too loud ----

#[test]
fn who_says_nothing_is_not_waited_for_for_ever() {
    let place = server(|mut stream| while stream.read(&mut [0; 1000]).is_ok_and(|n| n > 0) {});
    for args in [&["-n10"][..], &["--warm-up=1ms", "-n10"]] {
        let begun = Instant::now();
        let (result, status, stderr) = json(&place, &[&["--plain", "-c2"], args].concat());
        assert!(begun.elapsed() < Duration::from_secs(20), "{result}");
        assert_eq!(
            (status, &result["errors_by_kind"]["missing_reply"]),
            (1, &2.into()),
            "{result}"
        );
        assert!(stderr.contains("2 errors, 0 of 10 requests answered"), "{stderr}");
    }
}

#[test]
fn who_floods_does_not_keep_it() {
    for (what, args) in [
        (&b"xxxxxxxxxxxxxxxx"[..], &["--plain"][..]),
        (b"x\n", &["--plain"]),
        (b"xxxxxxxxxxxxxxxx", &["--send=a", "--expect=a"]),
        (b"x\nx\n", &["--send=a", "--expect=a"]),
        (b"xxxxxxxxxxxxxxxx", &["--script=echo"]),
        (b"x\n", &["--send=a", "--expect=a", "--greeting=9"]),
    ] {
        let place = server(move |mut stream| {
            let flood = what.repeat(1000);
            while stream.write_all(&flood).is_ok() {}
        });
        let begun = Instant::now();
        let (status, stdout, stderr) = load(&place, &[args, &["-c2", "-d500ms"]].concat());
        assert!(begun.elapsed() < Duration::from_secs(15), "{args:?}: {stdout}");
        assert_eq!((status, stderr.lines().count()), (1, 1), "{args:?}: {stdout} {stderr}");
        assert!(!stdout.contains("errors     none"), "{args:?}: {stdout}");
    }
}

// ---- What is written ----

#[test]
fn a_line_for_each_second() {
    let folder = Folder::new("series");
    let file = folder.file("series.csv");
    let series = format!("--series={}", file.display());
    for threads in ["--threads=1", "--threads=3"] {
        let args = ["--plain", "-c6", "-q500", "-d2500ms", &series, threads];
        let result = right(&plain(), &args);
        let text = fs::read_to_string(&file).unwrap();
        let mut rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let head = rows.next().unwrap();
        assert_eq!(
            head.join(","),
            "elapsed_s,lines,lines_per_s,p50_us,p90_us,p99_us,p99_9_us,max_us,errors"
        );
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.len(), 3, "{text}");
        let sum: u64 = rows.iter().map(|row| row[1].parse::<u64>().unwrap()).sum();
        assert_eq!(result["lines"], sum, "{text}");
        let seconds = rows.iter().map(|row| row[0].parse::<f64>().unwrap());
        for (second, wanted) in seconds.zip([1.0, 2.0, 2.5]) {
            assert!((second - wanted).abs() < 0.3, "{text}");
        }
        assert!(rows.iter().all(|row| row.len() == head.len()), "{text}");
        assert_eq!(result["seconds"]["count"], 2, "{result}");
    }
}

#[test]
fn two_results_side_by_side() {
    let folder = Folder::new("compare");
    let [before, svg] = ["before.json", "both.svg"].map(|name| folder.file(name));
    let mut earlier = right(&limited(1000), &["--plain", "-c16", "-d500ms"]);
    // As if it had been a run of ten seconds.
    let spread = serde_json::json!({ "mean": 1000.0, "deviation": 10.0 });
    earlier["seconds"] = serde_json::json!({ "count": 10, "lines_per_s": spread });
    for (rate, noise) in [(1000.5, Some(true)), (2000.0, Some(false))] {
        earlier["lines_per_s"] = rate.into();
        fs::write(&before, format!("{earlier}\n")).unwrap();
        let compare = format!("--compare={}", before.display());
        let svg_option = format!("--svg={}", svg.display());
        let args = ["--plain", "-c16", "-d5500ms", &compare, &svg_option];
        let (status, stdout, stderr) = load(&limited(1000), &args);
        assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
        let row = stdout.lines().find(|line| line.starts_with("lines/s ")).unwrap();
        assert_eq!(Some(row.contains("noise: ")), noise, "{stdout}");
        assert!(
            stdout.contains("compared with ") && stdout.contains("before.json of 2"),
            "{stdout}"
        );
        let drawing = fs::read_to_string(&svg).unwrap();
        assert_eq!(drawing.matches(" lines/s, p50 ").count(), 2, "{drawing}");
    }
    let compare = format!("--compare={}", before.display());
    let result = right(&limited(1000), &["--plain", "-c8", "-d500ms", &compare]);
    let compared = &result["compared"]["lines_per_s"];
    assert_eq!((&compared["before"], &compared["is_noise"]), (&2000.0.into(), &Value::Null));
    assert_eq!(result["compared"]["otherwise"][0], "clients was 16, is 8");
}

#[test]
fn what_is_wrong_with_the_options() {
    let folder = Folder::new("load-options");
    let [nothing, ends] = ["nothing.toml", "ends.toml"].map(|name| folder.file(name));
    fs::write(&nothing, "name = \"x\"\n[[dialogue]]\nname = \"y\"\nsteps = [{ send = \"a\" }]")
        .unwrap();
    fs::write(&ends, LOGIN.replace("[[dialogue]]\nname = \"log in", "[[x]]\nname = \"log in"))
        .unwrap();
    let (nothing, ends) = (nothing.display().to_string(), ends.display().to_string());
    for (args, status, words) in [
        (&["--send=a"][..], 2, "--expect"),
        (&["--expect=a"], 2, "--send"),
        (&["--send=a", "--expect={any}{any}"], 2, "--send and --expect: "),
        (&["--send={x}", "--expect=a"], 2, "nothing captured {x}"),
        (&["--plain", "--send=a", "--expect=a"], 2, "cannot be used with"),
        (&["--send=a", "--expect=a", "--size=99"], 2, "--size goes with"),
        (&["--send=a", "--expect=a", "--mode=presence"], 2, "--send goes with the modes"),
        (&["--script=/nowhere.toml"], 1, "/nowhere.toml"),
        (&["--script", &nothing], 2, "expects nothing"),
        (&["--script", &ends], 1, "unknown field"),
        (&["--compare=/nowhere"], 1, "--compare /nowhere: "),
        #[cfg(target_os = "linux")]
        (&["--compare=/dev/zero"], 1, "no result that reactor load --json has written"),
        (&["--compare", &nothing], 1, "no result that reactor load --json has written"),
        (&["--series=/nowhere/at/all"], 1, "--series /nowhere/at/all: "),
    ] {
        let (code, stdout, stderr) = load("1", args);
        assert_eq!((code, stdout.as_str()), (status, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(words) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
}
