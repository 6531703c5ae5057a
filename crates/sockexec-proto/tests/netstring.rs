//! The decoder and the encoder of netstrings, through their public interface.

mod common;

use std::convert::identity;

use common::{Stop, TRAILING, any_bytes, config, cuts, naive_comma, naive_head, naive_payload, pieces, sizes};
use proptest::prelude::*;
use sockexec_proto::netstring::{self, Decoder, Error, ErrorKind, Header, MAX_LEN, Token};

/// A netstring, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    announced: u64,
    payload: Vec<u8>,
    complete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: ErrorKind,
    offset: u64,
    text: String,
}

impl Fault {
    fn new(kind: ErrorKind, offset: u64) -> Self {
        Self { kind, offset, text: kind.to_string() }
    }
}

/// Where a decoder stands after inputs that were no error.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    offset: u64,
    at_boundary: bool,
    remaining: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    seen: Vec<Seen>,
    verdict: Result<Place, Fault>,
}

fn drive(input: &[u8], sizes: &[usize], max_digits: u8) -> Outcome {
    let mut decoder = Decoder::new(max_digits);
    let mut seen: Vec<Seen> = Vec::new();
    for piece in pieces(input, sizes) {
        if let Err(Error { kind, offset }) = feed(&mut decoder, piece, &mut seen) {
            return Outcome { seen, verdict: Err(Fault::new(kind, offset)) };
        }
    }
    let place = Place { offset: decoder.offset(), at_boundary: decoder.at_boundary(), remaining: decoder.remaining() };
    Outcome { seen, verdict: Ok(place) }
}

fn feed(decoder: &mut Decoder, mut input: &[u8], seen: &mut Vec<Seen>) -> Result<(), Error> {
    loop {
        let (used, token) = decoder.next(input)?;
        input = &input[used..];
        match token {
            Token::NeedMore => {
                assert_eq!(input, b"", "NeedMore leaves nothing");
                return Ok(());
            }
            Token::Begin(announced) => seen.push(Seen { announced, payload: Vec::new(), complete: false }),
            Token::Payload(next) => {
                let Some(current) = seen.last_mut().filter(|last| !last.complete) else {
                    unreachable!("a payload of {next} bytes without a length");
                };
                assert_eq!(next, current.announced - current.payload.len() as u64, "payload yet to come");
                assert_eq!(next, decoder.remaining());
                if input.is_empty() {
                    return Ok(());
                }
                let here = naive_payload(input, 0, next);
                current.payload.extend_from_slice(here);
                decoder.advance(here.len() as u64);
                input = &input[here.len()..];
            }
            Token::End => match seen.last_mut() {
                Some(last) if !last.complete => last.complete = true,
                Some(_) | None => unreachable!("an end without a beginning"),
            },
        }
    }
}

fn naive(input: &[u8], max_digits: u8) -> Outcome {
    let mut seen = Vec::new();
    let mut at = 0;
    let stop = loop {
        let (announced, start) = match naive_head(input, at, usize::from(max_digits), identity) {
            Ok(head) => head,
            Err(stop) => break stop,
        };
        let payload = naive_payload(input, start, announced).to_vec();
        let next = naive_comma(input, start, announced, identity);
        seen.push(Seen { announced, payload, complete: next.is_ok() });
        match next {
            Ok(next) => at = next,
            Err(stop) => break stop,
        }
    };
    let verdict = match stop {
        Stop::Bad(kind, offset) => Err(Fault::new(kind, offset)),
        Stop::Short => {
            let remaining = seen.last().map_or(0, |last| last.announced - last.payload.len() as u64);
            Ok(Place { offset: input.len() as u64, at_boundary: at == input.len(), remaining })
        }
    };
    Outcome { seen, verdict }
}

fn seen(announced: u64, payload: &[u8], complete: bool) -> Seen {
    Seen { announced, payload: payload.to_vec(), complete }
}

fn whole(payload: &[u8]) -> Seen {
    seen(payload.len() as u64, payload, true)
}

