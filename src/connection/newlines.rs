//! The search for LF, 64 bytes at a time. To start a search anew for each line would cost as much as
//! all else that is done for a short line.

use wide::{CmpEq, i8x16};

const BLOCK: usize = 64;

/// Finds the LFs in some bytes, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Where the block that was searched last begins.
    block: usize,
    /// The LFs in it that are still to be given: a bit for each byte, the lowest for the first.
    found: u64,
    /// Where the next block begins.
    next: usize,
}

impl Ends {
    /// A search that skips the first `known` bytes, which are known to hold no LF.
    #[inline]
    pub(crate) fn after(known: usize) -> Ends {
        Ends { block: 0, found: 0, next: known }
    }

    /// The place of the next LF in `bytes`, which must be the same in each call.
    #[inline]
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.found == 0 {
            (self.block, self.found) = search(bytes, self.next);
            self.next = self.block + BLOCK;
            if self.found == 0 {
                return None;
            }
        }
        let first = self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(self.block + first)
    }
}

/// Searches from `start` on. Gives where the first block with an LF begins, and the LFs in it; no LFs
/// if there is no such block.
#[inline(never)]
fn search(bytes: &[u8], start: usize) -> (usize, u64) {
    let (blocks, rest) = bytes.get(start..).unwrap_or_default().as_chunks();
    let mut place = start;
    for block in blocks {
        let found = newlines(block);
        if found != 0 {
            return (place, found);
        }
        place += BLOCK;
    }
    (place, newlines_at_end(rest))
}

/// As [`newlines`], for what is shorter than a block.
#[inline(never)]
fn newlines_at_end(rest: &[u8]) -> u64 {
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    newlines(&block)
}

/// The LFs in a block: a bit for each byte, the lowest for the first.
#[inline]
fn newlines(block: &[u8; BLOCK]) -> u64 {
    let lf = i8x16::splat(b'\n' as i8);
    let (quarters, _) = block.as_chunks();
    quarters.iter().rev().fold(0, |found, quarter: &[u8; 16]| {
        let equal = i8x16::new(quarter.map(|byte| byte as i8)).cmp_eq(lf);
        found << 16 | u64::from(equal.move_mask() as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], known: usize) -> Vec<usize> {
        let mut ends = Ends::after(known);
        std::iter::from_fn(|| ends.next(bytes)).collect()
    }

    #[test]
    fn each_is_found_wherever_it_is_and_whatever_is_known() {
        for len in 0..200 {
            let mut bytes = vec![b'x'; len];
            for place in 0..len {
                bytes[place] = b'\n';
                for known in [0, 1, 63, 64, 65, place] {
                    let wanted: &[usize] = if known <= place { &[place] } else { &[] };
                    assert_eq!(all(&bytes, known), wanted, "{len} {place} {known}");
                }
                bytes[place] = b'x';
            }
            assert!(all(&bytes, len).is_empty());
        }
    }

    #[test]
    fn they_come_in_order_and_nothing_else_is_one() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        assert_eq!(all(&bytes, 0), [10, 266, 522, 778]);
        assert_eq!(all(&[b'\n'; 130], 0), (0..130).collect::<Vec<_>>());
        // What is known is not searched again: the first LF is not found.
        assert_eq!(all(b"a\nb\n", 2), [3]);
    }
}
