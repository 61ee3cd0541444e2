//! The echo protocol without a socket: what every model says. How it reaches the wire is theirs.

/// What a client hears first.
pub(crate) const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";

/// Bytes in the longest line, its end not counted.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// A line without its LF or CRLF.
pub(crate) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether what there is of a line, its end or a part of it included, is above the limit.
pub(crate) fn is_too_long(line: &[u8]) -> bool {
    without_end(line).len() > MAX_LINE
}

/// Appends the reply to a line that comes without its end. Whether the conversation is over.
pub(crate) fn answer(line: &[u8], reply: &mut Vec<u8>) -> bool {
    if line.len() > MAX_LINE {
        reply.extend_from_slice(format!("Line too long (limit {MAX_LINE} bytes)\n").as_bytes());
        return true;
    }
    reply.extend_from_slice(b"> ");
    match str::from_utf8(line) {
        Ok(text) => reply.extend_from_slice(text.to_uppercase().as_bytes()),
        Err(_) => reply.extend_from_slice(&line.to_ascii_uppercase()),
    }
    reply.push(b'\n');
    line.eq_ignore_ascii_case(b"bye")
}
