//! The program under attack, and what must be so afterwards.

use std::net::SocketAddr;
use std::process::Command;

use crate::util::program::{Program, REACTOR};
use crate::util::{Client, Quiet, quiet, until};

const ECHO: &str = "Welcome to the Reactor Server.\n\
                    Send me text lines and conclude with the BYE command.\n";
const ROULETTE: &str = "Hello. Online HELP is available. Will you find it?\n";

/// With these, glibc gives free memory back at once: one heap for all threads, and thresholds that
/// do not move with what has been freed. What is resident then is what the program has, and not
/// what its allocator keeps for the next time.
const MALLOC: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "32768"),
    ("MALLOC_TRIM_THRESHOLD_", "65536"),
];

pub struct Victim {
    program: Program,
    services: Vec<(String, SocketAddr)>,
    /// Descriptors and resident bytes before the attack.
    before: (usize, usize),
    _quiet: Option<Quiet>,
}

impl Victim {
    /// `reactor serve` of these services, each at a free port, with these options.
    pub fn start(services: &[&str], options: &[&str]) -> Victim {
        Victim::start_after("true", services, options)
    }

    /// The same, after a line of shell.
    pub fn start_after(shell: &str, services: &[&str], options: &[&str]) -> Victim {
        let quiet = quiet();
        let targets: Vec<String> = services.iter().map(|name| format!("{name}=0")).collect();
        let args: Vec<&str> =
            targets.iter().map(String::as_str).chain(options.iter().copied()).collect();
        let settings = MALLOC.map(|(name, value)| format!("{name}={value}")).join(" ");
        let program = Program::serve_after(&format!("export {settings} && {shell}"), &args);
        let addrs = services.iter().map(|name| ((*name).to_owned(), program.addr(name)));
        let addrs = addrs.collect();
        Victim::new(program, addrs, Some(quiet))
    }

    /// `reactor forward` to the first service of this one.
    pub fn forwarder(&self) -> Victim {
        let (service, target) = &self.services[0];
        let mut command = Command::new(REACTOR);
        command.args(["forward", "0"]).arg(target.to_string()).envs(MALLOC);
        let program = Program::spawn(&mut command);
        let addr = program.addr("forward");
        Victim::new(program, vec![(service.clone(), addr)], None)
    }

    fn new(program: Program, services: Vec<(String, SocketAddr)>, quiet: Option<Quiet>) -> Victim {
        let mut victim = Victim { program, services, before: (0, 0), _quiet: quiet };
        // The first clients make it allocate what it keeps.
        victim.serves_the_polite();
        victim.before = (victim.descriptors(), victim.resident());
        victim
    }

    pub fn addr(&self, service: &str) -> SocketAddr {
        self.services.iter().find(|(name, _)| name == service).expect("not served").1
    }

    pub fn services(&self) -> &[(String, SocketAddr)] {
        &self.services
    }

    pub fn wait_for_log(&self, words: &str) -> String {
        self.program.wait_for_log(words)
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.program.pid())).unwrap().count()
    }

    /// A number of kilobytes that the kernel tells of the process, in bytes.
    fn status(&self, field: &str) -> usize {
        let path = format!("/proc/{}/status", self.program.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).expect("no such field");
        let number = line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok());
        number.expect("no number") * 1024
    }

    /// For how long it has computed, in hundredths of a second.
    pub fn cpu(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.program.pid());
        let stat = std::fs::read_to_string(path).unwrap();
        let fields = stat.rsplit_once(") ").expect("no fields").1.split(' ');
        // utime and stime; proc(5) counts the name too.
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    pub fn resident(&self) -> usize {
        self.status("VmRSS:")
    }

    /// What the attack has made resident at the most.
    pub fn peak(&self) -> usize {
        self.status("VmHWM:").saturating_sub(self.before.1)
    }

    /// A fresh client of each service is served as ever.
    pub fn serves_the_polite(&self) {
        for (service, addr) in &self.services {
            let mut client = Client::connect(*addr);
            match service.as_str() {
                "echo" => {
                    client.expect(ECHO);
                    client.send("hello\nbye\n");
                    assert_eq!(client.rest(), b"> HELLO\n> BYE\n");
                }
                "time" => assert!(client.line().starts_with("{'time' : '")),
                "presence" => {
                    while client.line() != "  Shutdown server with 'KILL'\n" {}
                    client.send("HELLO polite\nBYE\n");
                    let said = String::from_utf8(client.rest()).unwrap();
                    assert!(said.contains("polite is about to leave the room.\n"), "{said}");
                }
                "web" => {
                    client.send(format!("GET /healthz HTTP/1.1\r\nHost: {addr}\r\n\r\n"));
                    assert_eq!(client.line(), "HTTP/1.1 200 OK\r\n");
                }
                _ => {
                    client.expect(ROULETTE);
                    client.send("INFO\nBYE\n");
                    let said = String::from_utf8(client.rest()).unwrap();
                    assert!(said.contains("numberOfStudents"), "{said}");
                }
            }
        }
    }

    /// After the attack: the polite are served, the descriptors are given back, and so is the
    /// memory but for `kept` bytes, which is what tables and the allocator may keep.
    pub fn is_well(&self, attack: &str, kept: usize) {
        self.serves_the_polite();
        let (descriptors, resident) = self.before;
        until("its descriptors are given back", || self.descriptors() <= descriptors);
        let now = self.resident();
        println!(
            "{attack}: peak {:.1} MiB more, afterwards {:.1} MiB more (at most {:.1}), {} descriptors",
            mib(self.peak()),
            mib(now.saturating_sub(resident)),
            mib(kept),
            self.descriptors(),
        );
        assert!(now <= resident + kept, "{attack}: {} MiB are kept", mib(now - resident));
    }

    /// An attack that makes it allocate much, twice. How much the allocator keeps of what is free
    /// in between differs from run to run, but never above `most`; and what were lost the first
    /// time would come on top of the second time's peak.
    pub fn does_not_grow(&self, attack: &str, most: usize, round: impl Fn(&Victim)) {
        round(self);
        self.is_well(&format!("{attack}, once"), most);
        let peak = self.peak();
        round(self);
        self.is_well(&format!("{attack}, twice"), most);
        let peak_again = self.peak();
        let room = peak / 4 + (4 << 20);
        assert!(peak_again < peak + room, "{attack}: {peak} bytes at its peak, then {peak_again}");
        assert!(peak_again < most, "{attack}: {peak_again} bytes at its peak");
    }

    /// Shuts it down: gracefully, without a panic on its way. Gives the log.
    pub fn ends(self) -> String {
        self.program.signal("TERM");
        let (code, _, log) = self.program.end();
        assert!(!log.contains("panicked"), "{log}");
        assert_eq!(code, 0, "{log}");
        log
    }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / 1048576.0
}
