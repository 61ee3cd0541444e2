//! Who is who: a connection's identity, and the token that the selector carries for it.

use std::fmt;

/// Bits of a slot in a slab; the rest of an id is the serial number.
pub(crate) const SLOT_BITS: u32 = 24;

pub(crate) const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Connections that one service can hold at the most, whatever its limits say.
pub(crate) const MOST_SLOTS: usize = 1 << SLOT_BITS;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a token holds a slot, a service and a generation: that takes 64-bit pointers");

/// The identity of one connection, never given to another one of the same reactor.
///
/// An id outlives its connection without harm: what is sent to it then goes nowhere. It does not
/// say who follows in the same slot. Ids order by arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    /// `serial` counts the connections of a reactor: 40 bits last for a year of 30,000 a second.
    pub(crate) fn new(serial: u64, slot: usize) -> ConnId {
        ConnId(serial << SLOT_BITS | slot as u64)
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 & SLOT_MASK) as usize
    }

    pub(crate) fn serial(self) -> u64 {
        self.0 >> SLOT_BITS
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.serial())
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}
