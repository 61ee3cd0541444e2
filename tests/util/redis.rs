//! A redis-server of the test's own, and what a test asks of it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::util::folder::Folder;
use crate::util::program::Running;
use crate::util::{PATIENCE, until};

/// Where the servers of Redis listen: an address apart, so that nobody else gets a port of theirs while it
/// is free.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// A server with a folder of its own, killed when dropped.
pub struct Redis {
    process: Option<Running>,
    pub addr: SocketAddr,
    options: Vec<String>,
    pub password: Option<String>,
    folder: Folder,
}

/// A client of it.
pub struct Asker(BufReader<TcpStream>);

/// Whether there is a redis-server; otherwise the test is skipped.
pub fn installed() -> bool {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if version.is_err() {
        crate::util::skip("redis-server is not installed");
    }
    version.is_ok()
}

impl Redis {
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// With options besides those that make it listen.
    pub fn start_with(options: &[&str]) -> Redis {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let (process, addr, folder) = (None, (HOST, 0).into(), Folder::new("redis"));
        let mut redis = Redis { process, addr, options, password: None, folder };
        // Another test may take the same port before Redis does.
        while redis.process.is_none() {
            redis.addr = TcpListener::bind((HOST, 0)).unwrap().local_addr().unwrap();
            redis.resume();
        }
        redis
    }

    /// With TLS as well, at an address of its own, which is given too.
    #[cfg(feature = "tls")]
    pub fn start_with_tls(pem: &crate::util::tls::Pem) -> (Redis, SocketAddr) {
        let tls = TcpListener::bind("127.0.0.8:0").unwrap().local_addr().unwrap();
        let [cert, key] = [pem.cert(), pem.key()].map(|path| path.display().to_string());
        let (host, port) = (tls.ip().to_string(), tls.port().to_string());
        let redis = Redis::start_with(&[
            "--bind",
            "127.0.0.7",
            &host,
            "--tls-port",
            &port,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ]);
        (redis, tls)
    }

    /// The same one, for another room: whoever has started it ends it.
    pub fn again(&self) -> Redis {
        let (options, password) = (self.options.clone(), self.password.clone());
        Redis { process: None, addr: self.addr, options, password, folder: Folder::new("redis") }
    }

    /// Starts the process again at the same place, with the data that are in its folder.
    pub fn resume(&mut self) {
        let log = std::fs::File::create(self.folder.file("log")).unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--bind", &HOST.to_string(), "--port", &self.addr.port().to_string()]);
        command.args(["--save", "", "--maxmemory-policy", "noeviction"]);
        command.arg("--dir").arg(self.folder.path()).args(&self.options);
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let mut running = Running(command.spawn().unwrap());
        let mut ended = false;
        until("Redis listens", || {
            ended = running.0.try_wait().unwrap().is_some();
            // While it reads its data it says so.
            ended
                || Asker::dial(self.addr).is_some_and(|mut asker| {
                    asker.try_ask("PING").is_some_and(|it| !it.contains("LOADING"))
                })
        });
        self.process = (!ended).then_some(running);
    }

    /// Kills it, as the kernel does that has no memory left.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The same as `kill -s NAME`: STOP freezes it, CONT lets it go on.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").0.id()
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    pub fn asker(&self) -> Asker {
        let mut asker = Asker::dial(self.addr).expect("Redis does not listen");
        if let Some(password) = &self.password {
            assert_eq!(asker.ask(&format!("AUTH {password}")), "OK");
        }
        asker
    }

    /// One answer, by a connection of its own.
    pub fn ask(&self, command: &str) -> String {
        self.asker().ask(command)
    }

    /// How often a command was executed.
    pub fn calls(&self, command: &str) -> u64 {
        let info = self.ask("INFO commandstats");
        let start = format!("cmdstat_{command}:calls=");
        let count = info.lines().find_map(|line| line.strip_prefix(&start)?.split(',').next());
        count.map_or(0, |count| count.parse().unwrap())
    }
}

impl Asker {
    pub fn dial(addr: SocketAddr) -> Option<Asker> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Asker(BufReader::new(stream)))
    }

    /// Asks by words without blanks in them. An error begins with a minus; the parts of an array are lines.
    pub fn ask(&mut self, command: &str) -> String {
        self.try_ask(command).unwrap_or_else(|| panic!("{command}: no answer"))
    }

    /// None if the connection ends instead.
    pub fn try_ask(&mut self, command: &str) -> Option<String> {
        let words = command.split(' ').map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let words: Vec<_> = words.collect();
        self.send(&format!("*{}\r\n{}", words.len(), words.concat()))
    }

    /// Asks by the bytes themselves.
    pub fn raw(&mut self, bytes: &str) -> String {
        self.send(bytes).unwrap_or_else(|| panic!("{bytes:?}: no answer"))
    }

    fn send(&mut self, bytes: &str) -> Option<String> {
        self.0.get_mut().write_all(bytes.as_bytes()).ok()?;
        self.reply()
    }

    fn reply(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let line = line.strip_suffix("\r\n")?;
        let (kind, text) = line.split_at(1);
        Some(match kind {
            "$" if text != "-1" => {
                let mut bytes = vec![0; text.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes).ok()?;
                bytes.truncate(bytes.len() - 2);
                String::from_utf8_lossy(&bytes).into_owned()
            }
            "*" => {
                let parts = (0..text.parse().unwrap_or(0)).map(|_| Some(self.reply()? + "\n"));
                parts.collect::<Option<String>>()?
            }
            "+" | ":" => text.to_owned(),
            "$" => String::new(),
            _ => line.to_owned(),
        })
    }
}

/// The same as `kill -s NAME PID`.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.expect("no kill").success(), "kill -s {name} failed");
}
