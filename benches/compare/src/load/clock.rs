use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use super::{AT_ONCE, Meter, Sample, Span, patience, receive, source, stalled, verify};
use crate::protocol::clock_line;
use crate::server::Server;
use crate::{Result, sys};

const INTERVAL: Duration = Duration::from_secs(1);

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
        let (now, times) = (Instant::now(), times());
        for event in happened {
            let listener = &mut listeners[event.u64 as usize];
            let got = receive(server, &listener.fd, &mut buffer)?;
            for line in buffer[..got].chunks(times[0].len()) {
                // The server may have read its clock just before the second was over.
                let exact = times.iter().find(|time| time.as_bytes() == line);
                verify(server, line, exact.unwrap_or(&times[0]).as_bytes())?;
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

/// The line of this second and those of its neighbours.
fn times() -> [String; 3] {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = now.as_secs().cast_signed();
    [second, second - 1, second - 2].map(clock_line)
}
