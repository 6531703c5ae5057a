//! Payloads that the decoder announces and does not collect.

use sockexec_proto::reply::Event;
use sockexec_proto::{Exit, ReplyDecoder, Stream};

use crate::common::drive::Source;

/// Tags of such payloads, of the same length; `status` is unknown in version 1.
pub(super) const SOURCES: [(&str, Source); 3] = [
    ("stdout", Source::Output(Stream::Stdout)),
    ("stderr", Source::Output(Stream::Stderr)),
    ("status", Source::Unknown),
];

#[test]
fn output_of_10_gb_need_not_be_shown_to_the_decoder() {
    const LEN: u64 = 10_000_000_000;
    for (tag, source) in SOURCES {
        let coming = |left| match source {
            Source::Output(stream) => Event::Output(stream, left),
            _ => Event::Unknown(left),
        };
        let mut decoder = ReplyDecoder::new();
        let header = format!("6:{tag},10000000000:");
        assert_eq!(decoder.next(header.as_bytes()), Ok((21, coming(LEN))));
        let mut left = LEN;
        for step in [0, 1, 65_536, 4_294_967_296, 5_000_000_000] {
            decoder.advance(step);
            left -= step;
            assert_eq!(decoder.next(b",8:exitcode,1:0,"), Ok((0, coming(left))));
            assert_eq!((decoder.offset(), decoder.at_boundary()), (21 + LEN - left, false));
        }
        decoder.advance(left);
        assert!(!decoder.at_boundary());
        assert_eq!(decoder.next(b",8:exitcode,1:0,"), Ok((16, Event::Exit(Exit::Code(0)))));
        assert_eq!((decoder.offset(), decoder.at_boundary()), (37 + LEN, true));
    }
}

#[test]
fn moving_more_than_a_payload_moves_all_of_it() {
    let mut decoder = ReplyDecoder::new();
    assert_eq!(decoder.next(b"6:stdout,5:"), Ok((11, Event::Output(Stream::Stdout, 5))));
    decoder.advance(u64::MAX);
    assert_eq!(decoder.offset(), 16);
    assert_eq!(decoder.next(b",6:stderr,2:"), Ok((12, Event::Output(Stream::Stderr, 2))));
}
