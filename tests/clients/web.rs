//! curl asks the service web, through each layer that may stand in front of it.

use std::process::Command;

use crate::installed;
use crate::util::folder::Folder;
use crate::util::program::Program;
#[cfg(feature = "tls")]
use crate::util::tls;

/// What curl gets, and its exit status.
fn curl(args: &[&str]) -> (String, Option<i32>) {
    let command = ["--silent", "--show-error", "--max-time", "30"];
    let output = Command::new("curl").args(command).args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code())
}

#[test]
fn curl_reads_every_page() {
    if !installed("curl", "--version", "HTTP") {
        return;
    }
    let folder = Folder::new("web");
    let path = folder.file("web.sock");
    let program = Program::serve(&[&format!("web=0,proxy:0,unix:{}", path.display())]);
    let at = program.place("web");
    let url = |path: &str| format!("http://{at}{path}");
    assert_eq!(curl(&[&url("/healthz")]), ("ok\n".to_owned(), Some(0)));
    // Twice over one connection.
    let twice = curl(&[&url("/healthz"), &url("/healthz"), "--write-out", "%{num_connects} "]);
    assert_eq!(twice.0, "ok\n1 ok\n0 ");
    let (head, _) = curl(&["--head", &url("/status.json")]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let (json, _) = curl(&[&url("/status.json?all")]);
    assert!(json.starts_with('{') && json.ends_with("}\n"), "{json}");
    let (old, _) = curl(&["--http1.0", &url("/status.json?all")]);
    assert!(old.starts_with('{') && old.ends_with("}\n"), "{old}");
    let (refused, _) = curl(&["--data", "a=b", &url("/")]);
    assert!(refused.contains("no body"), "{refused}");
    let two = curl(&["--http2-prior-knowledge", &url("/")]);
    assert_ne!(two.1, Some(0), "{two:?}");

    let through = program.place("web").replace("proxy:", "http://");
    let said = curl(&["--haproxy-protocol", &format!("{through}/healthz")]);
    assert_eq!(said, ("ok\n".to_owned(), Some(0)));
    let unix = path.display().to_string();
    let said = curl(&["--unix-socket", &unix, "http://localhost/healthz"]);
    assert_eq!(said, ("ok\n".to_owned(), Some(0)));
}

#[test]
#[cfg(feature = "tls")]
fn curl_comes_over_tls() {
    if !installed("curl", "--version", "HTTP") {
        return;
    }
    let pem = tls::Pem::new("web");
    let [cert, key] = pem.options();
    let program = Program::serve(&["web=tls:0", &cert, &key]);
    let url = program.place("web").replace("tls:127.0.0.1", "https://localhost");
    let said = curl(&["--cacert", pem.cert().to_str().unwrap(), &format!("{url}/healthz")]);
    assert_eq!(said, ("ok\n".to_owned(), Some(0)));
}
