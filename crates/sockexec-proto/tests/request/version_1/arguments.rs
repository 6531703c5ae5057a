//! The number of arguments and the arguments.

use sockexec_proto::RequestDecoder;
use sockexec_proto::error::BadRequestKind;
use sockexec_proto::request::Event;

use super::{begun, check_refused, early_end, exec, place};
use crate::{Outcome, check};

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
        let started = Outcome { seen: vec![exec(argv)], verdict: Ok(place(offset, false, Ok(()))) };
        check(input, &started);

        let mut more = started.clone();
        more.seen.push(begun(3, b"ab"));
        more.verdict = Ok(place(offset + 4, false, Err(early_end(offset + 4))));
        check(&[input, b"3:ab"].concat(), &more);

        for len in 0..offset {
            let waiting = Outcome { seen: Vec::new(), verdict: Ok(place(len, false, Err(early_end(len)))) };
            check(&input[..len], &waiting);
        }
    }
}

#[test]
fn an_invalid_number_of_arguments_is_refused() {
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
fn a_number_of_more_than_20_bytes_is_refused_from_its_length() {
    let text = "number of arguments of more than 20 bytes at byte";
    let kind = BadRequestKind::CountTooLong;
    check_refused(b"21:", kind.clone(), 3, &format!("{text} 3"));
    check_refused(b"99999999:", kind, 9, &format!("{text} 9"));
}

#[test]
fn a_request_without_arguments_or_with_too_many_is_refused_at_their_number() {
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
