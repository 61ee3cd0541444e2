use super::Context;
use crate::connection::framing::{Search, without_cr};
use crate::connection::newlines::Ends;

/// Cuts the lines out of the bytes that a connection has received. Made by [`Context::lines`].
///
/// The default [`Handler::on_bytes`](crate::Handler::on_bytes) is this:
///
/// ```
/// # use reactor::{Context, Handler};
/// # struct Shout;
/// # impl Handler for Shout {
/// #     type Session = ();
/// #     type Message = ();
/// fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
///     let mut lines = cx.lines(bytes);
///     while let Some(line) = lines.next(cx) {
///         self.on_line(cx, line);
///     }
///     lines.taken()
/// }
/// # }
/// ```
///
/// In an `on_bytes` of your own:
///
/// * It may return less than [`taken`](Self::taken): the lines behind that are offered again, and
///   found again. Each time that a line is looked at it counts, for
///   [`lines_per_turn`](crate::Limits::lines_per_turn), [`rate`](crate::Limits::rate) and
///   [`lines_in`](crate::Counters::lines_in).
/// * Between two lines it may take bytes that are none, and go on with
///   [`cx.lines`](Context::lines) of the rest, up to the last byte.
/// * A request of several lines may be refused as a whole, by returning 0, until all of it is there.
///   It is offered again when more has come, or at once in the next turn where the lines before it had
///   a part of this turn's share. Its lines have to be no more than `lines_per_turn` and, where there is
///   a rate, no more than are allowed at that moment. So it is better to take each line as it comes, and
///   to keep what it said in the session.
/// * An LF and a CRLF end a line alike. Where only a CRLF may, look at the bytes that were taken:
///   `bytes[..lines.taken()].ends_with(b"\r\n")`. The end of a mail in SMTP is such a place, since
///   servers that disagree about it can be made to see two mails in one.
/// * A line above [`max_line`](crate::Limits::max_line) ends the connection. A protocol that answers it
///   and goes on takes the bytes of such a line itself, as they come.
/// * A [block](Context::take_block) ends the lines. Return `taken` then; what follows goes to
///   [`on_block`](crate::Handler::on_block).
#[derive(Debug)]
pub struct Lines<'b> {
    pub(super) bytes: &'b [u8],
    /// How many bytes at the front the lines so far took.
    pub(super) taken: usize,
    /// The LFs behind them.
    ends: Ends,
}

impl<'b> Lines<'b> {
    #[inline]
    pub(super) fn new(bytes: &'b [u8], search: Search) -> Lines<'b> {
        Lines { bytes, taken: 0, ends: Ends::after(search.known_of(bytes)) }
    }

    /// The next line, without its LF or CRLF. At the end of the input, bytes without an LF count as a
    /// line.
    ///
    /// None if no line is complete, if the connection has had its
    /// [`lines_per_turn`](crate::Limits::lines_per_turn), or once it is paused, held back, closing or in
    /// a block. Then return [`taken`](Lines::taken) from `on_bytes`; the rest is offered again later.
    ///
    /// None as well if the line is above [`max_line`](crate::Limits::max_line). The loop then sends
    /// the client a [`farewell`](crate::Handler::farewell) and closes the connection.
    // Of two callers neither would have it inline otherwise: 20 instructions more for each line.
    #[inline(always)]
    pub fn next<S>(&mut self, cx: &mut Context<'_, S>) -> Option<&'b [u8]> {
        if !cx.may_go_on() {
            return None;
        }
        let (end, taken) = match self.ends.next(self.bytes) {
            Some(end) => (end, end + 1),
            None => self.rest(cx)?,
        };
        let line = without_cr(&self.bytes[self.taken..end]);
        if line.len() > cx.limits().max_line {
            cx.line_too_long();
            return None;
        }
        self.taken = taken;
        cx.count_line();
        Some(line)
    }

    /// Bytes without an LF: a line at the end of the input, else a line to be continued.
    #[cold]
    fn rest<S>(&self, cx: &mut Context<'_, S>) -> Option<(usize, usize)> {
        let all = self.bytes.len();
        if cx.at_eof() && self.taken < all {
            return Some((all, all));
        }
        cx.search().failed(all - self.taken);
        None
    }

    /// Whether the line that [`next`](Self::next) gave last had its LF. The last line of all input may
    /// have none: somebody has forgotten it, or was cut off. False before the first line.
    pub fn is_whole(&self) -> bool {
        self.bytes[..self.taken].ends_with(b"\n")
    }

    /// How many bytes the lines so far took, with their LFs.
    pub fn taken(&self) -> usize {
        self.taken
    }
}
