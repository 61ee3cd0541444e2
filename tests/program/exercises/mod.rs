//! docs/exercises.md: each exercise is passed by a right solution, and a typical wrong one fails it where it
//! should.

mod solutions;

use std::path::Path;

use reactor::Handler;
use solutions::{Alarm, Calculator, Count, Echo, Greeter, Letter, Login, Parcel, Room, Store};

use crate::util::Server;
use crate::util::program::Program;

/// Judges a solution by an exercise; gives what `check` says.
fn check<H>(exercise: &str, make: fn(bool) -> H, right: bool) -> (i32, String)
where
    H: Handler<Message = ()> + 'static,
{
    let server = Server::start(reactor::Limits::default(), move || make(right));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/exercises").join(exercise);
    let text = std::fs::read_to_string(&file).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("name = \"")).skip(1);
    let names = names.map(|name| name.trim_end_matches('"'));
    let (addr, file) = (server.addr.to_string(), file.display().to_string());
    let mut args = vec!["check", &addr, "--protocol", &file];
    // What is wrong fails a dialogue; what is right passes everything.
    if !right {
        names.for_each(|name| args.extend(["--only", name]));
    }
    let (status, stdout, stderr) = Program::run(&args);
    (status, stdout + &stderr)
}

/// The right solution passes, and the wrong one fails this dialogue.
fn tell_apart<H>(exercise: &str, make: fn(bool) -> H, fails: &str)
where
    H: Handler<Message = ()> + 'static,
{
    let (status, said) = check(exercise, make, true);
    assert_eq!(status, 0, "{exercise}: {said}");
    let (status, said) = check(exercise, make, false);
    assert_eq!(status, 1, "{exercise}: {said}");
    let failed = said.lines().any(|line| line.contains("FAIL") && line.contains(fails));
    assert!(failed, "{exercise}: {said}");
}

macro_rules! exercises {
    ($($name:ident: $file:literal, $solution:ident, $fails:literal;)*) => {
        const FILES: &[&str] = &[$($file),*];

        $(#[test]
        fn $name() {
            tell_apart($file, $solution::new, $fails);
        })*
    };
}

exercises! {
    hello_that_stays_is_wrong: "01_hello.toml", Greeter, "and goodbye";
    an_echo_that_cuts_off_its_last_reply_is_wrong: "02_echo.toml", Echo, "bye";
    a_count_for_all_is_wrong: "03_count.toml", Count, "from one again";
    a_calculator_that_panics_is_wrong: "04_calculator.toml", Calculator, "no result";
    a_store_of_each_connection_is_wrong: "05_store.toml", Store, "from another";
    a_login_for_all_is_wrong: "06_login.toml", Login, "not yet";
    a_letter_that_obeys_is_wrong: "07_letter.toml", Letter, "commands in it";
    a_parcel_of_lines_is_wrong: "08_parcel.toml", Parcel, "five bytes";
    an_alarm_that_sleeps_is_wrong: "09_alarm.toml", Alarm, "later";
    a_room_that_does_not_tell_the_speaker_is_wrong: "10_room.toml", Room, "say";
}

#[test]
fn each_exercise_is_told_of_and_tried() {
    let text = include_str!("../../../docs/exercises.md");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/exercises");
    let name = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name();
    let mut there: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| name(file).into_string().unwrap()).collect();
    there.sort();
    assert_eq!(there, FILES);
    for file in &there {
        let command = format!("--protocol docs/exercises/{file}");
        assert_eq!(text.matches(&command).count(), 1, "{command}");
    }
}
