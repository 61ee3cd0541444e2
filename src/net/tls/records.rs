//! Where the bytes of a socket stand in TLS's records: rustls does not tell whether it waits for the
//! rest of one.

use std::io::{self, Read};

/// Bytes of a record's header; the last two are the length of what follows.
const HEADER: usize = 5;

/// How far the record that is coming in has come.
#[derive(Default)]
pub(super) struct Records {
    header: [u8; HEADER],
    /// How many bytes of the header there are.
    have: usize,
    /// Bytes of the body to come.
    rest: usize,
}

impl Records {
    /// Whether a record has begun and is not complete.
    pub(super) fn is_unfinished(&self) -> bool {
        self.have > 0
    }

    /// How many bytes of it have come.
    pub(super) fn unfinished(&self) -> usize {
        match self.have {
            HEADER => HEADER + usize::from(self.length()) - self.rest,
            have => have,
        }
    }

    /// What the header says of the body.
    fn length(&self) -> u16 {
        u16::from_be_bytes([self.header[3], self.header[4]])
    }

    /// Notes bytes that came in; says whether one of them completes a record.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut completed = false;
        while !bytes.is_empty() {
            if self.have < HEADER {
                self.header[self.have] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                if self.have == HEADER {
                    self.rest = self.length().into();
                }
            } else {
                let count = self.rest.min(bytes.len());
                self.rest -= count;
                bytes = &bytes[count..];
            }
            if self.have == HEADER && self.rest == 0 {
                self.have = 0;
                completed = true;
            }
        }
        completed
    }
}

/// Passes on what a stream gives, and counts its records.
pub(super) struct Counted<'s, R> {
    pub(super) from: &'s mut R,
    pub(super) records: &'s mut Records,
    /// Whether one was completed.
    pub(super) completed: bool,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        self.completed |= self.records.pass(&buf[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_unfinished_from_its_first_byte_to_its_last() {
        let wire = [22, 3, 3, 0, 2, 7, 7, 23, 3, 3, 0, 0, 23, 3, 3, 1, 0];
        let mut records = Records::default();
        let completed: Vec<_> = wire.iter().map(|byte| records.pass(&[*byte])).collect();
        let at: Vec<_> = (0..wire.len()).filter(|at| completed[*at]).collect();
        assert_eq!(at, [6, 11]);
        assert!(records.is_unfinished() && records.rest == 256 && records.unfinished() == 5);
        assert!(!records.pass(&[0; 250]) && records.unfinished() == 255);
        assert!(records.pass(&[0; 7]) && records.unfinished() == 1);
    }
}
