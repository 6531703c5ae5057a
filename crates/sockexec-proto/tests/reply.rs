//! Replies, through the public interface: what the daemon writes and what a client reads.

mod common;

use common::{Stop, TRAILING, any_bytes, config, cuts, naive_comma, naive_head, naive_payload, pieces, sizes};
use proptest::prelude::*;
use sockexec_proto::error::BadReplyKind;
use sockexec_proto::netstring::{self, ErrorKind, MAX_LEN};
use sockexec_proto::reply::{self, EXITCODE, Event, Header, TERMSIG, encode_pair, whole_pairs};
use sockexec_proto::{BadReply, Exit, ReplyDecoder, Signal, Stream};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The payload of a pair, as far as it was read; no stream: under an unknown tag.
    Payload {
        stream: Option<Stream>,
        announced: u64,
        bytes: Vec<u8>,
    },
    Exit(Exit),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: BadReplyKind,
    offset: u64,
    text: String,
}

impl From<BadReply> for Fault {
    fn from(error: BadReply) -> Self {
        let text = error.to_string();
        Self { kind: error.kind, offset: error.offset, text }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    offset: u64,
    at_boundary: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    seen: Vec<Seen>,
    verdict: Result<Place, Fault>,
}

fn drive(input: &[u8], sizes: &[usize]) -> Outcome {
    let mut decoder = ReplyDecoder::new();
    let mut reading = Reading::default();
    for piece in pieces(input, sizes) {
        if let Err(error) = reading.feed(&mut decoder, piece) {
            return Outcome { seen: reading.seen, verdict: Err(error.into()) };
        }
    }
    let place = Place { offset: decoder.offset(), at_boundary: decoder.at_boundary() };
    Outcome { seen: reading.seen, verdict: Ok(place) }
}

#[derive(Debug, Default)]
struct Reading {
    seen: Vec<Seen>,
    /// Bytes of the current payload that are still to come.
    left: u64,
}

impl Reading {
    fn feed(&mut self, decoder: &mut ReplyDecoder, mut input: &[u8]) -> Result<(), BadReply> {
        loop {
            let (used, event) = decoder.next(input)?;
            input = &input[used..];
            let (stream, next) = match event {
                Event::NeedMore => {
                    assert_eq!(input, b"", "NeedMore leaves nothing");
                    return Ok(());
                }
                Event::Exit(exit) => {
                    self.seen.push(Seen::Exit(exit));
                    continue;
                }
                Event::Output(stream, next) => (Some(stream), next),
                event @ (Event::Introduction(_)
                | Event::Queued(_)
                | Event::Taken(_)
                | Event::InputClosed
                | Event::Started(_)
                | Event::EndOfOutput(_)
                | Event::Failure(_)
                | Event::Usage(_)
                | Event::Status(_)) => unreachable!("version 2: {event:?}"),
                Event::Unknown(next) => (None, next),
            };
            let here = naive_payload(input, 0, next);
            self.payload(stream, next, here);
            if input.is_empty() {
                return Ok(());
            }
            decoder.advance(here.len() as u64);
            input = &input[here.len()..];
        }
    }

