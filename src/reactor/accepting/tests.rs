//! Newcomers under layers: what is left where one fails, and who is counted.

use std::cell::Cell;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::net::Host;
use crate::net::layer::{Elsewhere, Layer, Opened, refuse_input_and_output};
use crate::net::newcomers::{Load, channel};
use crate::reactor::listening::Share;
use crate::{Callbacks, Rate, Reactor};

/// Puts [`Named`] over newcomers, but for as many as it is to fail for first.
#[derive(Debug, Default)]
struct Naming {
    failures: Cell<usize>,
    /// It says beforehand that it names the peer.
    foretells: bool,
    /// Each newcomer is somebody else.
    differ: bool,
    newcomers: Cell<u8>,
}

impl Acceptor for Naming {
    fn name(&self) -> &'static str {
        "naming"
    }

    fn accept(&self, newcomer: Stream) -> io::Result<Stream> {
        match self.failures.get() {
            0 => {
                self.newcomers.set(self.newcomers.get() + 1);
                let last = if self.differ { self.newcomers.get() } else { 7 };
                Ok(Stream::layer(Named { below: Some(newcomer), last, foretold: self.foretells }))
            }
            left => {
                self.failures.set(left - 1);
                Err(io::Error::other("on purpose"))
            }
        }
    }

    fn elsewhere(&self) -> Elsewhere {
        Box::new(|| Rc::new(Naming::default()))
    }
}

/// Does nothing but tell who the peer is.
struct Named {
    below: Option<Stream>,
    /// The end of the peer's address.
    last: u8,
    foretold: bool,
}

impl Layer for Named {
    fn below(&self) -> Option<&Stream> {
        self.below.as_ref()
    }

    fn below_mut(&mut self) -> Option<&mut Stream> {
        self.below.as_mut()
    }

    fn has_handshake(&self) -> bool {
        true
    }

    fn names_peer(&self) -> bool {
        self.foretold
    }

    fn handshake(&mut self, _: Nanos, _: &mut Nanos) -> io::Result<Option<Opened>> {
        let peer = Some(([192, 0, 2, self.last], 77).into());
        Ok(Some(Opened { peer, instead: self.below.take() }))
    }
}

refuse_input_and_output!(Named);

fn under(layer: Naming, address: impl crate::ToAddress) -> Listen {
    Listen { layers: vec![Rc::new(layer)], ..Listen::at(address).unwrap() }
}

/// A reactor that serves so under such a layer, and where.
fn serving<'h>(layer: Naming, handler: Callbacks<'h>, limits: Limits) -> (Reactor<'h>, SocketAddr) {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen_with(under(layer, "127.0.0.1:0"), handler, limits).unwrap();
    let addr = service.address().and_then(Address::as_socket).unwrap();
    (reactor, addr)
}

fn turn_until(reactor: &mut Reactor<'_>, so: impl Fn(&Reactor<'_>) -> bool) {
    for _ in 0..100 {
        if so(reactor) {
            return;
        }
        reactor.turn(Some(Duration::from_millis(100))).unwrap();
    }
    panic!("in vain: {:?}", reactor.counters());
}

#[test]
fn a_listen_that_fails_leaves_nothing_to_reload() {
    let mut reactor = Reactor::new().unwrap();
    let taken = reactor.listen("127.0.0.2:0", Callbacks::new()).unwrap();
    let addresses = [1, 2].map(|last| SocketAddr::from(([127, 0, 0, last], taken.port())));
    let host = Host::new("several.test", taken.port()).found_at(addresses);
    reactor.listen(under(Naming::default(), Address::from(host)), Callbacks::new()).unwrap_err();
    let layers = |reactor: &Reactor<'_>| {
        let mut layers = Vec::new();
        reactor.services.iter().for_each(|service| service.list_layers(&mut layers));
        layers.len()
    };
    assert_eq!(layers(&reactor), 0);
    reactor.listen(under(Naming::default(), "127.0.0.1:0"), Callbacks::new()).unwrap();
    assert_eq!(layers(&reactor), 1);
    // Those of listeners that are gone are not read again.
    let service =
        reactor.listen(under(Naming::default(), "127.0.0.1:0"), Callbacks::new()).unwrap();
    assert_eq!(layers(&reactor), 2);
    reactor.unbind(&service, service.address().unwrap()).unwrap();
    turn_until(&mut reactor, |reactor| layers(reactor) == 1);
}

