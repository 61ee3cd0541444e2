//! The models of concurrency, side by side: one echo server, seven times, in the order in which a
//! course on network programming tells of them. What they say is the same (`text.rs`); what
//! differs is who waits for whom.
//!
//! ```text
//! $ cargo run --example models -- thread-per-client
//! $ nc 127.0.0.1 8020
//! Welcome to the Reactor Server.
//! Send me text lines and conclude with the BYE command.
//! hello, été
//! > HELLO, ÉTÉ
//! ```
//!
//! Try each with two `nc` at once, and look at it with `ps -eLf`. All of them under the same load:
//! `cargo run --release -p compare -- models`; what one sees there is told in docs/models.md.

mod blocking;
mod callbacks;
mod handler;
mod one_at_a_time;
mod process_per_client;
mod readiness;
mod text;
mod thread_per_client;
mod thread_pool;

use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: models MODEL [HOST:PORT]     (default: 127.0.0.1:8020; port 0: any free one)

Models:
  one-at-a-time       the next client is served when this one has left
  process-per-client  each client has a process
  thread-per-client   each client has a thread
  thread-pool         64 threads, each with one client after the other
  readiness           one thread asks the kernel which sockets are ready, as with select
  callbacks           one thread, the reactor's; functions that it calls, as with Node.js
  reactor             the same with a handler, a type with methods

`models session` is what process-per-client starts: it serves the client that is its standard
input.
";

const MODELS: [&str; 7] = [
    "one-at-a-time",
    "process-per-client",
    "thread-per-client",
    "thread-pool",
    "readiness",
    "callbacks",
    "reactor",
];

/// The receptionist's socket of those models that have one in sight.
fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let text = format!("cannot listen on {address}: {error}; choose another HOST:PORT");
        io::Error::new(error.kind(), text)
    })?;
    println!("listening on {}", listener.local_addr()?);
    Ok(listener)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (model, address) = match args[..] {
        [model] => (model, "127.0.0.1:8020"),
        [model, address] => (model, address),
        _ => ("", ""),
    };
    // As many clients as are allowed at all, where the usual limit is 1,024 descriptors.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let served: Result<(), Box<dyn Error>> = match model {
        "one-at-a-time" => one_at_a_time::serve(address).map_err(Into::into),
        "process-per-client" => process_per_client::serve(address).map_err(Into::into),
        "thread-per-client" => thread_per_client::serve(address).map_err(Into::into),
        "thread-pool" => thread_pool::serve(address).map_err(Into::into),
        "readiness" => readiness::serve(address).map_err(Into::into),
        "callbacks" => callbacks::serve(address).map_err(Into::into),
        "reactor" => handler::serve(address).map_err(Into::into),
        "session" => process_per_client::session().map_err(Into::into),
        "" => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
        _ => {
            eprintln!("models: there is no {model:?}; there are {}", MODELS.join(", "));
            return ExitCode::from(2);
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("models: {error}");
            ExitCode::FAILURE
        }
    }
}
