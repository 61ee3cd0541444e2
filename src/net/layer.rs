//! The contract of what a connection runs over, and its parts: [`Layer`], [`Opened`], [`Acceptor`].

use std::any::Any;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use mio::Registry;

use super::stream::Stream;
use super::{Credentials, Host};
use crate::connection::CloseReason;
use crate::connection::clock::Nanos;
use crate::connection::rate::Share;
use crate::error::Error;
use crate::limits::Limits;

/// Everything that the loop asks of a stream. A layer over another stream implements it as a socket
/// does: what it does not answer itself, the stream [below](Self::below) is asked. At the bottom the
/// defaults are the answers of a plain socket that is open, unless they say otherwise.
///
/// 1. **Nothing blocks.** What cannot be done now is `WouldBlock`, and an event under the token of
///    [`register`](Self::register) follows when it can. Events are edges: none follows before the
///    stream has said `WouldBlock`, but for those of a stream that was registered anew. A layer
///    registers the stream below it and nothing of its own.
/// 2. **The handshake comes first.** Nothing is read or written before [`handshake`](Self::handshake)
///    is done; it is moved on at each event and when it is [due](Self::due). The handshake of the
///    stream below, if it has one, comes before the layer's own. If one of them says who the peer is,
///    the stream [says so beforehand](Self::names_peer).
/// 3. **`read` gives the input in order.** 0 is the end, and stays so. If somebody else than the
///    peer can end the stream below, an end that the peer has not announced is `UnexpectedEof`
///    ([`announces_end`](Self::announces_end)).
/// 4. **A short read empties the stream**, unless it [may read short](Self::may_read_short).
///    `WouldBlock` says that there is nothing more, unless the stream [has more](Self::has_more):
///    one read does a bounded amount of work, whatever the peer sends.
/// 5. **Unread input shows.** [`has_unread`](Self::has_unread) takes nothing away and changes
///    nothing.
/// 6. **Work is accounted for.** [`handshake`](Self::handshake) says how long it has computed,
///    [`take_cost`](Self::take_cost) what came in for what the last reads gave, and
///    [`unfinished_since`](Self::unfinished_since) since when the peer has owed the rest of a unit.
///    To owe it for too long is to leave a line unfinished, whatever the unit holds.
///    [`kept`](Self::kept) says how much memory the layer takes for what was not read yet and what is
///    not out.
/// 7. **`write` takes a prefix or nothing.** What it has taken goes out in order. A layer may hold
///    some of that back, within a bound. It then is [`unsent`](Self::unsent), nothing more is
///    taken, and `flush` sends it on or says `WouldBlock`; [`take_moved`](Self::take_moved) tells
///    whether any of it went out.
/// 8. **The end of our side comes after the output.** [`shutdown_write`](Self::shutdown_write) says
///    `WouldBlock` and has to be repeated while something is held back. Afterwards the peer gets
///    the end, nothing more can be written, and reading goes on. If the loop closes the connection,
///    it [tells why](Self::tell_why) before, for a layer that has words for that.
/// 9. **A write that fails leaves the input.** What the peer sent before can still be read. Input
///    that cannot be understood leaves the output: it is `InvalidData`, and what was sent before
///    goes out if the stream below still takes it.
/// 10. **An error is told once.** [`noted_error`](Self::noted_error) gives what the system has noted,
///     and nothing as long as all is well. If an error that the selector reports need not concern
///     the whole stream, [`fails_as_one`](Self::fails_as_one) says so.
/// 11. **Dropping it closes it**, and sends a reset after [`reset`](Self::reset), where there is
///     such a thing. A layer passes that on to the stream below. If the output and the end of our
///     side reach the peer as after [`shutdown_write`](Self::shutdown_write), provided that all
///     input has been read, [`shuts_with_drop`](Self::shuts_with_drop) says so.
/// 12. **To [turn somebody away](Self::turn_away) takes no time**: it waits for nobody, and leaves
///     nothing unread of what has come.
///
/// `layer/tests.rs` has a test of each rule, and a table of the streams and layers that it is run
/// with; a new layer is one line in there.
pub(crate) trait Layer: Any + Read + Write {
    /// The stream that it lies over; none at the bottom.
    fn below(&self) -> Option<&Stream> {
        None
    }

    /// The same, to be changed.
    fn below_mut(&mut self) -> Option<&mut Stream> {
        None
    }

    /// Registers it once, for both directions; under edge triggers nothing has to change later.
    fn register(&mut self, registry: &Rc<Registry>, token: mio::Token) -> io::Result<()> {
        self.below_mut().map_or(Ok(()), |below| below.register(registry, token))
    }

