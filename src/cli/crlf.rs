/// Converts line ends to CRLF; lines that have it already keep it. A CRLF may be split between two
/// pieces.
#[derive(Debug, Default)]
pub(crate) struct Crlf {
    after_cr: bool,
}

impl Crlf {
    pub(crate) fn convert(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut converted = Vec::with_capacity(bytes.len() + bytes.len() / 16);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, lf) = match piece {
                [line @ .., b'\n'] => (line, true),
                line => (line, false),
            };
            converted.extend(line);
            let after_cr = line.last().map_or(self.after_cr, |last| *last == b'\r');
            if lf {
                converted.extend(if after_cr { &b"\n"[..] } else { b"\r\n" });
            }
            self.after_cr = after_cr && !lf;
        }
        converted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_ends_with_one_crlf_however_it_comes() {
        let text = b"\none\r\ntwo\n\n\r\n\r\r\nthree\r four\r\n\rlast";
        let wanted = b"\r\none\r\ntwo\r\n\r\n\r\n\r\r\nthree\r four\r\n\rlast";
        for piece in 1..=text.len() {
            let mut crlf = Crlf::default();
            let converted: Vec<u8> = text.chunks(piece).flat_map(|p| crlf.convert(p)).collect();
            assert_eq!(converted, wanted, "pieces of {piece}");
        }
    }
}
