use std::collections::HashMap;
use std::io;

use message_io::network::{NetEvent, Transport};
use message_io::node;

use super::Service;
use crate::protocol::{GREETING, is_bye, reply, without_cr};

/// It tells of a peer's end only after the connection is gone, so a last line without LF gets no
/// reply here.
pub(super) fn serve(_: Service, port: u16) -> io::Result<()> {
    let (handler, listener) = node::split::<()>();
    let (_, address) = handler.network().listen(Transport::Tcp, ("127.0.0.1", port))?;
    super::ready(address.port())?;
    // The unfinished line of each.
    let mut clients = HashMap::new();
    let mut output = Vec::new();
    listener.for_each(move |event| match event.network() {
        NetEvent::Connected(..) => {}
        NetEvent::Accepted(endpoint, _) => {
            clients.insert(endpoint, Vec::new());
            handler.network().send(endpoint, GREETING.as_bytes());
        }
        NetEvent::Message(endpoint, data) => {
            let Some(input) = clients.get_mut(&endpoint) else { return };
            let joined;
            let bytes = if input.is_empty() {
                data
            } else {
                input.extend_from_slice(data);
                joined = std::mem::take(input);
                &joined
            };
            output.clear();
            let (mut start, mut bye) = (0, false);
            for end in memchr::memchr_iter(b'\n', bytes) {
                let line = without_cr(&bytes[start..end]);
                start = end + 1;
                reply(line, &mut output);
                if is_bye(line) {
                    bye = true;
                    break;
                }
            }
            input.extend_from_slice(&bytes[start..]);
            if !output.is_empty() {
                handler.network().send(endpoint, &output);
            }
            if bye {
                clients.remove(&endpoint);
                handler.network().remove(endpoint.resource_id());
            }
        }
        NetEvent::Disconnected(endpoint) => drop(clients.remove(&endpoint)),
    });
    Ok(())
}
