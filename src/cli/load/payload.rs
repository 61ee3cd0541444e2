//! The lines that are sent and the replies that must come. Each line begins with the number of
//! the client and its own, in hexadecimal, so that replies that are swapped, repeated or left out
//! are noticed.

/// `00000.00000000`: the client, the line.
const NUMBERS: usize = CLIENT + 1 + SEQUENCE;
const CLIENT: usize = 5;
const SEQUENCE: usize = 8;
/// The numbers and an LF, rounded up.
pub(crate) const SHORTEST: usize = 16;

/// Clients beyond this many would share numbers.
pub(crate) const MOST_CLIENTS: usize = 1 << (4 * CLIENT);

pub(crate) const SAY: &str = "SAY ";

const FILLER: &[u8] = b" the quick brown fox jumps over the lazy dog";

/// A line of which only the numbers change.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the numbers are.
    at: usize,
    ten: u8,
}

impl Template {
    /// `prefix`, numbers and filler, `size` bytes with the LF.
    pub(crate) fn new(prefix: &str, size: usize) -> Template {
        let mut bytes = prefix.as_bytes().to_vec();
        let at = bytes.len();
        bytes.extend_from_slice(b"00000.00000000");
        bytes.extend(FILLER.iter().cycle().take((size - 1).saturating_sub(bytes.len())));
        bytes.push(b'\n');
        Template { bytes, at, ten: b'a' }
    }

    /// What echo answers to it. Echo upper-cases ASCII, which is all that the line has.
    pub(crate) fn echoed(&self) -> Template {
        let bytes = [b"> ", self.bytes.to_ascii_uppercase().as_slice()].concat();
        Template { bytes, at: self.at + 2, ten: b'A' }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn set_client(&mut self, client: u32) {
        let digits = hex(client, self.ten);
        let from = SEQUENCE - CLIENT;
        self.bytes[self.at..][..CLIENT].copy_from_slice(&digits[from..]);
    }

    #[inline]
    pub(crate) fn set_sequence(&mut self, sequence: u32) {
        let at = self.at + CLIENT + 1;
        self.bytes[at..at + SEQUENCE].copy_from_slice(&hex(sequence, self.ten));
    }

    /// The number in a line of this form, whatever else is in the line.
    pub(crate) fn sequence_of(&self, line: &[u8]) -> Option<u32> {
        let digits = line.get(self.at..self.at + NUMBERS)?.get(CLIENT + 1..)?;
        u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    }
}

/// Eight digits at once, without a table or a branch: it is done twice for every line.
#[inline]
fn hex(number: u32, ten: u8) -> [u8; SEQUENCE] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // One nibble to a byte, the first digit in the highest.
    let mut spread = u64::from(number);
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (spread + 6 * EACH) >> 4 & EACH;
    let digits = spread + u64::from(b'0') * EACH + letters * u64::from(ten - 10 - b'0');
    digits.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits() {
        for number in [0, 1, 9, 10, 15, 16, 0x1234_5678, 0x9abc_def0, u32::MAX] {
            assert_eq!(hex(number, b'a'), *format!("{number:08x}").as_bytes());
            assert_eq!(hex(number, b'A'), *format!("{number:08X}").as_bytes());
        }
    }

    #[test]
    fn a_line_has_its_size_and_its_reply() {
        for size in [SHORTEST, 32, 33, 1000] {
            let mut line = Template::new("", size);
            let mut reply = line.echoed();
            line.set_client(0xabcde);
            line.set_sequence(0xfeed);
            reply.set_client(0xabcde);
            reply.set_sequence(0xfeed);
            assert_eq!(line.len(), size);
            assert!(line.bytes().starts_with(b"abcde.0000feed"));
            let wanted = [b"> ", line.bytes().to_ascii_uppercase().as_slice()].concat();
            assert_eq!(reply.bytes(), wanted);
            assert_eq!(reply.sequence_of(&wanted), Some(0xfeed));
        }
    }

    #[test]
    fn what_is_no_number_has_none() {
        let line = Template::new("x says: ", 40);
        assert_eq!(line.sequence_of(b"x says: 00000.0000000g"), None);
        assert_eq!(line.sequence_of(b"x says"), None);
    }
}
