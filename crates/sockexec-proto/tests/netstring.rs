//! Netstrings, through the public interface of their decoder and encoder.

mod common;

use std::convert::identity;

use common::bytes::{any_bytes, any_cut, config};
use common::drive::{Driver, Fault, NetstringPlace as Place, OutcomeOf, Source, drive};
use common::naive::{self, Stop};
use common::{check, check_refused};
use proptest::prelude::*;
use sockexec_proto::netstring::{self, Decoder, Error, ErrorKind, Header, MAX_LEN, Token};

type Seen = common::drive::Seen<Token>;
type Outcome = OutcomeOf<Decoder>;

/// What a naive decoder says.
fn naive(input: &[u8], max_digits: u8) -> Outcome {
    let mut seen = Vec::new();
    let mut at = 0;
    let stop = loop {
        match naive_netstring(input, at, max_digits, &mut seen) {
            Ok(next) => at = next,
            Err(stop) => break stop,
        }
    };
    let verdict = match stop {
        Stop::Bad(kind, offset) => Err(Fault::from(Error { kind, offset })),
        Stop::Short => {
            let remaining = match seen.last() {
                Some(Seen::Payload(_, announced, bytes)) => announced - bytes.len() as u64,
                Some(Seen::Event(_)) | None => 0,
            };
            Ok(Place { offset: input.len() as u64, at_boundary: at == input.len(), remaining })
        }
    };
    Outcome { seen, verdict }
}

/// Returns where the netstring at `at` ends.
fn naive_netstring(input: &[u8], at: usize, max_digits: u8, seen: &mut Vec<Seen>) -> Result<usize, Stop<ErrorKind>> {
    let (len, start) = naive::head(input, at, usize::from(max_digits), identity)?;
    seen.extend(begun(len, naive::payload(input, start, len)));
    let next = naive::comma(input, start, len, identity)?;
    seen.push(Seen::Event(Token::End));
    Ok(next)
}

/// A netstring without its end.
fn begun(announced: u64, payload: &[u8]) -> Vec<Seen> {
    let begin = Seen::Event(Token::Begin(announced));
    let payload = (announced > 0).then(|| Seen::Payload(Source::Netstring, announced, payload.to_vec()));
    [begin].into_iter().chain(payload).collect()
}

fn whole(payload: &[u8]) -> Vec<Seen> {
    let mut seen = begun(payload.len() as u64, payload);
    seen.push(Seen::Event(Token::End));
    seen
}

fn decoder() -> Decoder {
    Decoder::new(19)
}

#[test]
fn netstrings_are_read_alike_however_they_are_cut() {
    let cases: [(&[u8], &[&[u8]]); 9] = [
        (b"", &[]),
        (b"0:,", &[b""]),
        (b"1:x,", &[b"x"]),
        (b"5:hello,", &[b"hello"]),
        (b"10:0123456789,", &[b"0123456789"]),
        (b"0:,0:,0:,", &[b"", b"", b""]),
        (b"1:,,1::,2:0:,", &[b",", b":", b"0:"]),
        (b"8:5:hello,,2:10,", &[b"5:hello,", b"10"]),
        (b"5:\0\xff\r\n ,", &[b"\0\xff\r\n "]),
    ];
    for (input, payloads) in cases {
        let seen = payloads.iter().flat_map(|payload| whole(payload)).collect();
        let offset = input.len() as u64;
        let mut expected = Outcome { seen, verdict: Ok(Place { offset, at_boundary: true, remaining: 0 }) };
        check(decoder, input, &expected);

        expected.seen.extend(begun(3, b"ab"));
        expected.verdict = Ok(Place { offset: offset + 4, at_boundary: false, remaining: 1 });
        check(decoder, &[input, b"3:ab"].concat(), &expected);
    }
}