#[test]
fn who_is_named_by_a_handshake_no_longer_counts_under_the_address_before() {
    let limits = Limits { max_per_peer: Some(1), ..Limits::default() };
    let (mut reactor, addr) = serving(Naming::default(), Callbacks::new(), limits);
    for number in 1..=3 {
        let client = TcpStream::connect(addr).unwrap();
        turn_until(&mut reactor, |r| r.counters().accepted == number && r.counters().open == 1);
        drop(client);
        turn_until(&mut reactor, |r| r.counters().open == 0);
    }
    assert_eq!(reactor.counters().refused, 0);
}

fn said(mut client: TcpStream) -> String {
    let mut words = String::new();
    client.read_to_string(&mut words).unwrap();
    words
}

const SLOWER: &str = "Connections from your address come too fast, wait a second\n";

#[test]
fn who_connects_too_fast_is_told_so() {
    let mut reactor = Reactor::new().unwrap();
    let rate = Some(Rate { per_second: 1, burst: 2 });
    let limits = Limits { peer_connect_rate: rate, ..Limits::default() };
    let service = reactor.listen_with("127.0.0.1:0", Callbacks::new(), limits).unwrap();
    let addr = service.address().and_then(Address::as_socket).unwrap();
    // All of them come at one moment as the loop counts it.
    let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(addr).unwrap()).collect();
    turn_until(&mut reactor, |r| r.counters().accepted + r.counters().refused == 5);
    assert_eq!((reactor.counters().accepted, reactor.counters().refused), (2, 3));
    let words: Vec<_> = clients.into_iter().skip(2).map(said).collect();
    assert_eq!(words, [SLOWER; 3]);
}

#[test]
fn who_is_named_by_a_handshake_is_judged_by_that_name() {
    let at_once = Limits { max_per_peer: Some(1), ..Limits::default() };
    let rate = Some(Rate { per_second: 1, burst: 1 });
    let a_second = Limits { peer_connect_rate: rate, ..Limits::default() };
    let crowded = "Too many connections from your address, close one first\n";
    for (limits, words) in [(at_once, crowded), (a_second, SLOWER)] {
        let layer = Naming { foretells: true, ..Naming::default() };
        let (mut reactor, addr) = serving(layer, Callbacks::new(), limits);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        turn_until(&mut reactor, |r| r.counters().open + r.counters().refused == 3);
        let counters = reactor.counters();
        assert_eq!((counters.refused, counters.handshakes_failed), (2, 0));
        assert_eq!(counters.closed_in_all(), 0, "no handler was told of them");
        reactor.turn(Some(Duration::ZERO)).unwrap();
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        let mut buf = [0; 100];
        let told = clients.iter().filter(|client| {
            let count = (&**client).read(&mut buf).unwrap_or_default();
            &buf[..count] == words.as_bytes()
        });
        assert_eq!(told.count(), 2, "{words}");
    }
}

#[test]
fn who_is_to_be_named_by_a_handshake_is_not_judged_before() {
    let rate = Some(Rate { per_second: 1, burst: 1 });
    for (foretells, accepted) in [(true, 3), (false, 1)] {
        let limits = Limits { max_per_peer: Some(1), peer_connect_rate: rate, ..Limits::default() };
        let layer = Naming { foretells, differ: true, ..Naming::default() };
        let (mut reactor, addr) = serving(layer, Callbacks::new(), limits);
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        turn_until(&mut reactor, |r| r.counters().open + r.counters().refused == 3);
        assert_eq!(reactor.counters().open, accepted);
    }
}

