//! Netstrings that are broken, in every part of a request.

use sockexec_proto::error::BadRequestKind;
use sockexec_proto::netstring::ErrorKind;

use super::check_refused;

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
fn a_length_in_the_header_has_at_most_8_digits() {
    let kind = BadRequestKind::Netstring(ErrorKind::TooManyDigits(8));
    check_refused(b"100000000", kind.clone(), 8, "length of more than 8 digits at byte 8");
    check_refused(b"1:1,100000000", kind.clone(), 12, "length of more than 8 digits at byte 12");
    check_refused(b"1:2,1:a,999999999", kind, 16, "length of more than 8 digits at byte 16");

    // Eight digits are a length, and this length is too large.
    let kind = BadRequestKind::HeaderTooLong;
    check_refused(b"1:1,10000000:", kind, 13, "arguments of more than 4194304 bytes in all at byte 13");
}
