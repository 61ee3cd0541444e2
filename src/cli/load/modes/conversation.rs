use std::collections::VecDeque;

/// What one client of the echo service has said and heard.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// The number of the next line to send, and of the next reply.
    pub(crate) sent: u32,
    pub(crate) heard: u32,
    /// When the lines without a reply were sent, and how many at that moment.
    flight: VecDeque<(u64, u32)>,
    /// With a rate: its number among those who take turns.
    pub(crate) place: usize,
    /// BYE was sent, and was answered.
    pub(crate) leaving: bool,
    pub(crate) left: bool,
}

impl Conversation {
    pub(crate) fn waiting(&self) -> u32 {
        self.sent.wrapping_sub(self.heard)
    }

    pub(crate) fn note(&mut self, lines: u32, when: u64) {
        self.sent = self.sent.wrapping_add(lines);
        match self.flight.back_mut() {
            Some((last, count)) if *last == when => *count += lines,
            _ => self.flight.push_back((when, lines)),
        }
    }

    /// So many of the oldest lines are no longer in flight; tells when they were sent.
    pub(crate) fn landed(&mut self, mut lines: u32, mut tell: impl FnMut(u64, u32)) {
        while lines > 0
            && let Some((when, count)) = self.flight.front_mut()
        {
            let these = lines.min(*count);
            tell(*when, these);
            *count -= these;
            lines -= these;
            if *count == 0 {
                self.flight.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_land_in_the_order_they_were_sent() {
        let mut conversation = Conversation::default();
        conversation.note(2, 10);
        conversation.note(1, 10);
        conversation.note(4, 20);
        let mut told = Vec::new();
        conversation.landed(4, |when, count| told.push((when, count)));
        conversation.landed(2, |when, count| told.push((when, count)));
        assert_eq!(told, [(10, 3), (20, 1), (20, 2)]);
        assert_eq!((conversation.waiting(), conversation.flight.len()), (7, 1));
    }
}
