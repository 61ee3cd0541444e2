//! A service under observation: every hook is noted before the service has it, and its model says
//! what must come of it.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;

use reactor::{
    Address, CloseReason, ConnId, Context, Decoder, Encoder, Farewell, Handler, Limits, Lines,
    Saved, ServiceContext, TimerId, Unreadable,
};

use super::book::Book;
use super::models::{Model, telnet};
use super::{IDLE_TIMEOUT, LINE_TIMEOUT};

const HOOKS_PER_PANIC: usize = 400;

type Session<M> = <<M as Model>::Service as Handler>::Session;

pub struct Watched<M: Model> {
    pub service: M::Service,
    pub model: M,
    pub book: Book,
    /// Says when a hook panics, if any does.
    pub panics: Option<fastrand::Rng>,
    /// The so many-th hook of an upgrade panics, of the old handler or of the new one.
    pub hook_to_panic: Rc<Cell<usize>>,
    /// It was one of this handler, and whose, if all was decided by then.
    pub panicked: Cell<bool>,
    pub lost: Option<ConnId>,
}

impl<M: Model> Watched<M> {
    pub fn new(service: M::Service, model: M, limits: &Limits) -> Watched<M> {
        // The timeouts may be none now and these later.
        let (idle_timeout, line_timeout) = (Some(IDLE_TIMEOUT), Some(LINE_TIMEOUT));
        let timed = Limits { idle_timeout, line_timeout, ..limits.clone() };
        let words = |why| {
            let mut words = service.farewell(why, &timed).into_owned();
            model.plain(&mut words);
            words
        };
        let farewells = vec![
            (CloseReason::LineTooLong, words(Farewell::LineTooLong)),
            (CloseReason::LineTimeout, words(Farewell::LineTimeout)),
            (CloseReason::IdleTimeout, words(Farewell::IdleTimeout)),
        ];
        let mut book = Book::new(limits.clone(), farewells);
        book.pauses = M::PAUSES;
        let (panics, hook_to_panic, panicked, lost) = Default::default();
        Watched { service, model, book, panics, hook_to_panic, panicked, lost }
    }

    /// Takes the oracle of another one, which has no more to watch.
    pub fn go_on_for(&mut self, other: &mut Watched<M>) {
        let Watched { model, book, panics, .. } = self;
        std::mem::swap(model, &mut other.model);
        std::mem::swap(book, &mut other.book);
        *panics = other.panics.take();
    }

    /// Whether more is due to it, or will be said, and nothing has disturbed it.
    pub fn is_owed(&self, id: ConnId) -> bool {
        self.book.is_healthy(id) && (self.book.due(id) > 0 || self.model.has_more(id))
    }

    /// Whether what it sent before it broke may be left for later.
    pub fn may_wait(&self, id: ConnId) -> bool {
        self.book.may_wait(id)
    }

    /// A hook begins, about a request of its connection's own.
    fn handles(&mut self, cx: &ServiceContext<'_, Session<M>>, id: ConnId) {
        self.begins(cx, Some(id));
        self.book.handles(Some(id));
    }

    /// A hook begins.
    fn begins(&mut self, cx: &ServiceContext<'_, Session<M>>, id: Option<ConnId>) {
        self.sync(cx);
        self.may_panic(id);
    }

    /// Telnet's commands in front of a line are answered, as its model says.
    fn skips_telnet(
        &mut self,
        cx: &mut Context<'_, Session<M>>,
        lines: &mut Lines<'_>,
        bytes: &[u8],
    ) -> bool {
        if !M::TELNET {
            return true;
        }
        self.sync(cx);
        self.book.handles(Some(cx.id()));
        let before = lines.taken();
        let complete = lines.skip_telnet(cx);
        let mut skipped = &bytes[before..lines.taken()];
        while let Some((length, answer)) = telnet(skipped) {
            self.book.say(cx.id(), answer);
            skipped = &skipped[length..];
        }
        if !skipped.is_empty() {
            self.book.complain(format!("{}: {skipped:?} was skipped", cx.id()));
        }
        complete
    }

    fn sync(&mut self, cx: &ServiceContext<'_, Session<M>>) {
        self.book.handles(None);
        self.book.sync(cx.connection_count(), cx.connections().map(|(id, _)| id));
    }

    /// A hook of an upgrade begins.
    fn may_be_the_one(&self) {
        let left = self.hook_to_panic.get();
        self.hook_to_panic.set(left.saturating_sub(1));
        if left == 1 {
            self.panicked.set(true);
            resume_unwind(Box::new("on purpose"));
        }
    }

    fn may_panic(&mut self, id: Option<ConnId>) {
        if let Some(random) = &mut self.panics
            && random.usize(..HOOKS_PER_PANIC) == 0
        {
            throw(&mut self.book, id);
        }
    }
}

/// Panics without a word on stderr.
pub fn throw(book: &mut Book, id: Option<ConnId>) -> ! {
    book.panics += 1;
    id.into_iter().for_each(|id| book.ends(id, CloseReason::Panicked));
    resume_unwind(Box::new("on purpose"))
}

