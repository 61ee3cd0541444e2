use super::*;

fn parse(text: &str) -> Result<Protocol, String> {
    Protocol::parse(text, "a.toml")
}

/// Plays the server: a line for each that is awaited. Gives what the client sends.
fn play(dialogue: &mut Dialogue<'_>, replies: &[&str]) -> Result<Vec<Next>, Mismatch> {
    let (mut sent, mut replies) = (Vec::new(), replies.iter());
    loop {
        match dialogue.next() {
            Next::AwaitLine => match replies.next() {
                Some(line) => dialogue.on_line(line.as_bytes())?,
                None => return Ok(sent),
            },
            Next::AwaitEnd => dialogue.on_end(b"")?,
            Next::Done => return Ok(sent),
            next => sent.push(next),
        }
    }
}

fn send(line: &str) -> Next {
    Next::Send(line.as_bytes().to_vec())
}

#[test]
fn ours_are_files_of_this_kind() {
    for (name, _) in OURS {
        let protocol = Protocol::named(name).unwrap();
        assert_eq!(protocol.name, name);
        assert!(protocol.dialogues.iter().all(|script| script.why.is_some()), "{name}");
        // The other kinds of client hold the first dialogue, again and again.
        let first = &protocol.dialogues[0];
        assert!(first.goes_on() && first.ahead(1, 1, LineEnd::Lf).is_some(), "{name}");
    }
}

/// The documentation's own example, and the protocols that the tests use.
#[test]
fn examples_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/check.md")).unwrap();
    let (_, example) = text.split_once("```toml\n").unwrap();
    let notes = parse(example.split_once("```").unwrap().0).unwrap();
    assert_eq!(
        (notes.name.as_str(), notes.dialogues.len(), notes.greeting_lines()),
        ("notes", 3, 1)
    );
    assert_eq!(notes.left_out, ["endless-line"]);
    let mut dialogue = Dialogue::new(&notes, &notes.dialogues[0], 7);
    let replies = [
        "220 notes, session s1",
        "stored as 12 in session s1",
        "news: none",
        r#"{"id":12,"text":"note 1 of 7"}"#,
    ];
    let sent = play(&mut dialogue, &replies).unwrap();
    assert_eq!(sent, [send("PUT {\"text\":\"note 1 of 7\"}\n"), send("GET 12\n")]);
    assert_eq!(dialogue.next(), Next::Done);
}

const KEYS: &str = r#"
name = "keys"
greeting = ["ready {session}"]
ignore = ["news: {any}"]

[[dialogue]]
name = "key"
steps = [
    { send = "NEW {client} {n}" },
    { expect = "key {key} of {session}" },
    { send = "GET {key}" },
    { expect = "{any}" },
]

[[dialogue]]
name = "leave"
why = "It does."
steps = [{ send_raw = "BYE" }, { end = "client" }, { expect = "bye" }, { end = "server" }]
"#;

#[test]
fn a_dialogue_with_captures_goes_round_and_round() {
    let protocol = parse(KEYS).unwrap();
    let script = &protocol.dialogues[0];
    assert_eq!((script.goes_on(), script.lines()), (true, (2, 2)));
    assert_eq!(script.ahead(1, 1, LineEnd::Lf), None);
    let mut dialogue = Dialogue::new(&protocol, script, 3);
    let replies = ["ready s1", "news: nothing", "key k1 of s1", "yes"];
    let sent = play(&mut dialogue, &replies).unwrap();
    assert_eq!(sent, [send("NEW 3 1\n"), send("GET k1\n")]);
    assert!(dialogue.is_greeted() && dialogue.next() == Next::Done);
    dialogue.begin_round(script);
    dialogue.set_line_end(LineEnd::CrLf);
    let sent = play(&mut dialogue, &["key k2 of s1"]).unwrap();
    assert_eq!(sent, [send("NEW 3 2\r\n"), send("GET k2\r\n")]);
    let wrong = dialogue.on_line(b"no LF\n").unwrap_err();
    assert_eq!((wrong.expected.as_str(), wrong.came.as_str()), ("{any}", "no LF\\n"));
}

#[test]
fn what_is_wrong_is_told_with_what_was_expected() {
    let protocol = parse(KEYS).unwrap();
    let mut dialogue = Dialogue::new(&protocol, &protocol.dialogues[0], 3);
    let wrong = play(&mut dialogue, &["ready s1", "key k1 of s2"]).unwrap_err();
    assert_eq!((wrong.expected.as_str(), wrong.came.as_str()), ("key {key} of s1", "key k1 of s2"));
    let wrong = dialogue.on_end(b"").unwrap_err();
    assert_eq!(wrong.came, "the end of the connection");
    let wrong = dialogue.on_end(b"key k1\xff").unwrap_err();
    assert_eq!(wrong.came, "key k1\\xFF without a line end, and the end of the connection");

    let mut dialogue = Dialogue::greeting(&protocol, 1);
    assert_eq!(
        (dialogue.next(), dialogue.expected().as_str()),
        (Next::AwaitLine, "ready {session}")
    );
    dialogue.on_line(b"ready 1").unwrap();
    let wrong = dialogue.on_line(b"ready 1").unwrap_err();
    assert_eq!((wrong.expected.as_str(), wrong.came.as_str()), ("nothing", "ready 1"));
}

