//! A seat as a handler of its own.

use super::seat::{Message, Seat, Words};
use crate::{
    CloseReason, ConnId, Context, Decoder, Encoder, Handler, Saved, ServiceContext, TimerId,
    Unreadable,
};

/// A room whose members send lines. With it a [`Seat`] is a [`Handler`]: give one to
/// [`Cores::listen`](crate::Cores::listen).
///
/// A handler that does more has a seat as a part of it, and calls its methods in the hooks.
pub trait Protocol: Words + Sized {
    /// What is known of one client on its own core.
    type Session: Default;

    /// The version of what [`Words::save`] and [`save_session`](Self::save_session) write, if the room can go
    /// over to another process; see [`Handler::save`]. None: it is closed there, which is the default.
    const VERSION: Option<u32> = None;

    /// A client has sent a line: says what it does by that, with [`Seat::event`], [`Seat::close`] or
    /// [`Seat::stop`].
    fn on_line(seat: &mut Seat<Self>, cx: &mut Context<'_, Self::Session>, line: &[u8]);

    /// Writes down what is known of one client, for another process.
    fn save_session(session: &Self::Session, to: &mut Encoder) {
        let _ = (session, to);
    }

    /// Reads that.
    ///
    /// # Errors
    /// [`Unreadable`] for what cannot be.
    fn restore_session(from: &mut Decoder<'_>) -> Result<Self::Session, Unreadable> {
        let _ = from;
        Ok(Self::Session::default())
    }
}

impl<W: Protocol> Handler for Seat<W> {
    type Session = W::Session;
    type Message = Message;

    fn on_start(&mut self, cx: &mut ServiceContext<'_, W::Session>) {
        self.on_start(cx);
    }

    fn on_open(&mut self, cx: &mut Context<'_, W::Session>) {
        self.on_open(cx);
    }

    fn on_line(&mut self, cx: &mut Context<'_, W::Session>, line: &[u8]) {
        W::on_line(self, cx, line);
    }

    fn on_eof(&mut self, cx: &mut Context<'_, W::Session>) {
        self.on_eof(cx);
    }

    fn on_drain(&mut self, cx: &mut Context<'_, W::Session>) {
        self.on_drain(cx);
    }

    fn on_close(&mut self, cx: &mut Context<'_, W::Session>, _reason: CloseReason) {
        self.on_close(cx);
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, W::Session>, timer: TimerId) {
        self.on_service_timer(cx, timer);
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, W::Session>, message: Message) {
        self.on_message(cx, message);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, W::Session>) {
        self.on_shutdown(cx);
    }

    fn save(&self, cx: &ServiceContext<'_, W::Session>) -> Option<Saved> {
        let mut saved = Saved::new(W::VERSION?).together();
        self.save(cx, saved.state())?;
        Some(saved)
    }

    fn save_session(
        &self,
        _cx: &ServiceContext<'_, W::Session>,
        _id: ConnId,
        session: &W::Session,
        to: &mut Encoder,
    ) {
        W::save_session(session, to);
    }

    fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        if W::VERSION != Some(version) {
            return Err(Unreadable("an unknown version"));
        }
        self.restore(from)
    }

    fn restore_session(
        &mut self,
        _id: ConnId,
        _version: u32,
        from: &mut Decoder<'_>,
    ) -> Result<W::Session, Unreadable> {
        W::restore_session(from)
    }
}
