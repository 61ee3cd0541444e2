//! What a turn did, connection by connection, in one line of the log at the level `trace`.
//!
//! Nothing is counted for it: whoever has served, flushed or ended a connection says so, and what that
//! has moved is how far the service's counters have come since.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::Reactor;
use super::counters::Counters;
use super::fairness::TOLD_PER_TURN;
use super::loop_state::LoopState;
use super::readiness::Readiness;
use super::token::{MOST_SERVICES, Token};
use crate::connection::clock::Nanos;
use crate::connection::{CloseReason, ConnId};

/// What is known of the turn under way. Empty unless the log is at `trace`.
#[derive(Debug, Default)]
pub(crate) struct TurnTrace {
    /// Looked up once a turn: all other questions are of this flag.
    on: bool,
    /// In the order in which they came up.
    parts: Vec<Part>,
    /// More came up than [`TOLD_PER_TURN`].
    crowded: bool,
    /// How far each service's counters are told; those that no connection is told of, since the turn began.
    told: Vec<Counters>,
    /// How long the loop had slept in all when the turn before ended.
    slept: Nanos,
}

/// What a turn did for one connection, or for a service itself.
#[derive(Debug)]
struct Part {
    of: Token,
    event: Option<&'static str>,
    accepted: bool,
    read: u64,
    lines: u64,
    timers: u32,
    messages: u32,
    wrote: u64,
    closed: Option<CloseReason>,
}

/// Something that counters do not tell.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happened {
    Accepted,
    /// It has had its share of the turn, or was flushed.
    Served,
    Timer,
    Message,
    Closed(CloseReason),
}

impl LoopState {
    /// Notes what a turn has done for a connection; for none, for the service itself.
    #[inline]
    pub(super) fn trace(&mut self, service: usize, id: Option<ConnId>, what: Happened) {
        if self.trace.on {
            self.trace_part(service, id, what);
        }
    }

    #[cold]
    fn trace_part(&mut self, service: usize, id: Option<ConnId>, what: Happened) {
        let now = &self.services[service].counters;
        let Some(told) = self.trace.told.get_mut(service) else { return };
        let since = |told: &mut u64, now: u64| now - std::mem::replace(told, now);
        let read = since(&mut told.bytes_in, now.bytes_in);
        let lines = since(&mut told.lines_in, now.lines_in);
        let wrote = since(&mut told.bytes_out, now.bytes_out);
        if matches!(what, Happened::Served) && read + lines + wrote == 0 {
            return;
        }
        let of = match id {
            Some(id) => Token::connection(service, id),
            None => Token::listener(service, 0),
        };
        let Some(part) = self.trace.part(of) else { return };
        part.read += read;
        part.lines += lines;
        part.wrote += wrote;
        match what {
            Happened::Served => {}
            Happened::Accepted => part.accepted = true,
            Happened::Timer => part.timers += 1,
            Happened::Message => part.messages += 1,
            Happened::Closed(reason) => part.closed = Some(reason),
        }
    }
}

impl TurnTrace {
    /// Notes what the selector said of a connection.
    fn event(&mut self, of: Token, what: Readiness) {
        let event = match what {
            Readiness { error: true, .. } => "broken",
            Readiness { readable: true, .. } | Readiness { read_on: true, .. } => "readable",
            // Told only where somebody waits for the room: each newcomer has an edge for it.
            _ => return,
        };
        // The loop's own tokens, for signals and wake-ups, are those of no service.
        if !of.is_connection() || of.service() >= MOST_SERVICES {
            return;
        }
        if let Some(part) = self.part(of) {
            part.event = Some(event);
        }
    }

    /// The part of a connection, which may be new; none if there are too many.
    fn part(&mut self, of: Token) -> Option<&mut Part> {
        let place = self.parts.iter().position(|part| part.of == of);
        if place.is_none() && self.parts.len() == TOLD_PER_TURN {
            self.crowded = true;
            return None;
        }
        let place = place.unwrap_or_else(|| {
            self.parts.push(Part::new(of));
            self.parts.len() - 1
        });
        Some(&mut self.parts[place])
    }
}

impl Part {
    fn new(of: Token) -> Part {
        Part {
            of,
            event: None,
            accepted: false,
            read: 0,
            lines: 0,
            timers: 0,
            messages: 0,
            wrote: 0,
            closed: None,
        }
    }