    /// Why the connection is about to be shut. Who shuts only the write side says nothing. Rule 8.
    fn tell_why(&mut self, reason: CloseReason) {
        self.below_mut().into_iter().for_each(|below| below.tell_why(reason));
    }

    /// Takes it out of the selector, so that it can be registered anew. Its events from before may
    /// still come. Rule 1.
    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.below_mut().map_or(Ok(()), |below| below.deregister(registry))
    }

    /// Shuts the write side once all that is held back is out. Rule 8.
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.below_mut().map_or(Ok(()), |below| below.shutdown_write())
    }

    /// Whether it is not open when it is accepted. Rule 2.
    fn has_handshake(&self) -> bool {
        self.below().is_some_and(|below| below.has_handshake())
    }

    /// Moves the handshake on, or finds out whether a connect has succeeded; none while it is under
    /// way. It ends: the peer may say as much as a handshake has. Rule 2.
    ///
    /// To `spent` it adds the time that this step took, on the real clock, unless it was a few
    /// system calls and no more. All handshakes of a loop share a little time of each turn. Rule 6.
    fn handshake(&mut self, _now: Nanos, _spent: &mut Nanos) -> io::Result<Option<Opened>> {
        Ok(Some(Opened::default()))
    }

    /// The name of the layer whose handshake is under way, or has failed: of the lowest one, since the
    /// others wait for that. None where all are done, and for layers without one. Rule 2.
    fn handshaking(&self) -> Option<&'static str> {
        self.below()?.handshaking()
    }

    /// Whether its handshake, or that of a stream below, is to say who the peer is. The limits by peer
    /// are then asked after it only, since the address before is that of somebody in between. Rule 2.
    fn names_peer(&self) -> bool {
        self.below().is_some_and(|below| below.names_peer())
    }

    /// When the handshake must be moved on without an event; none if never.
    fn due(&self) -> Option<Nanos> {
        self.below()?.due()
    }

    /// The host that it is being connected to, for as long as it has no address.
    fn host(&self) -> Option<&Host> {
        self.below()?.host()
    }

    /// Sets the options of the sockets below, for an outbound connection; accepted ones inherit
    /// them from their listener, which saves system calls for each.
    fn set_options(&mut self, limits: &Limits) {
        self.below_mut().into_iter().for_each(|below| below.set_options(limits));
    }

    /// The address of our end, where it has one.
    fn local_end(&self) -> Option<SocketAddr> {
        self.below()?.local_end()
    }

    /// Who the peer is, for Unix sockets; it takes a system call.
    fn credentials(&self) -> Option<Credentials> {
        self.below()?.credentials()
    }

    /// The certificate that the peer has proved to be its own, as DER, once the handshake is done.
    #[cfg(feature = "tls")]
    fn certificate(&self) -> Option<&[u8]> {
        self.below()?.certificate()
    }

    /// Whether a read that gives less than was asked for may leave some behind. Rule 4.
    fn may_read_short(&self) -> bool {
        self.below().is_some_and(|below| below.may_read_short())
    }

    /// Whether there may be more to read although the last read said `WouldBlock`. Rule 4.
    fn has_more(&self) -> bool {
        self.below().is_some_and(|below| below.has_more())
    }

    /// Whether input has come that no read has given yet. Rule 5.
    fn has_unread(&mut self) -> bool {
        self.below_mut().is_some_and(|below| below.has_unread())
    }

    /// Reads what is to be thrown away, which need not be decoded first.
    fn read_raw(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read(buf)
    }

    /// Whether 0 from a read proves that the peer has ended. A socket gives 0 after an error too,
    /// once it has told of that. Rule 3.
    fn announces_end(&self) -> bool {
        self.below().is_some_and(|below| below.announces_end())
    }

    /// Bytes that came in since this was last asked, 0 for as many as the reads gave; and how much
    /// there was in them that takes as much work as a line, and that the reads did not give. Rule 6.
    fn take_cost(&mut self) -> Share {
        self.below_mut().map_or(Share::default(), |below| below.take_cost())
    }

    /// Since when the peer has owed the rest of what it has begun: a record, a frame. Rule 6.
    fn unfinished_since(&self) -> Option<Nanos> {
        self.below()?.unfinished_since()
    }

    /// Tells the time after reads, since a layer has no clock of the loop's: what the peer has begun
    /// since it was last told counts from `now` on. With `anew` so does what it had begun before,
    /// for until now it was the loop that did not read. A layer tells the stream below. Rule 6.
    fn tell_time(&mut self, now: Nanos, anew: bool) {
        self.below_mut().into_iter().for_each(|below| below.tell_time(now, anew));
    }

    /// How much memory it takes for bytes: of units that are unfinished, of what was decoded and not
    /// read, of what was taken for writing and is not out. 0 once there is none of that, however
    /// large the layer itself is. Only a handshake, a read, a write, a flush and a shutdown change it.
    /// Rule 6.
    fn kept(&self) -> usize {
        self.below().map_or(0, Stream::kept)
    }

    /// Whether [`flush`](Write::flush) has something to do. Rule 7.
    fn unsent(&self) -> bool {
        self.below().is_some_and(|below| below.unsent())
    }

    /// Whether something that was held back has gone out since this was last asked. Rule 7.
    fn take_moved(&mut self) -> bool {
        self.below_mut().is_some_and(|below| below.take_moved())
    }

    /// The error that the system has noted. Rule 10.
    fn noted_error(&self) -> Option<io::Error> {
        self.below()?.noted_error()
    }

    /// Whether an error that the selector reports is an error of the whole stream. Rule 10.
    fn fails_as_one(&self) -> bool {
        self.below().is_none_or(|below| below.fails_as_one())
    }

    /// Whether its input is this connection's alone, to be discarded at a close lest a reset
    /// destroy what was sent. Descriptors know no resets, and what is unread in them is for
    /// whoever reads them next.
    fn is_socket(&self) -> bool {
        self.below().is_none_or(|below| below.is_socket())
    }

    /// Whether dropping it, once its input was read to the end, tells the peer of the end as
    /// [`shutdown_write`](Self::shutdown_write) does, which then would be a system call for nothing.
    /// A plain socket answers yes. A layer may have an end of its own to announce, so the stream
    /// below is not asked. Rule 11.
    fn shuts_with_drop(&self) -> bool {
        false
    }

    /// Makes dropping it discard the unsent bytes and send a reset: without this the kernel would
    /// keep up to megabytes for a peer that does not read, long after the close. Rule 11.
    fn reset(&mut self) {
        self.below_mut().into_iter().for_each(|below| below.reset());
    }

    /// Says no to a newcomer. What has come already is read first, since unread input would turn
    /// the close into a reset; nobody waits for more, so a busy client may miss the notice. A layer
    /// whose words would cost a handshake has none. Rule 12.
    fn turn_away(&mut self, notice: &[u8]) {
        if let Some(below) = self.below_mut() {
            return below.turn_away(notice);
        }
        let mut unread = [0; 4096];
        let _ = self.write(notice);
        let _ = self.shutdown_write();
        let _ = self.read(&mut unread);
    }
}