#[test]
fn netstrings_are_read_alike_however_they_are_cut() {
    let cases: [(&[u8], &[Seen]); 9] = [
        (b"", &[]),
        (b"0:,", &[whole(b"")]),
        (b"1:x,", &[whole(b"x")]),
        (b"5:hello,", &[whole(b"hello")]),
        (b"10:0123456789,", &[whole(b"0123456789")]),
        (b"0:,0:,0:,", &[whole(b""), whole(b""), whole(b"")]),
        (b"1:,,1::,2:0:,", &[whole(b","), whole(b":"), whole(b"0:")]),
        (b"8:5:hello,,2:10,", &[whole(b"5:hello,"), whole(b"10")]),
        (b"5:\0\xff\r\n ,", &[whole(b"\0\xff\r\n ")]),
    ];
    for (input, expected) in cases {
        let place = Place { offset: input.len() as u64, at_boundary: true, remaining: 0 };
        let expected = Outcome { seen: expected.to_vec(), verdict: Ok(place) };
        for sizes in cuts(input.len()) {
            assert_eq!(drive(input, &sizes, 19), expected, "\"{}\" in {sizes:?}", input.escape_ascii());
        }

        let mut more = expected;
        more.seen.push(seen(3, b"ab", false));
        more.verdict = Ok(Place { offset: input.len() as u64 + 4, at_boundary: false, remaining: 1 });
        let input = [input, b"3:ab"].concat();
        for sizes in cuts(input.len()) {
            assert_eq!(drive(&input, &sizes, 19), more, "\"{}\" in {sizes:?}", input.escape_ascii());
        }
    }
}

#[test]
fn an_unfinished_netstring_is_no_error_and_no_boundary() {
    let cases: [(&[u8], &[Seen], u64); 10] = [
        (b"0", &[], 0),
        (b"5", &[], 0),
        (b"9223372036854775807", &[], 0),
        (b"0:", &[seen(0, b"", false)], 0),
        (b"5:", &[seen(5, b"", false)], 5),
        (b"5:h", &[seen(5, b"h", false)], 4),
        (b"5:hello", &[seen(5, b"hello", false)], 0),
        (b"9223372036854775807:", &[seen(MAX_LEN, b"", false)], MAX_LEN),
        (b"9223372036854775807:,", &[seen(MAX_LEN, b",", false)], MAX_LEN - 1),
        (b"0:,1:x,2:x", &[whole(b""), whole(b"x"), seen(2, b"x", false)], 1),
    ];
    for (input, expected, remaining) in cases {
        let place = Place { offset: input.len() as u64, at_boundary: false, remaining };
        let expected = Outcome { seen: expected.to_vec(), verdict: Ok(place) };
        for sizes in cuts(input.len()) {
            assert_eq!(drive(input, &sizes, 19), expected, "\"{}\" in {sizes:?}", input.escape_ascii());
        }
    }
}

