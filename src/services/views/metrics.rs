//! Metrics for Prometheus, in either of the formats that it reads.
//!
//! ```
//! use std::time::Instant;
//!
//! use reactor::Reactor;
//! use reactor::services::Echo;
//! use reactor::services::views::ProcessReader;
//! use reactor::services::views::metrics::{self, Format};
//!
//! # fn main() -> Result<(), reactor::Error> {
//! let mut reactor = Reactor::new()?;
//! reactor.listen("127.0.0.1:0", Echo)?;
//! let mut process = ProcessReader::new("1.0");
//! let mut text = String::new();
//! let format = Format::accepted("application/openmetrics-text; version=1.0.0, */*; q=0.1");
//! metrics::encode(&mut text, &reactor.status(), process.read(Instant::now()), format);
//! assert!(text.contains("reactor_max_connections{service=\"Echo\"} 10000\n"));
//! # Ok(())
//! # }
//! ```

use std::borrow::Cow;
use std::fmt;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType::{self, Counter, Gauge, Histogram, Info};
use prometheus_client::registry::Registry;

use super::{Process, buckets};
use crate::{CoreStatus, ServiceStatus, Status};

/// A format of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4, which everything reads.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The one that a client would rather have, by its header `Accept`.
    pub fn accepted(accept: &str) -> Format {
        let open = quality(accept, &["application/openmetrics-text"]);
        let plain = quality(accept, &["*/*", "text/*", "text/plain"]);
        if open > 0.0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// What belongs into the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How much a client likes a type, from 0 to 1: by the last of these names for it, and ranges that it is
/// in, that the client has.
fn quality(accept: &str, names: &[&str]) -> f64 {
    let ranges = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next()?;
        let exact = names.iter().rposition(|name| range.eq_ignore_ascii_case(name))?;
        let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
        Some((exact, quality.parse().unwrap_or(0.0)))
    });
    let best = ranges.max_by(|(a, p): &(usize, f64), (b, q)| a.cmp(b).then(p.total_cmp(q)));
    best.map_or(0.0, |(_, quality)| quality)
}

/// Appends all metrics. docs/operating.md says what each of them means.
pub fn encode(out: &mut String, status: &Status, process: &Process, format: Format) {
    let metrics = Metrics { status: status.clone(), process: process.clone() };
    let mut registry = Registry::with_prefix("reactor");
    registry.register_collector(Box::new(metrics));
    let outcome = match format {
        Format::Prometheus => prometheus_text::encode(out, &registry),
        Format::OpenMetrics => text::encode(out, &registry),
    };
    outcome.expect("a string takes all");
}

#[derive(Debug)]
struct Metrics {
    status: Status,
    process: Process,
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.of_process(&mut families)?;
        self.of_turns(&mut families)?;
        of_threads(&mut families, &self.status.cores)?;
        // A service of datagrams has no limits of connections, and no connections.
        let named = named(&self.status.services);
        let (streams, datagrams): (Vec<_>, Vec<_>) =
            named.iter().partition(|(_, service)| service.limits.is_some());
        of_connections(&mut families, &streams)?;
        of_lines(&mut families, &streams)?;
        of_datagrams(&mut families, &datagrams)?;
        of_hooks(&mut families, &named.iter().collect::<Vec<_>>())
    }
}

impl Metrics {
    fn of_process(&self, to: &mut Families<'_>) -> fmt::Result {
        let process = &self.process;
        let help = "The version of the program.";
        let mut build = to.0.encode_descriptor("build", help, None, Info)?;
        build.encode_info(&[("version", process.version.as_ref())])?;
        let started = process.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let help = "When the process started, in seconds since 1970.";
        to.gauge("start_time_seconds", help, started.as_secs_f64())?;
        if let Some(open) = process.open_fds {
            to.gauge("open_fds", "Open file descriptors.", open)?;
        }
        if let Some(most) = process.max_fds {
            to.gauge("max_fds", "How many file descriptors may be open.", most)?;
        }
        let help = "Lines of the log that were lost since nobody took them.";
        to.counter("log_lines_dropped", help, process.log_lines_dropped)
    }

    fn of_turns(&self, to: &mut Families<'_>) -> fmt::Result {
        let turns = &self.status.turns;
        to.counter("turns", "Turns of the loop.", turns.count)?;
        let help = "How long the turns of the loop took, the wait for events not counted.";
        let mut family = to.0.encode_descriptor("turn_seconds", help, None, Histogram)?;
        let buckets: Vec<_> = buckets(turns).collect();
        // Counted here, since the histogram must agree with itself.
        let count = buckets.iter().map(|(_, count)| count).sum();
        family.encode_histogram::<NoLabelSet>(turns.busy.as_secs_f64(), count, &buckets, None)
    }
}

fn of_threads(to: &mut Families<'_>, cores: &[CoreStatus]) -> fmt::Result {
    to.gauge("threads", "Threads that serve.", cores.len() as u64)?;
    let help = "Connections that a thread has.";
    let mut family = to.0.encode_descriptor("thread_connections", help, None, Gauge)?;
    for core in cores {
        let labels = [("thread", core.index.to_string())];
        family.encode_family(&labels)?.encode_gauge(&(core.connections as u64))?;
    }
    let help = "How long the turns of a thread took.";
    let mut family = to.0.encode_descriptor("thread_busy_seconds", help, None, Counter)?;
    for core in cores {
        let labels = [("thread", core.index.to_string())];
        let mut sample = family.encode_family(&labels)?;
        sample.encode_counter::<NoLabelSet, _, f64>(&core.busy.as_secs_f64(), None)?;
    }
    Ok(())
}

