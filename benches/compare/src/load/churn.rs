use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::{Meter, Sample, Span, patience, source, stalled, transmit, verify};
use crate::protocol::GREETING;
use crate::server::Server;
use crate::{Result, sys};

const LINE: &[u8] = b"come and go, and come again, ok\n";
const REPLY: &[u8] = b"> COME AND GO, AND COME AGAIN, OK\n";
/// What is expected in turn, and what is said once it is there.
const STEPS: [(&[u8], &[u8]); 3] =
    [(GREETING.as_bytes(), LINE), (REPLY, b"BYE\n"), (b"> BYE\n", b"")];

struct Visit {
    fd: OwnedFd,
    step: usize,
    got: usize,
    since: Instant,
}

/// Clients that connect, say a line and BYE, wait for the end, and come again.
pub fn churn(server: &Server, clients: usize, span: Span) -> Result<Sample> {
    let (epoll, mut events) = (sys::Epoll::new()?, sys::events());
    let mut buffer = [0; 4096];
    let mut visits = 0;
    let mut visit = |place: usize| -> Result<Visit> {
        visits += 1;
        let fd = sys::connect(source(visits), server.port())?;
        epoll.add(fd.as_raw_fd(), sys::INPUT, place as u64)?;
        Ok(Visit { fd, step: 0, got: 0, since: Instant::now() })
    };
    let mut places = Vec::new();
    for place in 0..clients {
        places.push(visit(place)?);
    }
    let mut meter = Meter::new(server, span)?;
    loop {
        let happened = epoll.wait(&mut events, patience())?;
        if happened.is_empty() {
            return Err(stalled(server, "a reply or an end"));
        }
        for event in happened {
            let place = &mut places[event.u64 as usize];
            // The last reply and the end share an edge.
            loop {
                let count = match sys::read(place.fd.as_raw_fd(), &mut buffer) {
                    Ok(0) if place.step == STEPS.len() => {
                        meter.count(1, place.since.elapsed());
                        *place = visit(event.u64 as usize)?;
                        break;
                    }
                    Ok(0) => return Err(format!("{} closed too early", server.name()).into()),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(format!("{}: {error}", server.name()).into()),
                };
                let (expected, next) = STEPS.get(place.step).copied().unwrap_or_default();
                verify(server, &buffer[..count], &expected[place.got..])?;
                place.got += count;
                if place.got == expected.len() {
                    (place.step, place.got) = (place.step + 1, 0);
                    transmit(server, &place.fd, next)?;
                }
            }
        }
        if let Some(sample) = meter.tick()? {
            return Ok(sample);
        }
    }
}
