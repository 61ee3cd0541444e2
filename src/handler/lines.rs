use super::Context;
use crate::connection::framing::{Search, without_cr};
use crate::connection::newlines::Ends;

/// The lines in what a connection has received: what the default
/// [`Handler::on_bytes`](crate::Handler::on_bytes) runs on. Made by [`Context::lines`].
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
    bytes: &'b [u8],
    taken: usize,
    ends: Ends,
}

impl<'b> Lines<'b> {
    #[inline]
    pub(crate) fn new(bytes: &'b [u8], search: Search) -> Lines<'b> {
        Lines { bytes, taken: 0, ends: Ends::after(search.known_of(bytes)) }
    }

    /// The next line without its end. None when there is no complete one, when the turn's
    /// budget of lines is used up, and once the connection is paused, held back or closing: then
    /// return [`taken`](Lines::taken), and the rest comes again when it is time. At the end of
    /// the input the last bytes count as a line.
    ///
    /// A line above [`max_line`](crate::Limits::max_line) is answered and the connection closed.
    #[inline]
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

    /// What has no end is a line at the end of the input; else it was searched in vain.
    #[cold]
    fn rest<S>(&self, cx: &mut Context<'_, S>) -> Option<(usize, usize)> {
        let all = self.bytes.len();
        if cx.at_eof() && self.taken < all {
            return Some((all, all));
        }
        cx.search().found = all - self.taken;
        None
    }

    /// How many bytes the lines took so far, their ends included.
    pub fn taken(&self) -> usize {
        self.taken
    }
}
