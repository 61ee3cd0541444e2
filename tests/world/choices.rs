//! Where a simulation takes its decisions from.

/// A seed, from which the same decisions follow each time, or the bytes that a fuzzer chose.
pub enum Choices {
    Seed(fastrand::Rng),
    /// Says 0 once the bytes are used up.
    Bytes(std::vec::IntoIter<u8>),
}

impl Choices {
    pub fn of_seed(seed: u64) -> Choices {
        Choices::Seed(fastrand::Rng::with_seed(seed))
    }

    pub fn of_bytes(bytes: Vec<u8>) -> Choices {
        Choices::Bytes(bytes.into_iter())
    }

    /// Every decision is 0 from here on. A seed never runs out.
    pub fn are_over(&self) -> bool {
        matches!(self, Choices::Bytes(bytes) if bytes.len() == 0)
    }

    /// From 0 up to, and without, `end`.
    pub fn below(&mut self, end: usize) -> usize {
        match self {
            Choices::Seed(random) => random.usize(..end),
            Choices::Bytes(bytes) => {
                let wide = if end > 256 { 3 } else { 1 };
                let number = bytes.take(wide).fold(0, |sum, byte| sum << 8 | usize::from(byte));
                number % end
            }
        }
    }

    /// True once in so many times, and never when the decisions are over.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }

    /// Mostly few, sometimes around `edge`, seldom more; never above `most`.
    pub fn size(&mut self, edge: usize, most: usize) -> usize {
        let size = match self.below(40) {
            39 => self.below(most),
            38 => edge.saturating_sub(2) + self.below(5),
            37 => self.below(300),
            _ => self.below(24),
        };
        size.min(most)
    }

    /// Bytes that are often those that matter; whatever a fuzzer says.
    pub fn text(&mut self, length: usize) -> Vec<u8> {
        const OFTEN: &[&[u8]] = &[b"a", b"b", b" ", b"\r", b"\x1b", b"\xff", "é".as_bytes(), b"Z"];
        if let Choices::Bytes(bytes) = self {
            return bytes.take(length).collect();
        }
        let mut text = Vec::new();
        if length > 64 {
            // A long one costs one decision, not thousands.
            text = vec![b'a' + self.below(26) as u8; length];
        }
        while text.len() < length {
            text.extend(self.one_of(OFTEN));
        }
        text
    }
}
