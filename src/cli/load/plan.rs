use std::path::PathBuf;
use std::time::Duration;

use reactor::{Address, Limits};

use super::options::Mode;

/// What is to be done, checked.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Address,
    pub(crate) mode: Mode,
    pub(crate) clients: u32,
    /// Lines in flight, of one client or, in the mode presence, in all.
    pub(crate) depth: usize,
    pub(crate) size: usize,
    /// None for as long as the server goes on.
    pub(crate) duration: Option<Duration>,
    pub(crate) ramp: Option<f64>,
    pub(crate) rate: Option<f64>,
    pub(crate) server_pid: Option<u32>,
    pub(crate) json: bool,
    pub(crate) svg: Option<PathBuf>,
}

impl Plan {
    /// A client must never stop reading because of what it has still to send: the server may wait
    /// for it to read before it takes more, and both would wait for ever. What can be unsent is
    /// bounded by what can be in flight.
    pub(crate) fn limits(&self) -> Limits {
        let most = (2 * self.depth * (self.size + 64)).max(1 << 20);
        Limits {
            max_output: most,
            soft_output: most,
            high_water: most,
            low_water: most / 2,
            max_line: (self.size + 64).max(64 << 10),
            ..Limits::default()
        }
    }

    /// Its first line on a terminal.
    pub(crate) fn describe(&self) -> String {
        let Plan { target, mode, clients, depth, size, .. } = self;
        let lines = |count| if count == 1 { "line" } else { "lines" };
        let what = match mode {
            Mode::Echo | Mode::Pipeline => {
                format!("{depth} {} of {size} bytes in flight each", lines(*depth))
            }
            Mode::Presence => format!("{depth} {} of {size} bytes in flight", lines(*depth)),
            Mode::Idle => "silent".to_owned(),
            Mode::Churn => format!("one line of {size} bytes each time"),
            Mode::Time => "listening".to_owned(),
        };
        let clients = match clients {
            1 => "1 client".to_owned(),
            _ => format!("{clients} clients"),
        };
        let rate = self.rate.map(|rate| format!(", {rate} lines/s asked")).unwrap_or_default();
        format!("{} to {target}: {clients}, {what}{rate}", mode.name())
    }
}
