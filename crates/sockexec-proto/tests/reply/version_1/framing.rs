//! Netstrings that are broken or too long, in every part of a reply.

use sockexec_proto::error::BadReplyKind;
use sockexec_proto::netstring::{ErrorKind, MAX_LEN};
use sockexec_proto::reply::{EXITCODE, TERMSIG};

use super::{check, check_read, check_refused, name, signal, unknown};
use crate::{Outcome, begun, code, pair, place};

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
fn a_length_of_output_is_at_most_2_to_the_63_less_1() {
    for (tag, source) in super::streaming::SOURCES {
        let input = format!("6:{tag},9223372036854775807:x").into_bytes();
        let verdict = Ok(place(input.len(), false));
        check(&input, &Outcome { seen: vec![begun(source, MAX_LEN, b"x")], verdict });

        let input = format!("6:{tag},9223372036854775808").into_bytes();
        let kind = BadReplyKind::Netstring(ErrorKind::TooLong);
        check_refused(&input, kind, 27, "length over 9223372036854775807 at byte 27");

        let input = format!("6:{tag},10000000000000000000").into_bytes();
        let kind = BadReplyKind::Netstring(ErrorKind::TooManyDigits(19));
        check_refused(&input, kind, 28, "length of more than 19 digits at byte 28");
    }
}

#[test]
fn a_tag_or_status_of_more_than_64_bytes_is_refused_from_its_length() {
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