/// Each input ends with the byte that shows the fault.
#[test]
fn a_fault_is_found_at_its_byte_and_not_before() {
    let cases: [(u8, &[u8], ErrorKind, u64, &str); 34] = [
        (19, b",", ErrorKind::NoLength(b','), 0, "',' where a length was expected"),
        (19, b":", ErrorKind::NoLength(b':'), 0, "':' where a length was expected"),
        (19, b"-", ErrorKind::NoLength(b'-'), 0, "'-' where a length was expected"),
        (19, b"+", ErrorKind::NoLength(b'+'), 0, "'+' where a length was expected"),
        (19, b" ", ErrorKind::NoLength(b' '), 0, "' ' where a length was expected"),
        (19, b"/", ErrorKind::NoLength(b'/'), 0, "'/' where a length was expected"),
        (19, b"\n", ErrorKind::NoLength(b'\n'), 0, "byte 0x0a where a length was expected"),
        (19, b"\0", ErrorKind::NoLength(0), 0, "byte 0x00 where a length was expected"),
        (19, b"\x7f", ErrorKind::NoLength(0x7f), 0, "byte 0x7f where a length was expected"),
        (19, b"\xff", ErrorKind::NoLength(0xff), 0, "byte 0xff where a length was expected"),
        (19, b"5:hello,x", ErrorKind::NoLength(b'x'), 8, "'x' where a length was expected"),
        (19, b"0:,,", ErrorKind::NoLength(b','), 3, "',' where a length was expected"),
        (19, b"1,", ErrorKind::NoColon(b','), 1, "',' in a length, where a digit or ':' was expected"),
        (19, b"1 ", ErrorKind::NoColon(b' '), 1, "' ' in a length, where a digit or ':' was expected"),
        (19, b"0x", ErrorKind::NoColon(b'x'), 1, "'x' in a length, where a digit or ':' was expected"),
        (19, b"12\xb2", ErrorKind::NoColon(0xb2), 2, "byte 0xb2 in a length, where a digit or ':' was expected"),
        (19, b"1:x,2;", ErrorKind::NoColon(b';'), 5, "';' in a length, where a digit or ':' was expected"),
        (19, b"00", ErrorKind::LeadingZero, 1, "length with a leading zero"),
        (19, b"01", ErrorKind::LeadingZero, 1, "length with a leading zero"),
        (19, b"0:,05", ErrorKind::LeadingZero, 4, "length with a leading zero"),
        (1, b"01", ErrorKind::LeadingZero, 1, "length with a leading zero"),
        (0, b"0", ErrorKind::TooManyDigits(0), 0, "length of more than 0 digits"),
        (1, b"10", ErrorKind::TooManyDigits(1), 1, "length of more than 1 digits"),
        (8, b"999999999", ErrorKind::TooManyDigits(8), 8, "length of more than 8 digits"),
        (8, b"0:,100000000", ErrorKind::TooManyDigits(8), 11, "length of more than 8 digits"),
        (19, b"10000000000000000000", ErrorKind::TooManyDigits(19), 19, "length of more than 19 digits"),
        (19, b"9223372036854775808", ErrorKind::TooLong, 18, "length over 9223372036854775807"),
        (19, b"9999999999999999999", ErrorKind::TooLong, 18, "length over 9223372036854775807"),
        // Beyond 2^63 within 64 bits, and beyond 64 bits.
        (20, b"10000000000000000000", ErrorKind::TooLong, 19, "length over 9223372036854775807"),
        (255, b"20000000000000000000", ErrorKind::TooLong, 19, "length over 9223372036854775807"),
        (19, b"0:x", ErrorKind::NoComma(b'x'), 2, "'x' where ',' was expected after a payload"),
        (19, b"5:hello!", ErrorKind::NoComma(b'!'), 7, "'!' where ',' was expected after a payload"),
        (19, b"4:hello", ErrorKind::NoComma(b'o'), 6, "'o' where ',' was expected after a payload"),
        (19, b"1:x,1:x\0", ErrorKind::NoComma(0), 7, "byte 0x00 where ',' was expected after a payload"),
    ];
    for (max_digits, input, kind, offset, text) in cases {
        let fault = Fault { kind, offset, text: text.to_owned() };
        let expected = drive(input, &[input.len()], max_digits);
        assert_eq!(expected.verdict, Err(fault), "\"{}\"", input.escape_ascii());
        assert_eq!(expected, naive(input, max_digits), "\"{}\"", input.escape_ascii());
        for trailing in [b"".as_slice()].into_iter().chain(TRAILING) {
            let fed = [input, trailing].concat();
            for sizes in cuts(fed.len()) {
                assert_eq!(drive(&fed, &sizes, max_digits), expected, "\"{}\" in {sizes:?}", fed.escape_ascii());
            }
        }
        for len in 0..input.len() {
            let before = drive(&input[..len], &[1], max_digits);
            assert!(before.verdict.is_ok(), "\"{}\": {before:?}", input[..len].escape_ascii());
        }
    }
}

