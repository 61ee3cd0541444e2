//! One JSON object that says all: what `/status.json` is answered with, and `reactor status --json`
//! prints.
//!
//! It is made in pieces, so that ten thousand connections need no more memory than a page of them:
//! [`begin`], the [`Rows`] of each page, and [`end`].
//!
//! Times are in seconds. `turns.buckets` are cumulative, as in Prometheus: how many turns took at most so
//! long. What was not measured, or does not exist, is `null`.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::{Process, buckets, peer};
use crate::{ConnectionStatus, CoreStatus, ServiceStatus, Status, Steps, Turns};

/// Begins the object: the process, the loop and the services, up to the list of connections, of which
/// there are `total`. `admin` says whether who reads it may close some.
pub fn begin(out: &mut Vec<u8>, status: &Status, process: &Process, admin: bool, total: usize) {
    let started = process.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let head = Head {
        version: &process.version,
        pid: process.pid,
        started: seconds(started),
        uptime: seconds(status.uptime),
        stopping: status.stopping,
        open_fds: process.open_fds,
        max_fds: process.max_fds,
        admin,
        turns: LoopTurns::from(&status.turns),
        threads: status.cores.iter().map(Thread::from).collect(),
        services: status.services.iter().map(Service::from).collect(),
    };
    write(out, &head);
    // The object stays open.
    out.pop();
    out.extend_from_slice(format!(",\"connections\":{{\"total\":{total},\"shown\":[").as_bytes());
}

/// The list of connections, page by page.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    begun: bool,
}

impl Rows {
    /// Appends these connections.
    pub fn push(&mut self, out: &mut Vec<u8>, connections: &[ConnectionStatus]) {
        for of in connections {
            if std::mem::replace(&mut self.begun, true) {
                out.push(b',');
            }
            connection(out, of);
        }
    }
}

/// Ends the list and the object, and the line.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}}\n");
}

/// One connection, as it is in the list.
pub fn connection(out: &mut Vec<u8>, of: &ConnectionStatus) {
    let usage = of.usage.as_ref();
    let row = Connection {
        id: of.id.number(),
        service: &of.service,
        peer: peer(of),
        age: usage.map(|usage| seconds(usage.age)),
        idle: seconds(of.idle),
        lines: usage.map(|usage| usage.lines_in),
        bytes_in: usage.map(|usage| usage.bytes_in),
        bytes_out: usage.map(|usage| usage.bytes_out),
        unsent: of.unsent,
        waits: of.waits.as_str(),
        outbound: of.outbound,
    };
    write(out, &row);
}

#[derive(Serialize)]
struct Head<'a> {
    version: &'a str,
    pid: u32,
    started: f64,
    uptime: f64,
    stopping: bool,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    admin: bool,
    turns: LoopTurns,
    threads: Vec<Thread>,
    services: Vec<Service<'a>>,
}

#[derive(Serialize)]
struct Thread {
    connections: usize,
    slept: f64,
    busy: f64,
}

impl From<&CoreStatus> for Thread {
    fn from(of: &CoreStatus) -> Thread {
        Thread { connections: of.connections, slept: seconds(of.slept), busy: seconds(of.busy) }
    }
}

#[derive(Serialize)]
struct LoopTurns {
    count: u64,
    slept: f64,
    busy: f64,
    longest: f64,
    buckets: Vec<(Bound, u64)>,
    steps: Option<Map<f64>>,
}

