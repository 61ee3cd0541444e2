//! Listeners go, and others take their rules.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use reactor::{Address, Callbacks, Error, Host, Limits, Listen, Networks, Refused};

use super::{Rig, TICK, Talk, at};
use crate::util::DOOMED;
use crate::util::folder::Folder;

#[test]
fn who_waits_is_served_and_the_address_is_free() {
    let mut rig = Rig::new();
    let limits = Limits { accepts_per_turn: 3, ..Limits::default() };
    let service = rig.service_at("a", DOOMED, limits);
    let other = rig.service("b", Limits::default());
    let address = rig.address("a");
    let mut before = rig.client("a");
    // The system has let them in, and the loop has not seen them yet.
    let mut waiting: Vec<_> = (0..10).map(|_| Talk::connect(address)).collect();
    waiting.iter_mut().for_each(|client| client.send("hello\n"));
    rig.reactor.unbind(&service, &address.into()).unwrap();
    TcpStream::connect(address).unwrap_err();
    // Nobody listens there, and who came there is still accepted.
    rig.reactor.bind(&other, address).unwrap();
    let mut new = Talk::connect(address);
    assert!(rig.reactor.status().services[0].listeners.is_empty());
    rig.says(&mut before, "still here\n");
    for client in &mut waiting {
        rig.hears(client, "hello\n");
    }
    rig.says(&mut new, "new\n");
    let counters = [&service, &other].map(|service| rig.reactor.counters_of(service).accepted);
    assert_eq!(counters, [11, 1]);
    let outcome = rig.reactor.unbind(&service, &address.into()).unwrap_err();
    assert_eq!(
        outcome.to_string(),
        format!("not listening on {address}: a listens nowhere; bind it")
    );
    // The limits of newcomers hold for them as for all.
    rig.reactor.bind(&service, "127.0.0.1:0").unwrap();
    rig.client("a");
}

#[test]
fn one_of_several_goes_and_its_place_is_the_next_ones() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let mut addresses = vec![Address::from(rig.address("a"))];
    for _ in 0..3 {
        addresses.push(rig.reactor.bind(&service, "127.0.0.1:0").unwrap());
    }
    for _ in 0..10 {
        let gone = addresses.remove(1);
        rig.reactor.unbind(&service, &gone).unwrap();
        rig.turn();
        let outcome = rig.reactor.unbind(&service, &gone).unwrap_err();
        let all: Vec<_> = addresses.iter().map(Address::to_string).collect();
        let Error::NotListening { address, why } = outcome else { panic!("{outcome}") };
        assert_eq!(address, gone);
        let said: std::collections::BTreeSet<_> =
            why.strip_prefix("a listens on ").unwrap().split(", ").collect();
        assert_eq!(said, all.iter().map(String::as_str).collect());
        addresses.push(rig.reactor.bind(&service, "127.0.0.1:0").unwrap());
        for address in &addresses {
            let mut client = Talk::connect(address.as_socket().unwrap());
            rig.says(&mut client, "hello\n");
        }
    }
}

#[test]
fn all_addresses_of_a_host_go_together() {
    let mut rig = Rig::new();
    let service = rig.reactor.add(Callbacks::new(), Limits::default()).unwrap();
    let addresses = [1, 2].map(|last| SocketAddr::from(([127, 0, 0, last], 0)));
    let host = Host::new("several.test", 0).found_at(addresses);
    let bound = rig.reactor.bind(&service, Address::from(host)).unwrap();
    assert_eq!(rig.reactor.status().services[0].listeners.len(), 2);
    let rules = Listen::at(bound.clone()).unwrap().allow("192.0.2.0/24".parse().unwrap());
    rig.reactor.rebind(&service, rules).unwrap();
    let mut clients: Vec<_> =
        bound.as_sockets().iter().map(|address| Talk::connect(*address)).collect();
    clients.iter_mut().for_each(|client| rig.ends(client, ""));
    rig.reactor.unbind(&service, &bound).unwrap();
    assert!(rig.reactor.status().services[0].listeners.is_empty());
    // One of them may go alone.
    let bound = rig.reactor.bind(&service, bound).unwrap();
    let first = bound.as_sockets()[0];
    rig.reactor.unbind(&service, &first.into()).unwrap();
    assert_eq!(rig.reactor.status().services[0].listeners.len(), 1);
}

