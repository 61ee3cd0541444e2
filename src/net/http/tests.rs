use proptest::prelude::*;

use super::request::decode;
use super::*;

fn parse(text: &[u8]) -> Result<Option<(Request<'_>, usize)>, u16> {
    Request::parse(text).map_err(BadRequest::status)
}

fn request(text: &str) -> Request<'_> {
    parse(text.as_bytes()).unwrap().unwrap().0
}

#[test]
fn a_head_says_what_it_has() {
    let text = "GET /a%20b?q=x+y&all&q=z&%71=w HTTP/1.1\r\nHost: localhost\r\n\
                connection: keep-alive , Upgrade\r\nUPGRADE:\tWebSocket \r\nX: \r\n\r\nGET";
    let (request, length) = parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!(&text[length..], "GET");
    assert_eq!((request.method(), request.minor_version()), ("GET", 1));
    assert_eq!((request.path(), request.target().len()), ("/a%20b", 26));
    assert_eq!(request.query("q").as_deref(), Some("x y"));
    assert_eq!(request.query("all").as_deref(), Some(""));
    assert_eq!(request.query("none"), None);
    assert_eq!(request.header("upgrade"), Some(&b"WebSocket"[..]));
    assert_eq!(request.header("x"), Some(&b""[..]));
    assert!(
        request.has_token("Connection", "upgrade") && request.has_token("Upgrade", "websocket")
    );
    assert!(!request.has_token("Connection", "up") && !request.has_token("Y", ""));
    assert_eq!(request.headers().count(), 4);
}

#[test]
fn connections_stay_as_the_versions_say() {
    let table = [
        ("1", "X: y", true),
        ("1", "Connection: Close", false),
        ("1", "Connection: keep-alive, close", false),
        ("0", "X: y", false),
        ("0", "Connection: Keep-Alive", true),
    ];
    for (minor, header, stays) in table {
        let text = format!("GET / HTTP/1.{minor}\r\nHost: [::1]:80\r\n{header}\r\n\r\n");
        assert_eq!(request(&text).keep_alive(), stays, "{text}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let table: &[(&str, u16)] = &[
        ("GET / HTTP/1.1\r\n\r\n", 400), // no Host
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nOrigin: null\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", 413),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: x\r\nContent-Length: 0\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\r\n", 400), // HTTP/0.9
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /é HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("SSH-2.0-OpenSSH_9.9\r\n", 400),
        ("\x16\x03\x01\x02", 400), // TLS
    ];
    for (text, status) in table {
        assert_eq!(parse(text.as_bytes()).map(|_| ()), Err(*status), "{text:?}");
    }
}

#[test]
fn what_is_only_unusual_is_taken() {
    for text in [
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", // some clients send a CRLF behind a body
        "OPTIONS * HTTP/1.1\r\nHost: a:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET //a/../b?c=/?#".trim_end_matches('#'),
    ] {
        let whole = if text.ends_with("\r\n") {
            text.to_owned()
        } else {
            format!("{text} HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n")
        };
        assert!(matches!(parse(whole.as_bytes()), Ok(Some(_))), "{whole:?}");
    }
}

#[test]
fn heads_have_a_longest() {
    let line = |fill| format!("GET /{} HTTP/1.1\r\n", "a".repeat(fill));
    let long = |fill| format!("{}Host: a\r\nX: {}\r\n\r\n", line(1), "x".repeat(fill));
    let room = MAX_HEAD - long(0).len();
    assert_eq!(parse(long(room).as_bytes()).unwrap().unwrap().1, MAX_HEAD);
    assert_eq!(parse(long(room + 1).as_bytes()), Err(431));
    assert_eq!(parse(&long(room + 1).as_bytes()[..MAX_HEAD - 1]), Ok(None));
    assert_eq!(parse(line(MAX_HEAD).as_bytes()), Err(414));
    let many = |count| format!("{}Host: a\r\n{}\r\n", line(1), "X: y\r\n".repeat(count - 1));
    assert!(parse(many(MAX_HEADERS).as_bytes()).unwrap().is_some());
    assert_eq!(parse(many(MAX_HEADERS + 1).as_bytes()), Err(431));
    // The next request is no part of it, however much of it has come.
    let two = many(2) + &long(2 * MAX_HEAD);
    assert_eq!(parse(two.as_bytes()).unwrap().unwrap().1, many(2).len());
}

#[test]
fn a_head_that_drips_in_is_parsed_once_a_line() {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(60));
    let mut head = Head::default();
    for end in 1..text.len() {
        assert_eq!(head.parse(&text.as_bytes()[..end]), Ok(None));
        // What is no LF is looked at once.
        assert_eq!(usize::from(head.searched()), end);
    }
    let (_, length) = head.parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!((length, head.searched()), (text.len(), 0));
}

