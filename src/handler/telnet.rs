//! The commands that telnet clients mix into their lines (RFC 854).

use super::{Context, Lines};

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
/// Begins a subnegotiation.
const SB: u8 = 250;
/// The last of the commands of one byte; the others come before it.
const GA: u8 = 249;
const NOP: u8 = 241;
/// Ends a subnegotiation.
const SE: u8 = 240;
/// An option: the other side says when it has come to this place in the input. Clients throw all
/// output away until then, once an interrupt was typed (RFC 860).
const TIMING_MARK: u8 = 6;

/// The longest subnegotiation that is looked for. Its end is searched for anew with each read, so that
/// a longer one could be made to cost much.
const LONGEST: usize = 512;

/// What some bytes begin with, as [`telnet`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telnet {
    /// No command.
    Data,
    /// The beginning of a command, and nothing else. At the end of the input it is data.
    Unfinished,
    /// A command.
    Command {
        /// How many bytes it has.
        length: usize,
        /// What is to be sent.
        answer: Option<[u8; 3]>,
    },
}

/// Looks for a telnet command at the front of some bytes, for a service that people reach with a
/// telnet client, and gives the answer of one that has no options.
///
/// Some clients (PuTTY) begin with requests, and many say on Ctrl-C that they throw everything away
/// until the server has answered. Commands are two bytes from `IAC NOP` to `IAC GA`; `IAC` with `WILL`,
/// `WONT`, `DO` or `DONT` and an option; and `IAC SB` up to `IAC SE`, at most 512 bytes. `DO` is
/// answered with `WONT`, `WILL` with `DONT`, and `DO TIMING-MARK` with `WILL TIMING-MARK`; nothing else
/// is answered. Anything else is data, `IAC IAC` too. No command has an LF in it, nor a CR for its
/// option, so that a line stays a line.
///
/// [`Lines::skip_telnet`](crate::Lines::skip_telnet) takes all commands in front of a line.
///
/// ```
/// use reactor::text::{Telnet, telnet};
///
/// let answer = Some([255, 254, 31]);
/// assert_eq!(telnet(b"\xff\xfb\x1fhello\n"), Telnet::Command { length: 3, answer });
/// assert_eq!(telnet(b"\xff\xfb"), Telnet::Unfinished);
/// assert_eq!(telnet(b"\xff\xffhello\n"), Telnet::Data);
/// ```
pub fn telnet(bytes: &[u8]) -> Telnet {
    match *bytes {
        [IAC] | [IAC, WILL..=DONT] => Telnet::Unfinished,
        [IAC, NOP..=GA, ..] => Telnet::Command { length: 2, answer: None },
        [IAC, SB, ..] => subnegotiation(bytes),
        [IAC, WILL..=DONT, b'\r' | b'\n', ..] => Telnet::Data,
        [IAC, request @ WILL..=DONT, option, ..] => {
            let answer = match request {
                DO if option == TIMING_MARK => Some([IAC, WILL, option]),
                DO => Some([IAC, WONT, option]),
                WILL => Some([IAC, DONT, option]),
                _ => None,
            };
            Telnet::Command { length: 3, answer }
        }
        _ => Telnet::Data,
    }
}

/// The bytes begin with `IAC SB`.
fn subnegotiation(bytes: &[u8]) -> Telnet {
    let mut at = 2;
    while at < LONGEST - 1 {
        match bytes[at..] {
            [] | [IAC] => return Telnet::Unfinished,
            [IAC, SE, ..] => return Telnet::Command { length: at + 2, answer: None },
            [IAC, IAC, ..] => at += 2,
            [IAC | b'\n', ..] => return Telnet::Data,
            _ => at += 1,
        }
    }
    Telnet::Data
}

