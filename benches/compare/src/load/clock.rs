use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use super::{AT_ONCE, Meter, Sample, Span, patience, receive, source, stalled, verify};
use crate::protocol::clock_line;
use crate::server::Server;
use crate::{Result, sys};

const INTERVAL: Duration = Duration::from_secs(1);
/// How many seconds ago a line may have been made.
const LATE: i64 = 5;

struct Listener {
    fd: OwnedFd,
    /// When its last line came.
    last: Option<Instant>,
}

/// Clients of the clock. What counts as latency is how far from a second two lines are apart.
pub fn clock(server: &Server, count: usize, span: Span) -> Result<Sample> {
    let (epoll, mut events) = (sys::Epoll::new()?, sys::events());
    let mut buffer = [0; 4096];
    let mut listeners: Vec<Listener> = Vec::new();
    let mut started = 0;
    let mut meter: Option<Meter<'_>> = None;
    loop {
        if started == listeners.len() && started < count {
            for number in started..count.min(started + AT_ONCE) {
                let fd = sys::connect(source(number), server.port())?;
                epoll.add(fd.as_raw_fd(), sys::INPUT, number as u64)?;
                listeners.push(Listener { fd, last: None });
            }
        }
        let happened = epoll.wait(&mut events, patience())?;
        if happened.is_empty() {
            return Err(stalled(server, "the time"));
        }
        let (now, second) = (Instant::now(), second());
        let current = clock_line(second);
        for event in happened {
            let listener = &mut listeners[event.u64 as usize];
            let got = receive(server, &listener.fd, &mut buffer)?;
            for line in buffer[..got].chunks(current.len()) {
                // The server may have read its clock just before the second was over, or the
                // machine have paused since.
                let mut earlier = (1..=LATE).map(|late| clock_line(second - late));
                if line == current.as_bytes() || earlier.all(|time| time.as_bytes() != line) {
                    verify(server, line, current.as_bytes())?;
                }
                match listener.last.replace(now) {
                    None => started += 1,
                    Some(last) => {
                        if let Some(meter) = &mut meter {
                            meter.count(1, (now - last).abs_diff(INTERVAL));
                        }
                    }
                }
            }
        }
        match &mut meter {
            None if started == count => meter = Some(Meter::new(server, span)?),
            None => {}
            Some(meter) => {
                if let Some(sample) = meter.tick()? {
                    return Ok(sample);
                }
            }
        }
    }
}

/// The current one, since 1970.
fn second() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs().cast_signed()
}