impl<M: Model> Handler for Watched<M> {
    type Session = Session<M>;
    type Message = <M::Service as Handler>::Message;

    fn on_start(&mut self, cx: &mut ServiceContext<'_, Session<M>>) {
        self.service.on_start(cx);
    }

    fn on_listening(&mut self, cx: &mut ServiceContext<'_, Session<M>>, address: &Address) {
        self.service.on_listening(cx, address);
    }

    fn on_open(&mut self, cx: &mut Context<'_, Session<M>>) {
        let id = cx.id();
        self.book.opened(id);
        self.handles(cx, id);
        self.model.opened(&mut self.book, id);
        self.service.on_open(cx);
        self.may_panic(Some(id));
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session<M>>, line: &[u8]) {
        let id = cx.id();
        self.handles(cx, id);
        self.book.line(id, line);
        self.model.line(&mut self.book, id, line);
        self.service.on_line(cx, line);
        self.may_panic(Some(id));
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Session<M>>, bytes: &[u8]) -> usize {
        let id = cx.id();
        self.book.offered(id, bytes, cx.at_eof());
        if M::CUTS_LINES {
            let mut lines = cx.lines(bytes);
            while self.skips_telnet(cx, &mut lines, bytes)
                && let Some(line) = lines.next(cx)
            {
                self.on_line(cx, line);
            }
            self.book.took(id, lines.taken());
            return lines.taken();
        }
        self.handles(cx, id);
        let took = self.service.on_bytes(cx, bytes);
        self.model.took(&mut self.book, id, &bytes[..took]);
        self.book.took(id, took);
        self.may_panic(Some(id));
        took
    }

    fn on_block(&mut self, cx: &mut Context<'_, Session<M>>, piece: &[u8], end: bool) {
        let id = cx.id();
        self.handles(cx, id);
        self.book.piece(id, piece, end);
        self.model.piece(&mut self.book, id, piece, end);
        self.service.on_block(cx, piece, end);
        self.may_panic(Some(id));
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session<M>>) {
        let id = cx.id();
        self.handles(cx, id);
        self.model.drained(&mut self.book, id);
        self.service.on_drain(cx);
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Session<M>>) {
        let id = cx.id();
        self.book.eof(id);
        self.handles(cx, id);
        self.model.eof(&mut self.book, id);
        self.service.on_eof(cx);
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session<M>>, reason: CloseReason) {
        let id = cx.id();
        self.book.is_known_as(id, cx.peer_addr());
        self.book.closed(id, reason, M::keeps);
        self.sync(cx);
        self.model.closed(&mut self.book, id, reason);
        self.service.on_close(cx, reason);
        self.may_panic(None);
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Session<M>>, timer: TimerId) {
        let id = cx.id();
        if cx.due(timer) > cx.now() {
            self.book.complain(format!("{id}: a timer fired too early"));
        }
        self.begins(cx, Some(id));
        self.model.timer(&mut self.book, id);
        self.service.on_timer(cx, timer);
        self.may_panic(Some(id));
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Session<M>>, timer: TimerId) {
        self.sync(cx);
        self.model.service_timer(&mut self.book);
        self.service.on_service_timer(cx, timer);
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, Session<M>>, message: Self::Message) {
        // It counts as handled even if its hook panics at once.
        self.book.messages += 1;
        self.model.arrived(&mut self.book, &message);
        self.begins(cx, None);
        self.model.message(&mut self.book, &message);
        self.service.on_message(cx, message);
        self.may_panic(None);
    }

    fn save(&self, cx: &ServiceContext<'_, Session<M>>) -> Option<Saved> {
        self.may_be_the_one();
        self.service.save(cx)
    }

    fn save_session(
        &self,
        cx: &ServiceContext<'_, Session<M>>,
        id: ConnId,
        session: &Session<M>,
        to: &mut Encoder,
    ) {
        self.may_be_the_one();
        self.service.save_session(cx, id, session, to);
    }

    fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        self.may_be_the_one();
        self.service.restore(version, from)
    }

    fn restore_session(
        &mut self,
        id: ConnId,
        version: u32,
        from: &mut Decoder<'_>,
    ) -> Result<Session<M>, Unreadable> {
        self.may_be_the_one();
        self.service.restore_session(id, version, from)
    }

    fn on_restored(&mut self, cx: &mut Context<'_, Session<M>>) {
        self.lost = self.lost.or((self.hook_to_panic.get() == 1).then(|| cx.id()));
        self.may_be_the_one();
        self.service.on_restored(cx);
    }

    fn on_handed_on(&mut self, cx: &mut ServiceContext<'_, Session<M>>) {
        self.service.on_handed_on(cx);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Session<M>>) {
        if self.book.messages < self.book.before_shutdown {
            let (handled, posted) = (self.book.messages, self.book.before_shutdown);
            self.book.complain(format!("{handled} of {posted} messages came before the shutdown"));
        }
        self.service.on_shutdown(cx);
    }

    fn farewell(&self, why: Farewell, limits: &Limits) -> Cow<'static, [u8]> {
        self.service.farewell(why, limits)
    }
}
