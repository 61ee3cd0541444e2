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
    /// What befalls it, if that is not left to the seed.
    pub faults: Option<Vec<Fault>>,
}

impl Default for Aim {
    fn default() -> Aim {
        Aim { burst: 3, padding: 0, keep: 64 << 20, unique_names: false, faults: None }
    }
}

impl Aim {
    /// By the name that a failed test gives.
    pub fn all() -> [(&'static str, Aim); 5] {
        let of = |faults: &[Fault]| Some(faults.to_vec());
        let held = &[Fault::RedisFrozen, Fault::LinkCut, Fault::OutOfMemory];
        let (cut, killed) = (Fault::LinkCut, Fault::Killed);
        let piece = Aim { burst: 40, padding: 2_000, faults: of(&[cut]), ..Aim::default() };
        [
            ("held at 64 lines", Aim { burst: 100, faults: of(held), ..Aim::default() }),
            ("pieces of 64 KiB", piece.clone()),
            ("trimmed by size", Aim { keep: 1 << 20, ..piece }),
            ("stopped", Aim { faults: of(&[Fault::Stopped, cut]), ..Aim::default() }),
            (
                "unique names",
                Aim { unique_names: true, faults: of(&[cut, killed]), ..Aim::default() },
            ),
        ]
    }
}
