//! A reactor in a thread, for handlers that no program has, and a look into it.

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use reactor::{Counters, Exit, Handler, Limits, Reactor};

use crate::util::{Client, PATIENCE, Quiet, quiet, until};

/// How often the loop looks up to see whether it is asked something.
const LOOK_UP: Duration = Duration::from_millis(5);

/// What the loop has counted, and whether it waits for nothing: no connection, no timer.
type Answer = (Counters, bool);

pub struct Lab {
    pub addr: SocketAddr,
    ask: Option<Sender<Sender<Answer>>>,
    thread: JoinHandle<(Exit, Counters)>,
    _quiet: Quiet,
}

impl Lab {
    pub fn start<H: Handler + 'static>(
        limits: Limits,
        make: impl FnOnce() -> H + Send + 'static,
    ) -> Lab {
        let _quiet = quiet();
        let (tell, told) = channel();
        let (ask, asked) = channel::<Sender<Answer>>();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::new().unwrap();
            let service = reactor.listen_with("127.0.0.1:0", make(), limits).unwrap();
            tell.send(service.address().unwrap().as_socket().unwrap()).unwrap();
            loop {
                reactor.turn(Some(LOOK_UP)).unwrap();
                if let Some(exit) = reactor.exit() {
                    return (exit, reactor.counters());
                }
                match asked.try_recv() {
                    Ok(asker) => {
                        let nothing = reactor.next_deadline().is_none();
                        let _ = asker.send((reactor.counters(), nothing));
                    }
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => reactor.stop(),
                    Err(std::sync::mpsc::TryRecvError::Empty) => {}
                }
            }
        });
        let addr = told.recv_timeout(PATIENCE).expect("the reactor did not start");
        Lab { addr, ask: Some(ask), thread, _quiet }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    fn answer(&self) -> Answer {
        let (tell, told) = channel();
        self.ask.as_ref().expect("it is running").send(tell).unwrap();
        told.recv_timeout(PATIENCE).expect("the loop does not answer")
    }

    pub fn counters(&self) -> Counters {
        self.answer().0
    }

    /// All clients have left: no connection and no timer of theirs is left either.
    pub fn ends(mut self) -> Counters {
        until("nothing is left", || {
            let (counters, nothing) = self.answer();
            counters.open == 0 && nothing
        });
        self.ask = None;
        let (exit, counters) = self.thread.join().expect("the reactor panicked");
        assert_eq!((exit, counters.closed_in_all()), (Exit::Clean, counters.accepted));
        counters
    }
}