/// A service, and a name that no other one has: two samples must not have the same labels.
type Named<'s> = (Cow<'s, str>, &'s ServiceStatus);

fn named(services: &[ServiceStatus]) -> Vec<Named<'_>> {
    let mut named: Vec<Named<'_>> = Vec::with_capacity(services.len());
    for service in services {
        let mut name = Cow::Borrowed(service.name.as_str());
        let mut number = 1;
        while named.iter().any(|(other, _)| *other == name) {
            number += 1;
            name = Cow::Owned(format!("{}-{number}", service.name));
        }
        named.push((name, service));
    }
    named
}

fn of_connections(to: &mut Families<'_>, services: &[&Named<'_>]) -> fmt::Result {
    let help = "Connections that are open.";
    to.each(Gauge, "connections", help, services, |service| service.connections as u64)?;
    let help = "How many connections the service takes at most.";
    to.each(Gauge, "max_connections", help, services, |service| {
        service.limits.as_ref().map_or(0, |limits| limits.max_connections as u64)
    })?;
    let help = "Connections that were accepted.";
    to.each(Counter, "connections_accepted", help, services, |service| service.counters.accepted)?;
    let help = "Connections that were begun by the service.";
    to.each(Counter, "connections_dialled", help, services, |service| service.counters.dialled)?;
    let help = "Newcomers that were turned away.";
    to.each_by(Counter, "connections_refused", help, "why", services, |service| {
        service.counters.refused_by_why().map(|(why, count)| (why.as_str(), count)).collect()
    })?;
    let help = "Connections that ended.";
    to.each_by(Counter, "connections_closed", help, "reason", services, |service| {
        service.counters.closed_by_reason().map(|(why, count)| (why.as_str(), count)).collect()
    })?;
    let help = "Handshakes that failed or took too long.";
    to.each_by(Counter, "handshakes_failed", help, "layer", services, |service| {
        service.counters.handshakes_failed_by_layer().collect()
    })
}

fn of_lines(to: &mut Families<'_>, services: &[&Named<'_>]) -> fmt::Result {
    let help = "Lines that were handled.";
    to.each(Counter, "lines", help, services, |service| service.counters.lines_in)?;
    let help = "Bytes that were read from connections, and that the kernel took for them.";
    to.each_by(Counter, "bytes", help, "direction", services, |service| {
        vec![("in", service.counters.bytes_in), ("out", service.counters.bytes_out)]
    })?;
    let help = "Bytes of output that the kernel has not taken yet.";
    to.each(Gauge, "unsent_bytes", help, services, |service| service.unsent as u64)
}

fn of_datagrams(to: &mut Families<'_>, services: &[&Named<'_>]) -> fmt::Result {
    let help = "Datagrams that were handled, and that the kernel took.";
    to.each_by(Counter, "datagrams", help, "direction", services, |service| {
        vec![("in", service.counters.datagrams_in), ("out", service.counters.datagrams_out)]
    })?;
    let help = "Datagrams that were not sent.";
    to.each(Counter, "datagrams_lost", help, services, |service| service.counters.datagrams_lost)?;
    let help = "Errors in receiving datagrams.";
    to.each(Counter, "datagram_errors", help, services, |service| service.counters.datagram_errors)
}

fn of_hooks(to: &mut Families<'_>, services: &[&Named<'_>]) -> fmt::Result {
    let help = "Calls of the service that held the loop for longer than they should.";
    to.each(Counter, "slow_calls", help, services, |service| service.counters.slow_calls)?;
    let help = "Panics of the service that were caught.";
    to.each(Counter, "panics", help, services, |service| service.counters.panics)
}

/// Writes one family of samples after the other. The encoder adds the prefix, and `_total` to counters.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, Counter)?;
        family.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// One of each service.
    fn each(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        services: &[&Named<'_>],
        value: impl Fn(&ServiceStatus) -> u64,
    ) -> fmt::Result {
        self.each_by(kind, name, help, "", services, |service| vec![("", value(service))])
    }

    /// Several of each service, told apart by a second label.
    fn each_by(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        label: &str,
        services: &[&Named<'_>],
        values: impl Fn(&ServiceStatus) -> Vec<(&'static str, u64)>,
    ) -> fmt::Result {
        if services.is_empty() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (name, service) in services {
            for (which, value) in values(service) {
                let labels = [("service", name.as_ref()), (label, which)];
                let labels = &labels[..if label.is_empty() { 1 } else { 2 }];
                let mut sample = family.encode_family(&labels)?;
                match kind {
                    Gauge => sample.encode_gauge(&value)?,
                    _ => sample.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_format_that_they_would_rather_have() {
        for (accept, format) in [
            // Prometheus 2.42, Prometheus 3, curl, Firefox, none at all.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
                 q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            ("*/*", Format::Prometheus),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Prometheus),
            ("", Format::Prometheus),
            ("Application/OpenMetrics-Text ; q=0.2", Format::OpenMetrics),
            ("application/openmetrics-text;q=0, */*;q=0.1", Format::Prometheus),
            ("text/plain;q=0.3,application/openmetrics-text;q=0.2,*/*;q=1", Format::Prometheus),
            ("text/plain;q=0.1,application/openmetrics-text;q=0.2,*/*;q=1", Format::OpenMetrics),
            ("application/openmetrics-text;q=nonsense", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
