//! `reactor check` of servers that others have written, as students would write them, in `tests/check`. What is
//! said here was looked at by hand; docs/check.md tells the reasons.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::installed;
use crate::util::folder::Folder;
use crate::util::program::REACTOR;
use crate::util::{example, nobody};

/// That these kinds of client fail, and no others.
#[track_caller]
fn judge(protocol: &str, command: impl Fn(&str, u16) -> String, failing: &[&str]) {
    let address = nobody();
    let (place, host) = (address.to_string(), address.ip().to_string());
    let command = command(&host, address.port());
    // On a machine that is busy with other tests each kind of client takes its time.
    let times = ["--patience=3s", "--time-limit=10m"];
    let output = Command::new(REACTOR)
        .args(["check", &place, "--json", "--protocol", protocol, "--run", &command])
        .args(times)
        .output()
        .unwrap();
    let parsed = serde_json::from_slice(&output.stdout);
    let result: Value = parsed.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let rows = result["results"].as_array().unwrap();
    let failed = rows.iter().filter(|row| row["verdict"] == "fail").map(|row| &row["name"]);
    assert_eq!(failed.collect::<Vec<_>>(), failing, "{result}");
    assert_eq!(output.status.code(), Some(i32::from(!failing.is_empty())));
    // Nothing was left out but what the protocol leaves out.
    let notes = rows.iter().filter(|row| row["verdict"] == "note").count();
    assert_eq!(notes, if protocol == "echo" { 0 } else { 2 }, "{result}");
}

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check").join(name).display().to_string()
}

fn model(name: &str, failing: &[&str]) {
    let program = example::binary("models").display().to_string();
    judge("echo", |host, port| format!("{program} {name} {host}:{port}"), failing);
}

#[test]
fn one_at_a_time() {
    model("one-at-a-time", &["at-once", "silent", "slow-reader", "flood"]);
}

#[test]
fn a_process_or_a_thread_for_each() {
    model("process-per-client", &[]);
    model("thread-per-client", &[]);
}

#[test]
fn a_pool_of_64_threads() {
    model("thread-pool", &["at-once"]);
}

#[test]
fn one_thread_for_all() {
    model("readiness", &[]);
    model("callbacks", &[]);
    model("reactor", &[]);
    judge("echo", |host, port| format!("{REACTOR} serve echo={host}:{port} --log off"), &[]);
}

#[test]
fn socat_with_cat() {
    if installed("socat", "-V", "socat version") {
        let listen = |host: &str, port| format!("TCP-LISTEN:{port},bind={host},fork,reuseaddr");
        let command = |host: &str, port| format!("socat {} EXEC:cat", listen(host, port));
        judge(&file("protocols/cat.toml"), command, &[]);
    }
}

#[test]
fn node() {
    if installed("node", "--version", "v") {
        let program = file("servers/echo.js");
        let failing = ["empty line", "not UTF-8", "split", "segment", "slow-reader", "reset"];
        judge("echo", |host, port| format!("node {program} {host} {port}"), &failing);
    }
}

#[test]
fn python_with_threads() {
    if installed("python3", "--version", "Python 3") {
        let program = file("servers/threading_echo.py");
        let failing = ["not UTF-8", "endless-line", "restart"];
        judge("echo", |host, port| format!("python3 {program} {host} {port}"), &failing);
    }
}

#[test]
fn python_with_asyncio() {
    if installed("python3", "--version", "Python 3") {
        let program = file("servers/asyncio_echo.py");
        let failing = ["not UTF-8", "slow-reader"];
        judge("echo", |host, port| format!("python3 {program} {host} {port}"), &failing);
    }
}

#[test]
fn java() {
    if installed("javac", "-version", "javac") {
        let folder = Folder::new("java");
        let classes = folder.path().display().to_string();
        let compiled =
            Command::new("javac").args(["-d", &classes, &file("servers/Echo.java")]).status();
        assert!(compiled.unwrap().success());
        let failing = ["not UTF-8", "endless-line"];
        judge("echo", |host, port| format!("java -cp {classes} Echo {host} {port}"), &failing);
    }
}

#[test]
fn c() {
    if installed("cc", "--version", "Free Software") {
        let folder = Folder::new("c");
        let program = folder.file("echo").display().to_string();
        let compiled =
            Command::new("cc").args(["-w", "-o", &program, &file("servers/echo.c")]).status();
        assert!(compiled.unwrap().success());
        let failing = [
            "UTF-8",
            "not UTF-8",
            "long line",
            "split",
            "segment",
            "at-once",
            "silent",
            "slow-reader",
            "flood",
            "restart",
        ];
        judge("echo", |host, port| format!("{program} {host} {port}"), &failing);
    }
}
