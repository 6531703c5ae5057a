//! Tagged input: standard input, signals, sizes of a terminal.

use sockexec_proto::error::BadRequestKind as Kind;
use sockexec_proto::request::Event;
use sockexec_proto::{Options, RequestDecoder, Signal, WindowSize};

use super::{HEAD, check_read, check_refused, input, plain, start};
use crate::{END_OF_INPUT, Seen, stdin};

#[test]
fn tagged_input_is_read_in_its_order() {
    let number = |number| Seen::Event(Event::Signal(Signal::Number(number)));
    let name = |name: &[u8]| Seen::Event(Event::Signal(Signal::Name(name.to_vec())));
    let cases: [(&[u8], &[Seen]); 8] = [
        (b"5:stdin,0:,", &[END_OF_INPUT]),
        (b"5:stdin,2:hi,5:stdin,1:,,5:stdin,0:,", &[stdin(b"hi"), stdin(b","), END_OF_INPUT]),
        (b"6:signal,4:TERM,", &[name(b"TERM")]),
        (b"6:signal,2:15,6:signal,2:09,", &[number(15), number(9)]),
        (b"6:signal,7:RTMIN+1,", &[name(b"RTMIN+1")]),
        (b"5:stdin,1:x,6:signal,3:INT,5:stdin,1:y,", &[stdin(b"x"), name(b"INT"), stdin(b"y")]),
        // Signals reach the program after the end of its input.
        (b"5:stdin,0:,6:signal,4:HUP1,", &[END_OF_INPUT, name(b"HUP1")]),
        (b"5:stdin,11:5:stdin,0:,,", &[stdin(b"5:stdin,0:,")]),
    ];
    for (rest, expected) in cases {
        check_read(&input(&[b"1", b"cat"], rest), &[&[plain()], expected].concat());
    }
}

#[test]
fn the_size_of_a_terminal_may_change() {
    let options = || Options { pty: WindowSize::parse(b"80x24"), ..Options::default() };
    let request = input(&[b"pty=80x24", b"1", b"cat"], b"");
    let size = |columns, rows| Seen::Event(Event::WindowSize(WindowSize { columns, rows }));
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
fn invalid_input_is_refused_and_named() {
    type Case<'a> = (&'a [u8], &'a [Seen], usize, Kind, &'a str);
    let request = input(&[b"1", b"cat"], b"");
    let cases: [Case<'_>; 13] = [
        (b"6:stdout,", &[], 2, Kind::UnknownTag(b"stdout".to_vec()), "unknown tag \"stdout\""),
        (b"0:,", &[], 2, Kind::UnknownTag(vec![]), "unknown tag \"\""),
        (b"1:x,", &[], 2, Kind::UnknownTag(b"x".to_vec()), "unknown tag \"x\""),
        (b"6:stdin\0,", &[], 2, Kind::UnknownTag(b"stdin\0".to_vec()), r#"unknown tag "stdin\x00""#),
        (b"65:", &[], 3, Kind::TagTooLong, "tag too long"),
        (b"7:winsize,", &[], 2, Kind::WindowSizeWithoutPty, "winsize needs option pty"),
        (b"5:stdin,0:,5:stdin,", &[END_OF_INPUT], 13, Kind::StdinAfterEnd, "stdin after its end"),
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
fn a_signal_unknown_to_the_system_is_named_with_its_place() {
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
fn standard_input_of_any_length_need_not_be_shown_to_the_decoder() {
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
