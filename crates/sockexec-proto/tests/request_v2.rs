//! Requests of version 2, through the public interface: what the daemon reads and what a client writes.

mod common;

use std::time::Duration;

use common::{Stop, TRAILING, any_bytes, config, cuts, naive_comma, naive_head, naive_payload, pieces, sizes};
use proptest::prelude::*;
use sockexec_proto::error::BadRequestKind as Kind;
use sockexec_proto::netstring;
use sockexec_proto::request::{
    self, END_OF_TAGGED_STDIN, EnvironmentChange, Event, encode_request, encode_signal, encode_status,
    encode_window_size, stdin_header,
};
use sockexec_proto::{BadRequest, Options, RequestDecoder, Signal, Version, WindowSize};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Start(Options, Vec<Vec<u8>>),
    Status,
    /// The payload of a pair, as far as it was read.
    Stdin {
        announced: u64,
        bytes: Vec<u8>,
    },
    EndOfStdin,
    Signal(Signal),
    WindowSize(WindowSize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: Kind,
    offset: u64,
    text: String,
}

impl From<BadRequest> for Fault {
    fn from(error: BadRequest) -> Self {
        let text = error.to_string();
        Self { kind: error.kind, offset: error.offset, text }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    offset: u64,
    ended: bool,
    end_of_file: Result<(), Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    seen: Vec<Seen>,
    verdict: Result<Place, Fault>,
}

fn drive(input: &[u8], sizes: &[usize]) -> Outcome {
    let mut decoder = RequestDecoder::new();
    let mut reading = Reading::default();
    for piece in pieces(input, sizes) {
        if let Err(error) = reading.feed(&mut decoder, piece) {
            return Outcome { seen: reading.seen, verdict: Err(error.into()) };
        }
    }
    assert_eq!(reading.protocol, input.len() >= HEAD.len());
    if input.len() >= HEAD.len() {
        assert_eq!(decoder.version(), Version::Two);
    } else {
        assert_eq!(decoder.version(), Version::One, "until it is known");
    }
    let (offset, ended) = (decoder.offset(), decoder.ended());
    assert_eq!(decoder.is_ping(), input == HEAD);
    let end_of_file = decoder.end_of_file().map_err(Fault::from);
    if end_of_file.is_ok() {
        assert!(decoder.ended(), "after an end of file nothing has a meaning");
        assert_eq!(decoder.next(b"5:stdin,0:,"), Ok((0, Event::EndOfStdin)));
    }
    Outcome { seen: reading.seen, verdict: Ok(Place { offset, ended, end_of_file }) }
}

#[derive(Debug, Default)]
struct Reading {
    seen: Vec<Seen>,
    /// The first netstring was told of.
    protocol: bool,
    /// Bytes of the current payload that are still to come.
    left: u64,
}

impl Reading {
    fn feed(&mut self, decoder: &mut RequestDecoder, mut input: &[u8]) -> Result<(), BadRequest> {
        loop {
            if decoder.ended() {
                assert_eq!(decoder.next(input), Ok((0, Event::EndOfStdin)), "what comes after the end is left alone");
                return Ok(());
            }
            let (used, event) = decoder.next(input)?;
            input = &input[used..];
            match event {
                Event::NeedMore => {
                    assert_eq!(input, b"", "NeedMore leaves nothing");
                    return Ok(());
                }
                Event::Stdin(next) => {
                    let here = naive_payload(input, 0, next);
                    self.stdin(next, here);
                    if input.is_empty() {
                        return Ok(());
                    }
                    decoder.advance(here.len() as u64);
                    input = &input[here.len()..];
                }
                Event::Start(request) => {
                    let argv = request.argv.iter().map(|argument| argument.to_bytes().to_vec()).collect();
                    self.seen.push(Seen::Start(request.options, argv));
                }
                Event::Status => self.seen.push(Seen::Status),
                Event::EndOfStdin => self.seen.push(Seen::EndOfStdin),
                Event::Signal(signal) => self.seen.push(Seen::Signal(signal)),
                Event::WindowSize(size) => self.seen.push(Seen::WindowSize(size)),
                Event::Protocol => {
                    assert!(!std::mem::replace(&mut self.protocol, true), "a second first netstring");
                    assert!(self.seen.is_empty() && decoder.offset() >= HEAD.len() as u64 - 1);
                }
                Event::Exec(argv) => unreachable!("version 1: {argv:?}"),
            }
        }
    }

    fn stdin(&mut self, next: u64, here: &[u8]) {
        if self.left == 0 {
            self.seen.push(Seen::Stdin { announced: next, bytes: Vec::new() });
            self.left = next;
        }
        assert_eq!(next, self.left, "bytes of the payload yet to come");
        assert_ne!(next, 0, "a payload of nothing");
        if let Some(Seen::Stdin { bytes, .. }) = self.seen.last_mut() {
            bytes.extend_from_slice(here);
        }
        self.left -= here.len() as u64;
    }
}

const HEAD: &[u8] = b"10:protocol=2,";

/// `HEAD`, these netstrings and `rest` as it is.
fn input(netstrings: &[&[u8]], rest: &[u8]) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    for item in netstrings {
        netstring::encode(item, &mut bytes);
    }
    bytes.extend_from_slice(rest);
    bytes
}

fn fault(kind: Kind, offset: usize) -> Fault {
    Fault::from(BadRequest { kind, offset: offset as u64 })
}

