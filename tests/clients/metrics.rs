//! Prometheus, promtool, and the parsers of Python's client read the metrics.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reactor::Reactor;
use reactor::services::views::ProcessReader;
use reactor::services::views::metrics::{self, Format};
use reactor::services::{Announcer, Echo, Forward, Presence};

use crate::installed;
use crate::util::folder::Folder;
use crate::util::{self, PATIENCE};

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

/// A file below `docs`.
fn document(name: &str) -> String {
    fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
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
