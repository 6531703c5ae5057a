//! What the daemon writes.

use sockexec_proto::Stream;
use sockexec_proto::netstring::MAX_LEN;
use sockexec_proto::reply::{self, EXITCODE, Header, TERMSIG, encode_pair, whole_pairs};

use crate::pair;

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
fn whole_pairs_stays_within_the_maximum_unless_the_first_pair_is_larger() {
    let mut wire = Vec::new();
    encode_pair("stdout", &[b'x'; 100], &mut wire);
    let first = wire.len();
    encode_pair("stdout", b"y", &mut wire);
    assert_eq!(whole_pairs(&wire, 1), first);
    assert_eq!(whole_pairs(&wire, wire.len() - 1), first);
    assert_eq!(whole_pairs(&wire, wire.len()), wire.len());
}

#[test]
fn whole_pairs_finds_none_in_bytes_that_are_not_netstrings() {
    assert_eq!(whole_pairs(b"GET / HTTP/1.0\r\n\r\n", usize::MAX), 0);
    assert_eq!(whole_pairs(b"6:stdout,5:hello;", usize::MAX), 0);
    assert_eq!(whole_pairs(b"6:stdout,9223372036854775807:x", usize::MAX), 0);
}
