//! The way between one server and Redis, with whatever may befall it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A proxy at a port of its own; whatever goes through it ends when it is dropped.
pub struct Link {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    way: Mutex<Way>,
    changed: Condvar,
}

/// How the way is.
#[derive(Default)]
struct Way {
    /// Nothing gets through, and nothing is lost: as when packets are, which TCP sends again.
    held: bool,
    /// Whoever dials is not let in.
    refused: bool,
    /// How long each piece is under way.
    delay: Duration,
    /// The most bytes of a piece; 0 is no limit.
    piece: usize,
    /// After so many more bytes of Redis the connection that brings them is cut.
    cut_after: Option<usize>,
    /// How many were cut by that.
    cuts: usize,
    over: bool,
    /// Both ends of each connection.
    connections: Vec<TcpStream>,
}

impl Link {
    pub fn to(redis: SocketAddr) -> Link {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                if theirs.way().over {
                    return;
                }
                if !theirs.way().refused
                    && let Ok(redis) = TcpStream::connect(redis)
                {
                    connect(&theirs, client, redis);
                }
            }
        });
        Link { addr, shared }
    }

    /// Nothing gets through until [`go_on`](Link::go_on), though no connection ends.
    pub fn hold(&self) {
        self.shared.way().held = true;
    }

    pub fn go_on(&self) {
        let mut way = self.shared.way();
        let connections = std::mem::take(&mut way.connections);
        *way = Way { connections, cuts: way.cuts, ..Way::default() };
        drop(way);
        self.shared.changed.notify_all();
    }

    /// All connections end at once, with a reset.
    pub fn cut(&self) {
        self.shared.way().cut();
        self.shared.changed.notify_all();
    }

    /// The same, and no new one comes about.
    pub fn refuse(&self) {
        self.shared.way().refused = true;
        self.cut();
    }

    /// Each piece of so many bytes takes so long.
    pub fn slow(&self, delay: Duration, piece: usize) {
        let mut way = self.shared.way();
        (way.delay, way.piece) = (delay, piece);
    }

    /// The connection over which so many more bytes of Redis have come is cut.
    pub fn cut_after(&self, bytes: usize) {
        self.shared.way().cut_after = Some(bytes);
    }

    /// How often that has happened.
    pub fn cuts(&self) -> usize {
        self.shared.way().cuts
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.way().over = true;
        self.cut();
        // It wakes from accepting, and sees that it is over.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of these bytes may go on now, and whether the connection is cut behind them.
    fn pass(&self, bytes: usize, from_redis: bool) -> (usize, bool) {
        let (delay, piece) = {
            let way = self.way();
            let piece = if way.piece == 0 { bytes } else { way.piece.min(bytes) };
            (way.delay, piece)
        };
        if delay > Duration::ZERO {
            std::thread::sleep(delay);
        }
        let way = self.way();
        let held = |way: &mut Way| way.held && !way.over;
        let mut way = self.changed.wait_while(way, held).unwrap_or_else(PoisonError::into_inner);
        let Some(left) = way.cut_after.filter(|_| from_redis) else { return (piece, false) };
        if piece < left {
            way.cut_after = Some(left - piece);
            return (piece, false);
        }
        way.cut_after = None;
        way.cuts += 1;
        (left, true)
    }
}

impl Way {
    fn cut(&mut self) {
        for stream in self.connections.drain(..) {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream, redis: TcpStream) {
    let both = [(&client, &redis, false), (&redis, &client, true)];
    for (from, to, from_redis) in both {
        let _ = from.set_nodelay(true);
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || carry(&shared, from, to, from_redis));
    }
    let mut way = shared.way();
    way.connections.retain(|stream| stream.peer_addr().is_ok());
    way.connections.extend([client, redis]);
}

/// One direction, until either end or a cut.
fn carry(shared: &Shared, mut from: TcpStream, mut to: TcpStream, from_redis: bool) {
    let mut buf = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buf)
        && count > 0
    {
        let mut rest = &buf[..count];
        while !rest.is_empty() {
            let (some, cut) = shared.pass(rest.len(), from_redis);
            if to.write_all(&rest[..some]).is_err() || cut {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
            rest = &rest[some..];
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
