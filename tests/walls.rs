//! The walls between the wings of `src`: what each may name of the others, and how long a file may
//! grow. docs/architecture.md says what the wings are, and names functions that must be there. What the texts link
//! to must be there, too.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code of the longest file, without comments and unit tests.
const LONGEST_FILE: usize = 400;

/// The wings from the ground up; none names one that stands above it.
const FLOORS: [&[&str]; 6] = [
    &["connection"],
    &["net"],
    &["handler", "reactor"],
    &["datagram", "cores"],
    &["testing"],
    &["services"],
];

/// The files of `cli` from the ground up; `mod.rs` says what they are. None names one that stands
/// beside or above it.
const PROGRAM: [&[&str]; 14] = [
    &["failure", "units", "crlf", "multicast", "process"],
    &["logging", "descriptors", "unused_options", "roulette_file"],
    &["admin", "predecessor"],
    &["systemd"],
    &["successor"],
    &["event_loop", "asking"],
    &["service"],
    &["address"],
    &["target"],
    &["access", "announce", "trust"],
    &["bus", "protocol"],
    &["config"],
    &[
        "serve",
        "forward",
        "connect",
        "discover",
        "load",
        "check",
        "status",
        "close",
        "upgrade",
        "completions",
        "man",
    ],
    &["args"],
];

/// What touches sockets, which `connection` must not know.
const SOCKETS: [&str; 8] = [
    "mio",
    "socket2",
    "rustix",
    "libc",
    "std::os",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
];

/// What `reactor` may name of `handler`.
const OF_HANDLER: [&str; 4] = ["Handler", "Farewell", "Context", "ServiceContext"];

/// What the services may name of `crate` beside the front page: the public modules.
const PUBLIC: [&str; 3] = ["http", "services", "testing"];

/// Something that a file names in its code.
struct Named {
    /// As `src/net/tcp.rs:10`.
    place: String,
    /// From the root of the crate, as `crate::net::stream`, or from another crate's. A longer path
    /// is there piece by piece: `crate`, `crate::net`, `crate::net::stream`.
    path: String,
}

/// All files of Rust below a path, those of unit tests left out.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        entries.for_each(|entry| files(&entry.unwrap().path(), found));
    } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
        found.push(path.to_owned());
    }
}

/// The code of each file of a wing, line by line, without comments and unit tests.
fn code(wing: &str) -> Vec<(PathBuf, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(&root.join("src").join(wing), &mut found);
    assert!(!found.is_empty(), "no file in {wing}");
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let lines =
            text.lines().map(|line| line.split("//").next().unwrap_or("").trim().to_owned());
        (path.strip_prefix(root).unwrap().to_owned(), lines.collect())
    };
    found.iter().map(read).collect()
}

/// Cuts a line of code into names, `::`, and every other character by itself.
fn tokens(mut line: &str) -> Vec<&str> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    while let Some(first) = line.chars().next() {
        let length = match first {
            ':' if line.starts_with("::") => 2,
            _ if part_of_name(first) => line.find(|c| !part_of_name(c)).unwrap_or(line.len()),
            _ => first.len_utf8(),
        };
        found.push(&line[..length]);
        line = line[length..].trim_start();
    }
    found
}

/// The path as seen from the root: in `src/net/tls/stream.rs`, `super::Tls` is `crate::net::tls::Tls`.
fn from_root(file: &Path, path: &[&str]) -> String {
    let module = file.with_extension("");
    let mut place = Vec::new();
    if path[0] == "super" || path[0] == "self" {
        let below_src = module.iter().skip(1).map(|name| name.to_str().unwrap());
        place.push("crate");
        place.extend(below_src.filter(|name| *name != "mod"));
    }
    for name in path {
        match *name {
            "super" => drop(place.pop()),
            "self" => {}
            name => place.push(name),
        }
    }
    place.join("::")
}

/// What the files of a wing name; `a::{b, c::d}` is `a::b` and `a::c::d`, over any number of lines.
fn named(wing: &str) -> Vec<Named> {
    let mut found = Vec::new();
    for (file, lines) in code(wing) {
        let mut path = Vec::new();
        // For each open brace, the path that goes in front of the names in it.
        let mut groups = Vec::new();
        let mut joined = false;
        for (line, number) in lines.iter().zip(1..) {
            for token in tokens(line) {
                let is_name = token.starts_with(|c: char| c.is_alphabetic() || c == '_');
                if is_name || joined && token == "*" {
                    if !joined {
                        path = groups.last().cloned().unwrap_or_default();
                    }
                    path.push(token);
                    if token != "self" {
                        let place = format!("{}:{number}", file.display());
                        found.push(Named { place, path: from_root(&file, &path) });
                    }
                } else if token == "{" {
                    groups.push(if joined { path.clone() } else { Vec::new() });
                } else if token == "}" {
                    groups.pop();
                }
                joined = token == "::";
            }
        }
    }
    found
}

/// Fails with every name that breaks the wall, and where it is.
fn must_hold(wall: &str, names: Vec<Named>, broken: impl Fn(&str) -> bool) {
    let broken = names.iter().filter(|named| broken(&named.path));
    let broken: Vec<_> =
        broken.map(|named| format!("{} names {}", named.place, named.path)).collect();
    assert!(broken.is_empty(), "{wall}:\n{}", broken.join("\n"));
}

/// Whether that is a wing, or a file at the top of `src`.
fn is_top(name: &str) -> bool {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    src.join(name).is_dir() || src.join(name).with_extension("rs").is_file()
}

/// `b` of `crate::b`; none for what is shorter or longer.
fn below<'p>(root: &str, path: &'p str) -> Option<&'p str> {
    let name = path.strip_prefix(root)?.strip_prefix("::")?;
    (!name.contains("::")).then_some(name)
}