impl Lines<'_> {
    /// Takes the [telnet commands](telnet) in front of the next line, if there are any, and sends their
    /// answers. For a service that people reach with a telnet client:
    ///
    /// ```
    /// # use reactor::{Context, Handler};
    /// # struct Shout;
    /// # impl Handler for Shout {
    /// #     type Session = ();
    /// #     type Message = ();
    /// fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
    ///     let mut lines = cx.lines(bytes);
    ///     while lines.skip_telnet(cx)
    ///         && let Some(line) = lines.next(cx)
    ///     {
    ///         self.on_line(cx, line);
    ///     }
    ///     lines.taken()
    /// }
    /// # }
    /// ```
    ///
    /// False if the last command is not complete. Then return [`taken`](Lines::taken) from `on_bytes`.
    /// At the end of the input such a command is part of the line. Nothing is taken, and the return
    /// value is true, where [`next`](Lines::next) gives no line because the connection takes no input
    /// for now. Commands do not count as lines.
    #[inline]
    pub fn skip_telnet<S>(&mut self, cx: &mut Context<'_, S>) -> bool {
        self.bytes.get(self.taken) != Some(&IAC) || self.skip_commands(cx)
    }

    #[cold]
    fn skip_commands<S>(&mut self, cx: &mut Context<'_, S>) -> bool {
        while cx.may_go_on() {
            match telnet(&self.bytes[self.taken..]) {
                Telnet::Data => break,
                Telnet::Unfinished if cx.at_eof() => break,
                Telnet::Unfinished => {
                    // No command has an LF in it, so this is an unfinished line as well.
                    cx.search().failed(self.bytes.len() - self.taken);
                    return false;
                }
                Telnet::Command { length, answer } => {
                    self.taken += length;
                    answer.into_iter().for_each(|answer| _ = cx.send(answer));
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(length: usize, answer: Option<&[u8; 3]>) -> Telnet {
        Telnet::Command { length, answer: answer.copied() }
    }

    #[test]
    fn requests_are_refused_and_nothing_else_is_answered() {
        for (bytes, told) in [
            (&b"\xff\xfd\x01x"[..], command(3, Some(b"\xff\xfc\x01"))),
            (b"\xff\xfb\x1f", command(3, Some(b"\xff\xfe\x1f"))),
            (b"\xff\xfd\x06", command(3, Some(b"\xff\xfb\x06"))),
            (b"\xff\xfb\x06", command(3, Some(b"\xff\xfe\x06"))),
            (b"\xff\xfd\xff\n", command(3, Some(b"\xff\xfc\xff"))),
            (b"\xff\xfc\x06", command(3, None)),
            (b"\xff\xfe\x01", command(3, None)),
            (b"\xff\xf1", command(2, None)),
            (b"\xff\xf4\xff\xfd\x06", command(2, None)),
            (b"\xff\xf9\n", command(2, None)),
            (b"\xff\xfa\x18\x00xterm\xff\xf0hello", command(11, None)),
            (b"\xff\xfa\xff\xff\xf0\r\xff\xf0", command(8, None)),
            (b"\xff\xfa\xff\xf0", command(4, None)),
        ] {
            assert_eq!(telnet(bytes), told, "{bytes:?}");
        }
    }

    #[test]
    fn everything_else_is_data() {
        for bytes in [
            &b""[..],
            b"hello",
            b"\xff\xff",
            b"\xff\n",
            b"\xff\xf0",
            b"\xff\xef",
            b"\xff\xfd\r\n",
            b"\xff\xfb\n",
            b"\xff\xfe\n",
            b"\xff\xfa\x1f\x00\n",
            b"\xff\xfa\x18\xff\xf4\xff\xf0",
            b"\xfe\xff\xf4",
            "é".as_bytes(),
        ] {
            assert_eq!(telnet(bytes), Telnet::Data, "{bytes:?}");
        }
    }

    #[test]
    fn a_beginning_is_no_command_yet() {
        for whole in [&b"\xff\xf4"[..], b"\xff\xfd\x06", b"\xff\xfa\x18\xff\xff\x00xterm\xff\xf0"] {
            for length in 1..whole.len() {
                assert_eq!(telnet(&whole[..length]), Telnet::Unfinished, "{length} of {whole:?}");
            }
            assert!(
                matches!(telnet(whole), Telnet::Command { length, .. } if length == whole.len())
            );
        }
    }

    #[test]
    fn a_subnegotiation_has_a_bound() {
        let of = |length: usize| [b"\xff\xfa", &vec![b'x'; length - 4][..], b"\xff\xf0"].concat();
        assert_eq!(telnet(&of(LONGEST)), command(LONGEST, None));
        assert_eq!(telnet(&of(LONGEST + 1)), Telnet::Data);
        assert_eq!(telnet(&of(LONGEST)[..LONGEST - 1]), Telnet::Unfinished);
        let escaped = [&b"\xff\xfa"[..], &[0xff; LONGEST]].concat();
        assert_eq!(telnet(&escaped), Telnet::Data);
    }
}
