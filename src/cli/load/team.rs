//! What the threads of a run share: when the load begins, and what they have done so far.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::options::Load;
use super::progress::Progress;
use super::report::summary::QUANTILES;
use super::seconds::Second;

/// The whole run.
#[derive(Debug)]
pub(crate) struct Team {
    pub(crate) origin: Instant,
    /// Threads whose clients are not connected yet.
    connecting: AtomicUsize,
    /// Somebody looks at the seconds.
    pub(crate) seconds_wanted: bool,
    board: Mutex<Board>,
}

/// What the threads have done, put together.
#[derive(Debug)]
struct Board {
    progress: Progress,
    series: Option<File>,
    /// Why the series is not whole.
    series_error: Option<io::Error>,
    /// How many seconds each thread has told of; all there will be, once it is at its end.
    told: Vec<usize>,
    /// Seconds that not all have told of, by number.
    open: BTreeMap<usize, Second>,
    /// What is left of a second at the end.
    rest: Option<Second>,
    /// Of each whole second: lines/s, and the [`QUANTILES`] in nanoseconds.
    figures: Vec<[f64; 1 + QUANTILES.len()]>,
    /// Clients of each thread that are connected.
    here: Vec<u32>,
    errors: u64,
}

impl Team {
    pub(crate) fn new(plan: &Load, series: Option<File>) -> Arc<Team> {
        let progress = Progress::new(plan);
        Arc::new(Team {
            origin: Instant::now(),
            connecting: AtomicUsize::new(plan.threads),
            seconds_wanted: series.is_some()
                || plan.json
                || plan.compare.is_some()
                || progress.is_visible(),
            board: Mutex::new(Board {
                progress,
                series,
                series_error: None,
                told: vec![0; plan.threads],
                open: BTreeMap::new(),
                rest: None,
                figures: Vec::new(),
                here: vec![0; plan.threads],
                errors: 0,
            }),
        })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the run: the figures of each whole second, and whether the series could be written.
    pub(crate) fn conclude(&self) -> (Vec<[f64; 1 + QUANTILES.len()]>, io::Result<()>) {
        let mut board = self.board();
        board.progress.clear();
        if let Some(rest) = board.rest.take() {
            board.write(&rest);
        }
        (std::mem::take(&mut board.figures), board.series_error.take().map_or(Ok(()), Err))
    }
}

impl Board {
    fn write(&mut self, second: &Second) {
        let Some(file) = &mut self.series else { return };
        if let Err(error) = file.write_all(second.csv().as_bytes()) {
            self.series_error.get_or_insert(error);
        }
    }

    /// Takes the seconds that all have told of.
    fn close_seconds(&mut self) {
        let whole = self.told.iter().copied().min().unwrap_or(0);
        while let Some(entry) = self.open.first_entry().filter(|entry| *entry.key() < whole) {
            let second = entry.remove();
            self.write(&second);
            let quantiles = QUANTILES.map(|(it, _)| second.latencies.value_at_quantile(it) as f64);
            let mut figures = [second.lines_per_s; 1 + QUANTILES.len()];
            figures[1..].copy_from_slice(&quantiles);
            self.figures.push(figures);
            self.errors += second.errors;
            self.progress.second(&second, self.errors);
        }
    }
}

/// One thread of a [`Team`].
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) team: Arc<Team>,
    number: usize,
    connected: bool,
}

impl Member {
    pub(crate) fn new(team: Arc<Team>, number: usize) -> Member {
        Member { team, number, connected: false }
    }

    /// The clients of this thread are connected. Returns whether those of all threads are.
    pub(crate) fn all_connected(&mut self) -> bool {
        if !std::mem::replace(&mut self.connected, true) {
            self.team.connecting.fetch_sub(1, Ordering::AcqRel);
        }
        self.team.connecting.load(Ordering::Acquire) == 0
    }

    pub(crate) fn tell(&self, second: Second) {
        let mut board = self.team.board();
        let number = board.told[self.number];
        match board.open.get_mut(&number) {
            Some(all) => all.add(&second),
            None => drop(board.open.insert(number, second)),
        }
        board.told[self.number] += 1;
        board.close_seconds();
    }

    /// This thread is at its end.
    pub(crate) fn leave(&self, rest: Second) {
        let mut board = self.team.board();
        match &mut board.rest {
            Some(all) => all.add(&rest),
            None => board.rest = Some(rest),
        }
        board.told[self.number] = usize::MAX;
        board.close_seconds();
    }

    /// Shows how it stands on a terminal.
    pub(crate) fn show(&self, how: impl FnOnce(&mut Progress)) {
        how(&mut self.team.board().progress);
    }

    /// Shows how many clients are connected.
    pub(crate) fn show_connecting(&self, here: u32) {
        let mut board = self.team.board();
        board.here[self.number] = here;
        let all = board.here.iter().sum();
        board.progress.connecting(all);
    }
}

/// The others do not wait for a thread that has failed.
impl Drop for Member {
    fn drop(&mut self) {
        self.all_connected();
    }
}

/// The part of a plan that each thread has, and the number of its first client.
pub(crate) fn shares(plan: &Load) -> Vec<(u32, Load)> {
    let (clients, threads) = (u64::from(plan.clients()), plan.threads as u64);
    // What the first so many of all the parts of a whole have of it.
    let of = |whole: u64, parts: u64, all: u64| {
        (u128::from(whole) * u128::from(parts) / u128::from(all)) as u64
    };
    let share = |number| {
        let (first, behind) = (of(clients, number, threads), of(clients, number + 1, threads));
        let fraction = (behind - first) as f64 / clients as f64;
        // Requests go with the clients, as the rate does, or some threads are done before the others.
        let requests = |all| of(all, behind, clients) - of(all, first, clients);
        let part = Load {
            clients: (behind - first) as usize,
            requests: plan.requests.map(requests),
            rate: plan.rate.map(|rate| rate * fraction),
            ramp: plan.ramp.map(|ramp| ramp * fraction),
            ..plan.clone()
        };
        (first as u32, part)
    };
    (0..threads).map(share).collect()
}
