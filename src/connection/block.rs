//! A block: so many bytes, most often behind a line that announces them, which are not cut into lines.
//! They are given to the handler piece by piece as they come, so nothing of a block is ever kept.

use super::clock::Nanos;
use super::connection::Connection;
use super::encoding::{Decoder, Encoder, Unreadable};
use super::flags::Flag;

/// The block that is under way; without [`Flag::InBlock`], what is left of the last one. That is
/// not freed, so a client whose every request has a block costs one allocation and not one for each
/// block.
#[derive(Debug)]
pub(super) struct Block {
    /// Bytes that are still to come.
    left: usize,
    /// When it began, or when its last piece came.
    since: Nanos,
}

impl Block {
    pub(super) fn save(&self, now: Nanos, to: &mut Encoder) {
        let Block { left, since } = self;
        to.put_number(*left as u64);
        to.put_age(*since, now);
    }

    /// Reads what [`save`](Self::save) has written.
    pub(super) fn restore(from: &mut Decoder<'_>, now: Nanos) -> Result<Block, Unreadable> {
        Ok(Block { left: from.size()?, since: from.since(now)? })
    }
}

impl Connection {
    /// Makes a block of the next `left` bytes that the handler has not taken.
    pub(crate) fn begin_block(&mut self, left: usize, now: Nanos) {
        self.flags.set(Flag::InBlock, true);
        self.extras().block = Some(Block { left, since: now });
        // The unfinished line that it has refused so far may be the beginning of the block.
        self.input.offer_again();
    }

    /// If a block is under way, gives how many of the next `available` bytes belong to it, and
    /// whether it ends with them. They count as given to the handler.
    pub(crate) fn cut_piece(&mut self, available: usize, now: Nanos) -> Option<(usize, bool)> {
        if !self.flags.has(Flag::InBlock) {
            return None;
        }
        let block = self.extras.as_mut()?.block.as_mut()?;
        let count = block.left.min(available);
        block.left -= count;
        block.since = now;
        let ends = block.left == 0;
        self.flags.set(Flag::InBlock, !ends);
        Some((count, ends))
    }

    /// Whether the handler is still to be told of the end of a block of no bytes. No byte has to come
    /// for that.
    #[inline]
    pub(crate) fn has_empty_block(&self) -> bool {
        self.flags.has(Flag::InBlock) && self.block().is_some_and(|block| block.left == 0)
    }

    /// Times the peer from now on: until now it was the loop that did not read.
    pub(super) fn wait_from(&mut self, now: Nanos) {
        self.input.wait_from(now);
        if let Some(block) = self.extras.as_mut().and_then(|extras| extras.block.as_mut()) {
            block.since = now;
        }
    }

    /// Since when the peer has owed the rest of a line, of a frame or of a block; none if it does not.
    pub(super) fn unfinished_since(&self) -> Option<Nanos> {
        let block = self.block().filter(|_| self.flags.has(Flag::InBlock));
        self.input.unfinished_since().or(block.map(|block| block.since))
    }

    fn block(&self) -> Option<&Block> {
        self.extras.as_ref()?.block.as_ref()
    }
}