/// Has a layer refuse to be read and written. It never opens, or gives way to another stream as it
/// does.
macro_rules! refuse_input_and_output {
    ($layer:ty) => {
        impl std::io::Read for $layer {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::NotConnected.into())
            }
        }

        impl std::io::Write for $layer {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::NotConnected.into())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}
pub(crate) use refuse_input_and_output;

/// What a handshake has found out.
#[derive(Default)]
pub(crate) struct Opened {
    /// Who the peer is, where that was not known before.
    pub(crate) peer: Option<SocketAddr>,
    /// What takes the place of a layer that has nothing more to do.
    pub(crate) instead: Option<Stream>,
}

/// The handshake of the stream below a layer, which comes before the layer's own. Rule 2.
pub(super) struct HandshakeBelow {
    under_way: bool,
    /// What it has said of the peer.
    pub(super) peer: Option<SocketAddr>,
}

impl HandshakeBelow {
    /// A socket that is being dialled has [none](Layer::has_handshake) and is not open either.
    pub(super) fn new(under_way: bool) -> HandshakeBelow {
        HandshakeBelow { under_way, peer: None }
    }

    /// Moves it on; true once it is done.
    pub(super) fn move_on(
        &mut self,
        below: &mut Stream,
        now: Nanos,
        spent: &mut Nanos,
    ) -> io::Result<bool> {
        if self.under_way {
            let Some(opened) = below.handshake(now, spent)? else { return Ok(false) };
            *self = HandshakeBelow { under_way: false, peer: opened.peer };
        }
        Ok(true)
    }
}

/// Makes a layer in another thread.
pub(crate) type Elsewhere = Box<dyn FnOnce() -> Rc<dyn Acceptor> + Send>;

/// Puts a layer over the newcomers of a listener.
pub(crate) trait Acceptor: Any + fmt::Debug {
    /// The layer's name, as in front of an address.
    fn name(&self) -> &'static str;

    /// A newcomer under this layer, the handshake still to be done.
    fn accept(&self, newcomer: Stream) -> io::Result<Stream>;

    /// The same for another thread, which makes it of this. What is read again is read again for both.
    fn elsewhere(&self) -> Elsewhere;

    /// Whether nobody gets in who does not prove who it is.
    fn asks_who(&self) -> bool {
        false
    }

    /// Reads its files again; gives the one that the log names, none if it has no files.
    fn reload(&self) -> Result<Option<&Path>, Error> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
