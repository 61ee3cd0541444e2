//! Prometheus, promtool, and the parsers of Python's client read the metrics.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reactor::Reactor;
use reactor::services::views::ProcessReader;
use reactor::services::views::metrics::{self, Format};
use reactor::services::{Announcer, Echo, Forward, Presence};

use crate::installed;
use crate::util::folder::Folder;
use crate::util::program::Program;
use crate::util::{self, Client, PATIENCE};
use serde_json::Value;

/// Reads both formats and prints what it finds: a family, its type, and the samples with sorted labels.
const PARSE: &str = r#"
import sys
from prometheus_client.parser import text_string_to_metric_families as plain
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
parse = openmetrics if sys.argv[1] == "OpenMetrics" else plain
for family in parse(sys.stdin.read()):
    for sample in family.samples:
        # The formats write bounds in two ways.
        values = {k: str(float(v)) if k == "le" else v for k, v in sample.labels.items()}
        labels = "".join(f" {k}={v!r}" for k, v in sorted(values.items()))
        print(f"{sample.name}{labels} {float(sample.value)}")
"#;

/// Gives a command this on stdin; gives its status, and what it says.
fn fed(command: &mut Command, text: &str) -> (bool, String) {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), said)
}

fn python_client() -> bool {
    installed("python3", "-cimport prometheus_client; print('it is')", "it is")
}

#[track_caller]
fn promtool_has_nothing_to_say(text: &str) {
    let said = fed(Command::new("promtool").args(["check", "metrics"]), text);
    assert_eq!(said, (true, String::new()), "{text}");
}

/// The samples, sorted, as Python's client reads them.
#[track_caller]
fn samples(text: &str, format: Format) -> Vec<String> {
    let format = format!("{format:?}");
    let (good, said) = fed(Command::new("python3").args(["-c", PARSE, &format]), text);
    assert!(good, "{said}\n{text}");
    let mut samples: Vec<_> = said.lines().map(str::to_owned).collect();
    samples.sort();
    samples
}

/// A loop with a service of every kind, two of which go by one name, and one by an odd one.
fn all_kinds() -> Reactor<'static> {
    let mut reactor = Reactor::new().unwrap();
    let echo = reactor.listen("127.0.0.1:0", Echo).unwrap();
    let presence = reactor.listen("127.0.0.1:0", Presence::default()).unwrap();
    reactor.set_name(&presence, "echo");
    reactor.set_name(&echo, "echo");
    let forward = Forward::new(util::nobody().into());
    let forward = reactor.listen("127.0.0.1:0", forward).unwrap();
    reactor.set_name(&forward, "a \"b\\c\nd");
    let announcer = Announcer::new([("echo", util::nobody())]);
    let announcer = reactor.datagrams("127.0.0.1:0", announcer).unwrap();
    reactor.set_name(&announcer, "announcer");
    let mut client = TcpStream::connect(echo.address().unwrap().as_socket().unwrap()).unwrap();
    client.set_nonblocking(true).unwrap();
    client.write_all(b"hello\nworld\n").unwrap();
    let mut lines = BufReader::new(client);
    let mut said = String::new();
    let deadline = Instant::now() + PATIENCE;
    while !said.ends_with("> WORLD\n") {
        reactor.turn(Some(Duration::from_millis(10))).unwrap();
        let _ = lines.read_line(&mut said);
        assert!(Instant::now() < deadline, "{said}");
    }
    reactor
}

#[test]
fn promtool_and_another_parser_read_both_formats_of_a_real_loop() {
    if !installed("promtool", "--version", "promtool") || !python_client() {
        return;
    }
    let reactor = all_kinds();
    let mut process = ProcessReader::new("1.2.3").log_lines_dropped(|| 7);
    let process = process.read(Instant::now());
    let text = |format| {
        let mut text = String::new();
        metrics::encode(&mut text, &reactor.status(), process, format);
        text
    };
    let plain = text(Format::Prometheus);
    promtool_has_nothing_to_say(&plain);
    let plain = samples(&plain, Format::Prometheus);
    for sample in [
        "reactor_build_info version='1.2.3' 1.0",
        "reactor_log_lines_dropped_total 7.0",
        "reactor_connections service='echo' 1.0",
        "reactor_connections service='echo-2' 0.0",
        "reactor_connections service='a \"b\\\\c\\nd' 0.0",
        "reactor_lines_total service='echo' 2.0",
        "reactor_bytes_total direction='in' service='echo' 12.0",
        "reactor_connections_refused_total service='echo' why='full' 0.0",
        "reactor_connections_closed_total reason='peer-closed' service='echo' 0.0",
        "reactor_max_connections service='echo' 10000.0",
        "reactor_datagram_errors_total service='announcer' 0.0",
    ] {
        assert!(plain.iter().any(|found| found == sample), "{sample} is not in {plain:#?}");
    }
    let count = |start: &str| plain.iter().filter(|sample| sample.starts_with(start)).count();
    assert_eq!(count("reactor_turn_seconds_bucket le='1e-05' "), 1, "{plain:#?}");
    assert_eq!(count("reactor_turn_seconds_bucket le='inf' "), 1, "{plain:#?}");
    // No sample of a connection for the service that has none.
    assert_eq!(count("reactor_connections service='announcer'"), 0, "{plain:#?}");
    // Both formats say the same.
    assert_eq!(samples(&text(Format::OpenMetrics), Format::OpenMetrics), plain);
}

