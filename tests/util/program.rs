//! The program as a child process. Its output is read by threads, so that every wait has a
//! deadline; it is killed when dropped.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::cell::RefCell;
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use crate::util::{PATIENCE, peak, until};

pub const REACTOR: &str = env!("CARGO_BIN_EXE_reactor");

/// How many threads a server has where its arguments do not say: as the environment variable
/// `REACTOR_TEST_THREADS` has it, so that the same tests are about one and about several.
pub fn threads() -> usize {
    std::env::var("REACTOR_TEST_THREADS").map_or(1, |text| text.parse().expect("a number"))
}

/// Has `reactor serve` and `reactor forward` run on so many threads.
fn thread(command: &mut Command) {
    let serves = command.get_args().any(|arg| arg == "serve" || arg == "forward");
    let mut args = command.get_args().filter_map(|arg| arg.to_str());
    if serves && threads() > 1 && !args.any(|arg| arg.starts_with("--threads")) {
        command.arg(format!("--threads={}", threads()));
    }
}

pub struct Program {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// What of stderr has been looked at.
    log: RefCell<String>,
}

impl Program {
    /// `reactor serve` with these arguments.
    pub fn serve(args: &[&str]) -> Program {
        Program::spawn(Command::new(REACTOR).arg("serve").args(args))
    }

    /// The same, after a line of shell such as `ulimit -n 40`.
    pub fn serve_after(shell: &str, args: &[&str]) -> Program {
        let script = format!("{shell} && exec \"$0\" serve \"$@\"");
        Program::spawn(Command::new("sh").arg("-c").arg(script).arg(REACTOR).args(args))
    }

    pub fn spawn(command: &mut Command) -> Program {
        Program::spawn_with(command, Stdio::null())
    }

    /// With something to read on stdin.
    pub fn spawn_with(command: &mut Command, stdin: impl Into<Stdio>) -> Program {
        thread(command);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program does not start");
        let stdout = lines_of(child.stdout.take().unwrap());
        let stderr = lines_of(child.stderr.take().unwrap());
        Program { child, stdout, stderr, log: RefCell::default() }
    }

    /// Runs it to its end; gives its status, stdout and stderr.
    pub fn run(args: &[&str]) -> (i32, String, String) {
        Program::spawn(Command::new(REACTOR).args(args)).end()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// See [`peak`].
    pub fn peak(&self) -> usize {
        peak(self.pid())
    }

    /// The next line of stdout, without its end.
    #[track_caller]
    pub fn line(&self) -> String {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(error) => panic!("no line on stdout: {error}; stderr: {}", self.stderr_so_far()),
        }
    }

    /// The next line of stdout, if it is there already.
    pub fn try_line(&self) -> Option<String> {
        self.stdout.try_recv().ok()
    }

    /// Where the service says that it listens.
    #[track_caller]
    pub fn place(&self, service: &str) -> String {
        let line = self.line();
        let place = line.strip_prefix(&format!("{service} listening on "));
        place.unwrap_or_else(|| panic!("{service} is not in {line:?}")).to_owned()
    }

    #[track_caller]
    pub fn addr(&self, service: &str) -> SocketAddr {
        self.place(service).parse().unwrap()
    }

    /// Waits for a line on stderr with these words in it.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let mut log = self.log.borrow_mut();
                    log.push_str(&line);
                    log.push('\n');
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(error) => panic!("{words:?}: {error}; stderr: {}", self.log.borrow()),
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(status.expect("no kill").success(), "kill -s {name} failed");
    }

    /// Waits for its end; gives its status, and the rest of stdout and all of stderr.
    #[track_caller]
    pub fn end(mut self) -> (i32, String, String) {
        let deadline = Instant::now() + PATIENCE;
        let rest = |from: &Receiver<String>, what: &str| {
            let mut text = String::new();
            loop {
                match from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) => text += &(line + "\n"),
                    Err(RecvTimeoutError::Disconnected) => return text,
                    Err(RecvTimeoutError::Timeout) => panic!("it runs on; {what}: {text}"),
                }
            }
        };
        let stdout = rest(&self.stdout, "stdout");
        let stderr = rest(&self.stderr, "stderr");
        let status = wait(&mut self.child);
        let code = status.code().unwrap_or_else(|| panic!("{status}; stderr: {stderr}"));
        (code, stdout, self.log.take() + &stderr)
    }

    fn stderr_so_far(&self) -> String {
        self.stderr.try_iter().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child process, killed when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status of a child that is about to end.
#[track_caller]
pub fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The lines of a pipe; the channel is closed at its end.
pub fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            if tell.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    told
}

/// A terminal: what a test types into it, and the side that the program sees.
#[cfg(target_os = "linux")]
pub fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(master), slave)
}

/// One error line on stderr with these words in it, nothing on stdout, and this status.
#[track_caller]
pub fn fails(program: Program, status: i32, words: &[&str]) {
    let (code, stdout, stderr) = program.end();
    assert_eq!((code, stdout.as_str()), (status, ""), "{stderr}");
    assert!(stderr.starts_with("reactor: ") && stderr.lines().count() == 1, "{stderr}");
    for words in words {
        assert!(stderr.contains(words), "{words:?} is not in {stderr}");
    }
}
