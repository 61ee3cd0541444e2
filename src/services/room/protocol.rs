//! A seat as a handler of its own.

use super::seat::{Message, Seat, Words};
use crate::{CloseReason, Context, Handler, ServiceContext, TimerId};

/// A room whose members send lines. With it a [`Seat`] is a [`Handler`]: give one to
/// [`Cores::listen`](crate::Cores::listen).
///
/// A handler that does more has a seat as a part of it, and calls its methods in the hooks.
pub trait Protocol: Words + Sized {
    /// What is known of one client on its own core.
    type Session: Default;

    /// A client has sent a line: says what it does by that, with [`Seat::event`], [`Seat::close`] or
    /// [`Seat::stop`].
    fn on_line(seat: &mut Seat<Self>, cx: &mut Context<'_, Self::Session>, line: &[u8]);
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
}
