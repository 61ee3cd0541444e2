//! A program with threads of its own gives itself a port: the reactor runs in one more thread,
//! where one asks with nc how the program is and changes a setting.
//!
//! ```text
//! $ cargo run --example admin_console
//! $ nc 127.0.0.1 8006
//! status
//! 42 jobs done, pause 100 ms
//! pause 500
//! pause 500 ms
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{env, thread, time::Duration};

use reactor::{Callbacks, Error, Reactor};

/// What the threads of the program share, the console among them.
struct Program {
    jobs: AtomicU64,
    pause: AtomicU64,
}

fn console(Program { jobs, pause }: &Program) -> Result<(), Error> {
    let server = Callbacks::new()
        .on_listening(|address| println!("listening on {address}"))
        .on_line(|cx, line| {
            let text = String::from_utf8_lossy(line);
            let words: Vec<_> = text.split_whitespace().collect();
            match (words.as_slice(), words.last().and_then(|word| word.parse().ok())) {
                (["status"], _) => {
                    let (jobs, pause) = (jobs.load(Relaxed), pause.load(Relaxed));
                    writeln!(cx, "{jobs} jobs done, pause {pause} ms");
                }
                (["pause", _], Some(ms)) => {
                    pause.store(ms, Relaxed);
                    writeln!(cx, "pause {ms} ms");
                }
                _ => writeln!(cx, "Say `status` or `pause MILLISECONDS`."),
            }
        });
    let mut reactor = Reactor::new()?;
    reactor.listen(env::args().nth(1).unwrap_or("127.0.0.1:8006".to_owned()), server)?;
    reactor.run()?;
    Ok(())
}

fn main() {
    let program = Program { jobs: 0.into(), pause: 100.into() };
    thread::scope(|scope| {
        // Without its console the program goes on all the same.
        scope.spawn(|| console(&program).unwrap_or_else(|error| eprintln!("no console: {error}")));
        loop {
            thread::sleep(Duration::from_millis(program.pause.load(Relaxed)));
            program.jobs.fetch_add(1, Relaxed);
        }
    });
}