#[test]
fn as_many_digits_as_the_limit_are_accepted() {
    for (max_digits, digits) in [(1, "9"), (8, "99999999"), (18, "999999999999999999"), (19, "9223372036854775807")] {
        let input = format!("{digits}:");
        for sizes in cuts(input.len()) {
            let outcome = drive(input.as_bytes(), &sizes, max_digits);
            assert_eq!(outcome.seen, [seen(digits.parse().unwrap(), b"", false)], "{input} in {sizes:?}");
            assert!(outcome.verdict.is_ok(), "{input} in {sizes:?}: {outcome:?}");
        }
    }
}

#[test]
fn another_limit_of_digits_holds_from_the_next_length_on() {
    let mut decoder = Decoder::new(1);
    assert_eq!(decoder.next(b"0:"), Ok((2, Token::Begin(0))));
    assert_eq!(decoder.next(b","), Ok((1, Token::End)));
    decoder.set_max_digits(3);
    assert_eq!(decoder.next(b"100:"), Ok((4, Token::Begin(100))));
    decoder.advance(100);
    assert_eq!(decoder.next(b","), Ok((1, Token::End)));
    decoder.set_max_digits(2);
    assert_eq!(decoder.next(b"100:"), Err(Error { kind: ErrorKind::TooManyDigits(2), offset: 110 }));
}

#[test]
fn a_payload_may_be_taken_in_any_steps_without_being_shown() {
    const LEN: u64 = 10_000_000_000;
    let mut decoder = Decoder::new(19);
    assert_eq!(decoder.next(b"10000000000:"), Ok((12, Token::Begin(LEN))));
    let mut left = LEN;
    for step in [0, 1, 4095, 4_294_967_295, 4_294_967_296, 0] {
        decoder.advance(step);
        left -= step;
        assert_eq!(decoder.next(b",,"), Ok((0, Token::Payload(left))));
        assert_eq!(decoder.next(b""), Ok((0, Token::Payload(left))));
        assert_eq!((decoder.remaining(), decoder.offset()), (left, 12 + LEN - left));
    }
    decoder.advance(left);
    assert_eq!((decoder.remaining(), decoder.offset()), (0, 12 + LEN));
    assert_eq!(decoder.next(b""), Ok((0, Token::NeedMore)));
    assert_eq!(decoder.next(b",,"), Ok((1, Token::End)));
    assert_eq!(decoder.offset(), 13 + LEN);
    assert!(decoder.at_boundary());
}

#[test]
fn the_longest_payload_can_be_taken_at_once() {
    let mut decoder = Decoder::new(19);
    assert_eq!(decoder.next(b"9223372036854775807:"), Ok((20, Token::Begin(MAX_LEN))));
    decoder.advance(MAX_LEN);
    assert_eq!(decoder.next(b","), Ok((1, Token::End)));
    assert_eq!(decoder.offset(), MAX_LEN + 21);
}

#[test]
fn taking_more_than_was_announced_takes_all_of_it() {
    let mut decoder = Decoder::new(19);
    assert_eq!(decoder.next(b"3:"), Ok((2, Token::Begin(3))));
    decoder.advance(u64::MAX);
    assert_eq!((decoder.remaining(), decoder.offset()), (0, 5));
    assert_eq!(decoder.next(b","), Ok((1, Token::End)));
}

#[test]
fn taking_payload_where_there_is_none_changes_nothing() {
    let input = b"10:0123456789,0:,";
    for at in (0..=2).chain(13..=input.len()) {
        let mut decoder = Decoder::new(19);
        let mut seen = Vec::new();
        feed(&mut decoder, &input[..at], &mut seen).unwrap();
        decoder.advance(7);
        feed(&mut decoder, &input[at..], &mut seen).unwrap();
        assert_eq!(seen, [whole(b"0123456789"), whole(b"")], "at {at}");
        assert_eq!(decoder.offset(), input.len() as u64, "at {at}");
    }
}

