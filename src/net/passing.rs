//! Frames and descriptors on their way to the process that goes on with them, over a Unix socket.
//!
//! Neither side believes the other: each length is held against its bound before anything is made of it, a
//! frame that brings more or fewer descriptors than it says is none, and what was received and is not used
//! is closed.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors of one frame, at the most: as many as Linux takes in one message.
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// Bytes of one frame, at the most.
pub(crate) const LONGEST_FRAME: usize = 1 << 20;

/// The kind, the length of the body, the number of descriptors.
const HEAD: usize = 6;

/// Bytes that are asked for at once, so that a frame takes no more memory than has come of it.
const PIECE: usize = 64 * 1024;

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: UnixStream,
    /// How long a frame may take.
    patience: Duration,
    /// For tests: the process aborts at this step.
    #[cfg(debug_assertions)]
    crash: std::cell::Cell<Option<u32>>,
}

/// What one end says to the other at once.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// Over this socket, which is made to block, for no longer than `patience` for each frame.
    pub(crate) fn new(socket: UnixStream, patience: Duration) -> io::Result<Channel> {
        socket.set_nonblocking(false)?;
        Ok(Channel {
            socket,
            patience,
            #[cfg(debug_assertions)]
            crash: std::cell::Cell::default(),
        })
    }

    /// In a debug build, the process aborts at its step of this number, as the variable of the environment has it.
    pub(crate) fn crash_for_tests(self) -> Channel {
        #[cfg(debug_assertions)]
        if let Ok(number) = std::env::var("REACTOR_UPGRADE_CRASH") {
            self.crash.set(number.parse().ok());
        }
        self
    }

    /// It is about to send or receive a frame, from which on a crash still changes nothing for the other side.
    pub(crate) fn step(&self) {
        #[cfg(debug_assertions)]
        if let Some(left) = self.crash.get() {
            self.crash.set(left.checked_sub(1));
            if left <= 1 {
                std::process::abort();
            }
        }
    }

    /// How long a frame may take.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a frame with duplicates of these descriptors.
    pub(crate) fn send(
        &self,
        kind: u8,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let fits = body.len() <= LONGEST_FRAME && descriptors.len() <= MOST_DESCRIPTORS;
        let length = u32::try_from(body.len()).ok().filter(|_| fits);
        let Some(length) = length else { return Err(ErrorKind::InvalidInput.into()) };
        let mut head = [kind, 0, 0, 0, 0, descriptors.len() as u8];
        head[1..5].copy_from_slice(&length.to_be_bytes());
        let until = Instant::now() + self.patience;
        // They go with the first byte, so they are there once the frame is whole.
        let mut sent = self.send_some(&head, body, descriptors, until)?;
        while sent < HEAD + body.len() {
            let (head, body) =
                (head.get(sent..).unwrap_or_default(), &body[sent.max(HEAD) - HEAD..]);
            sent += self.send_some(head, body, &[], until)?;
        }
        Ok(())
    }

    fn send_some(
        &self,
        head: &[u8],
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
        until: Instant,
    ) -> io::Result<usize> {
        #[cfg(any(target_os = "android", target_os = "linux"))]
        let flags = SendFlags::NOSIGNAL;
        #[cfg(not(any(target_os = "android", target_os = "linux")))]
        let flags = SendFlags::empty();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let slices = [IoSlice::new(head), IoSlice::new(body)];
        in_time(until, |left| {
            self.socket.set_write_timeout(Some(left))?;
            Ok(sendmsg(&self.socket, &slices, &mut control, flags)?)
        })
    }

    /// Receives the next frame. The end of the other side is `UnexpectedEof`, its silence `TimedOut`, and what
    /// is no frame `InvalidData`.
    pub(crate) fn receive(&self) -> io::Result<Frame> {
        self.receive_until(Instant::now() + self.patience)
    }

    /// Receives the frame after which there is no way back for the other side. Once this has failed, that one cannot
    /// send it any more: so both know the same, even if they were stopped meanwhile and it comes at the last moment.
    pub(crate) fn receive_last(&self) -> io::Result<Frame> {
        self.receive().or_else(|error| {
            self.socket.shutdown(Shutdown::Read)?;
            // What was sent before is still there, and nothing else is waited for.
            self.receive_until(Instant::now() + Duration::from_secs(1)).map_err(|_| error)
        })
    }

    fn receive_until(&self, until: Instant) -> io::Result<Frame> {
        let (mut head, mut descriptors) = ([0; HEAD], Vec::new());
        let mut come = 0;
        while come < HEAD {
            come += self.receive_some(&mut head[come..], &mut descriptors, until)?;
        }
        let [kind, length @ .., count] = head;
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST_FRAME {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut body = Vec::new();
        while body.len() < length {
            let start = body.len();
            body.resize(length.min(start + PIECE), 0);
            let come = self.receive_some(&mut body[start..], &mut descriptors, until)?;
            body.truncate(start + come);
        }
        match descriptors.len() == usize::from(count) {
            true => Ok(Frame { kind, body, descriptors }),
            false => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn receive_some(
        &self,
        into: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
        until: Instant,
    ) -> io::Result<usize> {
        // As early as the system can: no other thread may start a program with them.
        #[cfg(any(target_os = "android", target_os = "linux"))]
        let flags = RecvFlags::CMSG_CLOEXEC;
        #[cfg(not(any(target_os = "android", target_os = "linux")))]
        let flags = RecvFlags::empty();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = in_time(until, |left| {
            self.socket.set_read_timeout(Some(left))?;
            Ok(recvmsg(&self.socket, &mut [IoSliceMut::new(into)], &mut control, flags)?)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        #[cfg(not(any(target_os = "android", target_os = "linux")))]
        for one in &*descriptors {
            rustix::io::fcntl_setfd(one, rustix::io::FdFlags::CLOEXEC)?;
        }
        // Some of them were lost: the limit of this process may be lower.
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(rustix::io::Errno::MFILE.into());
        }
        match message.bytes {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ if descriptors.len() > MOST_DESCRIPTORS => Err(ErrorKind::InvalidData.into()),
            count => Ok(count),
        }
    }
}

/// Does it in the time that is left, and again if a signal has interrupted it.
fn in_time<T>(until: Instant, mut what: impl FnMut(Duration) -> io::Result<T>) -> io::Result<T> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match what(left) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // As a socket says that its timeout is over.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one, LONG).unwrap(), Channel::new(other, LONG).unwrap())
    }

    /// A channel whose other end says these bytes, and no more.
    fn told(bytes: &[u8]) -> Channel {
        let (one, mut other) = UnixStream::pair().unwrap();
        other.write_all(bytes).unwrap();
        Channel::new(one, LONG).unwrap()
    }

    fn fails(channel: &Channel) -> ErrorKind {
        channel.receive().unwrap_err().kind()
    }

    #[test]
    fn frames_of_any_size_come_with_their_descriptors() {
        let (from, to) = pair();
        let sizes = [(0, 0), (1, 1), (PIECE + 1, 2), (LONGEST_FRAME, MOST_DESCRIPTORS), (0, 1)];
        let sender = thread::spawn(move || {
            for (kind, (size, count)) in (1..).zip(sizes) {
                let pipes: Vec<_> = (0..count).map(|_| io::pipe().unwrap()).collect();
                let lent: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_fd()).collect();
                from.send(kind, &vec![kind; size], &lent).unwrap();
                for ((_, writer), number) in pipes.iter().zip(0..) {
                    (&*writer).write_all(&[number]).unwrap();
                }
            }
        });
        for (kind, (size, count)) in (1..).zip(sizes) {
            let frame = to.receive().unwrap();
            assert_eq!((frame.kind, frame.descriptors.len()), (kind, count));
            assert!(frame.body == vec![kind; size]);
            for (descriptor, number) in frame.descriptors.into_iter().zip(0..) {
                let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                let mut byte = [0];
                File::from(descriptor).read_exact(&mut byte).unwrap();
                assert_eq!(byte, [number]);
            }
        }
        sender.join().unwrap();
        assert_eq!(fails(&to), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_too_much_is_not_sent() {
        let (from, to) = pair();
        let lent = [from.socket.as_fd(); MOST_DESCRIPTORS + 1];
        assert!(from.send(1, &[0; LONGEST_FRAME + 1], &[]).is_err());
        assert!(from.send(1, &[], &lent).is_err());
        from.send(2, b"!", &[]).unwrap();
        assert_eq!(to.receive().unwrap().kind, 2);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(fails(&told(&[1, 0, 0x10, 0, 1, 0])), ErrorKind::InvalidData);
        assert_eq!(fails(&told(&[1, 0, 0, 0, 0, 1])), ErrorKind::InvalidData);
        for end in 0..8 {
            let cut = &[1, 0, 0, 0, 3, 0, b'a', b'b'][..end];
            assert_eq!(fails(&told(cut)), ErrorKind::UnexpectedEof, "cut at {end}");
        }
    }

    /// As a frame that says that it has one descriptor, and has three.
    #[test]
    fn more_descriptors_than_were_announced_are_closed() {
        for (said, body) in [(1, 0), (0, 0), (2, 1)] {
            let (from, to) = pair();
            let (reader, writer) = io::pipe().unwrap();
            let (head, lent) = ([7, 0, 0, 0, body, said], [writer.as_fd(); 3]);
            from.send_some(&head, &[], &lent, Instant::now() + LONG).unwrap();
            if body > 0 {
                from.send_some(b"!", &[], &lent, Instant::now() + LONG).unwrap();
            }
            assert_eq!(fails(&to), ErrorKind::InvalidData);
            drop((from, writer));
            // The end of the pipe comes once nobody holds the other side.
            assert_eq!({ reader }.read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn silence_ends_the_patience_at_any_byte() {
        let short = Duration::from_millis(50);
        for said in [0, 3, 6, 7] {
            let (one, mut other) = UnixStream::pair().unwrap();
            other.write_all(&[1, 0, 0, 0, 2, 0, b'a'][..said]).unwrap();
            let channel = Channel::new(one, short).unwrap();
            assert_eq!(fails(&channel), ErrorKind::TimedOut);
        }
        // Nor does one wait for ever that is not read.
        let (one, _other) = UnixStream::pair().unwrap();
        let channel = Channel::new(one, short).unwrap();
        let sent = (0..99).find_map(|_| channel.send(1, &[0; LONGEST_FRAME], &[]).err());
        assert_eq!(sent.unwrap().kind(), ErrorKind::TimedOut);
    }

    /// As when both processes were stopped, and the one that goes on first gives up.
    #[test]
    fn the_last_frame_has_come_or_cannot_be_sent() {
        let (one, other) = UnixStream::pair().unwrap();
        let (late, other) = (Channel::new(one, Duration::ZERO).unwrap(), Channel::new(other, LONG));
        let other = other.unwrap();
        other.send(7, b"!", &[]).unwrap();
        assert_eq!(late.receive().unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(late.receive_last().unwrap().body, b"!");
        let (one, other) = UnixStream::pair().unwrap();
        let late = Channel::new(one, Duration::from_millis(50)).unwrap();
        assert_eq!(late.receive_last().unwrap_err().kind(), ErrorKind::TimedOut);
        let other = Channel::new(other, LONG).unwrap();
        assert_eq!(other.send(7, b"!", &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    /// A byte now and then is no news either.
    #[test]
    fn a_frame_that_drips_in_is_not_waited_for() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let channel = Channel::new(one, Duration::from_millis(200)).unwrap();
        let dripping = thread::spawn(move || {
            let frame = [1, 0, 0, 0xff, 0xff, 0].into_iter().chain(std::iter::repeat(0));
            let mut drip = |byte| {
                thread::sleep(Duration::from_millis(10));
                other.write_all(&[byte]).is_ok()
            };
            frame.take_while(|byte| drip(*byte)).count()
        });
        assert_eq!(fails(&channel), ErrorKind::TimedOut);
        drop(channel);
        assert!(dripping.join().unwrap() < 0xffff);
    }
}