    /// Writes it, as `#4 readable, read 12 B, 1 line, wrote 14 B`.
    fn write(&self, service: &str, out: &mut String) -> fmt::Result {
        match self.of.generation() {
            Some(number) => write!(out, "#{number}")?,
            None => out.push_str(service),
        }
        let mut between = " ";
        let mut item = |text: fmt::Arguments<'_>| {
            write!(out, "{}{text}", std::mem::replace(&mut between, ", "))
        };
        if self.accepted {
            item(format_args!("accepted by {service}"))?;
        }
        if let Some(event) = self.event {
            item(format_args!("{event}"))?;
        }
        if self.read > 0 {
            item(format_args!("read {} B", self.read))?;
        }
        for (count, what) in
            [(self.lines, "line"), (self.timers.into(), "timer"), (self.messages.into(), "message")]
        {
            if count > 0 {
                item(format_args!("{}", Count(count, what)))?;
            }
        }
        if self.wrote > 0 {
            item(format_args!("wrote {} B", self.wrote))?;
        }
        match self.closed {
            Some(reason) => item(format_args!("closed: {reason}")),
            None => Ok(()),
        }
    }
}

impl Reactor<'_> {
    /// Before the wait for events: looks whether turns are to be told of.
    #[inline]
    pub(super) fn begin_trace(&mut self) {
        let on = log::log_enabled!(log::Level::Trace);
        if on || self.state.trace.on {
            self.set_trace(on);
        }
    }

    #[cold]
    fn set_trace(&mut self, on: bool) {
        let state = &mut self.state;
        state.trace.on = on;
        state.trace.crowded = false;
        state.trace.parts.clear();
        state.trace.told.clear();
        if on {
            state.trace.told.extend(state.services.iter().map(|service| service.counters.clone()));
            state.trace.slept = state.meter.slept_in_all();
        }
    }

    /// Notes what the selector says, before anything is done about it.
    #[inline]
    pub(super) fn trace_events(&mut self) {
        if self.state.trace.on {
            self.note_events();
        }
    }

    #[cold]
    fn note_events(&mut self) {
        for event in &self.events {
            self.state.trace.event(Token::from(event.token()), event.into());
        }
    }

    /// The turn has ended: tells of it, if it has done something.
    #[inline]
    pub(super) fn end_trace(&self) {
        if self.state.trace.on {
            self.tell();
        }
    }

    #[cold]
    fn tell(&self) {
        let trace = &self.state.trace;
        let mut parts = Vec::new();
        for part in &trace.parts {
            let mut text = String::new();
            // Writing to a string does not fail.
            let _ = part.write(&self.state.services[part.of.service()].name, &mut text);
            parts.push(text);
        }
        if trace.crowded {
            parts.push("and others".to_owned());
        }
        for (service, told) in self.state.services.iter().zip(&trace.told) {
            for (verb, count, what) in [
                ("refused", service.counters.refused - told.refused, "newcomer"),
                ("got", service.counters.datagrams_in - told.datagrams_in, "datagram"),
                ("sent", service.counters.datagrams_out - told.datagrams_out, "datagram"),
            ] {
                if count > 0 {
                    parts.push(format!("{} {verb} {}", service.name, Count(count, what)));
                }
            }
        }
        if parts.is_empty() {
            return;
        }
        let text = parts.join("; ");
        let slept = Duration::from_nanos(self.state.meter.slept_in_all() - trace.slept);
        let number = self.state.meter.count();
        match slept {
            Duration::ZERO => log::trace!("turn {number}: {text}; did not sleep"),
            _ => log::trace!("turn {number}: {text}; slept {}", Length(slept)),
        }
    }
}

/// So many of something.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A duration as one says it: `840 µs`, `1.2 ms`, `2.31 s`.
struct Length(Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            0..1_000 => write!(f, "{} µs", self.0.as_micros()),
            1_000..1_000_000 => write!(f, "{:.1} ms", self.0.as_secs_f64() * 1e3),
            _ => write!(f, "{:.2} s", self.0.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_the_unit_that_one_would_say() {
        let said = |micros| Length(Duration::from_micros(micros)).to_string();
        assert_eq!(said(0), "0 µs");
        assert_eq!(said(840), "840 µs");
        assert_eq!(said(1_234), "1.2 ms");
        assert_eq!(said(2_314_000), "2.31 s");
    }

    #[test]
    fn of_thousands_that_are_ready_a_few_are_named() {
        let mut trace = TurnTrace { on: true, ..TurnTrace::default() };
        let readable = Readiness { readable: true, ..Readiness::default() };
        for serial in 1..1_000 {
            trace.event(Token::connection(0, ConnId::new(serial, 0)), readable);
        }
        assert!(trace.crowded);
        assert_eq!(trace.parts.len(), TOLD_PER_TURN);
    }
}