#[test]
fn pages_come_from_where_they_may() {
    let named = Sites::new()
        .host("Box.example")
        .origin("HTTPS://example.org:443".parse().unwrap())
        .origin("chrome-extension://abc".parse().unwrap());
    let (host, origin) = (Err(Forbidden::Host), Err(Forbidden::Origin));
    let table = [
        ("127.0.0.1:8023", None, Ok(())),
        ("[::1]", None, Ok(())),
        ("[::1]:8023", Some("http://[::1]:8023"), Ok(())),
        ("[0:0::1]:8023", Some("http://[::1]:8023"), Ok(())),
        ("LocalHost:8023", Some("http://localhost:8023"), Ok(())),
        ("localhost", Some("http://localhost"), Ok(())),
        ("localhost", Some("https://localhost:443"), Ok(())),
        ("box.example:8023", Some("http://box.example:8023"), Ok(())),
        ("box.example", Some("https://example.org"), Ok(())),
        ("127.0.0.1", Some("chrome-extension://abc"), Ok(())),
        ("evil.example:8023", None, host),
        ("evil.example:8023", Some("http://evil.example:8023"), host),
        ("127.0.0.1.evil.example", None, host),
        ("localhost.", None, host),
        ("a.localhost", None, host),
        ("0x7f.1", None, host),
        ("127.0.0.1:8023", Some("null"), origin),
        ("127.0.0.1:8023", Some(""), origin),
        ("127.0.0.1:8023", Some("http://localhost:8023"), origin),
        ("127.0.0.1:8023", Some("http://127.0.0.1:8024"), origin),
        ("127.0.0.1:8023", Some("http://127.0.0.1"), origin),
        ("127.0.0.1:8023", Some("http://127.0.0.1:8023/"), origin),
        ("127.0.0.1:8023", Some("http://a@127.0.0.1:8023"), origin),
        ("127.0.0.1:8023", Some("http://127.0.0.1:8023 http://a"), origin),
        ("127.0.0.1:80", Some("https://127.0.0.1"), origin),
        ("127.0.0.1", Some("file://127.0.0.1"), origin),
        ("127.0.0.1", Some("http://example.org"), origin),
        ("127.0.0.1", Some("https://example.org:8443"), origin),
    ];
    for (host, origin, wanted) in table {
        let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n");
        assert_eq!(named.check(&request(&text)), wanted, "{text}");
    }
    assert!(request("GET / HTTP/1.1\r\nHost: a:1\r\nOrigin: http://a:1\r\n\r\n").is_same_origin());
    assert!(!request("GET / HTTP/1.1\r\nHost: a:1\r\n\r\n").is_same_origin());
    // No browser speaks like this.
    assert_eq!(named.check(&request("GET / HTTP/1.0\r\n\r\n")), Ok(()));
    let page = request("GET / HTTP/1.0\r\nOrigin: http://127.0.0.1\r\n\r\n");
    assert_eq!(named.check(&page), Err(Forbidden::Origin));
}

#[test]
fn origins_are_written_as_browsers_do() {
    for (text, shown) in [
        ("HTTP://Example.org:80", Some("http://example.org")),
        ("https://[0::1]:8443", Some("https://[::1]:8443")),
        ("example.org", None),
        ("https://example.org/", None),
        ("https://", None),
        ("1a://b", None),
        ("null", None),
    ] {
        let origin = text.parse().ok().map(|origin: Origin| origin.to_string());
        assert_eq!(origin.as_deref(), shown, "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&bytes);
        let _ = "a://".parse::<Origin>();
        let _: Result<Origin, _> = String::from_utf8_lossy(&bytes).parse();
    }

    /// Something like a request, with the bytes in it that matter.
    #[test]
    fn pieces_change_nothing(
        text in "(GET|POST|PRI) (/|\\*|/%4[0-9a-g]|http://a) HTTP/(1.1|1.0|2.0)\r?\n(Host|X|Origin) ?:? ?[ -~]{0,5}\r?\n([A-C]: [a-c\t\0]{0,3}\r\n){0,3}\r?\n?",
        cuts in prop::collection::vec(0..200_usize, 0..9),
    ) {
        let bytes = text.as_bytes();
        let whole = Request::parse(bytes);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut head = Head::default();
        let mut got = Ok(None);
        for cut in cuts {
            got = head.parse(&bytes[..cut]);
            if !matches!(got, Ok(None)) {
                break;
            }
        }
        match (&whole, &got) {
            // A wrong line is told with its LF, and the text may end before that.
            (Err(_), Ok(None)) => prop_assert!(!bytes.ends_with(b"\n")),
            (Err(one), Err(other)) => prop_assert!(one.status() == other.status() || other.status() == 400),
            _ => prop_assert_eq!(whole, got),
        }
    }

    #[test]
    fn a_taken_head_has_one_reading(
        text in "GET / HTTP/1.1\r\n(Host: a\r?\n|Content-Length: [01]?\r\n|Transfer-Encoding: x\r\n| ?X: y\r\n|X : y\r\n){0,5}\r\n",
    ) {
        if let Ok(Some((request, length))) = Request::parse(text.as_bytes()) {
            prop_assert_eq!(length, text.len());
            prop_assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
            prop_assert_eq!(text.matches("Host").count(), 1);
            prop_assert!(!text.contains("Length: 1") && !text.contains("Transfer"));
            prop_assert_eq!(request.headers().count() + 2, text.lines().count());
        }
    }

    #[test]
    fn decoding_undoes_encoding(text in ".{0,20}") {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        prop_assert_eq!(percent_decode(&encoded), text.as_str());
        let _ = decode(&text, true);
    }
}
