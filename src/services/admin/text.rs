//! What an administrator reads: tables of fixed widths, since a list is sent before its end is known.

use std::fmt;
use std::time::Duration;

use crate::services::views::{Process, peer};
use crate::text::printable;
use crate::{ConnectionStatus, CoreStatus, Limits, Rate, Rates, Status};

/// The process, the loop, and a line for each service.
pub(super) struct Overview<'a> {
    pub(super) status: &'a Status,
    pub(super) process: &'a Process,
}

impl fmt::Display for Overview<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overview { status, process } = self;
        write!(f, "reactor {}, pid {}, up {}", process.version, process.pid, Short(status.uptime))?;
        if let Some(open) = process.open_fds {
            write!(f, ", {open} descriptors")?;
            process.max_fds.map_or(Ok(()), |most| write!(f, " of {most}"))?;
        }
        f.write_str(if status.stopping { ", stopping\n" } else { "\n" })?;
        let turns = &status.turns;
        let slept = asleep(turns.slept, turns.busy);
        writeln!(
            f,
            "{} turns, {slept:.1}% asleep, longest of late {:.1?}",
            turns.count, turns.longest
        )?;
        for core in status.cores.iter().filter(|_| status.cores.len() > 1) {
            let CoreStatus { index, connections, slept, busy, .. } = core;
            writeln!(
                f,
                "thread {index}: {connections} connections, {:.1}% asleep",
                asleep(*slept, *busy)
            )?;
        }
        writeln!(
            f,
            "{:<12} {:>6} {:>7} {:>9} {:>8} {:>11} {:>12} {:>12} {:>9} LISTENS",
            "SERVICE", "OPEN", "MOST", "ACCEPTED", "REFUSED", "LINES", "IN", "OUT", "UNSENT"
        )?;
        for service in &status.services {
            let counters = &service.counters;
            let most = service.limits.as_ref().map(|limits| limits.max_connections);
            let places: Vec<_> = service.listeners.iter().map(ToString::to_string).collect();
            writeln!(
                f,
                "{:<12} {:>6} {:>7} {:>9} {:>8} {:>11} {:>12} {:>12} {:>9} {}",
                printable(service.name.as_bytes()),
                service.connections,
                Known(most),
                counters.accepted,
                counters.refused,
                counters.lines_in,
                counters.bytes_in,
                counters.bytes_out,
                service.unsent,
                printable(places.join(" ").as_bytes()),
            )?;
        }
        Ok(())
    }
}

/// How much of the time, of a hundred.
fn asleep(slept: Duration, busy: Duration) -> f64 {
    let all = (slept + busy).as_secs_f64();
    if all > 0.0 { slept.as_secs_f64() / all * 100.0 } else { 100.0 }
}

/// What stands above the [`Row`]s.
pub(super) fn heading() -> String {
    let [id, service, peer, waits] = ["ID", "SERVICE", "PEER", "WAITS"];
    let [age, idle, lines, ins, outs, unsent] = ["AGE", "IDLE", "LINES", "IN", "OUT", "UNSENT"];
    format!(
        "{id:<8} {service:<12} {peer:<24} {age:>7} {idle:>7} {lines:>9} {ins:>12} {outs:>12} {unsent:>9} \
         {waits}\n"
    )
}

/// One connection.
pub(super) struct Row<'a>(pub(super) &'a ConnectionStatus);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.0;
        let usage = of.usage;
        write!(
            f,
            "{:<8} {:<12} {:<24} {:>7} {:>7} {:>9} {:>12} {:>12} {:>9} {}{}",
            format!("#{}", of.id.number()),
            printable(of.service.as_bytes()),
            Known(peer(of)),
            Known(usage.map(|usage| Short(usage.age))),
            Known(Some(Short(of.idle))),
            Known(usage.map(|usage| usage.lines_in)),
            Known(usage.map(|usage| usage.bytes_in)),
            Known(usage.map(|usage| usage.bytes_out)),
            of.unsent,
            of.waits,
            if of.outbound { " (outbound)" } else { "" },
        )
    }
}