    fn payload(&mut self, expected: Option<Stream>, next: u64, here: &[u8]) {
        if self.left == 0 {
            self.seen.push(Seen::Payload { stream: expected, announced: next, bytes: Vec::new() });
            self.left = next;
        }
        assert_eq!(next, self.left, "bytes of the payload yet to come");
        assert_ne!(next, 0, "a payload of nothing");
        if let Some(Seen::Payload { stream, bytes, .. }) = self.seen.last_mut() {
            assert_eq!(*stream, expected, "a stream does not change within a payload");
            bytes.extend_from_slice(here);
        }
        self.left -= here.len() as u64;
    }
}

fn naive(input: &[u8]) -> Outcome {
    let mut seen = Vec::new();
    let mut at = 0;
    let stop = loop {
        if at == input.len() {
            break Stop::Short;
        }
        match naive_pair(input, at, &mut seen) {
            Ok(next) => at = next,
            Err(stop) => break stop,
        }
    };
    let verdict = match stop {
        Stop::Short => Ok(Place { offset: input.len() as u64, at_boundary: at == input.len() }),
        Stop::Bad(kind, offset) => Err(Fault::from(BadReply { kind, offset })),
    };
    Outcome { seen, verdict }
}

/// Where the pair ends that begins at `at`.
fn naive_pair(input: &[u8], at: usize, seen: &mut Vec<Seen>) -> Result<usize, Stop<BadReplyKind>> {
    let (len, start) = naive_head(input, at, 19, BadReplyKind::Netstring)?;
    if len > 64 {
        return Err(Stop::Bad(BadReplyKind::TooLong, start as u64));
    }
    let at = naive_comma(input, start, len, BadReplyKind::Netstring)?;
    let tag = naive_payload(input, start, len);

    let (len, start) = naive_head(input, at, 19, BadReplyKind::Netstring)?;
    let bytes = naive_payload(input, start, len).to_vec();
    let stream = match tag {
        b"stdout" => Some(Stream::Stdout),
        b"stderr" => Some(Stream::Stderr),
        b"exitcode" | b"termsig" => {
            if len > 64 {
                return Err(Stop::Bad(BadReplyKind::TooLong, start as u64));
            }
            let at = naive_comma(input, start, len, BadReplyKind::Netstring)?;
            let exit = if tag == b"termsig" { naive_termsig(bytes) } else { naive_exitcode(bytes) };
            seen.push(Seen::Exit(exit.map_err(|kind| Stop::Bad(kind, start as u64))?));
            return Ok(at);
        }
        _ => None,
    };
    if len > 0 {
        seen.push(Seen::Payload { stream, announced: len, bytes });
    }
    naive_comma(input, start, len, BadReplyKind::Netstring)
}

/// The digits less their leading zeros, where there are only digits.
fn naive_number(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    let number = text.chars().all(|c| c.is_ascii_digit()) && !text.is_empty();
    number.then(|| text.trim_start_matches('0').to_owned())
}

fn naive_exitcode(bytes: Vec<u8>) -> Result<Exit, BadReplyKind> {
    match naive_number(&bytes) {
        Some(number) if number.is_empty() => Ok(Exit::Code(0)),
        Some(number) => match (1..=255_u8).find(|code| code.to_string() == number) {
            Some(code) => Ok(Exit::Code(code)),
            None => Err(BadReplyKind::ExitCode(bytes)),
        },
        None => Err(BadReplyKind::ExitCode(bytes)),
    }
}

fn naive_termsig(bytes: Vec<u8>) -> Result<Exit, BadReplyKind> {
    let signal = if let Some(number) = naive_number(&bytes) {
        number.parse().ok().filter(|&number: &i32| number > 0).map(Signal::Number)
    } else {
        let allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || b"+-?".contains(&byte);
        let first = bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'?');
        (first && bytes.iter().all(allowed)).then(|| Signal::Name(bytes.clone()))
    };
    signal.map(Exit::Signal).ok_or(BadReplyKind::TermSig(bytes))
}

fn part(stream: Option<Stream>, announced: u64, bytes: &[u8]) -> Seen {
    Seen::Payload { stream, announced, bytes: bytes.to_vec() }
}

fn out(bytes: &[u8]) -> Seen {
    part(Some(Stream::Stdout), bytes.len() as u64, bytes)
}

fn err(bytes: &[u8]) -> Seen {
    part(Some(Stream::Stderr), bytes.len() as u64, bytes)
}

fn unknown(bytes: &[u8]) -> Seen {
    part(None, bytes.len() as u64, bytes)
}

fn code(code: u8) -> Seen {
    Seen::Exit(Exit::Code(code))
}

fn signal(number: i32) -> Seen {
    Seen::Exit(Exit::Signal(Signal::Number(number)))
}

fn name(name: &str) -> Seen {
    Seen::Exit(Exit::Signal(Signal::Name(name.into())))
}

fn check(input: &[u8], expected: &Outcome) {
    for sizes in cuts(input.len()) {
        assert_eq!(drive(input, &sizes), *expected, "\"{}\" in {sizes:?}", input.escape_ascii());
    }
}

/// That these are whole pairs which say `expected`, and that what follows changes nothing in that.
fn check_read(input: &[u8], expected: &[Seen]) {
    let offset = input.len() as u64;
    let read = Outcome { seen: expected.to_vec(), verdict: Ok(Place { offset, at_boundary: true }) };
    check(input, &read);

    let mut more = read;
    more.seen.push(part(Some(Stream::Stderr), 3, b"ab"));
    more.verdict = Ok(Place { offset: offset + 13, at_boundary: false });
    check(&[input, b"6:stderr,3:ab"].concat(), &more);
}