fn check(input: &[u8], expected: &Outcome) {
    for sizes in cuts(input.len()) {
        assert_eq!(drive(input, &sizes), *expected, "\"{}\" in {sizes:?}", input.escape_ascii());
    }
}

/// That the bytes are read to their end, that they say `expected`, and that more may follow.
fn check_read(input: &[u8], expected: &[Seen]) {
    let offset = input.len() as u64;
    let read = Outcome { seen: expected.to_vec(), verdict: Ok(Place { offset, ended: false, end_of_file: Ok(()) }) };
    check(input, &read);
    let mut more = read;
    more.seen.push(Seen::Signal(Signal::Number(1)));
    let end_of_file = Err(fault(Kind::UnexpectedEnd, input.len() + 20));
    more.verdict = Ok(Place { offset: offset + 20, ended: false, end_of_file });
    check(&[input, b"6:signal,1:1,6:signa"].concat(), &more);
}

/// That `input` is refused with its last byte and not before, whatever follows.
fn check_refused(input: &[u8], seen: &[Seen], kind: &Kind, offset: usize, text: &str) {
    let fault = Fault { kind: kind.clone(), offset: offset as u64, text: format!("{text} at byte {offset}") };
    let refused = Outcome { seen: seen.to_vec(), verdict: Err(fault) };
    check(input, &refused);
    for trailing in TRAILING {
        check(&[input, trailing].concat(), &refused);
    }
    let before = drive(&input[..input.len() - 1], &[1]);
    assert!(before.verdict.is_ok(), "\"{}\": {before:?}", input.escape_ascii());
}

fn start(options: Options, argv: &[&[u8]]) -> Seen {
    Seen::Start(options, argv.iter().map(|argument| argument.to_vec()).collect())
}

fn plain() -> Seen {
    start(Options::default(), &[b"cat"])
}

fn set(name: &[u8], value: &[u8]) -> EnvironmentChange {
    EnvironmentChange::Set(name.to_vec(), value.to_vec())
}

#[test]
fn the_program_starts_at_the_comma_of_its_last_argument() {
    let argv: [&[&[u8]]; 4] = [&[b"true"], &[b"echo", b"hi"], &[b""], &[b"cwd=/", b"status"]];
    for argv in argv {
        let count = argv.len().to_string();
        let input = input(&[&[count.as_bytes()], argv].concat(), b"");
        check_read(&input, &[start(Options::default(), argv)]);
        for len in 0..input.len() {
            let is_ping = len == HEAD.len();
            let end_of_file = if is_ping { Ok(()) } else { Err(fault(Kind::UnexpectedEnd, len)) };
            let place = Place { offset: len as u64, ended: false, end_of_file };
            check(&input[..len], &Outcome { seen: Vec::new(), verdict: Ok(place) });
        }
    }
}

#[test]
fn each_option_is_read() {
    let default = Options::default;
    let cases: [(&[u8], Options); 17] = [
        (b"cwd=/tmp", Options { directory: Some(c"/tmp".into()), ..default() }),
        (b"cwd=a=b \xff", Options { directory: Some(c"a=b \xff".into()), ..default() }),
        (b"env=A=b", Options { environment: vec![set(b"A", b"b")], ..default() }),
        (b"env=A=", Options { environment: vec![set(b"A", b"")], ..default() }),
        (b"env=A=b=c", Options { environment: vec![set(b"A", b"b=c")], ..default() }),
        (b"env=\xff=\n", Options { environment: vec![set(b"\xff", b"\n")], ..default() }),
        (b"unsetenv=A", Options { environment: vec![EnvironmentChange::Unset(b"A".to_vec())], ..default() }),
        (b"clearenv", Options { environment: vec![EnvironmentChange::Clear], ..default() }),
        (b"timeout=3", Options { timeout: Some(Duration::from_secs(3)), ..default() }),
        (b"timeout=0.5", Options { timeout: Some(Duration::from_millis(500)), ..default() }),
        (b"timeout=007.0000000019", Options { timeout: Some(Duration::new(7, 1)), ..default() }),
        (
            b"timeout=999999999999999999",
            Options { timeout: Some(Duration::from_secs(10_u64.pow(18) - 1)), ..default() },
        ),
        (b"stderr=stdout", Options { stderr_to_stdout: true, ..default() }),
        (b"pty=80x24", Options { pty: Some(WindowSize { columns: 80, rows: 24 }), ..default() }),
        (b"pty=0x0", Options { pty: Some(WindowSize { columns: 0, rows: 0 }), ..default() }),
        (b"pty=65535x1", Options { pty: Some(WindowSize { columns: 65535, rows: 1 }), ..default() }),
        (b"fds", Options { descriptors: true, ..default() }),
    ];
    for (option, options) in cases {
        check_read(&input(&[option, b"1", b"cat"], b""), &[start(options, &[b"cat"])]);
    }
    let options = || Options { pty: WindowSize::parse(b"1x2"), utf8: true, ..default() };
    for both in [[&b"pty=1x2"[..], b"utf8"], [b"utf8", b"pty=1x2"]] {
        check_read(&input(&[both[0], both[1], b"1", b"cat"], b""), &[start(options(), &[b"cat"])]);
    }
}

