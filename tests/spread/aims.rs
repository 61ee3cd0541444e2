//! Worlds that are aimed at one promise, which the usual ones seldom come to.

use super::world::Fault;

/// What is special about a world.
#[derive(Clone, Debug)]
pub struct Aim {
    /// The most lines that somebody says at once.
    pub burst: usize,
    /// How many bytes more each line has.
    pub padding: usize,
    /// How many bytes of the stream are kept.
    pub keep: u64,
    /// Names are few, and no two members may have the same.
    pub unique_names: bool,
    /// What may befall it.
    pub faults: Vec<Fault>,
    /// How many milliseconds that lasts, if the seed does not decide it.
    pub time: Option<u64>,
    /// How many milliseconds after that the next thing befalls it, at the most.
    pub pause: u64,
    /// Milliseconds in which clients talk and faults happen.
    pub trouble: u64,
    /// Milliseconds after which all must be well again: a wrong password is tried again after 30 s.
    pub peace: u64,
    /// At which command or answer a connection is reset.
    pub cut_at: Option<u64>,
    /// What a server that stops has heard until then is heard everywhere.
    pub gentle: bool,
    /// Those of a server that was taken for gone come last.
    pub last_in_who: bool,
    /// What must happen, in some of its worlds at least.
    pub must: &'static [&'static str],
    /// What must happen in each of them.
    pub always: &'static [&'static str],
    /// What must not happen.
    pub never: &'static [&'static str],
}

impl Default for Aim {
    fn default() -> Aim {
        Aim {
            burst: 3,
            padding: 0,
            keep: 64 << 20,
            unique_names: false,
            faults: Vec::new(),
            time: None,
            pause: 8_000,
            trouble: 40_000,
            peace: 75_000,
            cut_at: None,
            gentle: false,
            last_in_who: false,
            must: &[],
            always: &[],
            never: &[],
        }
    }
}

/// A world to which something happens that nobody is to hear of.
const UNHEARD: &[&str] = &["cut off", "missing", "said elsewhere", "gone: alive", "gone: ended"];

impl Aim {
    /// At nothing: all of it is the seed's choice.
    pub fn any(random: &mut fastrand::Rng) -> Aim {
        let faults = match random.usize(..12) {
            0 => vec![],
            1 => vec![Fault::RedisFrozen, Fault::LinkCut, Fault::OutOfMemory],
            2 => vec![Fault::DataLost],
            3 => vec![Fault::LinkCut],
            4..8 => (0..2).map(|_| Fault::ALL[random.usize(..Fault::ALL.len())]).collect(),
            _ => Fault::ALL.to_vec(),
        };
        let aim = Aim { faults, ..Aim::default() };
        match random.usize(..12) {
            0 => Aim { unique_names: true, ..aim },
            1 => Aim { burst: 100, trouble: 20_000, ..aim },
            2 => Aim { burst: 40, padding: 2_000, trouble: 15_000, ..aim },
            3 => Aim { keep: 4 << 10, ..aim },
            _ => aim,
        }
    }

    /// By the name that a failed test gives.
    pub fn all() -> Vec<(&'static str, Aim)> {
        [of_servers(), of_redis(), of_limits()].concat()
    }

    /// A short world in which a connection is cut at that command or answer, and nobody hears of it.
    pub fn cut_at(place: u64) -> Aim {
        let cut_at = Some(place);
        Aim { cut_at, never: UNHEARD, trouble: 8_000, peace: 12_000, ..Aim::default() }
    }
}

fn aimed(aim: Aim, fault: Fault) -> Aim {
    Aim { faults: vec![fault], time: Some(20_000), ..aim }
}

/// A world that one sort of thing befalls, each time for so long.
fn usual(faults: &[Fault], time: u64) -> Aim {
    Aim { faults: faults.to_vec(), time: Some(time), ..Aim::default() }
}