/// What is there, and the type that it says it is of.
fn get(addr: SocketAddr, path: &str, accept: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("no end of the head");
    let mut lines = head.lines().map(str::to_ascii_lowercase);
    let kind = lines.find_map(|line| line.strip_prefix("content-type: ").map(str::to_owned));
    Ok((kind.unwrap_or_default(), body.to_owned()))
}

/// A Prometheus that asks this address once a second.
struct Prometheus {
    addr: SocketAddr,
    _program: Program,
    _folder: Folder,
}

impl Prometheus {
    fn of(target: SocketAddr) -> Prometheus {
        let folder = Folder::new("prometheus");
        let config = folder.file("prometheus.yml");
        let scrape = format!(
            "scrape_configs:\n  - job_name: reactor\n    scrape_interval: 1s\n    \
             static_configs: [{{targets: ['{target}']}}]\n"
        );
        fs::write(&config, scrape).unwrap();
        let addr = util::nobody();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.file("data").display()))
            .arg(format!("--web.listen-address={addr}"));
        Prometheus { addr, _program: Program::spawn(&mut command), _folder: folder }
    }

    /// Asks until the values are as they should be.
    #[track_caller]
    fn until(&self, expression: &str, so: impl Fn(&[String]) -> bool) {
        util::until(expression, || {
            // It knows no more before its next scrape, and its scrapes need the machine too.
            std::thread::sleep(Duration::from_millis(50));
            so(&self.query(expression))
        });
    }

    /// The values that it has for this expression; none while it starts.
    fn query(&self, expression: &str) -> Vec<String> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let Ok((_, answer)) = get(self.addr, &path, "*/*") else { return Vec::new() };
        let Ok(answer) = serde_json::from_str::<Value>(&answer) else { return Vec::new() };
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let found = answer["data"]["result"].as_array().unwrap();
        found.iter().map(|one| one["value"][1].as_str().unwrap().to_owned()).collect()
    }
}

/// A file below `docs`.
fn document(name: &str) -> String {
    fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// All queries of the dashboard, for all instances and services.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&document("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions = targets.map(|target| {
        let expression = target["expr"].as_str().unwrap();
        let all = expression.replace("$instance", ".*").replace("$service", ".*");
        all.replace("$__rate_interval", "10s")
    });
    expressions.collect()
}

#[test]
fn prometheus_scrapes_the_program_and_the_dashboard_has_something_to_show() {
    let _quiet = util::quiet();
    let tool = |name| installed(name, "--version", name);
    if !tool("prometheus") || !tool("promtool") {
        return;
    }
    let program = Program::serve(&["echo=0", "web=0", "--threads=2"]);
    let echo = program.addr("echo");
    let web = program.addr("web");
    let prometheus = Prometheus::of(web);
    let mut client = Client::connect(echo);
    client.send("a\nb\nc\n");
    prometheus.until("reactor_lines_total{service='echo'}", |values| values == ["3"]);
    assert_eq!(prometheus.query("up"), ["1"]);
    assert_eq!(prometheus.query("sum(reactor_connections{service='echo'})"), ["1"]);
    let (kind, text) = get(web, "/metrics", "*/*").unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    promtool_has_nothing_to_say(&text);
    for expression in dashboard() {
        // Nothing is dialled here, and there are no datagrams.
        let nothing = expression.contains("_dialled_") || expression.contains("_datagram");
        // What a thread has to do is told of each: all of them together may have more than a second a second.
        let threads = expression.starts_with("rate(reactor_thread_busy");
        let values =
            |values: &[String]| if threads { values.len() == 2 } else { !values.is_empty() };
        prometheus.until(&expression, |found| values(found) || nothing);
        assert!(!expression.contains("turn_seconds_sum"), "{expression}");
    }
}

#[test]
fn the_rules_in_the_manual_are_what_promtool_takes() {
    if !installed("promtool", "--version", "promtool") {
        return;
    }
    let manual = document("operating.md");
    let (_, rules) = manual.split_once("```yaml\ngroups:").unwrap();
    let (rules, _) = rules.split_once("```").unwrap();
    let folder = Folder::new("rules");
    let path = folder.file("rules.yml");
    fs::write(&path, format!("groups:{rules}")).unwrap();
    let (good, said) = fed(Command::new("promtool").args(["check", "rules"]).arg(path), "");
    assert!(good && said.contains("7 rules found"), "{said}");
}

/// The names in the table of the manual, and those of the metrics.
#[test]
fn the_manual_knows_each_metric_and_no_other() {
    let reactor = all_kinds();
    let mut text = String::new();
    let mut process = ProcessReader::new("");
    let process = process.read(Instant::now());
    metrics::encode(&mut text, &reactor.status(), process, Format::Prometheus);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let mut there: Vec<_> = types.collect();
    let manual = document("operating.md");
    let rows = manual.lines().filter(|line| line.starts_with("| `reactor_"));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
    let mut described: Vec<_> = names.collect();
    there.sort_unstable();
    described.sort_unstable();
    assert_eq!(described, there);
}
