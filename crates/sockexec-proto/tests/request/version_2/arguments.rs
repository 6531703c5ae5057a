//! The number of arguments and the arguments.

use sockexec_proto::error::BadRequestKind as Kind;
use sockexec_proto::{Options, netstring};

use super::{HEAD, check, check_read, check_refused, input, place, start};
use crate::{Outcome, fault};

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
            let place = place(&input[..len], false, end_of_file);
            check(&input[..len], &Outcome { seen: Vec::new(), verdict: Ok(place) });
        }
    }
}

#[test]
fn an_invalid_number_of_arguments_is_refused() {
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