#[test]
fn handshakes_have_a_share_of_the_turns_output() {
    let greeter = Callbacks::new().on_connection(|cx| _ = cx.send(vec![b'x'; 300 * 1024]));
    let (mut reactor, addr) = serving(Naming::default(), greeter, Limits::default());
    let _clients: Vec<_> = (0..4).map(|_| TcpStream::connect(addr).unwrap()).collect();
    for _ in 0..100 {
        let before = reactor.counters().open;
        reactor.turn(Some(Duration::from_millis(100))).unwrap();
        assert!(reactor.counters().open <= before + 1);
        if reactor.counters().open == 4 {
            return;
        }
    }
    panic!("in vain: {:?}", reactor.counters());
}

#[test]
fn a_layer_that_fails_for_a_newcomer_does_not_hold_up_the_next() {
    let layer = Naming { failures: Cell::new(1), ..Naming::default() };
    let (mut reactor, addr) = serving(layer, Callbacks::new(), Limits::default());
    let _clients = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!((reactor.counters().accepted, reactor.counters().refused), (1, 0));
}

#[cfg(feature = "tls")]
#[test]
fn tls_lies_below_the_other_layers_and_takes_the_place_of_tls() {
    let dir = std::env::temp_dir().join(format!("reactor-layers-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let [one, two] = [(); 2].map(|()| crate::Tls::from_files(&certificate, &key).unwrap());
    std::fs::remove_dir_all(&dir).unwrap();

    let listen = under(Naming::default(), "127.0.0.1:0");
    let inner = Rc::clone(&listen.layers[0]);
    let layers = listen.tls(&one).tls(&two).layers;
    assert_eq!(layers.len(), 2);
    assert!(Rc::ptr_eq(&layers[0], &two.acceptor()) && Rc::ptr_eq(&layers[1], &inner));
}

#[test]
fn who_asks_who_comes_still_does_when_its_last_listener_has_gone() {
    let path = std::env::temp_dir().join(format!("reactor-{}-guarded", std::process::id()));
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Callbacks::new(), Limits::default()).unwrap();
    for (address, guarded) in
        [(Address::Unix(path), true), (Address::Tcp(([127, 0, 0, 1], 0).into()), false)]
    {
        let bound = reactor.bind(&service, address).unwrap();
        assert_eq!(reactor.state.services[0].guarded, guarded);
        reactor.unbind(&service, &bound).unwrap();
        assert_eq!(reactor.state.services[0].guarded, guarded);
    }
}

#[test]
fn whether_all_are_asked_who_comes_follows_the_listeners() {
    let path = std::env::temp_dir().join(format!("reactor-{}-rules", std::process::id()));
    let with_mode = |mode| Listen::at(path.as_path()).unwrap().unix_mode(mode);
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Callbacks::new(), Limits::default()).unwrap();
    reactor.bind(&service, with_mode(0o600)).unwrap();
    let other = reactor.bind(&service, "127.0.0.1:0").unwrap();
    assert!(!reactor.state.services[0].guarded);
    reactor.unbind(&service, &other).unwrap();
    assert!(reactor.state.services[0].guarded);
    for (mode, guarded) in [(0o666, false), (0o600, true)] {
        reactor.rebind(&service, with_mode(mode)).unwrap();
        assert_eq!(reactor.state.services[0].guarded, guarded);
    }
}

#[test]
fn where_the_last_listener_that_asks_nobody_has_gone_all_are_asked() {
    let mut reactor = Reactor::new().unwrap();
    reactor.add(Callbacks::new(), Limits::default()).unwrap();
    // As on a core where newcomers come by other rules from now on.
    let mut take_over = |mode| {
        let listen = Listen::at(Path::new("/of/another/core")).unwrap().unix_mode(mode);
        let (outlet, arrivals) = channel(Load::default(), Arc::new(|| ()));
        let listen = listen.elsewhere(listen.address.clone());
        reactor.take_over(0, Share { listen, arrivals });
        outlet
    };
    let (for_all, _for_some) = (take_over(0o666), take_over(0o600));
    assert!(!reactor.state.services[0].guarded);
    drop(for_all);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(reactor.state.services[0].guarded);
}
