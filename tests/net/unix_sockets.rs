//! Unix sockets: served like TCP, and the path is looked after.

#![cfg(feature = "services")]

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread::JoinHandle;

use reactor::services::Echo;
use reactor::{Error, Exit, Handle, Reactor};

use crate::util::PATIENCE;

/// A path of this test's own, with nothing there.
fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("reactor-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

/// What keeps two servers from taking each other's path.
fn lock_of(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
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
    assert!(fs::symlink_metadata(lock_of(&path)).is_err());
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
fn what_a_server_that_is_gone_left_behind_is_replaced() {
    let path = path("stale.sock");
    drop(UnixListener::bind(&path).unwrap());
    // Killed, it would have left this too.
    fs::write(lock_of(&path), "").unwrap();
    let (handle, thread) = serve(&path);
    assert!(UnixStream::connect(&path).is_ok());
    handle.stop();
    assert_eq!(thread.join().unwrap(), Exit::Clean);
    assert!(fs::symlink_metadata(&path).is_err());
    assert!(fs::symlink_metadata(lock_of(&path)).is_err());
}

#[test]
fn of_those_that_start_at_once_one_has_the_path_and_keeps_it() {
    let path = path("race.sock");
    for _ in 0..50 {
        // Linux may give it an inode that was free a moment ago.
        let _ = fs::remove_file(&path);
        drop(UnixListener::bind(&path).unwrap());
        let (start, end) = (Barrier::new(4), Barrier::new(4));
        let racer = || {
            let mut reactor = Reactor::new().unwrap();
            start.wait();
            let outcome = reactor.listen(path.as_path(), Echo);
            end.wait();
            // Whoever has been told that it listens can be reached.
            let alive = outcome.is_ok().then(|| UnixStream::connect(&path).is_ok());
            end.wait();
            alive
        };
        let winners: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(racer)).collect();
            all.into_iter().filter_map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(winners, [true]);
    }
    assert!(fs::symlink_metadata(lock_of(&path)).is_err());
}

#[test]
fn who_has_no_room_for_one_more_is_alive() {
    use socket2::{Domain, SockAddr, Socket, Type};
    let path = path("busy.sock");
    let name = SockAddr::unix(&path).unwrap();
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let busy = socket();
    busy.bind(&name).unwrap();
    busy.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        let Ok(()) = client.connect(&name) else { break };
        waiting.push(client);
    }
    assert!(why_not(&path).contains("another server is listening there"));
    drop((busy, waiting));
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_dead_socket_of_another_user_stays() {
    let path = path("others.sock");
    drop(UnixListener::bind(&path).unwrap());
    if std::os::unix::fs::chown(&path, Some(65534), None).is_err() {
        return println!("skipped: only root gives files away");
    }
    assert!(why_not(&path).contains("another user"));
    assert!(fs::symlink_metadata(&path).is_ok());
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_file_that_has_the_name_of_the_lock_stays() {
    let path = path("locked.sock");
    let lock = lock_of(&path);
    fs::write(&lock, "precious").unwrap();
    let text = why_not(&path);
    assert!(text.contains(lock.to_str().unwrap()) && text.contains("choose another"), "{text}");
    assert_eq!(fs::read_to_string(&lock).unwrap(), "precious");
    fs::remove_file(&lock).unwrap();

    let victim = path.with_extension("victim");
    std::os::unix::fs::symlink(&victim, &lock).unwrap();
    let text = why_not(&path);
    assert!(text.contains(lock.to_str().unwrap()) && text.contains("choose another"), "{text}");
    assert!(fs::symlink_metadata(&victim).is_err(), "made through a symbolic link");
    fs::remove_file(&lock).unwrap();
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
    assert!(text.contains("another server is starting or running there"), "{text}");
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
    // One that takes no lock is another server all the same.
    assert!(why_not(&path).contains("another server is listening there"));
    drop(new);
    fs::remove_file(&path).unwrap();
}
