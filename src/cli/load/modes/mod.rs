//! What the clients do: each file is one mode, or several that speak alike, as a [`Workload`].
//!
//! | mode | file |
//! | --- | --- |
//! | echo, pipeline, idle, churn | `exchange.rs`: any `Payload` |
//! | presence | `presence.rs` |
//! | time | `time.rs` |
//!
//! A new mode is a variant of `Mode` in `options.rs`, a file here, and an arm in
//! `load/mod.rs::load`.

pub(crate) mod exchange;
pub(crate) mod presence;
pub(crate) mod time;

use reactor::{Context, ServiceContext};

use super::greeting::{Greeted, Greeting};
use super::run::{Client, Run};

/// What one mode does. Connecting and the order of the phases are the [`Driver`]'s.
///
/// [`Driver`]: super::driver::Driver
pub(crate) trait Workload {
    /// What the mode keeps of each client.
    type Session: Default;

    /// What the server says first, unless the command line says otherwise.
    fn greeting(&self) -> Greeting;

    /// Checks what has come of the greeting, if that is [`Greeting::Dialogue`].
    fn greet(&mut self, run: &Run, client: &mut Client<Self::Session>, bytes: &[u8]) -> Greeted {
        let _ = (run, client, bytes);
        Greeted::Yes(0)
    }

    /// All clients are connected, and the load begins; with `--warm-up` first that, then the load.
    fn on_start(&mut self, run: &mut Run, cx: &mut ServiceContext<'_, Client<Self::Session>>) {
        let _ = (run, cx);
    }

    /// A client was greeted.
    fn on_greeted(&mut self, run: &mut Run, cx: &mut Context<'_, Client<Self::Session>>) {
        let _ = (run, cx);
    }

    /// Checks what came after the greeting. Returns how many bytes were consumed.
    fn on_bytes(
        &mut self,
        run: &mut Run,
        cx: &mut Context<'_, Client<Self::Session>>,
        bytes: &[u8],
    ) -> usize;

    /// Whether lines are sent at a rate of their own, so that [`on_tick`](Self::on_tick) must come
    /// often.
    fn is_paced(&self) -> bool {
        false
    }

    fn on_tick(&mut self, run: &mut Run, cx: &mut ServiceContext<'_, Client<Self::Session>>) {
        let _ = (run, cx);
    }

    /// Whether every line that was sent has its reply.
    fn is_settled(&self, run: &Run) -> bool;

    /// This client is given up, or the end has come. A reply that it still waits for counts as a
    /// latency of the time it has waited, so that a server which stalls for good does not look
    /// fast.
    fn count_owed(&mut self, run: &mut Run, cx: &mut Context<'_, Client<Self::Session>>) {
        let _ = (run, cx);
    }

    /// The same for all clients.
    fn count_all_owed(
        &mut self,
        run: &mut Run,
        cx: &mut ServiceContext<'_, Client<Self::Session>>,
    ) {
        for id in cx.connections().map(|(id, _)| id).collect::<Vec<_>>() {
            if let Some(mut cx) = cx.connection(id) {
                self.count_owed(run, &mut cx);
            }
        }
    }

    /// The time for replies is over: counts what is still missing, or ends the clients that wait.
    fn give_up(&mut self, run: &mut Run, cx: &mut ServiceContext<'_, Client<Self::Session>>);

    /// Says goodbye. Returns whether the server is to end the connections now.
    fn say_goodbye(
        &mut self,
        run: &mut Run,
        cx: &mut ServiceContext<'_, Client<Self::Session>>,
    ) -> bool {
        let _ = (run, cx);
        false
    }

    /// The server has ended its side. Returns whether it was right to.
    fn on_eof(&mut self, run: &mut Run, cx: &mut Context<'_, Client<Self::Session>>) -> bool {
        let _ = (run, cx);
        false
    }

    /// A client that had been greeted is gone; `right` says whether it should be.
    fn on_gone(&mut self, run: &mut Run, cx: &mut Context<'_, Client<Self::Session>>, right: bool);

    /// Completes the metrics after the end.
    fn conclude(&mut self, run: &mut Run) {
        let _ = run;
    }
}