#[test]
fn changes_to_the_environment_keep_their_order() {
    let netstrings: [&[u8]; 8] =
        [b"env=A=1", b"clearenv", b"unsetenv=A", b"cwd=/", b"env=A=2", b"env=B=", b"1", b"cat"];
    let environment = vec![
        set(b"A", b"1"),
        EnvironmentChange::Clear,
        EnvironmentChange::Unset(b"A".to_vec()),
        set(b"A", b"2"),
        set(b"B", b""),
    ];
    let options = Options { directory: Some(c"/".into()), environment, ..Options::default() };
    check_read(&input(&netstrings, b""), &[start(options, &[b"cat"])]);
}

#[test]
fn a_wrong_option_is_refused_and_named() {
    let long = [b'x'; 100];
    let cases: [(&[u8], usize, Kind, &str); 32] = [
        (b"x", 0, Kind::UnknownOption(b"x".to_vec()), "unknown option \"x\""),
        (b"cwd2=/", 0, Kind::UnknownOption(b"cwd2".to_vec()), "unknown option \"cwd2\""),
        (b"CWD=/", 0, Kind::UnknownOption(b"CWD".to_vec()), "unknown option \"CWD\""),
        (b"=", 0, Kind::UnknownOption(b"".to_vec()), "unknown option \"\""),
        (b"\n\0", 0, Kind::UnknownOption(b"\n\0".to_vec()), r#"unknown option "\n\x00""#),
        (
            &long,
            0,
            Kind::UnknownOption(vec![b'x'; 64]),
            "unknown option \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
        ),
        (b"cwd", 0, Kind::OptionNeedsValue("cwd"), "option cwd needs a value"),
        (b"env", 0, Kind::OptionNeedsValue("env"), "option env needs a value"),
        (b"timeout", 0, Kind::OptionNeedsValue("timeout"), "option timeout needs a value"),
        (b"stderr", 0, Kind::OptionNeedsValue("stderr"), "option stderr needs a value"),
        (b"pty", 0, Kind::OptionNeedsValue("pty"), "option pty needs a value"),
        (b"clearenv=1", 8, Kind::OptionTakesNoValue("clearenv"), "option clearenv takes no value"),
        (b"utf8=1", 4, Kind::OptionTakesNoValue("utf8"), "option utf8 takes no value"),
        (b"fds=3", 3, Kind::OptionTakesNoValue("fds"), "option fds takes no value"),
        (b"status=", 6, Kind::OptionTakesNoValue("status"), "option status takes no value"),
        (b"cwd=", 4, Kind::OptionValue("cwd", vec![]), "invalid value \"\" of option cwd"),
        (b"env=A", 4, Kind::OptionValue("env", b"A".to_vec()), "invalid value \"A\" of option env"),
        (b"env==x", 4, Kind::OptionValue("env", b"=x".to_vec()), "invalid value \"=x\" of option env"),
        (b"unsetenv=", 9, Kind::OptionValue("unsetenv", vec![]), "invalid value \"\" of option unsetenv"),
        (
            b"unsetenv=A=b",
            9,
            Kind::OptionValue("unsetenv", b"A=b".to_vec()),
            "invalid value \"A=b\" of option unsetenv",
        ),
        (b"timeout=", 8, Kind::OptionValue("timeout", vec![]), "invalid value \"\" of option timeout"),
        (b"timeout=0", 8, Kind::OptionValue("timeout", b"0".to_vec()), "invalid value \"0\" of option timeout"),
        (b"timeout=-1", 8, Kind::OptionValue("timeout", b"-1".to_vec()), "invalid value \"-1\" of option timeout"),
        (b"timeout=1.", 8, Kind::OptionValue("timeout", b"1.".to_vec()), "invalid value \"1.\" of option timeout"),
        (b"timeout=.5", 8, Kind::OptionValue("timeout", b".5".to_vec()), "invalid value \".5\" of option timeout"),
        (b"timeout=1e3", 8, Kind::OptionValue("timeout", b"1e3".to_vec()), "invalid value \"1e3\" of option timeout"),
        (
            b"timeout=1000000000000000000",
            8,
            Kind::OptionValue("timeout", b"1000000000000000000".to_vec()),
            "invalid value \"1000000000000000000\" of option timeout",
        ),
        (b"stderr=null", 7, Kind::OptionValue("stderr", b"null".to_vec()), "invalid value \"null\" of option stderr"),
        (b"pty=80", 4, Kind::OptionValue("pty", b"80".to_vec()), "invalid value \"80\" of option pty"),
        (b"pty=x24", 4, Kind::OptionValue("pty", b"x24".to_vec()), "invalid value \"x24\" of option pty"),
        (
            b"pty=80x65536",
            4,
            Kind::OptionValue("pty", b"80x65536".to_vec()),
            "invalid value \"80x65536\" of option pty",
        ),
        (b"env=A=\0", 6, Kind::NulByteInOption("env"), "option env holds a NUL byte"),
    ];
    for (option, at, kind, text) in cases {
        let before = netstring::Header::new(option.len() as u64).as_bytes().len();
        let input = input(&[option], b"");
        check_refused(&input, &[], &kind, HEAD.len() + before + at, text);
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let cases: [(&[u8], &[u8], Kind, &str); 12] = [
        (b"cwd=/", b"cwd=/", Kind::OptionTwice("cwd"), "option cwd given twice"),
        (b"timeout=1", b"timeout=1", Kind::OptionTwice("timeout"), "option timeout given twice"),
        (b"stderr=stdout", b"stderr=stdout", Kind::OptionTwice("stderr"), "option stderr given twice"),
        (b"pty=1x1", b"pty=2x2", Kind::OptionTwice("pty"), "option pty given twice"),
        (b"utf8", b"utf8", Kind::OptionTwice("utf8"), "option utf8 given twice"),
        (b"fds", b"fds", Kind::OptionTwice("fds"), "option fds given twice"),
        (b"fds", b"pty=1x1", Kind::OptionsExclude("pty", "fds"), "option pty cannot be combined with option fds"),
        (b"pty=1x1", b"fds", Kind::OptionsExclude("fds", "pty"), "option fds cannot be combined with option pty"),
        (
            b"fds",
            b"stderr=stdout",
            Kind::OptionsExclude("stderr", "fds"),
            "option stderr cannot be combined with option fds",
        ),
        (
            b"stderr=stdout",
            b"fds",
            Kind::OptionsExclude("fds", "stderr"),
            "option fds cannot be combined with option stderr",
        ),
        (
            b"cwd=/",
            b"status",
            Kind::OptionsExclude("status", "cwd"),
            "option status cannot be combined with option cwd",
        ),
        (
            b"clearenv",
            b"status",
            Kind::OptionsExclude("status", "clearenv"),
            "option status cannot be combined with option clearenv",
        ),
    ];
    for (first, second, kind, text) in cases {
        let before = input(&[first], b"").len();
        let head = netstring::Header::new(second.len() as u64).as_bytes().len();
        check_refused(&input(&[first, second], b""), &[], &kind, before + head, text);
    }
    // One that needs another, which may still come.
    let at = input(&[b"cwd=/"], b"").len() + 2;
    let without = input(&[b"cwd=/", b"utf8", b"stderr=stdout", b"1"], b"");
    check_refused(&without, &[], &Kind::OptionNeeds("utf8", "pty"), at, "option utf8 needs option pty");
    // These two say the same.
    let options = Options { pty: WindowSize::parse(b"1x2"), stderr_to_stdout: true, ..Options::default() };
    check_read(&input(&[b"pty=1x2", b"stderr=stdout", b"1", b"cat"], b""), &[start(options, &[b"cat"])]);
}

/// The first netstring decides, and is told of before the fault.
#[test]
fn another_version_is_refused_and_named() {
    for (word, text) in [
        ("protocol=3", r#"unknown version "3" of the protocol at byte 12"#),
        ("protocol=", r#"unknown version "" of the protocol at byte 11"#),
        ("protocol=2.0", r#"unknown version "2.0" of the protocol at byte 12"#),
        ("protocol=12345678901", r#"unknown version "12345678901" of the protocol at byte 12"#),
    ] {
        let mut bytes = Vec::new();
        netstring::encode(word.as_bytes(), &mut bytes);
        for trailing in TRAILING {
            let mut decoder = RequestDecoder::new();
            let all = [&bytes, trailing].concat();
            assert_eq!(decoder.next(&all), Ok((bytes.len(), Event::Protocol)), "{word}");
            assert_eq!(decoder.version(), Version::Two);
            assert!(!decoder.is_ping());
            assert_eq!(decoder.clone().end_of_file().unwrap_err().to_string(), text);
            assert_eq!(decoder.next(trailing).unwrap_err().to_string(), text);
        }
    }
    // One that is longer than any number is found from its length: nobody knows what it is.
    let refused = RequestDecoder::new().next(b"21:protocol=123456789012,").unwrap_err();
    assert_eq!(refused.kind, Kind::CountTooLong);
    assert_eq!(
        RequestDecoder::new().next(b"8:protocol,").unwrap_err().kind,
        Kind::CountNotANumber(b"protocol".to_vec())
    );
}

/// What a table row says is true of it: its example is read, and written as it was read.
#[test]
fn every_option_is_read_and_written_as_its_example() {
    for option in request::OPTIONS {
        assert_eq!(option.example.split('=').next(), Some(option.name));
        assert_eq!(option.example.contains('='), option.takes_value, "{}", option.name);
        if option.name == request::STATUS {
            continue;
        }
        let needed = option.needs.and_then(|name| request::OPTIONS.iter().find(|option| option.name == name));
        let mut words: Vec<&[u8]> = needed.map(|option| option.example.as_bytes()).into_iter().collect();
        words.extend([option.example.as_bytes(), b"1", b"cat"]);
        let input = input(&words, b"");
        let seen = drive(&input, &[1]).seen;
        let [Seen::Start(options, argv)] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!(needed.map(|option| option.name), option.needs);
        assert_ne!(*options, Options::default(), "{} changes nothing", option.name);
        let mut written = Vec::new();
        encode_request(options, argv, &mut written);
        assert_eq!(written.escape_ascii().to_string(), input.escape_ascii().to_string());
    }
}

/// Two that contradict each other do so in either order.
#[test]
fn options_exclude_each_other_both_ways() {
    let mut pairs = 0;
    let refused = |one: &str, other: &str| {
        let outcome = drive(&input(&[one.as_bytes(), other.as_bytes()], b""), &[1]);
        matches!(outcome.verdict, Err(Fault { kind: Kind::OptionsExclude(..), .. }))
    };
    let others = || request::OPTIONS.iter().filter(|option| option.name != request::STATUS);
    for one in others() {
        for other in others().filter(|other| other.name != one.name) {
            assert_eq!(refused(one.example, other.example), refused(other.example, one.example));
            pairs += usize::from(refused(one.example, other.example));
        }
        assert!(refused(one.example, request::STATUS));
    }
    assert_eq!(pairs, 4);
}

/// A time too long for the grammar is not sent.
#[test]
fn a_time_that_does_not_fit_is_not_sent() {
    let longest = Duration::new(999_999_999_999_999_999, 999_999_999);
    for (time, sent) in [(longest, Some(longest)), (longest + Duration::from_nanos(1), None), (Duration::MAX, None)] {
        let options = Options { timeout: Some(time), ..Options::default() };
        let mut out = Vec::new();
        encode_request(&options, &["a"], &mut out);
        assert_eq!(drive(&out, &[1]).seen, [start(Options { timeout: sent, ..options }, &[b"a"])]);
    }
}

#[test]
fn a_status_request_is_complete_at_its_comma() {
    let input = input(&[b"status"], b"");
    let read = Outcome {
        seen: vec![Seen::Status],
        verdict: Ok(Place { offset: input.len() as u64, ended: true, end_of_file: Ok(()) }),
    };
    check(&input, &read);
    for trailing in TRAILING {
        check(&[&input, trailing].concat(), &read);
    }
}

#[test]
fn a_number_of_arguments_that_is_none_is_refused() {
    let cases: [(&[u8], Kind, &str); 5] = [
        (b"", Kind::CountNotANumber(vec![]), "number of arguments is not a decimal number: \"\""),
        (b"1x", Kind::CountNotANumber(b"1x".to_vec()), "number of arguments is not a decimal number: \"1x\""),
        (b"0", Kind::CountZero, "number of arguments is 0"),
        (b"65537", Kind::TooManyArguments, "more than 65536 arguments"),
        (b"000000000000000000001", Kind::CountTooLong, "number of arguments of more than 20 bytes"),
    ];
    for (count, kind, text) in cases {
        let before = netstring::Header::new(count.len() as u64).as_bytes().len();
        check_refused(&input(&[count], b""), &[], &kind, HEAD.len() + before, text);
    }
    check_refused(
        &input(&[b"2", b"a", b"b\0"], b""),
        &[],
        &Kind::NulByte(1),
        14 + 4 + 4 + 3,
        "argument 1 holds a NUL byte",
    );
}

fn stdin(bytes: &[u8]) -> Seen {
    Seen::Stdin { announced: bytes.len() as u64, bytes: bytes.to_vec() }
}

#[test]
fn tagged_input_is_read_in_its_order() {
    let number = |number| Seen::Signal(Signal::Number(number));
    let name = |name: &[u8]| Seen::Signal(Signal::Name(name.to_vec()));
    let cases: [(&[u8], &[Seen]); 8] = [
        (b"5:stdin,0:,", &[Seen::EndOfStdin]),
        (b"5:stdin,2:hi,5:stdin,1:,,5:stdin,0:,", &[stdin(b"hi"), stdin(b","), Seen::EndOfStdin]),
        (b"6:signal,4:TERM,", &[name(b"TERM")]),
        (b"6:signal,2:15,6:signal,2:09,", &[number(15), number(9)]),
        (b"6:signal,7:RTMIN+1,", &[name(b"RTMIN+1")]),
        (b"5:stdin,1:x,6:signal,3:INT,5:stdin,1:y,", &[stdin(b"x"), name(b"INT"), stdin(b"y")]),
        // Signals reach the program after the end of its input.
        (b"5:stdin,0:,6:signal,4:HUP1,", &[Seen::EndOfStdin, name(b"HUP1")]),
        (b"5:stdin,11:5:stdin,0:,,", &[stdin(b"5:stdin,0:,")]),
    ];
    for (rest, expected) in cases {
        check_read(&input(&[b"1", b"cat"], rest), &[&[plain()], expected].concat());
    }
}

#[test]
fn a_terminal_has_sizes() {
    let options = || Options { pty: WindowSize::parse(b"80x24"), ..Options::default() };
    let request = input(&[b"pty=80x24", b"1", b"cat"], b"");
    let size = |columns, rows| Seen::WindowSize(WindowSize { columns, rows });
    let expected = [start(options(), &[b"cat"]), size(1, 2), stdin(b"x"), size(65535, 0)];
    check_read(&[&request, b"7:winsize,3:1x2,5:stdin,1:x,7:winsize,7:65535x0,".as_slice()].concat(), &expected);

    for (bad, len) in
        [("", 2), ("1", 2), ("1x", 2), ("1x2x3", 2), ("65536x1", 2), ("-1x1", 2), ("80X24", 2), (" 1x1", 2)]
    {
        let rest = format!("7:winsize,{}:{bad},", bad.len());
        let input = [&request, rest.as_bytes()].concat();
        let text = format!("bad winsize \"{bad}\"");
        let kind = Kind::WindowSize(bad.as_bytes().to_vec());
        check_refused(&input, &expected[..1], &kind, request.len() + 10 + len, &text);
    }
}

#[test]
fn wrong_input_is_refused_and_named() {
    type Case<'a> = (&'a [u8], &'a [Seen], usize, Kind, &'a str);
    let request = input(&[b"1", b"cat"], b"");
    let cases: [Case<'_>; 13] = [
        (b"6:stdout,", &[], 2, Kind::UnknownTag(b"stdout".to_vec()), "unknown tag \"stdout\""),
        (b"0:,", &[], 2, Kind::UnknownTag(vec![]), "unknown tag \"\""),
        (b"1:x,", &[], 2, Kind::UnknownTag(b"x".to_vec()), "unknown tag \"x\""),
        (b"6:stdin\0,", &[], 2, Kind::UnknownTag(b"stdin\0".to_vec()), r#"unknown tag "stdin\x00""#),
        (b"65:", &[], 3, Kind::TagTooLong, "tag too long"),
        (b"7:winsize,", &[], 2, Kind::WindowSizeWithoutPty, "winsize needs option pty"),
        (b"5:stdin,0:,5:stdin,", &[Seen::EndOfStdin], 13, Kind::StdinAfterEnd, "stdin after its end"),
        (b"6:signal,0:,", &[], 11, Kind::UnknownSignal(vec![]), "unknown signal \"\""),
        (b"6:signal,1:0,", &[], 11, Kind::UnknownSignal(b"0".to_vec()), "unknown signal \"0\""),
        (b"6:signal,2:-9,", &[], 11, Kind::UnknownSignal(b"-9".to_vec()), "unknown signal \"-9\""),
        (b"6:signal,2:9 ,", &[], 11, Kind::UnknownSignal(b"9 ".to_vec()), "unknown signal \"9 \""),
        (b"6:signal,65:", &[], 12, Kind::PayloadTooLong("signal"), "payload of signal too long"),
        (
            b"6:signal,10:9999999999,",
            &[],
            12,
            Kind::UnknownSignal(b"9999999999".to_vec()),
            "unknown signal \"9999999999\"",
        ),
    ];
    for (rest, seen, at, kind, text) in cases {
        check_refused(&[&request, rest].concat(), &[&[plain()], seen].concat(), &kind, request.len() + at, text);
    }
    let options = Options { descriptors: true, ..Options::default() };
    let request = input(&[b"fds", b"1", b"cat"], b"");
    let started = [start(options, &[b"cat"])];
    let kind = Kind::StdinBesideDescriptors;
    check_refused(
        &[&request, b"5:stdin,".as_slice()].concat(),
        &started,
        &kind,
        request.len() + 2,
        "stdin cannot be combined with option fds",
    );
}

#[test]
fn a_signal_that_the_system_does_not_know_is_named_with_its_place() {
    let request = input(&[b"1", b"cat"], b"6:signal,5:WINCE,6:signal,3:999,");
    let mut decoder = RequestDecoder::new();
    let mut at = 0;
    let mut faults = Vec::new();
    loop {
        let (used, event) = decoder.next(&request[at..]).unwrap();
        at += used;
        match event {
            Event::Signal(signal) => faults.push(decoder.unknown_signal(&signal).to_string()),
            Event::NeedMore => break,
            Event::Protocol | Event::Start(_) => {}
            other => unreachable!("{other:?}"),
        }
    }
    let first = request.len() - 32 + 11;
    let expected = [
        format!("unknown signal \"WINCE\" at byte {first}"),
        format!("unknown signal \"999\" at byte {}", first + 6 + 11),
    ];
    assert_eq!(faults, expected);
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for nothing that fewer bytes would not show")]
fn options_and_arguments_count_towards_4_mib() {
    // What is left for "cwd=" and the path: all but its head of eight bytes, its comma, the number and the program.
    let len = (4 << 20) - HEAD.len() - 8 - 1 - b"1:1,1:a,".len();
    let path = vec![b'x'; len - 4];
    let option = [b"cwd=".as_slice(), &path].concat();
    let whole = input(&[&option, b"1", b"a"], b"");
    assert_eq!(whole.len(), 4_194_304);
    for sizes in [vec![whole.len()], vec![65_536, 0, 7]] {
        let outcome = drive(&whole, &sizes);
        assert_eq!(outcome.verdict, Ok(Place { offset: 4 << 20, ended: false, end_of_file: Ok(()) }), "in {sizes:?}");
    }
    // One byte more, found from the length of the argument.
    let longer = input(&[&option, b"1"], b"2:");
    let kind = Kind::OptionsTooLong;
    let text = "options and arguments of more than 4194304 bytes in all at byte 4194302";
    let refused = drive(&longer, &[longer.len()]).verdict.unwrap_err();
    assert_eq!(refused, Fault { kind, offset: 4_194_302, text: text.to_owned() });
    // And of an option.
    let refused = drive(&[HEAD, b"4194290:"].concat(), &[1]).verdict.unwrap_err();
    assert_eq!((refused.kind, refused.offset), (Kind::OptionsTooLong, 22));
    // A length of nine digits is refused before its value is known.
    let refused = drive(&[HEAD, b"100000000"].concat(), &[1]).verdict.unwrap_err();
    assert_eq!(refused.text, "length of more than 8 digits at byte 22");
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for nothing that fewer options would not show")]
fn exactly_4096_options_are_accepted() {
    let mut bytes = HEAD.to_vec();
    for _ in 0..4096 {
        netstring::encode(b"clearenv", &mut bytes);
    }
    let outcome = drive(&[&bytes, b"1:1,1:a,".as_slice()].concat(), &[4096]);
    assert_eq!(outcome.seen.len(), 1);
    let refused = drive(&[&bytes, b"8:clearenv,".as_slice()].concat(), &[4096]).verdict.unwrap_err();
    assert_eq!(refused, fault(Kind::TooManyOptions, bytes.len() + 2));
    assert_eq!(refused.text, format!("more than 4096 options at byte {}", bytes.len() + 2));
    assert_eq!(request::MAX_OPTIONS, 4096);
}

#[test]
fn standard_input_of_any_length_is_moved_without_being_shown() {
    let mut decoder = RequestDecoder::new();
    let request = input(&[b"1", b"cat"], b"");
    assert_eq!(decoder.next(&request), Ok((HEAD.len(), Event::Protocol)));
    assert!(matches!(decoder.next(&request[HEAD.len()..]), Ok((_, Event::Start(_)))));
    assert_eq!(decoder.next(b"5:stdin,9223372036854775807:"), Ok((28, Event::Stdin(u64::MAX / 2))));
    decoder.advance(u64::MAX / 2 - 1);
    assert_eq!(decoder.next(b""), Ok((0, Event::Stdin(1))));
    decoder.advance(5);
    assert_eq!(decoder.next(b",6:signal,1:9,"), Ok((14, Event::Signal(Signal::Number(9)))));
}

#[test]
fn a_client_writes_what_the_protocol_says() {
    let options = Options {
        directory: Some(c"/tmp".into()),
        environment: vec![set(b"A", b"b"), EnvironmentChange::Unset(b"C".to_vec()), EnvironmentChange::Clear],
        timeout: Some(Duration::from_millis(1500)),
        stderr_to_stdout: true,
        pty: WindowSize::parse(b"80x24"),
        utf8: true,
        descriptors: true,
    };
    let mut out = Vec::new();
    encode_request(&options, &["echo", "hi"], &mut out);
    let expected = b"10:protocol=2,8:cwd=/tmp,7:env=A=b,10:unsetenv=C,8:clearenv,11:timeout=1.5,13:stderr=stdout,9:pty=80x24,4:utf8,3:fds,1:2,4:echo,2:hi,";
    assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());

    out.clear();
    encode_status(&mut out);
    assert_eq!(out, b"10:protocol=2,6:status,");
    out.clear();
    request::encode_ping(&mut out);
    assert_eq!(out, HEAD);
    assert_eq!(stdin_header(0).as_bytes(), b"5:stdin,0:");
    assert_eq!(stdin_header(u64::MAX).as_bytes(), b"5:stdin,18446744073709551615:");
    assert_eq!(END_OF_TAGGED_STDIN, b"5:stdin,0:,");
    out.clear();
    encode_signal(&Signal::Name(b"TERM".to_vec()), &mut out);
    encode_signal(&Signal::Number(15), &mut out);
    encode_window_size(WindowSize { columns: 132, rows: 50 }, &mut out);
    assert_eq!(out, b"6:signal,4:TERM,6:signal,2:15,7:winsize,6:132x50,");
}

#[test]
fn any_time_is_written_so_that_it_is_read_as_it_was() {
    let times =
        [Duration::new(0, 1), Duration::from_millis(10), Duration::new(59, 999_999_999), Duration::from_secs(60)];
    let texts = ["0.000000001", "0.01", "59.999999999", "60"];
    for (time, text) in times.into_iter().zip(texts) {
        let options = Options { timeout: Some(time), ..Options::default() };
        let mut out = Vec::new();
        encode_request(&options, &["a"], &mut out);
        let option = format!("timeout={text}");
        assert_eq!(out, input(&[option.as_bytes(), b"1", b"a"], b""));
        assert_eq!(drive(&out, &[1]).seen, [start(options, &[b"a"])]);
    }
}

/// What a decoder says that splits into netstrings first and thinks later. It knows tags; options are the business of
/// the tests above.
fn naive(bytes: &[u8]) -> Result<Vec<Seen>, (Kind, u64)> {
    let mut seen = Vec::new();
    match naive_after(bytes, &mut seen) {
        Ok(()) | Err(Stop::Short) => Ok(seen),
        Err(Stop::Bad(kind, offset)) => Err((kind, offset)),
    }
}

fn naive_after(bytes: &[u8], seen: &mut Vec<Seen>) -> Result<(), Stop<Kind>> {
    let request = input(&[b"pty=80x24", b"1", b"cat"], b"");
    let mut at = request.len();
    let mut open = true;
    while at < bytes.len() {
        let (len, start) = naive_head(bytes, at, 19, Kind::Netstring)?;
        if len > 64 {
            return Err(Stop::Bad(Kind::TagTooLong, start as u64));
        }
        at = naive_comma(bytes, start, len, Kind::Netstring)?;
        let tag = naive_payload(bytes, start, len);
        let known = match tag {
            b"stdin" if !open => return Err(Stop::Bad(Kind::StdinAfterEnd, start as u64)),
            b"stdin" => None,
            b"signal" => Some("signal"),
            b"winsize" => Some("winsize"),
            _ => return Err(Stop::Bad(Kind::UnknownTag(tag.to_vec()), start as u64)),
        };
        let (len, start) = naive_head(bytes, at, 19, Kind::Netstring)?;
        let payload = naive_payload(bytes, start, len).to_vec();
        let Some(known) = known else {
            if len > 0 {
                seen.push(Seen::Stdin { announced: len, bytes: payload });
            }
            at = naive_comma(bytes, start, len, Kind::Netstring)?;
            if len == 0 {
                open = false;
                seen.push(Seen::EndOfStdin);
            }
            continue;
        };
        if len > 64 {
            return Err(Stop::Bad(Kind::PayloadTooLong(known), start as u64));
        }
        at = naive_comma(bytes, start, len, Kind::Netstring)?;
        let text = String::from_utf8_lossy(&payload).into_owned();
        let event = if known == "signal" { naive_signal(&text).map(Seen::Signal) } else { naive_size(&text) };
        let kind = if known == "signal" { Kind::UnknownSignal(payload) } else { Kind::WindowSize(payload) };
        seen.push(event.ok_or(Stop::Bad(kind, start as u64))?);
    }
    Ok(())
}

fn naive_signal(text: &str) -> Option<Signal> {
    let first = text.chars().next()?;
    if text.chars().all(|c| c.is_ascii_digit()) {
        return text.parse().ok().filter(|&number: &i32| number > 0).map(Signal::Number);
    }
    let name = (first.is_ascii_alphabetic() || first == '?')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-?".contains(c));
    name.then(|| Signal::Name(text.as_bytes().to_vec()))
}

fn naive_size(text: &str) -> Option<Seen> {
    let (columns, rows) = text.split_once('x')?;
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    Some(Seen::WindowSize(WindowSize { columns: number(columns)?, rows: number(rows)? }))
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((1..=255_u8).prop_filter("no =", |&byte| byte != b'='), 1..8)
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255_u8, 0..12)
}

fn change() -> impl Strategy<Value = EnvironmentChange> {
    prop_oneof![
        (name(), text()).prop_map(|(name, value)| EnvironmentChange::Set(name, value)),
        name().prop_map(EnvironmentChange::Unset),
        Just(EnvironmentChange::Clear),
    ]
}

fn window_size() -> impl Strategy<Value = WindowSize> {
    any::<(u16, u16)>().prop_map(|(columns, rows)| WindowSize { columns, rows })
}

fn options() -> impl Strategy<Value = Options> {
    let directory = prop::option::of(text().prop_filter("not empty", |path| !path.is_empty()));
    let timeout = prop::option::of((0..1_000_000_u64, 1..1_000_000_000_u32));
    let streams = prop_oneof![
        any::<bool>().prop_map(|merged| (merged, None, false, false)),
        (any::<bool>(), window_size(), any::<bool>()).prop_map(|(merged, size, utf8)| (
            merged,
            Some(size),
            utf8,
            false
        )),
        Just((false, None, false, true)),
    ];
    (directory, prop::collection::vec(change(), 0..6), timeout, streams).prop_map(
        |(directory, environment, timeout, (stderr_to_stdout, pty, utf8, descriptors))| Options {
            directory: directory.and_then(|path| std::ffi::CString::new(path).ok()),
            environment,
            timeout: timeout.map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds)),
            stderr_to_stdout,
            pty,
            utf8,
            descriptors,
        },
    )
}

fn tagged() -> impl Strategy<Value = Vec<u8>> {
    let signal = prop_oneof![
        (1..200_i32).prop_map(Signal::Number),
        "[A-Z]{1,6}([+-][0-9])?".prop_map(|name| Signal::Name(name.into_bytes())),
    ];
    let stdin = prop::collection::vec(any::<u8>(), 0..10).prop_map(|bytes| {
        let mut out = stdin_header(bytes.len() as u64).as_bytes().to_vec();
        out.extend_from_slice(&bytes);
        out.push(b',');
        out
    });
    let signal = signal.prop_map(|signal| {
        let mut out = Vec::new();
        encode_signal(&signal, &mut out);
        out
    });
    let size = window_size().prop_map(|size| {
        let mut out = Vec::new();
        encode_window_size(size, &mut out);
        out
    });
    prop::collection::vec(prop_oneof![stdin, signal, size], 0..6).prop_map(|pairs| pairs.concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_a_client_sends_the_daemon_reads(
        options in options(),
        argv in prop::collection::vec(text(), 1..6),
        sizes in sizes(),
    ) {
        let mut bytes = Vec::new();
        encode_request(&options, &argv, &mut bytes);
        let outcome = drive(&bytes, &sizes);
        prop_assert_eq!(outcome.seen, [Seen::Start(options, argv)]);
        prop_assert_eq!(outcome.verdict, Ok(Place { offset: bytes.len() as u64, ended: false, end_of_file: Ok(()) }));
    }

    #[test]
    fn any_input_is_judged_as_the_naive_decoder_judges_it(rest in any_bytes(tagged()), sizes in sizes()) {
        let bytes = input(&[b"pty=80x24", b"1", b"cat"], &rest);
        let outcome = drive(&bytes, &sizes);
        let verdict = outcome.verdict.map(|_| outcome.seen[1..].to_vec()).map_err(|fault| (fault.kind, fault.offset));
        prop_assert_eq!(verdict, naive(&bytes));
    }

    #[test]
    fn any_bytes_after_the_first_netstring_do_no_harm(rest in any_bytes(tagged()), cut in sizes()) {
        let bytes = input(&[], &rest);
        prop_assert_eq!(drive(&bytes, &cut), drive(&bytes, &[bytes.len()]));
    }
}