/// That `input` is refused with its last byte and not before, whatever follows.
fn check_refused(input: &[u8], kind: BadReplyKind, offset: u64, text: &str) {
    let fault = Fault { kind, offset, text: text.to_owned() };
    let refused = naive(input);
    assert_eq!(refused.verdict, Err(fault), "\"{}\"", input.escape_ascii());
    check(input, &refused);
    for trailing in TRAILING {
        check(&[input, trailing].concat(), &refused);
    }
    let before = drive(&input[..input.len() - 1], &[1]);
    assert!(before.verdict.is_ok(), "\"{}\": {before:?}", input.escape_ascii());
}

fn pair(tag: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_pair(tag, payload, &mut bytes);
    bytes
}

/// Version 1 by default: an empty payload says nothing, and a tag of version 2 is an unknown one.
#[test]
fn the_default_is_a_decoder_of_version_1() {
    let mut decoder = ReplyDecoder::default();
    let input = b"6:stdout,0:,7:started,1:7,8:exitcode,1:3,";
    assert_eq!(decoder.next(input), Ok((24, Event::Unknown(1))));
    decoder.advance(1);
    assert_eq!(decoder.next(&input[25..]), Ok((input.len() - 25, Event::Exit(Exit::Code(3)))));
}

#[test]
fn output_and_the_exit_pair_are_read_in_the_order_of_the_wire() {
    let cases: [(&[u8], &[Seen]); 9] = [
        (b"", &[]),
        (b"8:exitcode,1:0,", &[code(0)]),
        (b"6:stdout,2:hi,8:exitcode,1:0,", &[out(b"hi"), code(0)]),
        (b"6:stderr,2:no,8:exitcode,3:127,", &[err(b"no"), code(127)]),
        (b"6:stdout,1:a,6:stderr,1:b,6:stdout,1:c,", &[out(b"a"), err(b"b"), out(b"c")]),
        (b"6:stdout,1:a,6:stdout,1:b,", &[out(b"a"), out(b"b")]),
        (b"6:stdout,3:\0\xff,,7:termsig,2:15,", &[out(b"\0\xff,"), signal(15)]),
        // What looks like a pair is payload here.
        (b"6:stdout,15:8:exitcode,1:1,,", &[out(b"8:exitcode,1:1,")]),
        // Version 1 says that payloads are never empty; one that is says nothing.
        (b"6:stdout,0:,6:stderr,0:,7:started,0:,8:exitcode,1:0,", &[code(0)]),
    ];
    for (input, expected) in cases {
        check_read(input, expected);
    }
}

#[test]
fn replies_of_3_1_1_are_understood() {
    let cases: [(&[u8], &[Seen]); 5] = [
        // The exit pair may overtake the output.
        (b"8:exitcode,1:0,6:stdout,2:hi,", &[code(0), out(b"hi")]),
        (b"6:stdout,1:a,7:termsig,4:TERM,6:stderr,1:b,", &[out(b"a"), name("TERM"), err(b"b")]),
        (b"7:termsig,4:KILL,", &[name("KILL")]),
        (b"7:termsig,3:???,", &[name("???")]),
        (b"7:unknown,1:0,", &[unknown(b"0")]),
    ];
    for (input, expected) in cases {
        check_read(input, expected);
    }
}

#[test]
fn pairs_under_other_tags_are_skipped() {
    let longest = [b"64:".as_slice(), &[b'x'; 64], b",2:ab,"].concat();
    let cases: [(&[u8], &[Seen]); 9] = [
        (b"7:started,4:1234,6:stdout,1:x,", &[unknown(b"1234"), out(b"x")]),
        (b"5:usage,5:utime,8:exitcode,1:0,", &[unknown(b"utime"), code(0)]),
        (b"0:,1:x,", &[unknown(b"x")]),
        (b"6:STDOUT,1:x,", &[unknown(b"x")]),
        (b"5:stdou,1:x,", &[unknown(b"x")]),
        (b"7:stdout ,1:x,", &[unknown(b"x")]),
        (b"9:exitcode\0,1:0,", &[unknown(b"0")]),
        (b"7:TERMSIG,2:15,", &[unknown(b"15")]),
        (&longest, &[unknown(b"ab")]),
    ];
    for (input, expected) in cases {
        check_read(input, expected);
    }
}