#[test]
fn an_unfinished_netstring_is_neither_a_fault_nor_a_boundary() {
    let cases: [(&[u8], Vec<Seen>, u64); 10] = [
        (b"0", vec![], 0),
        (b"5", vec![], 0),
        (b"9223372036854775807", vec![], 0),
        (b"0:", begun(0, b""), 0),
        (b"5:", begun(5, b""), 5),
        (b"5:h", begun(5, b"h"), 4),
        (b"5:hello", begun(5, b"hello"), 0),
        (b"9223372036854775807:", begun(MAX_LEN, b""), MAX_LEN),
        (b"9223372036854775807:,", begun(MAX_LEN, b","), MAX_LEN - 1),
        (b"0:,1:x,2:x", [whole(b""), whole(b"x"), begun(2, b"x")].concat(), 1),
    ];
    for (input, seen, remaining) in cases {
        let place = Place { offset: input.len() as u64, at_boundary: false, remaining };
        check(decoder, input, &Outcome { seen, verdict: Ok(place) });
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
        let fault = Fault { kind, offset, text: format!("{text} at byte {offset}") };
        let refused = naive(input, max_digits);
        assert_eq!(refused.verdict, Err(fault), "\"{}\"", input.escape_ascii());
        check_refused(|| Decoder::new(max_digits), input, &refused);
    }
}

#[test]
fn as_many_digits_as_the_limit_are_accepted() {
    for (max_digits, digits) in [(1, "9"), (8, "99999999"), (18, "999999999999999999"), (19, "9223372036854775807")] {
        let input = format!("{digits}:");
        let remaining = digits.parse().unwrap();
        let place = Place { offset: input.len() as u64, at_boundary: false, remaining };
        let accepted = Outcome { seen: begun(remaining, b""), verdict: Ok(place) };
        check(|| Decoder::new(max_digits), input.as_bytes(), &accepted);
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
fn taking_payload_where_none_is_announced_changes_nothing() {
    let input = b"10:0123456789,0:,";
    for at in (0..=2).chain(13..=input.len()) {
        let mut driver = Driver::new(decoder(), usize::MAX);
        driver.feed(&input[..at]).unwrap();
        driver.decoder.advance(7);
        driver.feed(&input[at..]).unwrap();
        assert_eq!(driver.seen, [whole(b"0123456789"), whole(b"")].concat(), "at {at}");
        assert_eq!(driver.decoder.offset(), input.len() as u64, "at {at}");
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

/// The daemon never shows this error: requests and replies have errors of their own.
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

/// Payloads may add up to more than a u64 counts. The offset then stays at its maximum.
#[test]
fn an_offset_does_not_wrap() {
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
        cut in any_cut(),
    ) {
        let mut bytes = Vec::new();
        for payload in &payloads {
            netstring::encode(payload, &mut bytes);
        }
        let (outcome, _) = drive(Decoder::new(3), &bytes, &cut);
        prop_assert_eq!(outcome.seen, payloads.iter().flat_map(|payload| whole(payload)).collect::<Vec<_>>());
        prop_assert_eq!(outcome.verdict, Ok(Place { offset: bytes.len() as u64, at_boundary: true, remaining: 0 }));
    }

    #[test]
    fn any_bytes_are_judged_as_the_naive_decoder_judges_them(
        bytes in any_bytes(valid()),
        cut in any_cut(),
        max_digits in prop_oneof![Just(19_u8), 0..22_u8],
    ) {
        prop_assert_eq!(drive(Decoder::new(max_digits), &bytes, &cut).0, naive(&bytes, max_digits));
    }

    #[test]
    fn any_length_is_judged_as_the_naive_decoder_judges_it(
        length in "[0-9]{1,24}[:,x]?",
        cut in any_cut(),
        max_digits in 0..26_u8,
    ) {
        let bytes = length.as_bytes();
        prop_assert_eq!(drive(Decoder::new(max_digits), bytes, &cut).0, naive(bytes, max_digits));
    }

    #[test]
    fn any_header_is_decoded_to_its_length(len in 0..=MAX_LEN, shift in 0..64_u32) {
        // The shift makes every number of digits equally likely.
        let len = len >> shift;
        let header = Header::new(len);
        let used = header.as_bytes().len();
        prop_assert_eq!(Decoder::new(19).next(header.as_bytes()), Ok((used, Token::Begin(len))));
    }
}