/// What befalls servers.
fn of_servers() -> Vec<(&'static str, Aim)> {
    let away = Aim {
        last_in_who: true,
        must: &["gone: alive"],
        never: &["missing", "gone: ended"],
        ..Aim::default()
    };
    vec![
        (
            "kill -9 of a server",
            Aim {
                must: &["gone: ended"],
                never: &["cut off", "missing", "gone: alive"],
                ..usual(&[Fault::Killed], 0)
            },
        ),
        (
            "a server frozen for 20 s",
            // The silence was its own.
            Aim {
                never: &["cut off", "missing", "gone: ended"],
                ..aimed(away.clone(), Fault::ServerFrozen)
            },
        ),
        ("a server's network down for 20 s", aimed(away, Fault::Partition)),
        (
            "KILL",
            Aim {
                gentle: true,
                must: &["gone: it says so"],
                never: UNHEARD,
                ..usual(&[Fault::Stopped], 0)
            },
        ),
        (
            "an upgrade",
            Aim {
                burst: 30,
                always: &["upgraded"],
                never: UNHEARD,
                ..usual(&[Fault::Upgraded], 0)
            },
        ),
        (
            "an upgrade, and Redis frozen for 3 s",
            Aim {
                must: &["held", "upgraded"],
                never: UNHEARD,
                burst: 30,
                ..usual(&[Fault::Upgraded, Fault::RedisFrozen], 3_000)
            },
        ),
        (
            "an upgrade, and Redis frozen for 20 s",
            Aim {
                must: &["upgraded", "cut off", "whole", "said elsewhere"],
                never: &["missing", "gone: alive", "gone: ended"],
                ..usual(&[Fault::Upgraded, Fault::RedisFrozen], 20_000)
            },
        ),
        ("KILL, and links drop", usual(&[Fault::Stopped, Fault::LinkCut], 0)),
    ]
}

/// What befalls Redis, and the way to it.
fn of_redis() -> Vec<(&'static str, Aim)> {
    vec![
        (
            "Redis frozen for 3 s",
            Aim {
                must: &["held"],
                never: UNHEARD,
                burst: 30,
                ..usual(&[Fault::RedisFrozen], 3_000)
            },
        ),
        (
            "Redis frozen for 20 s",
            Aim {
                always: &["cut off", "whole", "said elsewhere"],
                never: &["missing", "gone: alive", "gone: ended"],
                ..usual(&[Fault::RedisFrozen], 20_000)
            },
        ),
        ("CLIENT KILL", Aim { never: UNHEARD, ..usual(&[Fault::LinkCut], 0) }),
        (
            "data lost, an older AOF",
            Aim { must: &["missing"], never: &["gone: alive"], ..usual(&[Fault::DataLost], 0) },
        ),
        (
            "data lost as servers are frozen and killed",
            Aim {
                faults: vec![Fault::DataLost, Fault::Killed, Fault::ServerFrozen],
                pause: 1_500,
                trouble: 7_000,
                must: &["missing"],
                ..Aim::default()
            },
        ),
        (
            "trimmed by somebody",
            Aim {
                must: &["missing"],
                never: &["cut off", "gone: alive"],
                ..usual(&[Fault::Trimmed], 0)
            },
        ),
        (
            "slow Redis",
            Aim { must: &["held"], never: UNHEARD, burst: 30, ..usual(&[Fault::Slow], 20_000) },
        ),
        (
            "out of memory",
            Aim {
                always: &["refused: no memory", "cut off", "whole", "said elsewhere"],
                never: &["missing"],
                ..usual(&[Fault::OutOfMemory], 20_000)
            },
        ),
        (
            "a wrong password later",
            Aim {
                always: &["a wrong password", "cut off", "whole"],
                never: &["missing"],
                ..usual(&[Fault::Password], 20_000)
            },
        ),
    ]
}

/// What is bounded.
fn of_limits() -> Vec<(&'static str, Aim)> {
    let held = [Fault::RedisFrozen, Fault::LinkCut, Fault::OutOfMemory];
    let piece = Aim { burst: 40, padding: 2_000, trouble: 15_000, ..usual(&[Fault::LinkCut], 0) };
    vec![
        (
            "held at 64 lines",
            Aim { burst: 100, trouble: 25_000, must: &["held"], time: None, ..usual(&held, 0) },
        ),
        (
            "held at 64 KiB",
            Aim {
                burst: 40,
                padding: 4_000,
                trouble: 25_000,
                must: &["held"],
                time: None,
                ..usual(&held, 0)
            },
        ),
        ("pieces of 64 KiB", Aim { must: &["a piece"], ..piece.clone() }),
        ("trimmed by size", Aim { keep: 1 << 20, must: &["trimmed by size"], ..piece }),
        (
            "trimmed by size, by servers that have just come",
            Aim { keep: 40 << 10, trouble: 300_000, ..usual(&[Fault::Killed, Fault::Stopped], 0) },
        ),
        (
            "unique names",
            Aim {
                unique_names: true,
                must: &["a name is taken"],
                ..usual(&[Fault::LinkCut, Fault::Killed], 0)
            },
        ),
    ]
}