/// JSON has no number for the bound of the last bucket.
#[derive(Serialize)]
#[serde(untagged)]
enum Bound {
    Seconds(f64),
    None(&'static str),
}

/// An object with these fields.
struct Map<V>(Vec<(&'static str, V)>);

impl<V: Serialize> Serialize for Map<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl From<&Turns> for LoopTurns {
    fn from(turns: &Turns) -> LoopTurns {
        let mut so_far = 0;
        let cumulative = buckets(turns).map(|(bound, count)| {
            so_far += count;
            let bound = if bound.is_finite() { Bound::Seconds(bound) } else { Bound::None("+Inf") };
            (bound, so_far)
        });
        LoopTurns {
            count: turns.count,
            slept: seconds(turns.slept),
            busy: seconds(turns.busy),
            longest: seconds(turns.longest),
            buckets: cumulative.collect(),
            steps: turns.steps.map(|Steps { accept, read, handlers, timers, messages, flush }| {
                let names = ["accept", "read", "handlers", "timers", "messages", "flush"];
                let times = [accept, read, handlers, timers, messages, flush].map(seconds);
                Map(names.into_iter().zip(times).collect())
            }),
        }
    }
}

#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    listeners: Vec<String>,
    connections: usize,
    max_connections: Option<usize>,
    accepted: u64,
    refused: Map<u64>,
    closed: Map<u64>,
    handshakes_failed: Map<u64>,
    lines: u64,
    bytes_in: u64,
    bytes_out: u64,
    unsent: usize,
    slow_calls: u64,
    panics: u64,
}

impl<'a> From<&'a ServiceStatus> for Service<'a> {
    fn from(of: &'a ServiceStatus) -> Service<'a> {
        let counters = &of.counters;
        let refused = counters.refused_by_why().map(|(why, count)| (why.as_str(), count));
        let closed = counters.closed_by_reason().map(|(why, count)| (why.as_str(), count));
        Service {
            name: &of.name,
            listeners: of.listeners.iter().map(ToString::to_string).collect(),
            connections: of.connections,
            max_connections: of.limits.as_ref().map(|limits| limits.max_connections),
            accepted: counters.accepted,
            refused: Map(refused.collect()),
            closed: Map(closed.collect()),
            handshakes_failed: Map(counters.handshakes_failed_by_layer().collect()),
            lines: counters.lines_in,
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            unsent: of.unsent,
            slow_calls: counters.slow_calls,
            panics: counters.panics,
        }
    }
}

#[derive(Serialize)]
struct Connection<'a> {
    id: u64,
    service: &'a str,
    peer: Option<String>,
    age: Option<f64>,
    idle: f64,
    lines: Option<u64>,
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    unsent: usize,
    waits: &'static str,
    outbound: bool,
}

/// To the microsecond, so that no number is longer than what it says.
fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("only an IO error or a map's odd key could fail");
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{Address, ConnId, Counters, Credentials, Limits, ListenerStatus, Usage, Waits};

    /// Whose lines are broken here for the reader alone.
    const ALL: &str = concat!(
        r#"{"version":"1.2.3","pid":7,"started":1764350000.123,"uptime":12.3,"stopping":false,"#,
        r#""open_fds":9,"max_fds":null,"admin":true,"#,
        r#""turns":{"count":6,"slept":1.2,"busy":0.0001,"longest":0.001,"#,
        r#""buckets":[[0.00001,4],[0.00002,5],[0.00005,5],[0.0001,5],[0.0002,5],[0.0005,5],"#,
        r#"[0.001,5],[0.002,5],[0.005,5],[0.01,5],[0.02,5],[0.05,5],[0.1,5],[0.2,5],[0.5,5],"#,
        r#"[1.0,5],["+Inf",6]],"#,
        r#""steps":{"accept":0.0,"read":0.0015,"handlers":0.0,"timers":0.0,"messages":0.0,"flush":0.0}},"#,
        r#""threads":[{"connections":2,"slept":0.0,"busy":0.0}],"#,
        r#""services":[{"name":"room\n\u001b","listeners":["tls:ws:unix:/run/a \"b\".sock"],"#,
        r#""connections":2,"max_connections":10000,"accepted":5,"#,
        r#""refused":{"full":0,"per-peer":0,"connect-rate":0,"no-descriptor":0,"not-allowed":0,"#,
        r#""not-proxied":0,"origin":0},"#,
        r#""closed":{"peer-closed":0,"closed":0,"aborted":0,"line-too-long":0,"line-timeout":0,"#,
        r#""idle-timeout":0,"slow-consumer":0,"total-output":0,"total-input":0,"stalled":0,"#,
        r#""connect-timeout":0,"error":0,"panicked":0,"shutdown":0,"administrator":0,"handed-over":0,"upgrade":0},"#,
        r#""handshakes_failed":{"proxy":0,"tls":0,"ws":0},"#,
        r#""lines":9,"bytes_in":1,"bytes_out":0,"unsent":3,"slow_calls":0,"panics":0}],"#,
        r#""connections":{"total":3,"shown":["#,
        r#"{"id":17,"service":"room","peer":"[::1]:4444","age":1.5,"idle":0.1,"lines":1,"#,
        r#""bytes_in":2,"bytes_out":3,"unsent":0,"waits":"input","outbound":false},"#,
        r#"{"id":18,"service":"room","peer":"uid 1000 pid 77","age":null,"idle":0.1,"lines":null,"#,
        r#""bytes_in":null,"bytes_out":null,"unsent":0,"waits":"input","outbound":false},"#,
        r#"{"id":19,"service":"room","peer":null,"age":null,"idle":0.1,"lines":null,"#,
        r#""bytes_in":null,"bytes_out":null,"unsent":0,"waits":"input","outbound":true}]}}"#,
        "\n",
    );

