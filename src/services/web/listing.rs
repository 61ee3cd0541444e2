//! The state of the loop and its connections, streamed: however many there are, no more than a page of
//! them is in memory.

use super::Session;
use super::answer::Manner;
use crate::http::Request;
use crate::services::views::{Process, json};
use crate::{Ask, Context, Order, Page, Selection, Status};

/// How many connections are shown unless all are asked for.
const SHOWN: usize = 100;
/// How many are asked for at once.
const AT_ONCE: usize = 256;

/// An answer to `/status.json` under way.
#[derive(Debug)]
pub(super) struct Listing {
    selection: Selection,
    /// How many are to come; none is all.
    left: Option<usize>,
    /// Until the first connections are there, and with them how many there are in all.
    status: Option<Status>,
    rows: json::Rows,
}

impl Listing {
    /// What the query asks for.
    pub(super) fn asked_for(request: &Request<'_>) -> Result<Listing, &'static str> {
        let all = request.query("all").is_some();
        let order = match request.query("sort").as_deref() {
            None => Order::Table,
            Some(_) if all => return Err("all of them come in no order; leave sort out"),
            Some("unsent") => Order::Unsent,
            Some("idle") => Order::Idle,
            Some("oldest") => Order::Oldest,
            Some("bytes_in") => Order::BytesIn,
            Some("bytes_out") => Order::BytesOut,
            Some("lines") => Order::Lines,
            Some(_) => {
                return Err("sort is one of unsent, idle, oldest, bytes_in, bytes_out, lines");
            }
        };
        let service = request.query("service").map(|name| name.into_owned());
        let selection = Selection { service, order, ..Selection::default() };
        let left = (!all).then_some(SHOWN);
        Ok(Listing { selection, left, status: None, rows: json::Rows::default() })
    }

    /// Keeps what the answer begins with. False if there is no such service.
    pub(super) fn begin(&mut self, status: &Status) -> bool {
        self.status = Some(status.clone());
        let mut services = status.services.iter();
        let named = self.selection.service.as_deref();
        named.is_none_or(|name| services.any(|service| service.name == name))
    }

    /// For the next connections.
    pub(super) fn ask(&mut self) -> Ask {
        self.selection.most = self.left.unwrap_or(AT_ONCE);
        Ask::Connections(self.selection.clone())
    }

    /// Sends them; false if they were the last.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_, Session>,
        manner: Manner,
        page: &Page,
        process: &Process,
        admin: bool,
    ) -> bool {
        let mut piece = Vec::new();
        if let Some(status) = self.status.take() {
            manner.begin_pieces(cx);
            json::begin(&mut piece, &status, process, admin, page.total);
        }
        self.rows.push(&mut piece, &page.connections);
        self.left = self.left.map(|left| left.saturating_sub(page.connections.len()));
        self.selection.after = page.next;
        let more = page.next.is_some() && self.left != Some(0);
        if !more {
            json::end(&mut piece);
        }
        manner.send_piece(cx, &piece);
        if !more {
            manner.end_pieces(cx);
        }
        more
    }
}
