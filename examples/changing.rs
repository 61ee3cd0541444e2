//! A server that changes while it runs: a thread reads commands from the keyboard and has all cores follow them.
//!
//! ```text
//! $ cargo run --example changing
//! open 127.0.0.1:8017                      (then: nc 127.0.0.1 8017)
//! listening on 127.0.0.1:8017
//! max-line 5
//! lines of 5 bytes
//! allow 127.0.0.1:8017 10.0.0.0/8          (for new clients at this address)
//! 10.0.0.0/8 at 127.0.0.1:8017
//! close 127.0.0.1:8017
//! not listening on 127.0.0.1:8017
//! ```

use std::{env, io::stdin, thread};

use reactor::{Address, Callbacks, Cores, Error, Exit, Limits, Listen, Spread, text};

fn change(cores: &mut Cores<'_>, service: &Spread<()>, line: &str) -> Result<String, Error> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["open", at] => Ok(format!("listening on {}", cores.bind(service, at)?)),
        ["close", at] => {
            cores.unbind(service, &at.parse::<Address>()?)?;
            Ok(format!("not listening on {at}"))
        }
        ["allow", at, networks] => {
            // Made here and not in the other thread, since a `Listen` is not `Send`.
            cores.rebind(service, Listen::at(at)?.allow(networks.parse()?))?;
            Ok(format!("{networks} at {at}"))
        }
        ["max-line", bytes] => {
            let max_line = text::parse(bytes.as_bytes()).unwrap_or(0);
            cores.set_limits(service, Limits { max_line, ..Limits::default() })?;
            Ok(format!("lines of {max_line} bytes"))
        }
        _ => Ok("open ADDR, close ADDR, allow ADDR NETWORKS or max-line BYTES?".to_owned()),
    }
}

fn main() -> Result<Exit, Error> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8016".to_owned());
    let mut cores = Cores::new(2)?;
    let shout = |_| Callbacks::new().on_line(|cx, line| _ = cx.send([line, b"!\n"].concat()));
    let service = cores.listen(address, shout)?;
    println!("listening on {service}");
    let remote = cores.remote();
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            let service = service.clone();
            // Between two turns; whoever is connected is not disturbed.
            let _ = remote.post(move |cores| match change(cores, &service, &line) {
                Ok(done) => println!("{done}"),
                Err(error) => println!("{error}"), // all is as before
            });
        }
    });
    cores.run()
}
