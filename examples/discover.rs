//! Datagrams, the other side: asks by multicast who is there, lists them, and drops those that
//! fell silent. It hears what is announced on this machine, by `reactor serve --announce` too.
//!
//! ```text
//! $ cargo run --example discover
//! + echo 127.0.0.1:2323              (once `cargo run --example announce` runs)
//! - echo 127.0.0.1:2323              (some seconds after it was killed)
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reactor::text::printable;
use reactor::{DatagramContext, DatagramHandler, DatagramOptions, Error, Reactor, TimerId};

const GROUP: &str = "239.255.23.23:9908";
/// Three announcements were lost, and a bit.
const SILENCE: Duration = Duration::from_millis(3500);
/// Anybody can announce as much as they like.
const MOST: usize = 1000;

/// Who is there, each with the timer that says when they have been silent for too long.
struct Listener(BTreeMap<String, TimerId>);

impl DatagramHandler for Listener {
    type Message = ();

    fn on_bound(&mut self, cx: &mut DatagramContext<'_>) {
        cx.send_to(cx.local_addr(), "?\n");
    }
    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, _from: SocketAddr, bytes: &[u8]) {
        // It is going to be printed: no escape sequence of a stranger's is to reach the terminal.
        let who = printable(bytes.trim_ascii_end());
        if let Some(timer) = self.0.get_mut(&who) {
            cx.cancel_timer(*timer);
            *timer = cx.set_timer(SILENCE);
        } else if who.contains(' ') && who.len() < 100 && self.0.len() < MOST {
            println!("+ {who}");
            self.0.insert(who, cx.set_timer(SILENCE));
        }
    }
    fn on_timer(&mut self, _cx: &mut DatagramContext<'_>, timer: TimerId) {
        for (who, _) in self.0.iter().filter(|(_, silent)| **silent == timer) {
            println!("- {who}");
        }
        self.0.retain(|_, silent| *silent != timer);
    }
}

fn main() -> Result<(), Error> {
    let loopback = Some(Ipv4Addr::LOCALHOST);
    let options = DatagramOptions { interface: loopback, ..DatagramOptions::default() };
    let mut reactor = Reactor::new()?;
    reactor.datagrams_with(GROUP, Listener(BTreeMap::new()), options)?;
    reactor.run()?;
    Ok(())
}