#[test]
fn the_file_of_a_unix_socket_goes_along() {
    let folder = Folder::new("unbind");
    let (path, lock) = (folder.path().join("a.sock"), folder.path().join("a.sock.lock"));
    let mut rig = Rig::new();
    let service = rig.reactor.listen(path.as_path(), Callbacks::new()).unwrap();
    assert!(path.exists() && lock.exists());
    let client = UnixStream::connect(&path).unwrap();
    rig.reactor.unbind(&service, service.address().unwrap()).unwrap();
    assert!(!path.exists() && !lock.exists());
    rig.until("it is here", |reactor| reactor.counters().open == 1);
    rig.reactor.bind(&service, path.as_path()).unwrap();
    drop(client);
    rig.until("it has gone", |reactor| reactor.counters().open == 0);
    rig.reactor.remove(&service).unwrap();
    assert!(!path.exists() && !lock.exists());
}

#[test]
fn other_rules_hold_for_those_who_come_now() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let address = rig.address("a");
    let mut before = rig.client("a");
    // One that waits is judged by what holds when it is looked at.
    let mut waits = Talk::connect(address);
    let nobody: Networks = "192.0.2.0/24".parse().unwrap();
    rig.reactor.rebind(&service, at(address).allow(nobody.clone())).unwrap();
    rig.ends(&mut waits, "");
    rig.says(&mut before, "still here\n");
    assert_eq!(rig.reactor.counters().refused_for(Refused::NotAllowed), 1);
    // A proxy says who they are.
    let rules = at(address).allow(nobody).proxy(Networks::loopback());
    rig.reactor.rebind(&service, rules).unwrap();
    let listener = &rig.reactor.status().services[0].listeners[0];
    assert_eq!(listener.to_string(), format!("proxy:{address}"));
    let mut proxied = Talk::connect(address);
    proxied.send("PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\nhello\n");
    rig.hears(&mut proxied, "hello\n");
    // An address alone takes all rules away.
    rig.reactor.rebind(&service, address).unwrap();
    rig.client("a");
    rig.says(&mut proxied, "still here\n");
}

#[test]
fn rules_for_an_address_that_is_not_there_are_an_error() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let address = rig.address("a");
    let other = rig.service("b", Limits::default());
    let outcome = rig.reactor.rebind(&other, at(address)).unwrap_err();
    let said = format!("not listening on {address}: b listens on {}", rig.address("b"));
    assert_eq!(outcome.to_string(), said);
    rig.reactor.rebind(&service, at(address)).unwrap();
}

#[test]
fn the_mode_of_a_unix_sockets_file_changes() {
    let folder = Folder::new("rebind");
    let path = folder.path().join("a.sock");
    let mode = || fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777;
    let mut rig = Rig::new();
    let listen = || Listen::at(path.as_path()).unwrap();
    let service = rig.reactor.listen(listen(), Callbacks::new()).unwrap();
    rig.reactor.rebind(&service, listen().unix_mode(0o666)).unwrap();
    assert_eq!(mode(), 0o666);
    rig.reactor.rebind(&service, listen().unix_mode(0o600)).unwrap();
    assert_eq!(mode(), 0o600);
    let none = rig.reactor.rebind(&service, listen()).unwrap_err().to_string();
    assert!(none.contains("its mode is 0o600, which goes on; name one (unix_mode)"), "{none}");
    let wrong = rig.reactor.rebind(&service, listen().unix_mode(0o1777)).unwrap_err().to_string();
    assert!(wrong.contains("has more than permissions"), "{wrong}");
    assert_eq!(mode(), 0o600);
    // By its mode it is for all or asks who comes, which decides whether others hand over to it.
    rig.reactor.rebind(&service, listen().unix_mode(0o600).allow_uids([4242])).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    rig.until("it was refused", |reactor| reactor.counters().refused == 1);
    assert_eq!(std::io::Read::read(&mut client, &mut [0]).unwrap_or(0), 0);
    // Somebody has put another file there, which is not ours.
    fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let before = mode();
    let foreign = rig.reactor.rebind(&service, listen().unix_mode(0o660)).unwrap_err().to_string();
    assert!(foreign.contains("something else"), "{foreign}");
    assert_eq!(mode(), before);
    rig.reactor.turn(Some(TICK)).unwrap();
}
