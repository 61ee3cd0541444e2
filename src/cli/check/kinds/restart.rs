//! The server as a process.

use std::time::Duration;

use super::super::lab::{Finding, Judged, Lab, Verdict, note, pass};
use super::super::talk::Talk;
use super::NO_USUAL;

/// How long a server may take to start again: those of Java and the like take a second.
const START: Duration = Duration::from_secs(8);

pub(super) fn restart(lab: &Lab) -> Judged {
    let Some(starter) = &lab.starter else {
        return note("not tried: with --run 'COMMAND' the server is started, and started again");
    };
    let Some(script) = lab.usual() else {
        return note(NO_USUAL);
    };
    // Who is connected when it is killed keeps the port in TIME_WAIT.
    let mut talk = Talk::begin(lab, script)?;
    talk.finish(lab.soon())?;
    drop(lab.server.take());
    // The kernel has ended its connections; so do we.
    talk.client.listen(lab.soon());
    drop(talk);
    match starter.start(lab.address, lab.within(START)) {
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