#[test]
fn every_exit_status_is_read_and_shown() {
    let cases = [
        ("exitcode", "0", Exit::Code(0), "exit code 0"),
        ("exitcode", "9", Exit::Code(9), "exit code 9"),
        ("exitcode", "255", Exit::Code(255), "exit code 255"),
        ("exitcode", "007", Exit::Code(7), "exit code 7"),
        ("termsig", "1", Exit::Signal(Signal::Number(1)), "signal 1"),
        ("termsig", "64", Exit::Signal(Signal::Number(64)), "signal 64"),
        ("termsig", "015", Exit::Signal(Signal::Number(15)), "signal 15"),
        ("termsig", "2147483647", Exit::Signal(Signal::Number(i32::MAX)), "signal 2147483647"),
        ("termsig", "TERM", Exit::Signal(Signal::Name(b"TERM".to_vec())), "signal TERM"),
        ("termsig", "USR1", Exit::Signal(Signal::Name(b"USR1".to_vec())), "signal USR1"),
        ("termsig", "RTMIN+1", Exit::Signal(Signal::Name(b"RTMIN+1".to_vec())), "signal RTMIN+1"),
        ("termsig", "RTMAX-14", Exit::Signal(Signal::Name(b"RTMAX-14".to_vec())), "signal RTMAX-14"),
        ("termsig", "???", Exit::Signal(Signal::Name(b"???".to_vec())), "signal ???"),
    ];
    for (tag, status, exit, text) in cases {
        assert_eq!(exit.to_string(), text);
        check_read(&pair(tag, status.as_bytes()), &[Seen::Exit(exit)]);
    }
    for expected in (0..=255).step_by(if cfg!(miri) { 64 } else { 1 }) {
        check_read(&pair(EXITCODE, expected.to_string().as_bytes()), &[code(expected)]);
    }
}

#[test]
fn only_the_end_of_a_pair_is_a_boundary() {
    let input = b"6:stdout,2:hi,0:,0:,7:termsig,2:15,8:exitcode,1:0,";
    let boundaries = [0, 14, 20, 35, 50];
    for len in 0..=input.len() {
        let verdict = drive(&input[..len], &[1]).verdict;
        let place = Place { offset: len as u64, at_boundary: boundaries.contains(&len) };
        assert_eq!(verdict, Ok(place), "after {len} bytes");
    }
}

#[test]
fn broken_framing_is_refused_in_every_part() {
    let cases: [(&[u8], ErrorKind, u64, &str); 9] = [
        (b"s", ErrorKind::NoLength(b's'), 0, "'s' where a length was expected at byte 0"),
        (b"6 ", ErrorKind::NoColon(b' '), 1, "' ' in a length, where a digit or ':' was expected at byte 1"),
        (b"06", ErrorKind::LeadingZero, 1, "length with a leading zero at byte 1"),
        (b"6:stdout:", ErrorKind::NoComma(b':'), 8, "':' where ',' was expected after a payload at byte 8"),
        (b"6:stdout,\n", ErrorKind::NoLength(b'\n'), 9, "byte 0x0a where a length was expected at byte 9"),
        (b"6:stdout,2:hi!", ErrorKind::NoComma(b'!'), 13, "'!' where ',' was expected after a payload at byte 13"),
        (b"8:exitcode,1:00", ErrorKind::NoComma(b'0'), 14, "'0' where ',' was expected after a payload at byte 14"),
        (b"7:termsig,1:9,,", ErrorKind::NoLength(b','), 14, "',' where a length was expected at byte 14"),
        (b"3:pid,1:x.", ErrorKind::NoComma(b'.'), 9, "'.' where ',' was expected after a payload at byte 9"),
    ];
    for (input, kind, offset, text) in cases {
        check_refused(input, BadReplyKind::Netstring(kind), offset, text);
    }
}

