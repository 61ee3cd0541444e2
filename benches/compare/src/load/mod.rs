//! The load: one thread, bare epoll, every reply compared byte for byte. It does less than any
//! server it measures: what it sends and what it expects are made before the clock starts.

mod churn;
mod clock;
mod crowd;
mod echo;
mod fanout;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

pub use churn::churn;
pub use clock::clock;
pub use crowd::Crowd;
pub use echo::Echo;
pub use fanout::fanout;

use crate::server::Server;
use crate::{Result, sys};

/// How long a server may owe a reply.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many connect at once: fewer than the backlog of the least of the servers.
const AT_ONCE: usize = 64;
/// What one read takes: a whole burst of replies.
const BUFFER: usize = 256 * 1024;

/// How long to warm up and to measure.
#[derive(Clone, Copy)]
pub struct Span {
    pub warm: Duration,
    pub measured: Duration,
}

/// One measurement.
pub struct Sample {
    /// Lines, deliveries or connections.
    pub units: u64,
    pub elapsed: Duration,
    /// What the server used of its core.
    pub cpu: Duration,
    /// What the load used of its own.
    pub own: Duration,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

/// The instruments: started after the warm-up and read while the load still runs.
struct Meter<'s> {
    server: &'s Server,
    span: Span,
    begin: Instant,
    started: Option<(Instant, Duration, Duration)>,
    units: u64,
    latency: Histogram<u64>,
}

impl<'s> Meter<'s> {
    fn new(server: &'s Server, span: Span) -> Result<Meter<'s>> {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Meter { server, span, begin: Instant::now(), started: None, units: 0, latency })
    }

    #[inline]
    fn count(&mut self, units: usize, took: Duration) {
        self.units += units as u64;
        self.latency.saturating_record(took.as_nanos() as u64);
    }

    /// To be asked once per wait; gives the sample when the time is over.
    fn tick(&mut self) -> Result<Option<Sample>> {
        let now = Instant::now();
        let Some((started, cpu, own)) = self.started else {
            if now - self.begin >= self.span.warm {
                self.units = 0;
                self.latency.clear();
                let own = sys::cpu_time(std::process::id())?;
                self.started = Some((now, self.server.cpu()?, own));
            }
            return Ok(None);
        };
        let elapsed = now - started;
        if elapsed < self.span.measured {
            return Ok(None);
        }
        let cpu = self.server.cpu()?.checked_sub(cpu);
        let ended = || format!("a process of {} has ended", self.server.name());
        Ok(Some(Sample {
            units: self.units,
            elapsed,
            cpu: cpu.ok_or_else(ended)?,
            own: sys::cpu_time(std::process::id())? - own,
            latency: self.latency.clone(),
        }))
    }
}

/// A source address for the n-th connection: one alone has too few ports for all that are open
/// or were closed in the last minute.
fn source(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + (n % 60) as u8)
}

/// Bytes received, compared with those expected.
fn verify(server: &Server, got: &[u8], expected: &[u8]) -> Result<()> {
    if got.len() <= expected.len() && got == &expected[..got.len()] {
        return Ok(());
    }
    Err(mismatch(server, got, expected))
}

#[cold]
fn mismatch(server: &Server, got: &[u8], expected: &[u8]) -> Box<dyn std::error::Error> {
    let common = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
    let from = common.saturating_sub(20);
    let excerpt = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[from..bytes.len().min(common + 60)]).into_owned()
    };
    let (name, expected, got) = (server.name(), excerpt(expected), excerpt(got));
    format!("{name} sent {got:?} where {expected:?} was expected").into()
}

#[cold]
fn stalled(server: &Server, what: &str) -> Box<dyn std::error::Error> {
    format!("{} let the load wait {PATIENCE:?} for {what}", server.name()).into()
}

/// What came, or 0 where nothing is there yet; an end is an error.
#[inline]
fn receive(server: &Server, fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
    match sys::read(fd.as_raw_fd(), buffer) {
        Ok(0) => Err(format!("{} closed a connection", server.name()).into()),
        Ok(count) => Ok(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(format!("reading from {}: {error}", server.name()).into()),
    }
}

/// How many bytes the kernel took.
#[inline]
fn transmit(server: &Server, fd: &OwnedFd, data: &[u8]) -> Result<usize> {
    match sys::write(fd.as_raw_fd(), data) {
        Ok(count) => Ok(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(format!("writing to {}: {error}", server.name()).into()),
    }
}

fn patience() -> i32 {
    PATIENCE.as_millis() as i32
}
