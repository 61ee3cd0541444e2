//! Dialling out from an address of one's own choice.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use reactor::{Address, CloseReason, Context, Handler, Limits, Reactor, ServiceContext};

use crate::util::PATIENCE;

/// Dials for every message, and notes its own address or what went wrong.
struct Dialler<'a> {
    said: &'a RefCell<Option<Result<SocketAddr, CloseReason>>>,
}

impl Handler for Dialler<'_> {
    type Session = u8;
    type Message = (IpAddr, Address);

    fn on_message(&mut self, cx: &mut ServiceContext<'_, u8>, (source, to): (IpAddr, Address)) {
        cx.connect_from(source, to, 7).unwrap();
    }

    fn on_open(&mut self, cx: &mut Context<'_, u8>) {
        assert_eq!(*cx.session(), 7);
        *self.said.borrow_mut() = Some(Ok(cx.local_addr().unwrap()));
    }

    fn on_close(&mut self, cx: &mut Context<'_, u8>, reason: CloseReason) {
        assert_eq!(*cx.session(), 7);
        self.said.borrow_mut().get_or_insert(Err(reason));
    }
}

fn dial(source: &str, to: &Address) -> Result<SocketAddr, CloseReason> {
    let said = RefCell::new(None);
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Dialler { said: &said }, Limits::default()).unwrap();
    service.handle().post((source.parse().unwrap(), to.clone())).unwrap();
    while said.borrow().is_none() {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    said.take().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn the_peer_sees_the_source_address_that_was_chosen() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Address::Tcp(listener.local_addr().unwrap());
    let local = dial("127.0.0.9", &to).unwrap();
    assert_eq!(local.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
    assert_eq!(listener.accept().unwrap().1, local);
}

#[test]
fn a_source_address_that_cannot_be_had_is_told_on_close() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Address::Tcp(listener.local_addr().unwrap());
    // An address for documentation: nobody has it.
    assert_eq!(dial("192.0.2.1", &to), Err(CloseReason::Error(ErrorKind::AddrNotAvailable)));
    let path = Address::Unix("/nowhere".into());
    assert_eq!(dial("127.0.0.1", &path), Err(CloseReason::Error(ErrorKind::InvalidInput)));
}
