//! The first netstring, and what needs no more than one after it.

use sockexec_proto::error::BadRequestKind as Kind;
use sockexec_proto::request::Event;
use sockexec_proto::{RequestDecoder, Version, netstring};

use super::{check, input, place};
use crate::common::TRAILING;
use crate::{Outcome, Seen};

/// The first netstring is reported before the fault, so that the daemon can answer in version 2.
#[test]
fn an_unknown_version_is_refused_and_named() {
    for (word, text) in [
        ("protocol=3", r#"unknown version "3" of the protocol at byte 12"#),
        ("protocol=", r#"unknown version "" of the protocol at byte 11"#),
        ("protocol=2.0", r#"unknown version "2.0" of the protocol at byte 12"#),
        ("protocol=12345678901", r#"unknown version "12345678901" of the protocol at byte 12"#),
    ] {
        let mut bytes = Vec::new();
        netstring::encode(word.as_bytes(), &mut bytes);
        for trailing in TRAILING {
            let mut decoder = RequestDecoder::new();
            let all = [&bytes, trailing].concat();
            assert_eq!(decoder.next(&all), Ok((bytes.len(), Event::Protocol)), "{word}");
            assert_eq!(decoder.version(), Version::Two);
            assert!(!decoder.is_ping());
            assert_eq!(decoder.clone().end_of_file().unwrap_err().to_string(), text);
            assert_eq!(decoder.next(trailing).unwrap_err().to_string(), text);
        }
    }
    // This one is longer than any number, and refused from its length before it is known to be a version.
    let refused = RequestDecoder::new().next(b"21:protocol=123456789012,").unwrap_err();
    assert_eq!(refused.kind, Kind::CountTooLong);
    assert_eq!(
        RequestDecoder::new().next(b"8:protocol,").unwrap_err().kind,
        Kind::CountNotANumber(b"protocol".to_vec())
    );
}

#[test]
fn a_status_request_is_complete_at_its_comma() {
    let input = input(&[b"status"], b"");
    let read = Outcome { seen: vec![Seen::Event(Event::Status)], verdict: Ok(place(&input, true, Ok(()))) };
    check(&input, &read);
    for trailing in TRAILING {
        check(&[&input, trailing].concat(), &read);
    }
}
