//! Datagrams, the one side: announces by multicast that a service is there, every second and
//! whenever somebody asks with `?`. It is for this machine alone; `reactor discover` hears it too.
//!
//! ```text
//! $ cargo run --example announce
//! $ cargo run --example discover     (in another terminal)
//! + echo 127.0.0.1:2323              (what `reactor serve` has there; for others say
//!                                     cargo run --example announce -- SERVICE ADDR)
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reactor::{DatagramContext, DatagramHandler, DatagramOptions, Error, Reactor, TimerId};

/// One of the groups that stay within a site, and a port that nobody has reserved.
const GROUP: &str = "239.255.23.23:9908";

/// What it has to say.
struct Announcer(String);

impl Announcer {
    fn announce(&self, cx: &mut DatagramContext<'_>) {
        // The socket is bound to the group, so this is where everybody listens.
        cx.send_to(cx.local_addr(), &self.0);
    }
}

impl DatagramHandler for Announcer {
    type Message = ();

    fn on_bound(&mut self, cx: &mut DatagramContext<'_>) {
        self.announce(cx);
        cx.set_timer(Duration::from_secs(1));
    }
    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, _from: SocketAddr, bytes: &[u8]) {
        // What was announced comes back too, since who sends to a group is in it.
        if bytes == b"?\n" {
            self.announce(cx);
        }
    }
    fn on_timer(&mut self, cx: &mut DatagramContext<'_>, _timer: TimerId) {
        self.on_bound(cx);
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let service = args.next().unwrap_or("echo".to_owned());
    let address = args.next().unwrap_or("127.0.0.1:2323".to_owned());
    let loopback = Some(Ipv4Addr::LOCALHOST);
    let options = DatagramOptions { interface: loopback, ..DatagramOptions::default() };
    let mut reactor = Reactor::new()?;
    reactor.datagrams_with(GROUP, Announcer(format!("{service} {address}\n")), options)?;
    reactor.run()?;
    Ok(())
}
