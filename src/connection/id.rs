//! A connection's identity: its slot in the table, and a serial number that no other has.

use std::fmt;

/// The low bits of an id are its slot; the rest is the serial number.
pub(crate) const SLOT_BITS: u32 = 24;

/// The bits of the slot.
pub(crate) const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// The most connections that one service can hold, whatever its limits say.
pub(crate) const MOST_SLOTS: usize = 1 << SLOT_BITS;

/// The identity of one connection. No other connection of the same reactor ever gets the same.
///
/// An id may be kept after its connection is gone: it never stands for a later connection, and what
/// is sent to it goes nowhere. Ids sort in the order in which the connections were made. An id is
/// displayed as `#` and a number, as in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    /// `serial` counts the connections of a reactor. Its 40 bits last for a year of 30,000 a second.
    pub(crate) fn new(serial: u64, slot: usize) -> ConnId {
        ConnId(serial << SLOT_BITS | slot as u64)
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 & SLOT_MASK) as usize
    }

    /// The whole of it as a number, for where an id has to be one: in a message, or in another process.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The id of which [`to_bits`](Self::to_bits) has made that number. Any other number makes
    /// that of another connection, or of none.
    pub fn from_bits(bits: u64) -> ConnId {
        ConnId(bits)
    }

    /// The number that it is displayed with, as 17 in `#17`. No other connection of the same reactor
    /// ever has it. [`Reactor::close`](crate::Reactor::close) takes it.
    pub fn number(self) -> u64 {
        self.0 >> SLOT_BITS
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.number())
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}
