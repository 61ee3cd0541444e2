//! An auction in a room of its own, on as many cores as there are. A number is a bid, all else is said.
//!
//! ```text
//! $ cargo run --example auction
//! $ nc 127.0.0.1 8010
//! Bids are above 0. Who are you?
//! ann
//! 20
//! ann bids 20
//! ```
//!
//! With a URL, `cargo run --example auction -- 127.0.0.1:8010 redis://127.0.0.1`, it is one auction with all
//! others that have the same: over Redis. Who comes later has not heard the bids of before.
//!
//! The state is made of the news alone, which all cores hear in one order. So no two of them disagree on
//! who has bid most, and nothing is locked.

use std::thread::available_parallelism;

use reactor::services::redis::RedisUrl;
use reactor::services::room::bus::{Event, News, Told};
use reactor::services::room::{InProcess, OverRedis, Protocol, Seat, Settings, Words};
use reactor::text::printable;
use reactor::{Context, Cores, Error};

#[derive(Default)]
struct Auction {
    highest: u64,
}

impl Words for Auction {
    fn welcome(&mut self) -> String {
        format!("Bids are above {}. Who are you?\n", self.highest)
    }

    fn news(&mut self, news: &News) -> String {
        let News::Said { name: Some(name), text } = news else { return String::new() };
        match text.parse() {
            Ok(bid) if bid > self.highest => self.highest = bid,
            Ok(_) => return format!("{name}, bids are above {}\n", self.highest),
            Err(_) => return format!("{name}: {text}\n"),
        }
        format!("{name} bids {text}\n")
    }

    fn told(&mut self, told: &Told) -> String {
        let Told::NameTaken(name) = told else { return String::new() };
        format!("Another {name} bids here: come again as somebody else.\n")
    }
}

impl Protocol for Auction {
    type Session = bool; // whether it has told its name

    fn on_line(seat: &mut Seat<Auction>, cx: &mut Context<'_, bool>, line: &[u8]) {
        let text = printable(line.trim_ascii());
        let named = std::mem::replace(cx.session(), true);
        seat.event(cx, if named { Event::Say(text) } else { Event::Hello(Some(text)) });
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or("127.0.0.1:8010".to_owned());
    let mut cores = Cores::new(available_parallelism().map_or(1, usize::from))?;
    let room = match args.next() {
        None => cores.listen(address, |core| {
            Seat::new(&core, Auction::default(), || InProcess::new().unique_names())
        })?,
        Some(url) => {
            let url: RedisUrl = url.parse()?;
            let login = url.login(std::env::var("REACTOR_REDIS_PASSWORD").ok());
            let key = url.room.clone().unwrap_or("auction".to_owned());
            let settings = Settings { key, unique_names: true, ..Settings::default() };
            let redis = OverRedis::dial(cores.first(), url.connect()?, login, settings)?;
            cores.listen(address, move |core| {
                Seat::new(&core, Auction::default(), || redis.bus(core.handle()))
            })?
        }
    };
    println!("listening on {room}");
    cores.run()?;
    Ok(())
}
