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
    /// [`lines_per_turn`](crate::Limits::lines_per_turn), or once it is paused, held back or closing.
    /// Then return [`taken`](Lines::taken) from `on_bytes`; the rest is offered again later.
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

    /// How many bytes the lines so far took, with their LFs.
    pub fn taken(&self) -> usize {
        self.taken
    }
}
