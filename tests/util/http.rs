//! Requests and answers of HTTP/1.1, as bytes.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::Read;

use crate::util::Client;

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// The next answer to `method`, taken from the front; none if it is not complete.
pub fn take(bytes: &mut Vec<u8>, method: &str) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").expect("no status")[..3].parse().unwrap();
    let mut answer = Answer { status, head, body: String::new() };
    let mut body = Vec::new();
    let mut at = end;
    if method == "HEAD" || status == 101 {
    } else if answer.header("Transfer-Encoding") == Some("chunked") {
        loop {
            let rest = &bytes[at..];
            let line = rest.windows(2).position(|two| two == b"\r\n")?;
            let digits = str::from_utf8(&rest[..line]).unwrap();
            let length = usize::from_str_radix(digits, 16).unwrap();
            let chunk = rest.get(line + 2..line + 2 + length + 2)?;
            assert!(chunk.ends_with(b"\r\n"));
            body.extend(&chunk[..length]);
            at += line + 2 + length + 2;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = answer.header("Content-Length") {
        let length: usize = length.parse().unwrap();
        body.extend(bytes.get(end..end + length)?);
        at += length;
    } else {
        assert_eq!(answer.header("Connection"), Some("close"), "{}", answer.head);
        body = bytes[end..].to_vec();
        at = bytes.len();
    }
    bytes.drain(..at);
    answer.body = String::from_utf8(body).unwrap();
    Some(answer)
}

/// Sends a request and gives the whole answer.
#[track_caller]
pub fn ask_over(client: &mut Client, request: &str) -> Answer {
    client.send(request);
    loop {
        if let Some(answer) = take(&mut client.ahead, request.split(' ').next().unwrap()) {
            return answer;
        }
        let mut buf = [0; 64 * 1024];
        let count = client.stream.read(&mut buf).expect("no answer came");
        assert!(count > 0, "the end came instead of an answer: {:?}", client.ahead);
        client.ahead.extend(&buf[..count]);
    }
}