    fn process() -> Process {
        Process {
            version: "1.2.3".into(),
            pid: 7,
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_350_000_123),
            open_fds: Some(9),
            max_fds: None,
            log_lines_dropped: 0,
        }
    }

    fn turns() -> Turns {
        let mut turns = Turns {
            count: 6,
            slept: Duration::from_millis(1_200),
            busy: Duration::from_nanos(100_700),
            longest: Duration::from_millis(1),
            steps: Some(Steps { read: Duration::from_micros(1_500), ..Steps::default() }),
            ..Turns::default()
        };
        turns.histogram[0] = 4;
        turns.histogram[1] = 1;
        turns.histogram[Turns::BOUNDS.len()] = 1;
        turns
    }

    fn service() -> ServiceStatus {
        let mut counters = Counters::default();
        (counters.accepted, counters.lines_in, counters.bytes_in) = (5, 9, 1);
        let address = Address::Unix("/run/a \"b\".sock".into());
        ServiceStatus {
            name: "room\n\u{1b}".to_owned(),
            listeners: vec![ListenerStatus { address, layers: vec!["tls", "ws"] }],
            counters,
            connections: 2,
            unsent: 3,
            limits: Some(Limits::default()),
        }
    }

    fn of(number: u64) -> ConnectionStatus {
        ConnectionStatus {
            id: ConnId::new(number, 3),
            service: "room".into(),
            peer: Some("[::1]:4444".parse().unwrap()),
            credentials: None,
            outbound: false,
            unsent: 0,
            kept: 0,
            idle: Duration::from_nanos(100_000_999),
            usage: None,
            waits: Waits::Input,
        }
    }

    #[test]
    fn says_all_to_the_letter() {
        let turns = turns();
        let status = Status {
            counters: Counters::default(),
            uptime: Duration::from_millis(12_300),
            turns,
            services: vec![service()],
            unsent: 3,
            stopping: false,
            cores: vec![CoreStatus { connections: 2, ..CoreStatus::default() }],
        };
        let mut out = Vec::new();
        begin(&mut out, &status, &process(), true, 3);
        let usage =
            Usage { age: Duration::from_millis(1_500), lines_in: 1, bytes_in: 2, bytes_out: 3 };
        let who = Credentials { uid: 1000, gid: 1000, pid: Some(77) };
        let mut rows = Rows::default();
        rows.push(&mut out, &[ConnectionStatus { usage: Some(usage), ..of(17) }]);
        rows.push(&mut out, &[]);
        let unix = ConnectionStatus { peer: None, credentials: Some(who), ..of(18) };
        let nobody = ConnectionStatus { peer: None, outbound: true, ..of(19) };
        rows.push(&mut out, &[unix, nobody]);
        end(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, ALL);
    }
}