#[test]
fn ends_of_both_sides() {
    let protocol = parse(KEYS).unwrap();
    let script = &protocol.dialogues[1];
    assert_eq!((script.goes_on(), script.why.as_deref()), (false, Some("It does.")));
    assert_eq!(script.ahead(1, 1, LineEnd::Lf), Some(b"BYE".to_vec()));
    let mut dialogue = Dialogue::new(&protocol, script, 1);
    let sent = play(&mut dialogue, &["ready x", "bye"]).unwrap();
    assert_eq!((sent, dialogue.next()), (vec![send("BYE"), Next::End], Next::Done));
}

#[test]
fn line_ends_are_those_of_the_protocol() {
    let crlf = parse("name = 'a'\nline_end = 'crlf'\ngreeting = ['hi']").unwrap();
    assert_eq!(crlf.without_end(b"hi\r\n"), b"hi");
    let mut dialogue = Dialogue::greeting(&crlf, 1);
    let wrong = dialogue.on_line(crlf.without_end(b"hi\n")).unwrap_err();
    assert_eq!(wrong.came, "hi\\n");
    let lf = parse("name = 'a'\ngreeting = ['hi']").unwrap();
    assert!(Dialogue::greeting(&lf, 1).on_line(lf.without_end(b"hi\r\n")).is_err());
}

#[test]
fn mistakes_are_told_with_their_line() {
    let names: String = (0..1001).map(|number| format!("{{a{number}}} ")).collect();
    let names = format!("{{ expect = '{names}' }}");
    let steps =
        |steps: &str| format!("name = 'a'\n[[dialogue]]\nname = 'd'\nsteps = [\n{steps}\n]\n");
    for (text, said) in [
        ("", "a.toml:1: missing field `name`"),
        ("name = 'a'", "a.toml:1: there is nothing to judge by: add a greeting or a [[dialogue]]"),
        (
            "name = 'a'\ngreeting = 'hi'",
            "a.toml:2: invalid type: string \"hi\", expected a sequence",
        ),
        ("name = 'a'\n\ngreting = ['hi']", "a.toml:3: unknown field `greting`, expected one of "),
        ("name = 'a'\nline_end = 'cr'", "a.toml:2: unknown variant `cr`, expected `lf` or `crlf`"),
        ("name = 'a'\ngreeting = ['hi'", "a.toml:2: "),
        ("name = 'a'\ngreeting = ['a',\n '{b']", "a.toml:3: a } is missing after {b"),
        ("name = 'a'\ngreeting = [\"a\\nb\"]", "a.toml:2: a line holds no LF"),
        ("name = ''", "a.toml:1: a name has from 1 to 30 characters"),
        ("name = 'a'\n[[dialogue]]\nname = 'd'", "a.toml:2: missing field `steps`"),
        (&steps(""), "a.toml:4: the dialogue is empty: write steps, as { send ="),
        (&steps("{ sned = 'x' }"), "a.toml:5: unknown field `sned`, expected one of `send`, "),
        (&steps("{ send = 5 }"), "a.toml:5: invalid type: integer `5`, expected a string"),
        (
            &steps("{ send = 'a' },\n{}"),
            "a.toml:6: a step has one key: send, send_raw, expect or end",
        ),
        (&steps("{ send = 'a', expect = 'b' }"), "a.toml:5: a step has one key"),
        (&steps("{ send = 'a' },\n{ send = '{k}' }"), "a.toml:6: nothing captured {k} before"),
        (
            &steps("{ send = \"a\\nb\" }"),
            "a.toml:5: a line holds no LF: write two steps, or send_raw",
        ),
        (
            &steps(&"{ send = '{1000000*x}' },\n".repeat(17)),
            "a.toml:21: up to here the repetitions make",
        ),
        (&steps(&names), "a.toml:5: {a1000} is one name too many: there may be 1000"),
        (&steps("{ end = 'us' }"), "a.toml:5: unknown variant `us`, expected `client` or `server`"),
        (
            &steps("{ end = 'server' },\n{ send = 'x' }"),
            "a.toml:6: after the end by the server nothing comes: leave out this step",
        ),
        (
            &steps("{ end = 'client' },\n{ end = 'client' }"),
            "a.toml:6: after the end by the client it says nothing: leave out this step",
        ),
        (
            &(steps("{ send = 'x' }") + "[[dialogue]]\nname = 'd'\nsteps = [{ send = 'x' }]"),
            "a.toml:8: another dialogue is called \"d\"",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(said) && error.lines().count() == 1, "{text}\n{error}");
    }
}

#[test]
fn a_dialogue_without_a_file() {
    let steps = [Written::Send("hi {client}"), Written::Expect("> HI {client}")];
    let protocol = Protocol::of_steps("script", &steps).unwrap();
    let mut dialogue = Dialogue::new(&protocol, &protocol.dialogues[0], 4);
    assert_eq!(play(&mut dialogue, &["> HI 4"]).unwrap(), [send("hi 4\n")]);
    assert!(Protocol::of_steps("script", &[Written::Send("{any}")]).is_err());
}