#[test]
fn no_wing_reaches_above_itself() {
    for (floor, wings) in FLOORS.iter().enumerate() {
        let above = FLOORS[floor + 1..].concat();
        for wing in *wings {
            must_hold(&format!("{wing} must not know {above:?}"), named(wing), |path| {
                below("crate", path).is_some_and(|name| above.contains(&name))
            });
        }
    }
}

#[test]
fn a_connection_knows_no_socket() {
    must_hold("connection must not touch sockets", named("connection"), |path| {
        SOCKETS.contains(&path)
    });
}

#[test]
fn inside_the_library_things_go_by_their_paths() {
    // Through `lib.rs` a forbidden name would not show its wing.
    let wings = FLOORS[..5].concat().into_iter().chain(["error.rs", "limits.rs"]);
    must_hold("only services may use lib.rs", wings.flat_map(named).collect(), |path| {
        below("crate", path).is_some_and(|name| !is_top(name))
    });
}

#[test]
fn a_service_knows_what_any_embedder_knows() {
    must_hold("services must do with the names of lib.rs", named("services"), |path| {
        below("crate", path).is_some_and(|name| is_top(name) && !PUBLIC.contains(&name))
    });
}

#[test]
fn the_loop_knows_four_names_of_what_an_embedder_writes() {
    let wall = format!("reactor must know no more of handler than {OF_HANDLER:?}");
    must_hold(&wall, named("reactor"), |path| {
        below("crate::handler", path).is_some_and(|name| !OF_HANDLER.contains(&name))
    });
}

#[test]
fn no_file_of_the_program_knows_what_stands_above_it() {
    for (floor, names) in PROGRAM.iter().enumerate() {
        for name in *names {
            let above = PROGRAM[floor..].concat();
            const FOLDERS: [&str; 7] =
                ["config", "load", "check", "logging", "protocol", "serve", "systemd"];
            let folder = FOLDERS.contains(name);
            let file = if folder { format!("cli/{name}") } else { format!("cli/{name}.rs") };
            let wall = format!("cli/{name} must not know what stands beside or above it");
            must_hold(&wall, named(&file), |path| {
                below("crate::cli", path).is_some_and(|it| it != *name && above.contains(&it))
            });
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
    for entry in fs::read_dir(src).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let known = name == "mod" || PROGRAM.concat().contains(&name.as_str());
        assert!(known, "cli/{name}: give it a place in PROGRAM");
    }
}

#[test]
fn no_file_is_longer_than_one_sitting() {
    for (path, lines) in code("") {
        let count = lines.iter().filter(|line| !line.is_empty()).count();
        let path = path.display();
        assert!(count <= LONGEST_FILE, "{path}: {count} lines of code, at most {LONGEST_FILE}");
    }
}

#[test]
fn the_map_names_functions_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    // Every second piece is in backquotes.
    for name in map.split('`').skip(1).step_by(2) {
        let Some((file, function)) = name.split_once(".rs::") else { continue };
        let code = fs::read_to_string(root.join(format!("src/{file}.rs"))).unwrap_or_default();
        let there = ["(", "<"].iter().any(|next| code.contains(&format!("fn {function}{next}")));
        assert!(there, "docs/architecture.md: there is no {name}");
    }
}

/// Who looks for one in the table has it from the program.
#[test]
fn messages_that_the_operator_may_look_up_are_said() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/operating.md")).unwrap();
    let table = text.split("\n## When something is wrong\n").nth(1).unwrap();
    let symptoms = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    // Every second piece is in backquotes. Single words are names.
    let quoted = symptoms.flat_map(|symptom| symptom.split('`').skip(1).step_by(2));
    let messages: Vec<_> = quoted.filter(|it| it.contains(' ')).collect();
    assert!(messages.len() > 5, "{messages:?}");
    let mut found = Vec::new();
    files(&root.join("src"), &mut found);
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
    // A message may go over several lines.
    let code: String = found.iter().map(read).collect::<String>().replace("\\\n", " ");
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    for message in messages {
        assert!(code.contains(message), "docs/operating.md: nothing says {message:?}");
    }
}

/// The files of a kind in the whole repository.
fn all_files(kind: &str) -> Vec<PathBuf> {
    let hidden = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with('.') || ["target", "node_modules"].contains(&name)
    };
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        for path in paths.filter(|path| !hidden(path)) {
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|it| it == kind) => found.push(path),
                false => {}
            }
        }
    }
    found
}

/// The text of a document without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        !is_code && !fence
    };
    text.lines().filter(outside).flat_map(|line| [line, "\n"]).collect()
}

/// The anchors that GitHub makes of a document's headings.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in prose(text).lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
        let anchor: String = heading.chars().filter(kept).collect::<String>().replace(' ', "-");
        let numbered = |it: &&String| it.rsplit_once('-').is_some_and(|(name, _)| name == anchor);
        let same = found.iter().filter(|it| **it == anchor || numbered(it)).count();
        found.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
    found
}

#[test]
fn every_link_of_a_text_leads_somewhere() {
    let texts = all_files("md");
    assert!(texts.len() > 10, "{texts:?}");
    let mut broken = Vec::new();
    for text in &texts {
        let content = fs::read_to_string(text).unwrap();
        for link in prose(&content).split("](").skip(1) {
            let link = link.split([')', ' ']).next().unwrap();
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { text.clone() } else { text.with_file_name(file) };
            let known = || anchors(&fs::read_to_string(&target).unwrap());
            if !target.exists() || !anchor.is_empty() && !known().iter().any(|it| it == anchor) {
                broken.push(format!("{}: {link}", text.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these lead nowhere:\n{}", broken.join("\n"));
}
