mod conversation;
pub(crate) mod echo;
pub(crate) mod presence;
pub(crate) mod time;

use reactor::{Context, ServiceContext};

use crate::cli::load::run::{Client, Crew};

/// What one mode does, apart from connecting and from the order of the acts.
pub(crate) trait Part {
    type Session: Default;

    /// What the server says first. Where there is nothing, a client is here when anything comes.
    const GREETING: &str;
    /// All are here.
    fn start(&mut self, crew: &mut Crew, cx: &mut ServiceContext<'_, Client<Self::Session>>) {
        let _ = (crew, cx);
    }

    fn arrived(&mut self, crew: &mut Crew, cx: &mut Context<'_, Client<Self::Session>>) {
        let _ = (crew, cx);
    }

    /// Checks what came; says how much of it.
    fn take(
        &mut self,
        crew: &mut Crew,
        cx: &mut Context<'_, Client<Self::Session>>,
        bytes: &[u8],
    ) -> usize;

    /// Something is to be sent at its own pace: [`beat`](Self::beat) must come often.
    fn is_paced(&self) -> bool {
        false
    }

    fn beat(&mut self, crew: &mut Crew, cx: &mut ServiceContext<'_, Client<Self::Session>>) {
        let _ = (crew, cx);
    }

    /// Nothing that was sent is without its reply.
    fn is_settled(&self, crew: &Crew) -> bool;

    /// This client is given up, or the end has come: what it still waits for counts with the time
    /// it has waited so far, lest a server that stalls for good look fast.
    fn owed(&mut self, crew: &mut Crew, cx: &mut Context<'_, Client<Self::Session>>) {
        let _ = (crew, cx);
    }

    /// The same for all clients.
    fn all_owed(&mut self, crew: &mut Crew, cx: &mut ServiceContext<'_, Client<Self::Session>>) {
        for id in cx.connections().map(|(id, _)| id).collect::<Vec<_>>() {
            if let Some(mut cx) = cx.connection(id) {
                self.owed(crew, &mut cx);
            }
        }
    }

    /// The time for replies is over: counts, or ends, what still waits for one.
    fn give_up(&mut self, crew: &mut Crew, cx: &mut ServiceContext<'_, Client<Self::Session>>);

    /// Says goodbye; whether the server is to end the connections now.
    fn leave(
        &mut self,
        crew: &mut Crew,
        cx: &mut ServiceContext<'_, Client<Self::Session>>,
    ) -> bool {
        let _ = (crew, cx);
        false
    }

    /// The server has ended its side; whether it should have.
    fn ended(&mut self, crew: &mut Crew, cx: &mut Context<'_, Client<Self::Session>>) -> bool {
        let _ = (crew, cx);
        false
    }

    /// A client that was here is gone, as it should be or not.
    fn left(&mut self, crew: &mut Crew, cx: &mut Context<'_, Client<Self::Session>>, right: bool);

    /// After the end.
    fn conclude(&mut self, crew: &mut Crew) {
        let _ = crew;
    }
}
