//! What a line costs in a room of running servers, one or several, and how long it takes to all listeners.
//!
//! ```text
//! reactor serve presence=9001 --presence-bus redis://127.0.0.1 &      # and presence=9002
//! compare room --speaker 9001 --listener 9002 --clients 100 --rate 200 --pid REACTOR --pid REDIS
//! ```

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::{Result, sys};

/// In front of what somebody says who has not told a name.
const SAYS: &[u8] = b"An anonymous user says: ";
/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub struct Args {
    /// The ports of 127.0.0.1 at which somebody speaks, one of them after the other.
    #[arg(long, value_name = "PORT", required = true)]
    speaker: Vec<u16>,
    /// The ports at which the listeners are, by turns.
    #[arg(long, value_name = "PORT", required = true)]
    listener: Vec<u16>,
    /// How many listeners there are in all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    clients: usize,
    /// Lines a second; without it, the next one as soon as there is room in --depth.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Lines that not all listeners have heard, at the most.
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: u64,
    /// Seconds, after one to warm up.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Processes whose CPU time a line is told.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
}

/// A line, from when it was said until all have heard it.
struct Saying {
    since: Instant,
    unheard: usize,
}

struct Room {
    epoll: sys::Epoll,
    events: Vec<libc::epoll_event>,
    buffer: Vec<u8>,
    speakers: Vec<OwnedFd>,
    /// With what each has received of a line.
    listeners: Vec<(OwnedFd, Vec<u8>)>,
    sayings: Vec<Saying>,
    /// How many lines all have heard.
    whole: u64,
    latency: Histogram<u64>,
}

pub fn run(args: &Args) -> Result<()> {
    sys::raise_descriptors()?;
    let mut room = Room {
        epoll: sys::Epoll::new()?,
        events: sys::events(),
        buffer: vec![0; 256 * 1024],
        speakers: Vec::new(),
        listeners: Vec::new(),
        sayings: Vec::new(),
        whole: 0,
        latency: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
    };
    room.enter(args)?;
    room.speak(args, Duration::from_secs(1))?;
    room.latency.clear();
    let used =
        || args.pid.iter().map(|pid| sys::cpu_time(*pid)).collect::<std::io::Result<Vec<_>>>();
    let (before, begin, lines) = (used()?, Instant::now(), room.whole);
    room.speak(args, Duration::from_secs_f64(args.seconds))?;
    let (elapsed, lines) = (begin.elapsed(), (room.whole - lines) as f64);
    let latency = |quantile| Duration::from_nanos(room.latency.value_at_quantile(quantile));
    println!("{:.0} lines/s to {} listeners", lines / elapsed.as_secs_f64(), args.clients);
    println!("latency p50 {:?}, p99 {:?}, max {:?}", latency(0.5), latency(0.99), latency(1.0));
    for ((pid, before), after) in args.pid.iter().zip(before).zip(used()?) {
        let cpu = after - before;
        let (share, line) = (cpu.as_secs_f64() / elapsed.as_secs_f64(), cpu.as_secs_f64() / lines);
        println!("pid {pid}: {:.1} µs of CPU a line, {:.0} % of a core", line * 1e6, share * 100.0);
    }
    Ok(())
}

impl Room {
    /// All come, until each has been welcomed and the room is silent.
    fn enter(&mut self, args: &Args) -> Result<()> {
        for number in 0..args.clients {
            let port = args.listener[number % args.listener.len()];
            let fd = sys::connect([127, 0, 0, 2].into(), port)?;
            self.epoll.add(fd.as_raw_fd(), sys::INPUT, number as u64)?;
            self.listeners.push((fd, Vec::new()));
        }
        for port in &args.speaker {
            let fd = sys::connect([127, 0, 0, 2].into(), *port)?;
            // It is not asked for what it hears, which must be read all the same.
            self.epoll.add(
                fd.as_raw_fd(),
                sys::INPUT,
                (args.clients + self.speakers.len()) as u64,
            )?;
            self.speakers.push(fd);
        }
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_secs(1) {
            if self.turn(Duration::from_millis(100))? {
                quiet = Instant::now();
            }
        }
        Ok(())
    }

    /// Lines for so long, and until all of them have been heard.
    fn speak(&mut self, args: &Args, length: Duration) -> Result<()> {
        let (begin, first) = (Instant::now(), self.sayings.len() as u64);
        while begin.elapsed() < length || self.whole < self.sayings.len() as u64 {
            let due = |said: u64| args.rate.map_or(0.0, |rate| (said - first) as f64 / rate);
            let mut wait = Duration::from_millis(100);
            while begin.elapsed() < length && (self.sayings.len() as u64) < self.whole + args.depth
            {
                let due = Duration::from_secs_f64(due(self.sayings.len() as u64));
                let early = due.saturating_sub(begin.elapsed());
                if !early.is_zero() {
                    wait = early;
                    break;
                }
                self.say()?;
            }
            self.turn(wait)?;
            let oldest = self.sayings.get(self.whole as usize);
            if oldest.is_some_and(|oldest| oldest.since.elapsed() > PATIENCE) {
                return Err(format!("line {} is not heard by all", self.whole).into());
            }
        }
        Ok(())
    }

    fn say(&mut self) -> Result<()> {
        let number = self.sayings.len();
        let speaker = &self.speakers[number % self.speakers.len()];
        let line = format!("SAY {number:08} the quick brown fox\n");
        self.sayings.push(Saying { since: Instant::now(), unheard: self.listeners.len() });
        match sys::write(speaker.as_raw_fd(), line.as_bytes()) {
            Ok(count) if count == line.len() => Ok(()),
            outcome => Err(format!("the speaker is held back: {outcome:?}; less --depth").into()),
        }
    }

    /// Whether anything was heard.
    fn turn(&mut self, wait: Duration) -> Result<bool> {
        // Up to a millisecond early: the rest is waited for without sleeping.
        let events = self.epoll.wait(&mut self.events, wait.as_millis() as i32)?;
        let heard = !events.is_empty();
        for event in events {
            let number = event.u64 as usize;
            let Some((fd, line)) = self.listeners.get_mut(number) else {
                let speaker = self.speakers[number - self.listeners.len()].as_raw_fd();
                while sys::read(speaker, &mut self.buffer).is_ok_and(|count| count > 0) {}
                continue;
            };
            while let Ok(count) = sys::read(fd.as_raw_fd(), &mut self.buffer) {
                if count == 0 {
                    return Err("a server has closed a connection".into());
                }
                line.extend(&self.buffer[..count]);
            }
            let mut rest = &line[..];
            while let Some(end) = sys::newline(rest) {
                if let Some(text) = rest[..end].strip_prefix(SAYS) {
                    let number: usize = str::from_utf8(&text[..8])?.parse()?;
                    let saying = &mut self.sayings[number];
                    self.latency.saturating_record(saying.since.elapsed().as_nanos() as u64);
                    saying.unheard -= 1;
                    self.whole += u64::from(saying.unheard == 0);
                }
                rest = &rest[end + 1..];
            }
            let kept = rest.len();
            line.drain(..line.len() - kept);
        }
        Ok(heard)
    }
}
