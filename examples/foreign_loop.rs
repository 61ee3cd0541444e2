//! The reactor as a guest in somebody else's loop: here one over mio that minds a UDP socket.
//!
//! ```text
//! $ cargo run --example foreign_loop
//! $ nc 127.0.0.1 8004                      (the guest; the timer takes two seconds)
//! One moment...
//! Thank you for waiting.
//! $ echo | nc -u -w 1 127.0.0.1 8004       (the host, at the same port number)
//! clients of the guest: 0
//! ```

use std::time::{Duration, Instant};
use std::{error::Error, io::ErrorKind, os::fd::AsRawFd};

use mio::{Events, Interest, Poll, Token, net::UdpSocket, unix::SourceFd};
use reactor::{Context, Handler, Reactor, TimerId};

struct Patience;

impl Handler for Patience {
    type Session = ();
    type Message = ();
    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("One moment...\n");
        cx.set_timer(Duration::from_secs(2));
    }
    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _timer: TimerId) {
        cx.send("Thank you for waiting.\n");
        cx.close();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8004".to_owned());
    let mut guest = Reactor::new()?;
    let service = guest.listen(address, Patience)?;
    let address = service.address().and_then(|found| found.as_socket()).ok_or("not TCP")?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let (mut udp, guest_fd) = (UdpSocket::bind(address)?, guest.as_raw_fd());
    poll.registry().register(&mut udp, Token(0), Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&guest_fd), Token(1), Interest::READABLE)?;
    println!("listening on {address}");

    while guest.exit().is_none() {
        // The guest's timers and leftovers do not show in its descriptor.
        let left = guest.next_deadline().map(|due| due.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, left) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => guest.turn(Some(Duration::ZERO))?,
        }
        while let Ok((_, peer)) = udp.recv_from(&mut [0]) {
            let answer = format!("clients of the guest: {}\n", guest.counters().open);
            udp.send_to(answer.as_bytes(), peer)?;
        }
    }
    Ok(())
}