#[test]
fn a_length_of_output_goes_up_to_2_to_the_63_less_1() {
    for (tag, stream) in [("stdout", Some(Stream::Stdout)), ("stderr", Some(Stream::Stderr)), ("status", None)] {
        let input = format!("6:{tag},9223372036854775807:x").into_bytes();
        let verdict = Ok(Place { offset: input.len() as u64, at_boundary: false });
        check(&input, &Outcome { seen: vec![part(stream, MAX_LEN, b"x")], verdict });

        let input = format!("6:{tag},9223372036854775808").into_bytes();
        let kind = BadReplyKind::Netstring(ErrorKind::TooLong);
        check_refused(&input, kind, 27, "length over 9223372036854775807 at byte 27");

        let input = format!("6:{tag},10000000000000000000").into_bytes();
        let kind = BadReplyKind::Netstring(ErrorKind::TooManyDigits(19));
        check_refused(&input, kind, 28, "length of more than 19 digits at byte 28");
    }
}

#[test]
fn a_tag_or_status_of_more_than_64_bytes_is_refused_by_its_length() {
    let cases: [(&[u8], u64); 5] = [
        (b"65:", 3),
        (b"9223372036854775807:", 20),
        (b"6:stdout,1:x,65:", 16),
        (b"8:exitcode,65:", 14),
        (b"7:termsig,100:", 14),
    ];
    for (input, offset) in cases {
        check_refused(input, BadReplyKind::TooLong, offset, &format!("tag or status too long at byte {offset}"));
    }
}

#[test]
fn a_tag_or_status_of_64_bytes_is_read() {
    let tag = "x".repeat(64);
    check_read(&pair(&tag, b"1"), &[unknown(b"1")]);
    let padded = format!("{:064}", 255);
    check_read(&pair(EXITCODE, padded.as_bytes()), &[code(255)]);
    check_read(&pair(TERMSIG, padded.as_bytes()), &[signal(255)]);
    check_read(&pair(TERMSIG, tag.as_bytes()), &[name(&tag)]);
}

#[test]
fn an_exitcode_that_is_no_number_up_to_255_is_refused_at_its_first_byte() {
    let cases: [(&[u8], &str); 11] = [
        (b"", "bad exitcode \"\" at byte 13"),
        (b"256", "bad exitcode \"256\" at byte 13"),
        (b"-1", "bad exitcode \"-1\" at byte 13"),
        (b"+1", "bad exitcode \"+1\" at byte 13"),
        (b" 1", "bad exitcode \" 1\" at byte 13"),
        (b"1\n", "bad exitcode \"1\\n\" at byte 13"),
        (b"0x1", "bad exitcode \"0x1\" at byte 13"),
        (b"TERM", "bad exitcode \"TERM\" at byte 13"),
        (b"\"\xff\0", r#"bad exitcode "\"\xff\x00" at byte 13"#),
        (b"65536", "bad exitcode \"65536\" at byte 13"),
        // 2^32 and 2^64, which must not wrap to 0.
        (b"4294967296", "bad exitcode \"4294967296\" at byte 14"),
    ];
    for (status, text) in cases {
        let offset = if status.len() < 10 { 13 } else { 14 };
        check_refused(&pair(EXITCODE, status), BadReplyKind::ExitCode(status.to_vec()), offset, text);
    }
    let wide = b"18446744073709551616".to_vec();
    let text = "bad exitcode \"18446744073709551616\" at byte 27";
    check_refused(
        &[b"6:stdout,1:x,".as_slice(), &pair(EXITCODE, &wide)].concat(),
        BadReplyKind::ExitCode(wide),
        27,
        text,
    );
}

#[test]
fn a_termsig_that_is_neither_number_nor_name_is_refused_at_its_first_byte() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "bad termsig \"\" at byte 12"),
        (b"0", "bad termsig \"0\" at byte 12"),
        (b"000", "bad termsig \"000\" at byte 12"),
        (b" 15", "bad termsig \" 15\" at byte 12"),
        (b"TERM\n", "bad termsig \"TERM\\n\" at byte 12"),
        (b"SIG TERM", "bad termsig \"SIG TERM\" at byte 12"),
        (b"TERM\0", "bad termsig \"TERM\\x00\" at byte 12"),
        (b"\xffTERM", "bad termsig \"\\xffTERM\" at byte 12"),
    ];
    for (status, text) in cases {
        check_refused(&pair(TERMSIG, status), BadReplyKind::TermSig(status.to_vec()), 12, text);
    }
}

