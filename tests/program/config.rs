//! `serve --config`, `serve --check-config` and `config`: what a file gives, and what is said of a wrong one.

use std::fs::{self, File};
use std::process::Command;

use crate::util::folder::Folder;
use crate::util::program::{Program, fails};
use crate::util::{Client, PATIENCE, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// A folder with this file in it, and the option that names it.
fn file(name: &str, text: &str) -> (Folder, String) {
    let folder = Folder::new(name);
    fs::write(folder.file("r.toml"), text).unwrap();
    let option = format!("--config={}", folder.file("r.toml").display());
    (folder, option)
}

#[test]
fn each_service_has_its_own_limits_and_name() {
    let text = "max-line = 20\nno-admin = true\n[echo]\naddress = [0, 0]\nmax-line = 10\n\
                [lunch]\nservice = \"presence\"\naddress = 0\n[tea]\nservice = \"presence\"\naddress = 0\n\
                [web]\naddress = 0\n";
    let (_folder, option) = file("own", text);
    let program = Program::serve(&[&option, "echo=0"]);
    let echo = program.addr("echo");
    let [lunch, tea] = ["lunch", "tea"].map(|name| program.addr(name));
    let web = program.addr("web");
    let too_long = |addr, length: usize| {
        let mut client = Client::connect(addr);
        client.send(format!("{}\nBYE\n", "x".repeat(length)));
        String::from_utf8(client.rest()).unwrap().contains("Line too long")
    };
    assert!(too_long(echo, 11) && !too_long(echo, 10));
    assert!(too_long(lunch, 21) && !too_long(lunch, 20));
    // The rooms are two.
    let mut there = Client::connect(tea);
    there.expect("Welcome to the Presence Server\n");
    let mut client = Client::connect(web);
    client.send("GET /status.json HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let status = String::from_utf8(client.rest()).unwrap();
    for name in ["\"echo\"", "\"lunch\"", "\"tea\"", "\"web\""] {
        assert!(status.contains(&format!("\"name\":{name}")), "{status}");
    }
}

#[test]
fn the_command_line_wins_over_the_file() {
    let text = "max-line = 10\nadmin = \"/nowhere/a.sock\"\n[echo]\naddress = \"127.0.0.1:1\"\nmax-line = 20\n\
                [time]\naddress = 0\ntime-count = 1\n";
    let (_folder, option) = file("wins", text);
    // The first takes the place of the address, the second is one more.
    let args =
        [&option, "--max-line=5", "--no-admin", "echo=127.0.0.1:0", "echo=0", "--time-count=2"];
    let program = Program::serve(&args);
    let echo = program.addr("echo");
    let mut time = Client::connect(program.addr("time"));
    for addr in [echo, program.addr("echo")] {
        let mut client = Client::connect(addr);
        client.expect(GREETING);
        client.send("123456\n");
        assert_eq!(client.rest(), b"Line too long (limit 5 bytes)\n");
    }
    assert_eq!(time.rest().iter().filter(|byte| **byte == b'\n').count(), 2);
    program.signal("TERM");
    assert!(!program.end().2.contains("control socket"));
}

#[test]
fn a_table_of_any_name_can_have_its_address_on_the_command_line() {
    let text = "[lunch]\nservice = \"presence\"\naddress = \"127.0.0.1:1\"\n[echo]\naddress = 0\n";
    let (_folder, option) = file("called", text);
    let program = Program::serve(&[&option, "lunch=127.0.0.1:0"]);
    Client::connect(program.addr("lunch")).expect("Welcome to the Presence Server\n");
    let taken = program.addr("echo").to_string();
    let args = [&option, &*format!("lunch={taken}")];
    fails(Program::serve(&args), 1, &["cannot listen on", "with lunch=PORT, 0 for any"]);
    let args = [&option, "lunhc=0"];
    fails(
        Program::serve(&args),
        2,
        &["unknown service", "and the tables of the file lunch, echo;"],
    );
    // It is no service, and here no table.
    for args in [&["lunch=0"][..], &[&option, "lunhc=0"], &[&option, "lunch=0x"]] {
        let name = args.last().unwrap();
        let words = [&*format!("invalid value '{name}' for 'SERVICE"), "see reactor serve --help"];
        fails(Program::serve(args), 2, &words);
    }
}

#[test]
fn the_command_line_may_give_a_burst_for_the_rate_of_a_file() {
    let (_folder, option) = file("burst", "[echo]\nrate = \"5/s\"\nburst = 6\n[time]\n");
    let (status, said, _) = Program::run(&["config", &option, "--burst=7"]);
    assert_eq!((status, said.matches("\nburst = 7\n").count()), (0, 1), "{said}");
    assert!(said.contains("rate = \"5/s\"\nburst = 7\n\n[time]"), "{said}");
}

#[test]
fn a_file_is_checked_without_listening() {
    // The port is taken: what listens would fail.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (folder, option) = file("check", &format!("[echo]\naddress = \"{address}\"\n[time]\n"));
    let (status, stdout, stderr) = Program::run(&["serve", &option, "--check-config"]);
    assert_eq!((status, &*stdout, &*stderr), (0, "the configuration is right: echo, time\n", ""));
    fails(
        Program::serve(&[&option]),
        1,
        &["cannot listen on", "with address in [echo], 0 for any"],
    );

    for (text, words) in [
        ("[echo]\nmax-lime = 5\n", "r.toml:2: unknown key max-lime: did you mean max-line?"),
        ("[echo]\n\nmax-line = 0\n", "r.toml:3: max-line: it "),
        ("threads = 0\n[echo]\n", "r.toml:1: invalid value '0' for threads"),
        (
            "[roulette]\nroulette-file = \"/no/file\"\n",
            "r.toml:2: roulette-file /no/file: cannot be read",
        ),
        (
            "[echo]\naddress = \"no.such.host.invalid:1\"\n",
            "r.toml:2: address: cannot look up no.such.host.invalid:1",
        ),
        (
            "host = \"no.such.host.invalid\"\n[echo]\n",
            "r.toml:1: host: cannot look up no.such.host.invalid",
        ),
        (
            "[echo]\n[time]\naddress = [\"127.0.0.1:7007\", \"127.0.0.1:2323\"]\n",
            "r.toml:3: address: 127.0.0.1:2323 is given twice, and each client can have but one service",
        ),
        (
            "[presence]\n[lunch]\nservice = \"presence\"\n",
            "r.toml:2: address: 127.0.0.1:9907 is given twice",
        ),
        #[cfg(feature = "tls")]
        (
            "[echo]\n\naddress = \"tls:0\"\n",
            "r.toml:3: address: tls: needs --tls-cert FILE and --tls-key FILE",
        ),
        ("[time]\n[echo]\ntime-count = 5\n", "r.toml:3: time-count goes with the service time"),
        #[cfg(feature = "tls")]
        (
            "[echo]\naddress = \"tls:0\"\ntls-key = \"/no/key\"\ntls-cert = \"/no/cert\"\n",
            "r.toml:4: tls-cert /no/cert: ",
        ),
        (
            "presence-bus = \"redis://a\"\n[echo]\n",
            "r.toml:1: presence-bus goes with the service presence",
        ),
    ] {
        fs::write(folder.file("r.toml"), text).unwrap();
        for check in [&["--check-config"][..], &[]] {
            fails(Program::serve(&[&[&*option], check].concat()), 1, &[words]);
        }
    }
    fs::write(folder.file("r.toml"), "[echo]\n[time]\n").unwrap();
    for (args, words) in [
        (["--burst=5", ""], "--rate"),
        (["--web-admin", ""], "--web-admin goes with the service web"),
        (["--check-config", "--tls-key=/a"], "--tls-cert"),
        (["--check-config", "echo=7007,unix:/a,7007"], "127.0.0.1:7007 is given twice"),
    ] {
        let args = args.iter().filter(|arg| !arg.is_empty()).copied();
        let args: Vec<_> = [&*option].into_iter().chain(args).collect();
        fails(Program::serve(&args), 2, &[words]);
    }
}

#[test]
fn what_is_no_configuration_file_is_refused_at_once() {
    let folder = Folder::new("odd");
    let path = |name: &str| folder.file(name);
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("latin"), b"# ok\n# caf\xe9\n[echo]\n").unwrap();
    fs::write(path("marked"), "\u{feff}[echo]\r\naddress = 0\r\n").unwrap();
    File::create(path("long")).unwrap().set_len(1 << 30).unwrap();
    let crowd = (0..20_000).map(|n| format!("[a{n}]\nservice = \"echo\"\naddress = 0\n"));
    fs::write(path("crowd"), crowd.collect::<String>()).unwrap();
    let made = Command::new("mkfifo").arg(path("pipe")).status().unwrap();
    assert!(made.success());
    for (name, words) in [
        ("missing", "missing: cannot be read: No such file"),
        ("folder", "folder: cannot be read: it is no regular file"),
        ("pipe", "pipe: cannot be read: it is no regular file"),
        ("long", "long: cannot be read: it is longer than 1 MiB"),
        ("latin", "latin:2: it is no UTF-8"),
        ("empty", "there is no service in it: write a table, as [echo]"),
        ("crowd", "crowd:751: more than 250 services: "),
    ] {
        let option = format!("--config={}", path(name).display());
        fails(Program::serve(&[&option]), 1, &[words]);
        fails(
            Program::spawn(Command::new(crate::util::program::REACTOR).args(["config", &option])),
            1,
            &[words],
        );
    }
    // One without services will do where the command line has some.
    let option = |name: &str| format!("--config={}", path(name).display());
    Program::serve(&[&option("empty"), "echo=0"]).addr("echo");
    Program::serve(&[&option("marked")]).addr("echo");
}

#[test]
fn config_prints_a_file_that_gives_the_same() {
    let text = "# mine\nmax-line = 0o20\n".replace("0o20", "\"1K\"")
        + "threads = \"auto\"\n[lunch]\nservice = \"presence\"\naddress = [\"unix:/tmp/a \\\"b\\\"\", 5]\n\
           unix-mode = 0o660\nunique-names = true\n";
    let (folder, option) = file("print", &text);
    let (status, first, stderr) =
        Program::run(&["config", &option, "time=[::1]:7", "--log", "debug", "--time-count=3"]);
    assert_eq!((status, &*stderr), (0, ""));
    for line in [
        "log = \"debug\"",
        "threads = \"auto\"",
        "# max-line = \"64K\"",
        "[lunch]",
        "service = \"presence\"",
        "address = [\"unix:/tmp/a \\\"b\\\"\", 5]",
        "unix-mode = \"0o660\"",
        "max-line = \"1K\"",
        "unique-names = true",
        "[time]",
        "address = \"[::1]:7\"",
        "time-count = 3",
    ] {
        assert!(first.lines().any(|it| it == line), "{line}: {first}");
    }
    fs::write(folder.file("r.toml"), &first).unwrap();
    let (status, second, stderr) = Program::run(&["config", &option]);
    assert_eq!((status, &*second, &*stderr), (0, &*first, ""));
}

#[test]
fn descriptors_must_suffice_for_what_all_services_were_given() {
    let text = "[echo]\naddress = 0\nmax-connections = 900\n[time]\naddress = 0\nmax-connections = 200\n\
                [presence]\naddress = 0\n";
    let (_folder, option) = file("demand", text);
    let program = Program::serve_after("ulimit -n 1024", &[&option, "--threads=1"]);
    fails(
        program,
        1,
        &["r.toml:3: max-connections of 2 services, 1100 together", "but the limit is 1024"],
    );
    // Nobody has asked for the clients of presence.
    let program = Program::serve_after("ulimit -n 1200", &[&option, "--threads=1"]);
    program.wait_for_log("of 11100 clients");
}

#[test]
#[cfg(target_os = "linux")]
fn each_service_lets_in_whom_it_says() {
    let text = "allow = \"127.0.0.2\"\n[echo]\naddress = 0\nallow = [\"127.0.0.3\", \"127.0.0.1\"]\n\
                [time]\naddress = 0\n";
    let (_folder, option) = file("allow", text);
    let program = Program::serve(&[&option]);
    Client::connect(program.addr("echo")).expect(GREETING);
    let time = program.addr("time");
    until("it is turned away", || {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect(time).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(stream.read(&mut [0; 9]), Ok(0) | Err(_))
    });
}

#[test]
#[cfg(feature = "tls")]
fn each_service_has_its_own_certificate() {
    use crate::util::tls::Pem;
    let [one, other] = ["config-one", "config-other"].map(Pem::new);
    let files = |pem: &Pem| {
        let [cert, key] = pem.options();
        let value = |option: &str| option.split_once('=').unwrap().1.to_owned();
        format!("tls-cert = \"{}\"\ntls-key = \"{}\"\n", value(&cert), value(&key))
    };
    let text = format!(
        "{}[echo]\naddress = \"tls:0\"\n[b]\nservice = \"echo\"\naddress = \"tls:0\"\n{}[time]\naddress = 0\n",
        files(&one),
        files(&other)
    );
    let (_folder, option) = file("tls", &text);
    let program = Program::serve(&[&option]);
    let addr = |name| program.place(name).strip_prefix("tls:").unwrap().parse().unwrap();
    // A client trusts the one certificate alone.
    one.connect(addr("echo")).expect(GREETING);
    other.connect(addr("b")).expect(GREETING);
    program.signal("HUP");
    program.wait_for_log("cert.pem reloaded");
}

/// Also what stands in it as a comment.
#[test]
fn the_example_is_right() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/reactor.toml");
    let check = |path: &str| {
        let (status, stdout, stderr) = Program::run(&["serve", "--config", path, "--check-config"]);
        assert_eq!((status, &*stderr), (0, ""), "{stdout}");
        stdout
    };
    assert_eq!(check(example), "the configuration is right: echo, time, presence, web\n");
    let folder = Folder::new("example");
    let text = fs::read_to_string(example).unwrap();
    let without_tls = |line: &&str| cfg!(feature = "tls") || !line.contains("tls");
    // Code begins right behind the sign, a sentence behind a blank.
    let line = |line: &str| match line.strip_prefix('#') {
        Some(code) if !code.starts_with(' ') => format!("{code}\n"),
        _ => format!("{line}\n"),
    };
    let text = text.replace("address = [\"9907\"]\n", "");
    let text: String = text.lines().filter(without_tls).map(line).collect();
    let text = text.replace("/etc/reactor/", &format!("{}/", folder.path().display()));
    #[cfg(feature = "tls")]
    {
        let pem = crate::util::tls::Pem::new("example-files");
        fs::copy(pem.cert(), folder.file("cert.pem")).unwrap();
        fs::copy(pem.key(), folder.file("key.pem")).unwrap();
    }
    fs::write(folder.file("r.toml"), text).unwrap();
    let said = check(folder.file("r.toml").to_str().unwrap());
    assert_eq!(said, "the configuration is right: echo, time, presence, lunch, secure, web\n");
}
