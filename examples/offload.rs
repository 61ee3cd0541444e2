//! Blocking work on a thread pool, which posts its answers back, while the loop goes on serving.
//!
//! ```text
//! $ cargo run --example offload
//! $ nc 127.0.0.1 8005             (in two terminals)
//! 1000000                         (takes a while; the other is answered meanwhile)
//! 78498 primes below 1000000
//! ```

use std::sync::{Arc, Mutex, mpsc};

use reactor::{ConnId, Context, Error, Handler, Reactor, ServiceContext, text};

struct Primes(mpsc::Sender<(ConnId, u64)>);

impl Handler for Primes {
    type Session = ();
    type Message = (ConnId, String);

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match text::parse(line) {
            // Its next line waits for the answer: replies in order, one job a client.
            Some(limit) if self.0.send((cx.id(), limit)).is_ok() => cx.pause(),
            _ => writeln!(cx, "a number, please"),
        }
    }
    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (id, answer): Self::Message) {
        // If the client has left meanwhile its id names nobody, and nothing happens.
        cx.reply_to(id, answer);
        if let Some(mut client) = cx.connection(id) {
            client.resume();
        }
    }
}

fn primes_below(limit: u64) -> usize {
    let prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..limit).filter(prime).count()
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8005".to_owned());
    let (jobs, queue) = mpsc::channel();
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Primes(jobs))?;
    println!("listening on {service}");
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..4 {
        let (handle, queue) = (service.handle(), Arc::clone(&queue));
        std::thread::spawn(move || {
            while let Some((id, limit)) = queue.lock().ok().and_then(|queue| queue.recv().ok()) {
                let answer = format!("{} primes below {limit}\n", primes_below(limit));
                let _ = handle.post((id, answer)); // Fails when the reactor is gone.
            }
        });
    }
    reactor.run()?;
    Ok(())
}
