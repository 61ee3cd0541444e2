//! The page in a real browser: `tests/browser/page.mjs` has what people do there, by way of
//! playwright-core, which drives the browser that is installed and brings none.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::util::program::Program;
use crate::util::{DOOMED, PATIENCE, skip};
use crate::{installed, nc};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");

/// One browser at a time is enough for a machine that tests other things meanwhile.
fn browser() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    let programs =
        installed("node", "--version", "v") && installed("chromium", "--version", "Chromium");
    if !programs || !nc() {
        return None;
    }
    if !Path::new(FOLDER).join("node_modules/playwright-core").exists() {
        skip("playwright-core is not installed: npm ci --prefix tests/browser");
        return None;
    }
    Some(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Begins a scenario of `page.mjs` with these addresses.
fn visit(scenario: &str, places: &[&str]) -> Program {
    let script = Path::new(FOLDER).join("page.mjs");
    Program::spawn(Command::new("node").arg(script).arg(scenario).args(places))
}

/// It says so when it is over, however that was, and has time for it: there is much to start, and other
/// tests run beside it.
#[track_caller]
fn all_is_well(visit: Program) {
    let deadline = Instant::now() + 4 * PATIENCE;
    while visit.try_line().is_none_or(|line| line != "over") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let (status, stdout, stderr) = visit.end();
    assert_eq!(status, 0, "{stdout}{stderr}");
}

#[test]
fn the_page_shows_the_loop_live_by_mouse_by_keyboard_and_on_a_telephone() {
    let Some(_one) = browser() else { return };
    let program = Program::serve(&["web=0", "presence=0"]);
    all_is_well(visit("loop", &[&program.place("web")]));
}

#[test]
fn of_many_connections_a_hundred_are_shown_and_all_are_searched() {
    let Some(_one) = browser() else { return };
    let program = Program::serve(&["web=0", "presence=0"]);
    let web = program.place("web");
    all_is_well(visit("crowd", &[&web, &program.place("presence")]));
}

#[test]
fn who_is_on_the_page_and_who_has_nc_are_in_one_room() {
    let Some(_one) = browser() else { return };
    let program = Program::serve(&["web=0", "presence=0"]);
    let web = program.place("web");
    all_is_well(visit("room", &[&web, &program.place("presence")]));
}

#[test]
fn pages_of_others_and_names_of_others_get_nothing() {
    let Some(_one) = browser() else { return };
    let program = Program::serve(&["web=0", "presence=0"]);
    all_is_well(visit("strangers", &[&program.place("web")]));
}

#[test]
fn the_button_of_a_connection_closes_it_and_pages_of_others_do_not() {
    let Some(_one) = browser() else { return };
    let program = Program::serve(&["web=0", "presence=0", "--web-admin"]);
    let web = program.place("web");
    all_is_well(visit("close", &[&web, &program.place("presence")]));
}

#[test]
fn the_page_says_that_the_server_is_gone_and_comes_back_with_it() {
    let Some(_one) = browser() else { return };
    let program = Program::serve(&[&format!("web={DOOMED}"), "presence=0"]);
    let web = program.place("web");
    let visit = visit("gone", &[&web]);
    assert_eq!(visit.line(), "stop");
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    assert_eq!(visit.line(), "start");
    let _program = Program::serve(&[&format!("web={web}"), "presence=0"]);
    all_is_well(visit);
}