/// What is known, padded; `-` where it is not.
struct Known<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.as_ref().map_or("-".to_owned(), T::to_string))
    }
}

/// A time in its two largest units.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0, _) => write!(f, "{:.1}s", self.0.as_millis() as f64 / 1000.0),
            (0, 0, minutes, seconds) => write!(f, "{minutes}m{seconds:02}s"),
            (0, hours, minutes, _) => write!(f, "{hours}h{minutes:02}m"),
            (days, hours, ..) => write!(f, "{days}d{hours:02}h"),
        }
    }
}

/// The limits of a service, a line each: its name and its value. All of them are here, since the pattern
/// has each field.
pub(super) struct Listed<'a>(pub(super) &'a Limits);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        macro_rules! lines {
            ($($field:ident $value:expr),* $(,)?) => {{
                let Limits { $($field),* } = self.0;
                $(writeln!(f, "{:<18} {}", stringify!($field), $value)?;)*
            }};
        }
        let per = |rate: &Rate| format!("{}/s, {} at once", rate.per_second, rate.burst);
        let one = |name, rate: &Option<Rate>| rate.as_ref().map(|it| format!("{name} {}", per(it)));
        let rates = |rates: &Rates| {
            let both = [one("lines", &rates.lines), one("bytes", &rates.bytes)];
            let both: Vec<_> = both.into_iter().flatten().collect();
            Bound((!both.is_empty()).then(|| both.join("; ")))
        };
        let time = |time: &Option<Duration>| Bound(time.map(|time| format!("{time:?}")));
        lines! {
            max_connections max_connections,
            max_line max_line,
            max_frame Bound(*max_frame),
            max_output max_output,
            soft_output soft_output,
            soft_output_for format!("{soft_output_for:?}"),
            high_water high_water,
            low_water low_water,
            idle_timeout time(idle_timeout),
            line_timeout time(line_timeout),
            rate rates(rate),
            peer_rate rates(peer_rate),
            max_per_peer Bound(*max_per_peer),
            peer_connect_rate Bound(peer_connect_rate.as_ref().map(per)),
            keepalive time(keepalive),
            user_timeout time(user_timeout),
            connect_timeout format!("{connect_timeout:?}"),
            handshake_timeout format!("{handshake_timeout:?}"),
            flush_timeout format!("{flush_timeout:?}"),
            linger format!("{linger:?}"),
            bytes_per_turn bytes_per_turn,
            lines_per_turn lines_per_turn,
            accepts_per_turn accepts_per_turn,
            slow_call format!("{slow_call:?}"),
        }
        Ok(())
    }
}

/// A limit, or that there is none.
struct Bound<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Bound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(bound) => bound.fmt(f),
            None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_two_units() {
        for (millis, text) in [
            (0, "0.0s"),
            (1_540, "1.5s"),
            (59_999, "60.0s"),
            (60_000, "1m00s"),
            (3_599_000, "59m59s"),
            (3_600_000, "1h00m"),
            (86_400_000, "1d00h"),
            (31 * 86_400_000 + 7_200_000, "31d02h"),
        ] {
            assert_eq!(Short(Duration::from_millis(millis)).to_string(), text);
        }
    }

    #[test]
    fn every_limit_has_a_line() {
        let text = Listed(&Limits::default()).to_string();
        assert!(text.starts_with("max_connections    10000\n"), "{text}");
        assert!(text.contains("\nline_timeout       60s\n"), "{text}");
        assert!(text.contains("\npeer_rate          none\n"), "{text}");
        let rate = Rate { per_second: 9, burst: 20 };
        let text = Listed(&Limits { rate: rate.into(), ..Limits::default() }).to_string();
        assert!(text.contains("\nrate               lines 9/s, 20 at once\n"), "{text}");
    }
}
