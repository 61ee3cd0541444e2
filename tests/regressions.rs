//! One test for each bug that was found, named after what went wrong.

#![deny(unused_must_use)]

use reactor::{Error, Reactor};

/// `reactor.run()?;`, as the documentation writes it, warned of an unused `Exit`: whoever copied
/// the first example began with a warning. This file denies that warning.
#[test]
fn running_needs_no_more_than_a_question_mark() -> Result<(), Error> {
    let mut reactor = Reactor::new()?;
    reactor.stop();
    reactor.run()?;
    Ok(())
}