/// What has no value as a number once passed for a name, which no signal has.
#[test]
fn a_termsig_that_begins_like_a_number_is_not_taken_for_a_name() {
    for status in ["2147483648", "4294967297", "18446744073709551617", "-15", "+15", "-", "+", "15TERM", "9-"] {
        let input = pair(TERMSIG, status.as_bytes());
        let offset = if status.len() < 10 { 12 } else { 13 };
        let text = format!("bad termsig \"{status}\" at byte {offset}");
        check_refused(&input, BadReplyKind::TermSig(status.into()), offset, &text);
    }
}

#[test]
fn output_of_10_gb_is_moved_without_being_shown() {
    const LEN: u64 = 10_000_000_000;
    for (tag, stream) in [("stdout", Some(Stream::Stdout)), ("stderr", Some(Stream::Stderr)), ("status", None)] {
        let coming = |left| match stream {
            Some(stream) => Event::Output(stream, left),
            None => Event::Unknown(left),
        };
        let mut decoder = ReplyDecoder::new();
        let header = format!("6:{tag},10000000000:");
        assert_eq!(decoder.next(header.as_bytes()), Ok((21, coming(LEN))));
        let mut left = LEN;
        for step in [0, 1, 65_536, 4_294_967_296, 5_000_000_000] {
            decoder.advance(step);
            left -= step;
            assert_eq!(decoder.next(b",8:exitcode,1:0,"), Ok((0, coming(left))));
            assert_eq!((decoder.offset(), decoder.at_boundary()), (21 + LEN - left, false));
        }
        decoder.advance(left);
        assert!(!decoder.at_boundary());
        assert_eq!(decoder.next(b",8:exitcode,1:0,"), Ok((16, Event::Exit(Exit::Code(0)))));
        assert_eq!((decoder.offset(), decoder.at_boundary()), (37 + LEN, true));
    }
}

#[test]
fn moving_more_than_a_payload_moves_all_of_it() {
    let mut decoder = ReplyDecoder::new();
    assert_eq!(decoder.next(b"6:stdout,5:"), Ok((11, Event::Output(Stream::Stdout, 5))));
    decoder.advance(u64::MAX);
    assert_eq!(decoder.offset(), 16);
    assert_eq!(decoder.next(b",6:stderr,2:"), Ok((12, Event::Output(Stream::Stderr, 2))));
}

#[test]
fn a_header_is_the_tag_and_the_head_of_the_payload() {
    let powers = (0..20).map(|exponent| 10_u64.pow(exponent));
    for len in powers.flat_map(|power| [power - 1, power]).chain([MAX_LEN, u64::MAX]) {
        for (stream, tag) in [(Stream::Stdout, "stdout"), (Stream::Stderr, "stderr")] {
            assert_eq!(Header::new(stream, len).as_bytes(), format!("6:{tag},{len}:").as_bytes());
        }
    }
}

#[test]
fn no_header_is_longer_than_documented() {
    for stream in [Stream::Stdout, Stream::Stderr] {
        assert_eq!(Header::new(stream, u64::MAX).as_bytes().len(), reply::MAX_HEADER);
    }
}

#[test]
fn a_daemon_writes_what_the_protocol_says() {
    assert_eq!(pair(Stream::Stdout.tag(), b"hi"), b"6:stdout,2:hi,");
    assert_eq!(pair(Stream::Stderr.tag(), b""), b"6:stderr,0:,");
    assert_eq!(pair(EXITCODE, b"0"), b"8:exitcode,1:0,");

    let mut after = b"before".to_vec();
    encode_pair(TERMSIG, b"15", &mut after);
    assert_eq!(after, b"before7:termsig,2:15,");
}

fn any_exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        any::<u8>().prop_map(Exit::Code),
        (1..=i32::MAX, 0..31_u32).prop_map(|(n, shift)| Exit::Signal(Signal::Number((n >> shift).max(1)))),
        "[A-Z]{1,8}([+-][0-9]{1,2})?|[?]{3}".prop_map(|name| Exit::Signal(Signal::Name(name.into_bytes()))),
    ]
}

fn any_pair() -> impl Strategy<Value = Seen> {
    let payload = prop::collection::vec(any::<u8>(), 1..14);
    let stream = prop_oneof![Just(Some(Stream::Stdout)), Just(Some(Stream::Stderr)), Just(None)];
    prop_oneof![
        3 => (stream, payload).prop_map(|(stream, bytes)| part(stream, bytes.len() as u64, &bytes)),
        1 => any_exit().prop_map(Seen::Exit),
    ]
}

