//! The memcached server: by hand, and by two of memcached's own clients.

use std::process::{Command, Stdio};

use crate::util::example::Example;
use crate::util::{peak, skip};

/// What is said to it, and what it answers; a line each, so that an answer is easy to find.
fn exchange(said: &str) -> Vec<String> {
    let example = Example::start("memcached");
    let mut client = example.connect();
    client.send(said.replace('\n', "\r\n"));
    client.end();
    let got = String::from_utf8(client.rest()).unwrap();
    got.split_terminator("\r\n").map(str::to_owned).collect()
}

#[test]
fn memcached_keeps_what_it_is_given() {
    let said = "set a 1 0 3\nabc\nset b 2 0 0\n\nget a b c\nadd a 0 0 1\nx\nreplace c 0 0 1\nx\n\
                append a 9 0 2\nde\nprepend a 9 0 1\n \nget a\ndelete a\ndelete a\nget a\n\
                set n 0 0 2\n10\ndecr n 1\nget n\nincr n 18446744073709551615\ndecr n 99\nincr c 1\n\
                set q 0 0 1 noreply\nx\nget q\nflush_all\nget q n\nquit\nget a\n";
    let wanted = [
        "STORED",
        "STORED",
        "VALUE a 1 3",
        "abc",
        "VALUE b 2 0",
        "",
        "END",
        "NOT_STORED",
        "NOT_STORED",
        "STORED",
        "STORED",
        "VALUE a 1 6",
        " abcde",
        "END",
        "DELETED",
        "NOT_FOUND",
        "END",
        "STORED",
        "9",
        "VALUE n 0 2",
        "9 ",
        "END",
        "8",
        "0",
        "NOT_FOUND",
        "VALUE q 0 1",
        "x",
        "END",
        "OK",
        "END",
    ];
    assert_eq!(exchange(said), wanted);
}

#[test]
fn memcached_stores_only_what_has_not_changed_with_cas() {
    let said =
        "set a 0 0 1\nx\ngets a\ncas a 0 0 1 1\ny\ncas a 0 0 1 1\nz\ncas b 0 0 1 1\nz\ngets a\n";
    let wanted = [
        "STORED",
        "VALUE a 0 1 1",
        "x",
        "END",
        "STORED",
        "EXISTS",
        "NOT_FOUND",
        "VALUE a 0 1 2",
        "y",
        "END",
    ];
    assert_eq!(exchange(said), wanted);
}

#[test]
fn memcached_forgets_what_has_expired() {
    let year = 60 * 60 * 24 * 365;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let said = format!(
        "set a 0 -1 1\na\nset b 0 100 1\nb\nset c 0 {} 1\nc\nset d 0 {year} 1\nd\nget a b c d\n\
         touch b -1\nget b\ntouch c 0\ntouch a 0\n",
        now + year
    );
    let wanted = [
        "STORED",
        "STORED",
        "STORED",
        "STORED",
        "VALUE b 0 1",
        "b",
        "VALUE c 0 1",
        "c",
        "END",
        "TOUCHED",
        "END",
        "TOUCHED",
        "NOT_FOUND",
    ];
    assert_eq!(exchange(&said), wanted);
}

#[test]
fn memcached_says_what_is_wrong_and_goes_on() {
    let large = "x".repeat(2 << 20);
    let long = "k".repeat(251);
    let said = format!(
        "hello\nhello {long}\n\nget\nset a 0 0\nset a x 0 1\nset a 0 0 -1\nset a 0 0 1\nxyz\n\
         set a 0 0 {}\n{large}\nget {long}\nset n 0 0 1\nx\nincr n 1\nincr n x\ntouch n x\n\
         delete n 1\nflush_all x\nflush_all 9\nversion now\nquit noreply\nbad noreply\nset a 0 0 1\na\nget a\n",
        large.len()
    );
    let bad = "CLIENT_ERROR bad command line format";
    let usage = &format!("{bad}.  Usage: delete <key> [noreply]");
    let wanted = [
        "ERROR",
        "ERROR",
        "ERROR",
        "ERROR",
        "ERROR",
        bad,
        bad,
        "CLIENT_ERROR bad data chunk",
        "ERROR",
        "SERVER_ERROR object too large for cache",
        bad,
        "STORED",
        "CLIENT_ERROR cannot increment or decrement non-numeric value",
        "CLIENT_ERROR invalid numeric delta argument",
        "CLIENT_ERROR invalid exptime argument",
        usage,
        "CLIENT_ERROR invalid exptime argument",
        "CLIENT_ERROR invalid exptime argument",
        "ERROR",
        "ERROR",
        "ERROR",
        "STORED",
        "VALUE a 0 1",
        "a",
        "END",
    ];
    assert_eq!(exchange(&said), wanted);
}