#[test]
fn a_header_is_the_length_in_decimal_and_a_colon() {
    let powers = (0..20).map(|exponent| 10_u64.pow(exponent));
    let lengths = powers.flat_map(|power| [power - 1, power, power + 1]).chain([MAX_LEN, MAX_LEN + 1, u64::MAX]);
    for len in lengths {
        let expected = format!("{len}:");
        assert_eq!(Header::new(len).as_bytes(), expected.as_bytes());
    }
}

/// A decoder's error by itself, which the daemon never shows: requests and replies have errors of their own.
#[test]
fn an_error_is_shown_with_its_place() {
    let error = Decoder::new(19).next(b"12x").unwrap_err();
    assert_eq!(error.to_string(), "'x' in a length, where a digit or ':' was expected at byte 2");
}

#[test]
fn the_documented_numbers_hold() {
    assert_eq!(MAX_LEN, 9_223_372_036_854_775_807);
    assert_eq!(Header::new(MAX_LEN).as_bytes().len(), netstring::MAX_HEADER);
}

#[test]
fn encode_appends() {
    let mut out = b"before".to_vec();
    netstring::encode(b"", &mut out);
    netstring::encode(b"hello, world", &mut out);
    assert_eq!(out, b"before0:,12:hello, world,");
}

fn valid() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..14), 0..6).prop_map(|payloads| {
        let mut bytes = Vec::new();
        for payload in payloads {
            netstring::encode(&payload, &mut bytes);
        }
        bytes
    })
}

/// More than a u64 counts is legal: the offset stays where it can go no further.
#[test]
fn an_offset_beyond_all_counting_stays() {
    let mut decoder = Decoder::new(19);
    let mut input = Header::new(MAX_LEN).as_bytes().to_vec();
    for _ in 0..4 {
        assert_eq!(decoder.next(&input), Ok((input.len(), Token::Begin(MAX_LEN))));
        decoder.advance(MAX_LEN);
        assert_eq!(decoder.next(b","), Ok((1, Token::End)));
        input = Header::new(MAX_LEN).as_bytes().to_vec();
    }
    assert_eq!(decoder.offset(), u64::MAX);
    let error = decoder.next(b"x").unwrap_err();
    assert_eq!((error.kind, error.offset), (ErrorKind::NoLength(b'x'), u64::MAX));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_was_encoded_is_decoded(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..8),
        sizes in sizes(),
    ) {
        let mut bytes = Vec::new();
        for payload in &payloads {
            netstring::encode(payload, &mut bytes);
        }
        let outcome = drive(&bytes, &sizes, 3);
        prop_assert_eq!(outcome.seen, payloads.iter().map(|payload| whole(payload)).collect::<Vec<_>>());
        prop_assert_eq!(outcome.verdict, Ok(Place { offset: bytes.len() as u64, at_boundary: true, remaining: 0 }));
    }

    #[test]
    fn any_bytes_are_judged_as_the_naive_decoder_judges_them(
        bytes in any_bytes(valid()),
        sizes in sizes(),
        max_digits in prop_oneof![Just(19_u8), 0..22_u8],
    ) {
        prop_assert_eq!(drive(&bytes, &sizes, max_digits), naive(&bytes, max_digits));
    }

    #[test]
    fn any_length_is_judged_as_the_naive_decoder_judges_it(
        length in "[0-9]{1,24}[:,x]?",
        sizes in sizes(),
        max_digits in 0..26_u8,
    ) {
        let bytes = length.as_bytes();
        prop_assert_eq!(drive(bytes, &sizes, max_digits), naive(bytes, max_digits));
    }

    #[test]
    fn any_header_is_decoded_to_its_length(len in 0..=MAX_LEN, shift in 0..64_u32) {
        // The shift makes all digit counts alike in frequency.
        let len = len >> shift;
        let header = Header::new(len);
        let used = header.as_bytes().len();
        prop_assert_eq!(Decoder::new(19).next(header.as_bytes()), Ok((used, Token::Begin(len))));
    }
}