/// Through [`Header`] where there is a stream, as the daemon does, and through [`encode_pair`] elsewhere.
fn encode(pairs: &[Seen]) -> Vec<u8> {
    let mut wire = Vec::new();
    for pair in pairs {
        match pair {
            Seen::Payload { stream: Some(stream), announced, bytes } => {
                wire.extend_from_slice(Header::new(*stream, *announced).as_bytes());
                wire.extend_from_slice(bytes);
                wire.push(netstring::TERMINATOR);
            }
            Seen::Payload { stream: None, bytes, .. } => encode_pair("started", bytes, &mut wire),
            Seen::Exit(Exit::Code(code)) => encode_pair(EXITCODE, code.to_string().as_bytes(), &mut wire),
            Seen::Exit(Exit::Signal(Signal::Number(number))) => {
                encode_pair(TERMSIG, number.to_string().as_bytes(), &mut wire);
            }
            Seen::Exit(Exit::Signal(Signal::Name(name))) => encode_pair(TERMSIG, name, &mut wire),
        }
    }
    wire
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_the_daemon_sends_a_client_reads(
        pairs in prop::collection::vec(any_pair(), 0..12),
        sizes in sizes(),
    ) {
        let bytes = encode(&pairs);
        let outcome = drive(&bytes, &sizes);
        prop_assert_eq!(outcome.seen, pairs);
        prop_assert_eq!(outcome.verdict, Ok(Place { offset: bytes.len() as u64, at_boundary: true }));
    }

    #[test]
    fn a_header_and_a_payload_are_what_encode_pair_writes(
        stderr in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 0..1200),
    ) {
        let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
        let mut bytes = Header::new(stream, payload.len() as u64).as_bytes().to_vec();
        bytes.extend_from_slice(&payload);
        bytes.push(netstring::TERMINATOR);
        prop_assert_eq!(bytes, pair(stream.tag(), &payload));
    }

    #[test]
    fn any_bytes_are_judged_as_the_naive_decoder_judges_them(
        bytes in any_bytes(prop::collection::vec(any_pair(), 0..6).prop_map(|pairs| encode(&pairs))),
        sizes in sizes(),
    ) {
        prop_assert_eq!(drive(&bytes, &sizes), naive(&bytes));
    }

    #[test]
    fn any_tag_and_status_are_judged_as_the_naive_decoder_judges_them(
        tag in "exitcode|termsig|stdout|[a-z]{0,70}",
        status in "0{0,3}|[0-9]{0,12}|[0-9A-Z+?-]{0,8}|[ -~]{0,70}",
        sizes in sizes(),
    ) {
        let bytes = pair(&tag, status.as_bytes());
        prop_assert_eq!(drive(&bytes, &sizes), naive(&bytes));
    }
}

#[test]
fn whole_pairs_ends_between_two_pairs_wherever_the_input_is_cut() {
    let mut wire = Vec::new();
    let mut ends = vec![0];
    for (tag, payload) in [("stdout", &b"hello"[..]), ("stderr", b""), ("stdout", b"6:stdout,1:x,"), ("exitcode", b"0")]
    {
        encode_pair(tag, payload, &mut wire);
        ends.push(wire.len());
    }
    for cut in 0..=wire.len() {
        let complete = ends.iter().copied().filter(|&end| end <= cut).max().unwrap();
        assert_eq!(whole_pairs(&wire[..cut], usize::MAX), complete, "cut at {cut}");
    }
}

#[test]
fn whole_pairs_stays_within_the_maximum_but_for_a_first_pair_that_is_larger() {
    let mut wire = Vec::new();
    encode_pair("stdout", &[b'x'; 100], &mut wire);
    let first = wire.len();
    encode_pair("stdout", b"y", &mut wire);
    assert_eq!(whole_pairs(&wire, 1), first);
    assert_eq!(whole_pairs(&wire, wire.len() - 1), first);
    assert_eq!(whole_pairs(&wire, wire.len()), wire.len());
}

#[test]
fn whole_pairs_finds_none_in_what_is_no_netstring() {
    assert_eq!(whole_pairs(b"GET / HTTP/1.0\r\n\r\n", usize::MAX), 0);
    assert_eq!(whole_pairs(b"6:stdout,5:hello;", usize::MAX), 0);
    assert_eq!(whole_pairs(b"6:stdout,9223372036854775807:x", usize::MAX), 0);
}
