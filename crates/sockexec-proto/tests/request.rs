//! Requests, through the public interface: what the daemon reads and what a client writes.

mod common;

use common::{Stop, TRAILING, any_bytes, config, cuts, naive_comma, naive_head, naive_payload, pieces, sizes};
use proptest::prelude::*;
use sockexec_proto::error::BadRequestKind;
use sockexec_proto::netstring::{self, ErrorKind, MAX_LEN};
use sockexec_proto::request::{self, END_OF_STDIN, Event, chunk_header, encode_exec};
use sockexec_proto::{BadRequest, RequestDecoder};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Exec(Vec<Vec<u8>>),
    /// A chunk of standard input, as far as it was read.
    Stdin {
        announced: u64,
        bytes: Vec<u8>,
    },
    EndOfStdin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: BadRequestKind,
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
    /// Bytes consumed: those after the end of standard input are not.
    offset: u64,
    ended: bool,
    /// What the decoder makes of an end of file here.
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
    let (offset, ended) = (decoder.offset(), decoder.ended());
    let end_of_file = decoder.end_of_file().map_err(Fault::from);
    if end_of_file.is_ok() {
        assert!(decoder.ended(), "an end of file that is accepted ends standard input");
        assert_eq!(decoder.next(b"0:,"), Ok((0, Event::EndOfStdin)));
    }
    Outcome { seen: reading.seen, verdict: Ok(Place { offset, ended, end_of_file }) }
}

#[derive(Debug, Default)]
struct Reading {
    seen: Vec<Seen>,
    /// Bytes of the current chunk that are still to come.
    left: u64,
}

