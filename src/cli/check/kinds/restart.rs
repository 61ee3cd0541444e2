//! The server as a process.

use std::time::Duration;

use super::super::lab::{Finding, Judged, Lab, Verdict, note, pass};
use super::super::server::Server;
use super::super::talk::Talk;

/// How long a server may take to start again: those of Java and the like take a second.
const START: Duration = Duration::from_secs(8);

pub(super) fn restart(lab: &Lab) -> Judged {
    let Some(command) = lab.command.as_deref() else {
        return note("not tried: with --run 'COMMAND' the server is started, and started again");
    };
    let Some(script) = lab.usual() else {
        return note("not tried: the first dialogue ends the connection");
    };
    // Who is connected when it is killed keeps the port in TIME_WAIT.
    let mut talk = Talk::begin(lab, script)?;
    talk.finish(lab.soon())?;
    drop(lab.server.take());
    // The kernel has ended its connections; so do we.
    talk.client.listen(lab.soon());
    drop(talk);
    match Server::start(command, lab.address, START) {
        Ok(server) => lab.server.replace(Some(server)),
        Err(why) => {
            return Ok(Verdict::Fail(Finding {
                sent: "SIGKILL while a client was connected, and the command again".to_owned(),
                expected: "a server that listens".to_owned(),
                came: why,
            }));
        }
    };
    lab.serves_after("the server was killed and started again")?;
    pass("killed and started again at once")
}
