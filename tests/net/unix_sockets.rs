//! Unix sockets: served like TCP, and the path is looked after.

#![cfg(feature = "services")]

use crate::util;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use reactor::services::Echo;
use reactor::{Error, Exit, Handle, Reactor};
use util::PATIENCE;

/// A path of this test's own, with nothing there.
fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("reactor-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn serve(path: &Path) -> (Handle<()>, JoinHandle<Exit>) {
    let (tell, told) = std::sync::mpsc::channel();
    let path = path.to_owned();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        let address = format!("unix:{}", path.display());
        let service = reactor.listen(&address, Echo).unwrap();
        assert_eq!(service.address().unwrap().to_string(), address);
        assert_eq!(service.port(), 0);
        tell.send(service.handle()).unwrap();
        reactor.run().unwrap()
    });
    (told.recv_timeout(PATIENCE).unwrap(), thread)
}

/// What listening there says.
fn why_not(path: &Path) -> String {
    let error = Reactor::new().unwrap().listen(path, Echo).unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("unix:{}", path.display())), "{text}");
    text
}

#[test]
fn talks_and_takes_its_path_away_at_the_end() {
    let path = path("talks.sock");
    let (handle, thread) = serve(&path);
    let mut clients: Vec<_> = (0..20).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(client, "client {n}\r\nété").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let mut all = String::new();
        client.read_to_string(&mut all).unwrap();
        assert_eq!(
            all,
            format!(
                "Welcome to the Reactor Server.\n\
                 Send me text lines and conclude with the BYE command.\n\
                 > CLIENT {n}\n> ÉTÉ\n"
            )
        );
    }
    handle.stop();
    assert_eq!(thread.join().unwrap(), Exit::Clean);
    assert!(fs::symlink_metadata(&path).is_err());
}

#[test]
fn replies_larger_than_every_buffer_arrive_whole() {
    let path = path("large.sock");
    let (handle, thread) = serve(&path);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all("0123456789abcde\n".repeat(128 * 1024).as_bytes()).unwrap();
        writer.write_all(b"bye\n").unwrap();
        // What comes after it must not destroy the answer.
        let _ = writer.write_all(&vec![b'x'; 1024 * 1024]);
    });
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    let replies = "> 0123456789ABCDE\n".repeat(128 * 1024) + "> BYE\n";
    assert!(all.ends_with(replies.as_bytes()));
    drop(client);
    writing.join().unwrap();
    handle.stop();
    assert_eq!(thread.join().unwrap(), Exit::Clean);
}

#[test]
fn a_stale_path_is_an_error_with_the_remedy() {
    let path = path("stale.sock");
    drop(UnixListener::bind(&path).unwrap());
    let text = why_not(&path);
    assert!(text.contains(&format!("rm {}", path.display())), "{text}");
    // And the remedy works.
    fs::remove_file(&path).unwrap();
    let (handle, thread) = serve(&path);
    handle.stop();
    assert_eq!(thread.join().unwrap(), Exit::Clean);
}

#[test]
fn a_foreign_file_is_an_error_and_stays() {
    let path = path("foreign.txt");
    fs::write(&path, "precious").unwrap();
    let text = why_not(&path);
    assert!(text.contains("not a socket"), "{text}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();

    let folder = path.with_extension("folder");
    let text = why_not(&folder.join("a.sock"));
    assert!(text.contains("folder does not exist"), "{text}");
}

#[test]
fn a_live_server_is_an_error_and_goes_on() {
    let path = path("live.sock");
    let (handle, thread) = serve(&path);
    let text = why_not(&path);
    assert!(text.contains("another server is listening"), "{text}");
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"bye\n").unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert!(all.ends_with("> BYE\n"), "{all}");
    drop(client);
    handle.stop();
    assert_eq!(thread.join().unwrap(), Exit::Clean);
}

#[test]
fn a_path_that_somebody_else_has_taken_meanwhile_stays() {
    let path = path("replaced.sock");
    let (handle, thread) = serve(&path);
    // Another one is made before the old one goes, so that it has an inode of its own.
    let other = path.with_extension("other");
    let _ = fs::remove_file(&other);
    let new = UnixListener::bind(&other).unwrap();
    fs::rename(&other, &path).unwrap();
    handle.stop();
    assert_eq!(thread.join().unwrap(), Exit::Clean);
    assert!(UnixStream::connect(&path).is_ok());
    drop(new);
    fs::remove_file(&path).unwrap();
}
