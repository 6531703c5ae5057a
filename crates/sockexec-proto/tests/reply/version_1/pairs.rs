//! Which pairs there are, and their order.

use sockexec_proto::reply::Event;
use sockexec_proto::{Exit, ReplyDecoder};

use super::{check_read, drive, err, name, signal, unknown};
use crate::common::drive::Cut;
use crate::{Seen, code, out, place};

/// In version 1 an empty payload is skipped, and a tag of version 2 is unknown.
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
        // Payloads are never empty in version 1. One that is empty is skipped.
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
fn pairs_under_unknown_tags_are_skipped() {
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
fn only_the_end_of_a_pair_is_a_boundary() {
    let input = b"6:stdout,2:hi,0:,0:,7:termsig,2:15,8:exitcode,1:0,";
    let boundaries = [0, 14, 20, 35, 50];
    for len in 0..=input.len() {
        let verdict = drive(&input[..len], &Cut::of(&[1])).verdict;
        let place = place(len, boundaries.contains(&len));
        assert_eq!(verdict, Ok(place), "after {len} bytes");
    }
}