impl Reading {
    fn feed(&mut self, decoder: &mut RequestDecoder, mut input: &[u8]) -> Result<(), BadRequest> {
        loop {
            let (used, event) = decoder.next(input)?;
            input = &input[used..];
            match event {
                Event::NeedMore => {
                    assert_eq!(input, b"", "NeedMore leaves nothing");
                    return Ok(());
                }
                Event::Exec(argv) => {
                    self.seen.push(Seen::Exec(argv.iter().map(|argument| argument.to_bytes().to_vec()).collect()));
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
                Event::EndOfStdin if self.seen.last() == Some(&Seen::EndOfStdin) => {
                    assert_eq!(used, 0, "what comes after the end is left alone");
                    return Ok(());
                }
                Event::EndOfStdin => self.seen.push(Seen::EndOfStdin),
                event @ (Event::Protocol
                | Event::Start(_)
                | Event::Status
                | Event::Signal(_)
                | Event::WindowSize(_)) => {
                    unreachable!("version 2: {event:?}");
                }
            }
        }
    }

    fn stdin(&mut self, next: u64, here: &[u8]) {
        if self.left == 0 {
            self.seen.push(Seen::Stdin { announced: next, bytes: Vec::new() });
            self.left = next;
        }
        assert_eq!(next, self.left, "bytes of the chunk yet to come");
        assert_ne!(next, 0, "a chunk of nothing");
        if let Some(Seen::Stdin { bytes, .. }) = self.seen.last_mut() {
            bytes.extend_from_slice(here);
        }
        self.left -= here.len() as u64;
    }
}

fn naive(input: &[u8]) -> Outcome {
    let mut seen = Vec::new();
    let stop = naive_exec(input, &mut seen).and_then(|at| naive_stdin(input, at, &mut seen));
    let fault = |kind, offset| Fault::from(BadRequest { kind, offset });
    let all = input.len() as u64;
    let verdict = match stop {
        Err(Stop::Bad(kind, offset)) => Err(fault(kind, offset)),
        Err(Stop::Short) => {
            let end_of_file = Err(fault(BadRequestKind::UnexpectedEnd, all));
            Ok(Place { offset: all, ended: false, end_of_file })
        }
        Ok(end) => Ok(Place { offset: end as u64, ended: seen.last() == Some(&Seen::EndOfStdin), end_of_file: Ok(()) }),
    };
    Outcome { seen, verdict }
}

type Naive<T> = Result<T, Stop<BadRequestKind>>;

/// Where standard input begins.
fn naive_exec(input: &[u8], seen: &mut Vec<Seen>) -> Naive<usize> {
    let (len, start) = naive_head(input, 0, 8, BadRequestKind::Netstring)?;
    if len > 20 {
        return Err(Stop::Bad(BadRequestKind::CountTooLong, start as u64));
    }
    let mut at = naive_comma(input, start, len, BadRequestKind::Netstring)?;
    let text = naive_payload(input, start, len);
    let count = String::from_utf8_lossy(text);
    let count: u128 = match count.parse() {
        Ok(count) if !text.starts_with(b"+") => count,
        Ok(_) | Err(_) => return Err(Stop::Bad(BadRequestKind::CountNotANumber(text.to_vec()), start as u64)),
    };
    if count == 0 {
        return Err(Stop::Bad(BadRequestKind::CountZero, start as u64));
    }
    if count > 65_536 {
        return Err(Stop::Bad(BadRequestKind::TooManyArguments, start as u64));
    }

    let mut argv = Vec::new();
    while (argv.len() as u128) < count {
        let (len, start) = naive_head(input, at, 8, BadRequestKind::Netstring)?;
        let comma = start as u64 + len;
        if comma >= 4_194_304 {
            return Err(Stop::Bad(BadRequestKind::HeaderTooLong, start as u64));
        }
        at = naive_comma(input, start, len, BadRequestKind::Netstring)?;
        let argument = naive_payload(input, start, len);
        if let Some(nul) = argument.iter().position(|&byte| byte == 0) {
            return Err(Stop::Bad(BadRequestKind::NulByte(argv.len()), (start + nul) as u64));
        }
        argv.push(argument.to_vec());
    }
    seen.push(Seen::Exec(argv));
    Ok(at)
}

/// Where standard input ends: after the empty netstring, or with the input.
fn naive_stdin(input: &[u8], mut at: usize, seen: &mut Vec<Seen>) -> Naive<usize> {
    while at < input.len() {
        let (len, start) = naive_head(input, at, 19, BadRequestKind::Netstring)?;
        if len > 0 {
            seen.push(Seen::Stdin { announced: len, bytes: naive_payload(input, start, len).to_vec() });
        }
        at = naive_comma(input, start, len, BadRequestKind::Netstring)?;
        if len == 0 {
            seen.push(Seen::EndOfStdin);
            return Ok(at);
        }
    }
    Ok(at)
}

fn exec(argv: &[&[u8]]) -> Seen {
    Seen::Exec(argv.iter().map(|argument| argument.to_vec()).collect())
}

fn stdin(announced: u64, bytes: &[u8]) -> Seen {
    Seen::Stdin { announced, bytes: bytes.to_vec() }
}

fn chunk(bytes: &[u8]) -> Seen {
    stdin(bytes.len() as u64, bytes)
}

fn early_end(offset: usize) -> Fault {
    Fault {
        kind: BadRequestKind::UnexpectedEnd,
        offset: offset as u64,
        text: format!("request ends early at byte {offset}"),
    }
}

fn check(input: &[u8], expected: &Outcome) {
    for sizes in cuts(input.len()) {
        assert_eq!(drive(input, &sizes), *expected, "\"{}\" in {sizes:?}", input.escape_ascii());
    }
}

/// That `input` is refused with its last byte and not before, whatever follows.
fn check_refused(input: &[u8], kind: BadRequestKind, offset: u64, text: &str) {
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

#[test]
fn the_default_is_a_decoder_at_the_start_of_a_connection() {
    assert_eq!(RequestDecoder::default(), RequestDecoder::new());
    let mut decoder = RequestDecoder::default();
    assert_eq!(decoder.next(b"1:1,1:a,"), Ok((8, Event::Exec([c"a"].into_iter().collect()))));
}

#[test]
fn the_program_starts_at_the_comma_of_its_last_argument() {
    let cases: [(&[u8], &[&[u8]]); 9] = [
        (b"1:1,4:true,", &[b"true"]),
        (b"1:2,4:echo,2:hi,", &[b"echo", b"hi"]),
        (b"1:1,0:,", &[b""]),
        (b"1:3,2:sh,0:,0:,", &[b"sh", b"", b""]),
        (b"1:2,1:,,3:0:,,", &[b",", b"0:,"]),
        (b"1:1,4:\xff\x01\n ,", &[b"\xff\x01\n "]),
        (b"1:1,11:0123456789a,", &[b"0123456789a"]),
        // 3.1.1 accepts leading zeros in the number, which is not a length.
        (b"2:01,1:a,", &[b"a"]),
        (b"20:00000000000000000002,1:a,1:b,", &[b"a", b"b"]),
    ];
    for (input, argv) in cases {
        let offset = input.len();
        let started = Outcome {
            seen: vec![exec(argv)],
            verdict: Ok(Place { offset: offset as u64, ended: false, end_of_file: Ok(()) }),
        };
        check(input, &started);

        let mut more = started.clone();
        more.seen.push(stdin(3, b"ab"));
        more.verdict = Ok(Place { offset: offset as u64 + 4, ended: false, end_of_file: Err(early_end(offset + 4)) });
        check(&[input, b"3:ab"].concat(), &more);

        for len in 0..offset {
            let waiting = Outcome {
                seen: Vec::new(),
                verdict: Ok(Place { offset: len as u64, ended: false, end_of_file: Err(early_end(len)) }),
            };
            check(&input[..len], &waiting);
        }
    }
}

#[test]
fn standard_input_is_passed_on_chunk_by_chunk_until_the_empty_netstring() {
    let cases: [(&[u8], &[Seen]); 6] = [
        (b"0:,", &[Seen::EndOfStdin]),
        (b"1:x,0:,", &[chunk(b"x"), Seen::EndOfStdin]),
        (b"5:hello,6: world,0:,", &[chunk(b"hello"), chunk(b" world"), Seen::EndOfStdin]),
        (b"3:0:,,1:,,0:,", &[chunk(b"0:,"), chunk(b","), Seen::EndOfStdin]),
        (b"3:\0\xff\0,0:,", &[chunk(b"\0\xff\0"), Seen::EndOfStdin]),
        (b"11:0123456789a,0:,", &[chunk(b"0123456789a"), Seen::EndOfStdin]),
    ];
    for (input, expected) in cases {
        let input = [b"1:1,3:cat,", input].concat();
        let ended = Outcome {
            seen: [&[exec(&[b"cat"])], expected].concat(),
            verdict: Ok(Place { offset: input.len() as u64, ended: true, end_of_file: Ok(()) }),
        };
        check(&input, &ended);
        for trailing in TRAILING {
            check(&[&input, trailing].concat(), &ended);
        }
    }
}

#[test]
fn an_end_of_file_ends_standard_input_between_chunks_and_is_a_fault_elsewhere() {
    let input = b"1:2,3:cat,1:-,2:hi,10:0123456789,0:,more";
    let boundaries = [14, 19, 33];
    let end = 36;
    for len in 0..=input.len() {
        let outcome = drive(&input[..len], &[1]);
        let end_of_file = if boundaries.contains(&len) || len >= end { Ok(()) } else { Err(early_end(len)) };
        let place = Place { offset: len.min(end) as u64, ended: len >= end, end_of_file };
        assert_eq!(outcome.verdict, Ok(place), "after {len} bytes");
    }
}

#[test]
fn an_end_of_file_after_the_end_or_twice_is_no_fault() {
    let mut decoder = RequestDecoder::new();
    assert!(matches!(decoder.next(b"1:1,1:a,"), Ok((8, Event::Exec(_)))));
    assert_eq!(decoder.end_of_file(), Ok(()));
    assert_eq!(decoder.end_of_file(), Ok(()));
    assert_eq!(decoder.offset(), 8);
}

#[test]
fn broken_framing_is_refused_in_every_part() {
    let cases: [(&[u8], ErrorKind, u64, &str); 14] = [
        (b"G", ErrorKind::NoLength(b'G'), 0, "'G' where a length was expected at byte 0"),
        (b"\x16", ErrorKind::NoLength(0x16), 0, "byte 0x16 where a length was expected at byte 0"),
        (b"1 ", ErrorKind::NoColon(b' '), 1, "' ' in a length, where a digit or ':' was expected at byte 1"),
        (b"01", ErrorKind::LeadingZero, 1, "length with a leading zero at byte 1"),
        (b"1:1;", ErrorKind::NoComma(b';'), 3, "';' where ',' was expected after a payload at byte 3"),
        (b"1:1,x", ErrorKind::NoLength(b'x'), 4, "'x' where a length was expected at byte 4"),
        (b"1:1,00", ErrorKind::LeadingZero, 5, "length with a leading zero at byte 5"),
        (b"1:1,4:true\n", ErrorKind::NoComma(b'\n'), 10, "byte 0x0a where ',' was expected after a payload at byte 10"),
        (b"1:1,1:a,-", ErrorKind::NoLength(b'-'), 8, "'-' where a length was expected at byte 8"),
        (b"1:1,1:a,5,", ErrorKind::NoColon(b','), 9, "',' in a length, where a digit or ':' was expected at byte 9"),
        (b"1:1,1:a,1:xx", ErrorKind::NoComma(b'x'), 11, "'x' where ',' was expected after a payload at byte 11"),
        (b"1:1,1:a,1:x,03", ErrorKind::LeadingZero, 13, "length with a leading zero at byte 13"),
        (b"1:1,1:a,00", ErrorKind::LeadingZero, 9, "length with a leading zero at byte 9"),
        (b"1:1,1:a,0:0", ErrorKind::NoComma(b'0'), 10, "'0' where ',' was expected after a payload at byte 10"),
    ];
    for (input, kind, offset, text) in cases {
        check_refused(input, BadRequestKind::Netstring(kind), offset, text);
    }
}

#[test]
fn a_number_of_arguments_that_is_none_is_refused() {
    let cases: [(&[u8], &[u8], &str); 9] = [
        (b"0:,", b"", "number of arguments is not a decimal number: \"\" at byte 2"),
        (b"1:x,", b"x", "number of arguments is not a decimal number: \"x\" at byte 2"),
        (b"2:-1,", b"-1", "number of arguments is not a decimal number: \"-1\" at byte 2"),
        (b"2:+1,", b"+1", "number of arguments is not a decimal number: \"+1\" at byte 2"),
        (b"2:1 ,", b"1 ", "number of arguments is not a decimal number: \"1 \" at byte 2"),
        (b"3:0x1,", b"0x1", "number of arguments is not a decimal number: \"0x1\" at byte 2"),
        (b"4:\"\n\0\xb2,", b"\"\n\0\xb2", r#"number of arguments is not a decimal number: "\"\n\x00\xb2" at byte 2"#),
        (b"10:protokol=2,", b"protokol=2", "number of arguments is not a decimal number: \"protokol=2\" at byte 3"),
        (
            b"20:0000000000000000000x,",
            b"0000000000000000000x",
            "number of arguments is not a decimal number: \"0000000000000000000x\" at byte 3",
        ),
    ];
    for (input, bytes, text) in cases {
        let offset = input.iter().position(|&byte| byte == b':').unwrap() as u64 + 1;
        check_refused(input, BadRequestKind::CountNotANumber(bytes.to_vec()), offset, text);
    }
}

#[test]
fn a_number_of_more_than_20_bytes_is_refused_by_its_length() {
    let text = "number of arguments of more than 20 bytes at byte";
    let kind = BadRequestKind::CountTooLong;
    check_refused(b"21:", kind.clone(), 3, &format!("{text} 3"));
    check_refused(b"99999999:", kind, 9, &format!("{text} 9"));
}

#[test]
fn no_arguments_and_too_many_are_refused_by_their_number() {
    let too_many = BadRequestKind::TooManyArguments;
    check_refused(b"1:0,", BadRequestKind::CountZero, 2, "number of arguments is 0 at byte 2");
    check_refused(b"3:000,", BadRequestKind::CountZero, 2, "number of arguments is 0 at byte 2");
    check_refused(b"5:65537,", too_many.clone(), 2, "more than 65536 arguments at byte 2");
    // In 64 bits these would wrap to 0, 1 and 8.
    check_refused(b"20:18446744073709551616,", too_many.clone(), 3, "more than 65536 arguments at byte 3");
    check_refused(b"20:18446744073709551617,", too_many.clone(), 3, "more than 65536 arguments at byte 3");
    check_refused(b"20:36893488147419103240,", too_many.clone(), 3, "more than 65536 arguments at byte 3");
    check_refused(b"20:99999999999999999999,", too_many, 3, "more than 65536 arguments at byte 3");
}

#[test]
fn a_nul_byte_in_an_argument_is_refused_at_its_place() {
    let cases: [(&[u8], usize, u64); 6] = [
        (b"1:1,1:\0,", 0, 6),
        (b"1:1,4:tr\0e,", 0, 8),
        (b"1:1,4:tru\0,", 0, 9),
        (b"1:1,3:\0\0\0,", 0, 6),
        (b"1:3,4:echo,0:,5:a\0\0bc,", 2, 17),
        (b"1:2,1:a,12:0123456789a\0,", 1, 22),
    ];
    for (input, argument, offset) in cases {
        let text = format!("argument {argument} holds a NUL byte at byte {offset}");
        check_refused(input, BadRequestKind::NulByte(argument), offset, &text);
    }
}

#[test]
fn a_length_in_the_header_has_8_digits_at_most() {
    let kind = BadRequestKind::Netstring(ErrorKind::TooManyDigits(8));
    check_refused(b"100000000", kind.clone(), 8, "length of more than 8 digits at byte 8");
    check_refused(b"1:1,100000000", kind.clone(), 12, "length of more than 8 digits at byte 12");
    check_refused(b"1:2,1:a,999999999", kind, 16, "length of more than 8 digits at byte 16");

    // Eight are read as a length, and it is the length that is too much.
    let kind = BadRequestKind::HeaderTooLong;
    check_refused(b"1:1,10000000:", kind, 13, "arguments of more than 4194304 bytes in all at byte 13");
}

#[test]
fn a_length_of_standard_input_goes_up_to_2_to_the_63_less_1() {
    let start = b"1:1,1:a,";
    for (digits, announced) in
        [("100000000", 100_000_000), ("999999999999999999", 999_999_999_999_999_999), ("9223372036854775807", MAX_LEN)]
    {
        let input = [start, digits.as_bytes(), b":x"].concat();
        let offset = input.len();
        let streaming = Outcome {
            seen: vec![exec(&[b"a"]), stdin(announced, b"x")],
            verdict: Ok(Place { offset: offset as u64, ended: false, end_of_file: Err(early_end(offset)) }),
        };
        check(&input, &streaming);
    }

    let too_long = BadRequestKind::Netstring(ErrorKind::TooLong);
    let input = [start.as_slice(), b"9223372036854775808"].concat();
    check_refused(&input, too_long, 26, "length over 9223372036854775807 at byte 26");
    let too_many = BadRequestKind::Netstring(ErrorKind::TooManyDigits(19));
    let input = [start.as_slice(), b"10000000000000000000"].concat();
    check_refused(&input, too_many, 27, "length of more than 19 digits at byte 27");
}

/// `1:1,LEN:` of a request that is `total` bytes long up to the comma of its argument.
fn head_of_one_argument(total: usize) -> Vec<u8> {
    // "1:1,", seven digits and a colon, the comma.
    format!("1:1,{}:", total - 4 - 8 - 1).into_bytes()
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for nothing that fewer bytes would not show")]
fn a_header_of_exactly_4_mib_is_accepted() {
    let mut input = head_of_one_argument(4 << 20);
    let argument = vec![b'x'; (4 << 20) - 1 - input.len()];
    input.extend_from_slice(&argument);
    input.push(b',');
    assert_eq!(input.len(), 4_194_304);

    for sizes in [vec![input.len()], vec![1], vec![65_536, 0, 7]] {
        let outcome = drive(&input, &sizes);
        // Not assert_eq: what it would print has 4 MiB.
        assert!(outcome.seen == [exec(&[&argument])], "in {sizes:?}");
        assert_eq!(outcome.verdict, Ok(Place { offset: 4_194_304, ended: false, end_of_file: Ok(()) }), "in {sizes:?}");
    }
}

#[test]
fn a_header_of_one_byte_more_is_refused_by_the_length_alone() {
    let input = head_of_one_argument((4 << 20) + 1);
    let text = "arguments of more than 4194304 bytes in all at byte 12";
    check_refused(&input, BadRequestKind::HeaderTooLong, 12, text);
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for nothing that fewer bytes would not show")]
fn the_framing_of_all_arguments_counts_towards_4_mib() {
    // After the first argument there is room for one empty argument and no more.
    let first = vec![b'x'; (4 << 20) - 3 - 4 - 8 - 1];
    let mut input = format!("1:3,{}:", first.len()).into_bytes();
    input.extend_from_slice(&first);
    input.extend_from_slice(b",0:,");
    assert_eq!(input.len(), 4_194_304);
    let place = drive(&input, &[4096]).verdict;
    assert_eq!(place, Ok(Place { offset: 4_194_304, ended: false, end_of_file: Err(early_end(4 << 20)) }));

    input.extend_from_slice(b"0:");
    let fault = Fault {
        kind: BadRequestKind::HeaderTooLong,
        offset: 4_194_306,
        text: "arguments of more than 4194304 bytes in all at byte 4194306".to_owned(),
    };
    for sizes in [vec![input.len()], vec![1], vec![4_194_304, 2]] {
        assert_eq!(drive(&input, &sizes).verdict, Err(fault.clone()), "in {sizes:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for nothing that fewer bytes would not show")]
fn standard_input_does_not_count_towards_4_mib() {
    let bytes = vec![b'x'; 4 << 20];
    let mut input = b"1:1,1:a,".to_vec();
    netstring::encode(&bytes, &mut input);
    let outcome = drive(&input, &[100_000]);
    assert!(outcome.seen == [exec(&[b"a"]), chunk(&bytes)]);
    assert_eq!(outcome.verdict, Ok(Place { offset: input.len() as u64, ended: false, end_of_file: Ok(()) }));
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for nothing that fewer arguments would not show")]
fn exactly_65536_arguments_are_accepted() {
    let argv: Vec<&[u8]> = vec![b""; 65_536];
    let mut input = Vec::new();
    encode_exec(&argv, &mut input);
    for sizes in [vec![input.len()], vec![1], vec![1000]] {
        let outcome = drive(&input, &sizes);
        assert!(outcome.seen == [exec(&argv)], "in {sizes:?}");
        assert_eq!(
            outcome.verdict,
            Ok(Place { offset: input.len() as u64, ended: false, end_of_file: Ok(()) }),
            "in {sizes:?}",
        );
    }
}

#[test]
fn a_chunk_of_10_gb_is_moved_without_being_shown() {
    const LEN: u64 = 10_000_000_000;
    let mut decoder = RequestDecoder::new();
    assert!(matches!(decoder.next(b"1:1,3:cat,"), Ok((10, Event::Exec(_)))));
    assert_eq!(decoder.next(b"10000000000:"), Ok((12, Event::Stdin(LEN))));
    let mut left = LEN;
    for step in [0, 1, 65_536, 4_294_967_296, 5_000_000_000] {
        decoder.advance(step);
        left -= step;
        assert_eq!(decoder.next(b"0:,"), Ok((0, Event::Stdin(left))));
        assert_eq!(decoder.offset(), 22 + LEN - left);
        assert_eq!(decoder.end_of_file().unwrap_err().offset, 22 + LEN - left);
    }
    decoder.advance(left);
    assert_eq!(decoder.end_of_file().unwrap_err().offset, 22 + LEN);
    assert_eq!(decoder.next(b",0:,"), Ok((4, Event::EndOfStdin)));
    assert_eq!(decoder.offset(), 26 + LEN);
}

#[test]
fn moving_more_than_a_chunk_moves_all_of_it() {
    let mut decoder = RequestDecoder::new();
    assert!(matches!(decoder.next(b"1:1,3:cat,"), Ok((10, Event::Exec(_)))));
    assert_eq!(decoder.next(b"5:"), Ok((2, Event::Stdin(5))));
    decoder.advance(u64::MAX);
    assert_eq!(decoder.offset(), 17);
    assert_eq!(decoder.next(b",2:"), Ok((3, Event::Stdin(2))));
}

#[test]
fn the_documented_numbers_hold() {
    assert_eq!(request::MAX_ARGUMENTS, 65_536);
    assert_eq!(request::MAX_HEADER_BYTES, 4 * 1024 * 1024);
    assert_eq!(request::MAX_HEADER_DIGITS, 8);
    assert_eq!(request::MAX_STDIN_DIGITS, 19);
}

#[test]
fn a_client_writes_what_the_protocol_says() {
    let mut out = b"before".to_vec();
    encode_exec(&["echo", "hello, world", ""], &mut out);
    assert_eq!(out, b"before1:3,4:echo,12:hello, world,0:,");

    let mut out = Vec::new();
    encode_exec::<&[u8]>(&[], &mut out);
    assert_eq!(out, b"1:0,", "the daemon is the one who judges");

    assert_eq!(chunk_header(1).as_bytes(), b"1:");
    assert_eq!(chunk_header(10_000_000_000).as_bytes(), b"10000000000:");
    assert_eq!(chunk_header(0).as_bytes(), b"0:");
    assert_eq!(END_OF_STDIN, b"0:,");
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for nothing that fewer arguments would not show")]
fn the_number_of_arguments_is_written_in_decimal_whatever_its_size() {
    for count in [1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 65_536, 65_537] {
        let argv = vec![""; count];
        let mut out = Vec::new();
        encode_exec(&argv, &mut out);
        let number = count.to_string();
        assert_eq!(out, format!("{}:{number},{}", number.len(), "0:,".repeat(count)).into_bytes());
    }
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255_u8, 0..14)
}

fn request(argv: &[Vec<u8>], chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_exec(argv, &mut bytes);
    for chunk in chunks {
        bytes.extend_from_slice(chunk_header(chunk.len() as u64).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.push(netstring::TERMINATOR);
    }
    bytes
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    // None, and NUL bytes, are for the daemon to refuse.
    let byte = prop_oneof![40 => 1..=255_u8, 1 => Just(0)];
    let argv = prop::collection::vec(prop::collection::vec(byte, 0..14), 0..5);
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..14), 0..5);
    (argv, chunks).prop_map(|(argv, chunks)| request(&argv, &chunks))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_a_client_sends_the_daemon_reads(
        argv in prop::collection::vec(argument(), 1..15),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..120), 0..5),
        ended in any::<bool>(),
        sizes in sizes(),
    ) {
        let mut bytes = request(&argv, &chunks);
        let mut expected = vec![Seen::Exec(argv)];
        expected.extend(chunks.iter().map(|bytes| chunk(bytes)));
        if ended {
            bytes.extend_from_slice(END_OF_STDIN);
            expected.push(Seen::EndOfStdin);
        }
        let outcome = drive(&bytes, &sizes);
        prop_assert_eq!(outcome.seen, expected);
        prop_assert_eq!(outcome.verdict, Ok(Place { offset: bytes.len() as u64, ended, end_of_file: Ok(()) }));
    }

    #[test]
    fn any_bytes_are_judged_as_the_naive_decoder_judges_them(bytes in any_bytes(any_request()), sizes in sizes()) {
        prop_assert_eq!(drive(&bytes, &sizes), naive(&bytes));
    }

    #[test]
    fn any_number_of_arguments_is_judged_as_the_naive_decoder_judges_it(
        number in "[0-9]{1,22}|[ +0-9x-]{0,22}",
        sizes in sizes(),
    ) {
        let bytes = format!("{}:{number},", number.len()).into_bytes();
        prop_assert_eq!(drive(&bytes, &sizes), naive(&bytes));
    }

    #[test]
    fn any_length_after_the_program_is_judged_as_the_naive_decoder_judges_it(
        argc in 1..3_u8,
        length in "[0-9]{1,24}[:,x]?",
        sizes in sizes(),
    ) {
        let bytes = format!("1:{argc},1:a,{length}").into_bytes();
        prop_assert_eq!(drive(&bytes, &sizes), naive(&bytes));
    }
}
