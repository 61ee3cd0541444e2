//! How an answer is written.

use super::Session;
use crate::Context;
use crate::http::{Request, head, response};

/// What most bodies are.
pub(super) const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

/// What every answer has, whatever a browser makes of its body: that is what its type says, it is for
/// pages from here alone and for this moment, and links from it do not tell where they stood.
const ALWAYS: [(&str, &str); 4] = [
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
];

/// What a request wants of its answer, whatever that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// It is without a body: that of HEAD.
    head: bool,
    /// Another request may follow.
    keep: bool,
    /// It is HTTP/1.0, which knows no chunks and closes unless it is told otherwise.
    old: bool,
}

impl Manner {
    pub(super) fn of(request: &Request<'_>, last: bool) -> Manner {
        Manner {
            head: request.method() == "HEAD",
            keep: request.keep_alive() && !last,
            old: request.minor_version() == 0,
        }
    }

    /// The connection ends behind it.
    pub(super) fn last(self) -> Manner {
        Manner { keep: false, ..self }
    }

    pub(super) fn is_head(self) -> bool {
        self.head
    }

    /// Answers. Behind an error the connection ends: who sends one wrong request may well disagree about
    /// where the next one begins.
    pub(super) fn send(
        self,
        cx: &mut Context<'_, Session>,
        status: u16,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) {
        let body = body.as_ref();
        let manner = Manner { keep: self.keep && status < 400, ..self };
        let mut answer = response(status, &manner.headers(headers), body);
        if self.head {
            answer.truncate(answer.len() - body.len());
        }
        cx.send(answer);
        manner.end(cx);
    }

    /// Answers with an error and its one line.
    pub(super) fn refuse(self, cx: &mut Context<'_, Session>, status: u16, why: &str) {
        self.send(cx, status, &[TEXT], format!("{why}\n"));
    }

    /// Begins a body in JSON whose length is not known: the caller sends [pieces](Self::send_piece), and
    /// [ends](Self::end_pieces).
    pub(super) fn begin_pieces(self, cx: &mut Context<'_, Session>) {
        let kind = ("Content-Type", "application/json");
        // Before HTTP/1.1 the end of the connection is that of the body (RFC 9112, section 6.3).
        let how = if self.old { None } else { Some(("Transfer-Encoding", "chunked")) };
        let headers: Vec<_> = [Some(kind), how].into_iter().flatten().collect();
        cx.send(head(200, &self.in_pieces().headers(&headers)));
    }

    /// A chunk (RFC 9112, section 7.1).
    pub(super) fn send_piece(self, cx: &mut Context<'_, Session>, piece: &[u8]) {
        // A chunk of length 0 would be the end.
        if self.head || piece.is_empty() {
            return;
        }
        if self.old {
            cx.send(piece);
        } else {
            cx.send(format!("{:x}\r\n", piece.len()));
            cx.send(piece);
            cx.send("\r\n");
        }
    }

    pub(super) fn end_pieces(self, cx: &mut Context<'_, Session>) {
        if !self.old && !self.head {
            cx.send("0\r\n\r\n");
        }
        self.in_pieces().end(cx);
    }

    fn in_pieces(self) -> Manner {
        Manner { keep: self.keep && !self.old, ..self }
    }

    fn headers<'h>(self, headers: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
        let connection = match self.keep {
            true if !self.old => None,
            true => Some(("Connection", "keep-alive")),
            false => Some(("Connection", "close")),
        };
        headers.iter().copied().chain(ALWAYS).chain(connection).collect()
    }

    fn end(self, cx: &mut Context<'_, Session>) {
        if !self.keep {
            cx.close();
        }
    }
}

/// An error that no request is the cause of, or none that can be read.
pub(super) fn last_words(status: u16, why: &str) -> Vec<u8> {
    let manner = Manner { head: false, keep: false, old: false };
    response(status, &manner.headers(&[TEXT]), format!("{why}\n"))
}