/// The largest value there may be, and how many of them fill the memory.
const LARGEST: usize = (1 << 20) - 512;
const FULL: usize = 64;

#[test]
fn memcached_refuses_what_does_not_fit_into_its_memory() {
    let example = Example::start("memcached");
    let mut client = example.connect();
    let value = "x".repeat(LARGEST);
    for key in 0..FULL {
        client.send(format!("set {key} 0 0 {LARGEST} noreply\r\n{value}\r\n"));
    }
    client.send(format!("set more 0 0 {LARGEST}\r\n{value}\r\nadd empty 0 0 0\r\n\r\n"));
    client.expect("SERVER_ERROR out of memory storing object\r\nSTORED\r\n");
    client.send(format!("delete 7\r\nset more 0 0 {LARGEST}\r\n{value}\r\n"));
    client.expect("DELETED\r\nSTORED\r\n");
    client.send(format!("append more 0 0 1\r\nx\r\nset more 0 0 {}\r\n{value}x\r\n", LARGEST + 1));
    client.expect("SERVER_ERROR out of memory storing object\r\n");
    client.expect("SERVER_ERROR object too large for cache\r\n");
}

#[test]
fn memcached_counts_what_keeping_short_items_takes() {
    let example = Example::start("memcached");
    let mut client = example.connect();
    let value = "x".repeat(LARGEST);
    for key in 1..FULL {
        client.send(format!("set {key} 0 0 {LARGEST} noreply\r\n{value}\r\n"));
    }
    // A place for the largest value is left, which is that of 8,000 or so without any.
    let short: String =
        (0..10_000).map(|key| format!("set k{key} 0 0 0 noreply\r\n\r\n")).collect();
    client.send(short);
    client.send("set last 0 0 0\r\n\r\n");
    client.expect("SERVER_ERROR out of memory storing object\r\n");
}

#[test]
fn memcached_makes_a_long_reply_as_far_as_it_is_read() {
    let example = Example::start("memcached");
    let mut client = example.connect();
    let value = "x".repeat(LARGEST);
    client.send(format!("set k 0 0 {LARGEST}\r\n{value}\r\n"));
    client.expect("STORED\r\n");
    // Two gigabytes.
    client.send(format!("get{}\r\n", " k".repeat(2000)));
    client.expect("VALUE k 0 ");
    let mut other = example.connect();
    other.send("touch k 0\r\n");
    other.expect("TOUCHED\r\n");
    let most = peak(example.pid());
    assert!(most < 64 << 20, "{most} bytes at its peak");
}

#[test]
fn memcached_does_all_that_memccapable_asks_of_it() {
    let example = Example::start("memcached");
    let port = example.addr.port().to_string();
    let asked = Command::new("memccapable")
        .args(["-a", "-h", "127.0.0.1", "-p", &port])
        .stdin(Stdio::null())
        .output();
    let Ok(asked) = asked else { return skip("memccapable is not installed") };
    let told = String::from_utf8_lossy(&[asked.stdout, asked.stderr].concat()).into_owned();
    assert!(asked.status.success() && told.matches("[pass]").count() == 27, "{told}");
}

/// Values of all sizes, many at once, and what is counted, by a client of Python's.
const PYMEMCACHE: &str = "
import sys
from pymemcache.client.base import Client
client = Client(('127.0.0.1', int(sys.argv[1])), timeout=30)
values = {'k%d' % n: bytes([n % 251]) * (n * n * 40) for n in range(150)}
assert client.set_many(values) == []
assert client.get_many(values.keys()) == values
value, cas = client.gets('k7')
assert client.cas('k7', b'new', cas) is True and client.cas('k7', b'newer', cas) is False
assert client.append('k7', b'!') and client.prepend('k7', b'?') and client.get('k7') == b'?new!'
assert client.add('k7', b'x', noreply=False) is False and client.replace('k8', b'x', noreply=False)
assert client.set('n', b'5') and client.incr('n', 3) == 8 and client.decr('n', 9) == 0
assert client.touch('n', 100, noreply=False) and client.delete('n', noreply=False)
assert client.get('n') is None and client.incr('n', 1) is None
assert client.version() and client.stats() and client.flush_all(noreply=False)
assert client.get_many(values.keys()) == {}
client.quit()
";

#[test]
fn memcached_serves_pymemcache() {
    let there = Command::new("python3").args(["-c", "import pymemcache"]).output();
    if !there.is_ok_and(|there| there.status.success()) {
        return skip("python3 with pymemcache is not installed");
    }
    let example = Example::start("memcached");
    let port = example.addr.port().to_string();
    let asked = Command::new("python3").args(["-c", PYMEMCACHE, &port]).output().unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
}
