//! Standard input: chunks, their lengths, and the end.

use sockexec_proto::RequestDecoder;
use sockexec_proto::error::BadRequestKind;
use sockexec_proto::netstring::{ErrorKind, MAX_LEN};
use sockexec_proto::request::Event;

use super::{begun, check_refused, early_end, exec, place};
use crate::common::TRAILING;
use crate::common::drive::Cut;
use crate::{END_OF_INPUT, Outcome, Seen, check, drive, stdin};

#[test]
fn standard_input_is_passed_on_chunk_by_chunk_until_the_empty_netstring() {
    let cases: [(&[u8], &[Seen]); 6] = [
        (b"0:,", &[END_OF_INPUT]),
        (b"1:x,0:,", &[stdin(b"x"), END_OF_INPUT]),
        (b"5:hello,6: world,0:,", &[stdin(b"hello"), stdin(b" world"), END_OF_INPUT]),
        (b"3:0:,,1:,,0:,", &[stdin(b"0:,"), stdin(b","), END_OF_INPUT]),
        (b"3:\0\xff\0,0:,", &[stdin(b"\0\xff\0"), END_OF_INPUT]),
        (b"11:0123456789a,0:,", &[stdin(b"0123456789a"), END_OF_INPUT]),
    ];
    for (input, expected) in cases {
        let input = [b"1:1,3:cat,", input].concat();
        let ended =
            Outcome { seen: [&[exec(&[b"cat"])], expected].concat(), verdict: Ok(place(input.len(), true, Ok(()))) };
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
        let outcome = drive(&input[..len], &Cut::of(&[1]));
        let end_of_file = if boundaries.contains(&len) || len >= end { Ok(()) } else { Err(early_end(len)) };
        let place = place(len.min(end), len >= end, end_of_file);
        assert_eq!(outcome.verdict, Ok(place), "after {len} bytes");
    }
}

#[test]
fn an_end_of_file_that_is_repeated_is_not_a_fault() {
    let mut decoder = RequestDecoder::new();
    assert!(matches!(decoder.next(b"1:1,1:a,"), Ok((8, Event::Exec(_)))));
    assert_eq!(decoder.end_of_file(), Ok(()));
    assert_eq!(decoder.end_of_file(), Ok(()));
    assert_eq!(decoder.offset(), 8);
}

#[test]
fn a_length_of_standard_input_is_at_most_2_to_the_63_less_1() {
    let start = b"1:1,1:a,";
    for (digits, announced) in
        [("100000000", 100_000_000), ("999999999999999999", 999_999_999_999_999_999), ("9223372036854775807", MAX_LEN)]
    {
        let input = [start, digits.as_bytes(), b":x"].concat();
        let offset = input.len();
        let streaming = Outcome {
            seen: vec![exec(&[b"a"]), begun(announced, b"x")],
            verdict: Ok(place(offset, false, Err(early_end(offset)))),
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

#[test]
fn a_chunk_of_10_gb_need_not_be_shown_to_the_decoder() {
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
