//! Each pair.

use sockexec_proto::error::BadReplyKind as Kind;
use sockexec_proto::reply::{Event, MAX_ERROR, MIN_WINDOW, encode_error};
use sockexec_proto::{ErrorCode, Exit, Failure, ReplyDecoder, Signal, Stream, Version};

use super::{check_read, check_refused, drive, end_of, failure, introduction, started, usage};
use crate::common::drive::{Cut, Source};
use crate::{Seen, code, out, payload};

#[test]
fn a_whole_reply_is_read_in_the_order_of_the_wire() {
    let input = b"7:started,4:1234,6:stdout,2:hi,6:stdout,0:,6:stderr,0:,5:usage,34:utime=0.001 stime=0.0025 maxrss=99,8:exitcode,1:0,";
    let expected = [
        started(1234),
        out(b"hi"),
        end_of(Stream::Stdout),
        end_of(Stream::Stderr),
        Seen::Event(Event::Usage(usage(1000, 2500, 99))),
        code(0),
    ];
    check_read(input, &expected);
}

#[test]
fn each_pair_is_read() {
    let signal = |signal| Seen::Event(Event::Exit(Exit::Signal(signal)));
    let told = |user, system, rss| Seen::Event(Event::Usage(usage(user, system, rss)));
    let cases: [(&[u8], &[Seen]); 24] = [
        (b"8:protocol,30:2 window=100000 options=cwd,fd,", &[introduction(2, 100_000, &["cwd", "fd"])]),
        // A missing word stands for the least that is possible, and an unknown one is skipped.
        (b"8:protocol,1:2,", &[introduction(2, MIN_WINDOW, &[])]),
        (b"8:protocol,28:3  new=1 x window=1 options=,", &[introduction(3, MIN_WINDOW, &[])]),
        (b"6:queued,1:1,", &[Seen::Event(Event::Queued(1))]),
        (b"6:queued,2:09,", &[Seen::Event(Event::Queued(9))]),
        (b"5:taken,20:18446744073709551615,", &[Seen::Event(Event::Taken(u64::MAX))]),
        (b"12:input-closed,0:,", &[Seen::Event(Event::InputClosed)]),
        // Later versions may give a reason.
        (b"12:input-closed,3:why,", &[Seen::Event(Event::InputClosed)]),
        (b"5:taken,1:0,6:queued,1:0,", &[Seen::Event(Event::Taken(0)), Seen::Event(Event::Queued(0))]),
        (b"7:started,1:1,", &[started(1)]),
        (b"7:started,10:4294967295,", &[started(u32::MAX)]),
        (b"6:stderr,0:,", &[end_of(Stream::Stderr)]),
        (b"6:stdout,3:\0\xff,,", &[out(b"\0\xff,")]),
        (b"5:error,23:not-found no such thing,", &[failure(ErrorCode::NotFound, b"no such thing")]),
        (b"5:error,8:timeout ,", &[failure(ErrorCode::Timeout, b"")]),
        (b"5:error,8:shutdown,", &[failure(ErrorCode::Shutdown, b"")]),
        (b"5:error,11:denied \xff  x,", &[failure(ErrorCode::Denied, b"\xff  x")]),
        // Codes of later versions are kept.
        (b"5:error,10:no-quota a,", &[failure(ErrorCode::Other(b"no-quota".to_vec()), b"a")]),
        (b"5:usage,24:utime=1 stime=2 maxrss=3,", &[told(1_000_000, 2_000_000, 3)]),
        // Later versions may add names and change the order.
        (b"5:usage,32:maxrss=3 nswap=x stime=2 utime=0,", &[told(0, 2_000_000, 3)]),
        (b"6:status,2:{},", &[payload(Source::Status, b"{}")]),
        (b"6:status,0:,", &[]),
        (b"7:termsig,2:15,", &[signal(Signal::Number(15))]),
        // Tags of later versions are skipped.
        (b"4:core,1:1,3:new,0:,8:exitcode,1:7,", &[payload(Source::Unknown, b"1"), code(7)]),
    ];
    for (input, expected) in cases {
        check_read(input, expected);
    }
}

#[test]
fn every_code_is_known_by_its_name() {
    let codes = [
        (ErrorCode::NotFound, "not-found"),
        (ErrorCode::NotExecutable, "not-executable"),
        (ErrorCode::SpawnFailed, "spawn-failed"),
        (ErrorCode::BadRequest, "bad-request"),
        (ErrorCode::Denied, "denied"),
        (ErrorCode::Timeout, "timeout"),
        (ErrorCode::Shutdown, "shutdown"),
        (ErrorCode::Internal, "internal"),
        (ErrorCode::Forbidden, "forbidden"),
        (ErrorCode::Busy, "busy"),
        (ErrorCode::OutOfMemory, "out-of-memory"),
        (ErrorCode::OutputLimit, "output-limit"),
        (ErrorCode::IdleTimeout, "idle-timeout"),
        (ErrorCode::Other(b"else".to_vec()), "else"),
    ];
    for code in ErrorCode::KNOWN {
        assert!(codes.iter().any(|(row, _)| row == code), "`codes` of this test has no row for {code}");
    }
    let source = include_str!("../../../src/reply/told.rs");
    let (_, variants) = source.split_once("pub enum ErrorCode {\n").expect("the codes");
    let (variants, _) = variants.split_once("\n}\n").expect("their end");
    let variants =
        variants.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with("Other("));
    assert_eq!(ErrorCode::KNOWN.len(), variants.count(), "ErrorCode::KNOWN (left) must list every variant (right)");
    for (code, name) in codes {
        assert_eq!(code.to_string(), name);
        let mut bytes = Vec::new();
        encode_error(&code, b"why", &mut bytes);
        assert_eq!(bytes, format!("5:error,{}:{name} why,", name.len() + 4).into_bytes());
        assert_eq!(Failure::new(code.clone(), b"why".to_vec()).to_string(), format!("{name}: why"));
        check_read(&bytes, &[failure(code, b"why")]);
    }
}

#[test]
fn an_invalid_pair_is_refused_and_shown() {
    let cases: [(&[u8], Kind, u64, &str); 20] = [
        (b"8:protocol,0:,", Kind::Introduction(vec![]), 13, "bad protocol \"\""),
        (b"8:protocol,8:window=1,", Kind::Introduction(b"window=1".to_vec()), 13, "bad protocol \"window=1\""),
        (b"8:protocol,10:2 window=x,", Kind::Introduction(b"2 window=x".to_vec()), 14, "bad protocol \"2 window=x\""),
        (b"8:protocol,4097:", Kind::TooLong, 16, "tag or status too long"),
        (b"6:queued,0:,", Kind::Queued(vec![]), 11, "bad queued \"\""),
        (b"5:taken,2:-1,", Kind::Taken(b"-1".to_vec()), 10, "bad taken \"-1\""),
        (b"12:input-closed,65:", Kind::TooLong, 19, "tag or status too long"),
        (b"7:started,0:,", Kind::Started(vec![]), 12, "bad started \"\""),
        (b"7:started,1:0,", Kind::Started(b"0".to_vec()), 12, "bad started \"0\""),
        (b"7:started,2:-1,", Kind::Started(b"-1".to_vec()), 12, "bad started \"-1\""),
        (b"7:started,10:4294967296,", Kind::Started(b"4294967296".to_vec()), 13, "bad started \"4294967296\""),
        (b"5:error,0:,", Kind::ErrorCode(vec![]), 10, "bad error \"\""),
        (b"5:error,4: why,", Kind::ErrorCode(b" why".to_vec()), 10, "bad error \" why\""),
        (b"5:usage,0:,", Kind::Usage(vec![]), 10, "bad usage \"\""),
        (b"5:usage,15:utime=1 stime=2,", Kind::Usage(b"utime=1 stime=2".to_vec()), 11, "bad usage \"utime=1 stime=2\""),
        (b"5:usage,7:utime=x,", Kind::Usage(b"utime=x".to_vec()), 10, "bad usage \"utime=x\""),
        (b"8:exitcode,3:256,", Kind::ExitCode(b"256".to_vec()), 13, "bad exitcode \"256\""),
        (b"7:started,65:", Kind::TooLong, 13, "tag or status too long"),
        (b"5:usage,4097:", Kind::TooLong, 13, "tag or status too long"),
        (b"5:error,65537:", Kind::TooLong, 14, "tag or status too long"),
    ];
    for (input, kind, offset, text) in cases {
        check_refused(input, &kind, offset, text);
    }
}

#[test]
fn in_version_1_the_tags_of_version_2_are_unknown_and_empty_payloads_are_skipped() {
    let mut decoder = ReplyDecoder::new();
    let input = b"6:stdout,0:,5:error,1:x,8:exitcode,1:0,";
    assert_eq!(decoder.next(input), Ok((22, Event::Unknown(1))));
    decoder.advance(1);
    assert_eq!(decoder.next(&input[23..]), Ok((input.len() - 23, Event::Exit(Exit::Code(0)))));
}

#[test]
fn the_text_of_an_error_is_cut_to_the_limit_of_a_client() {
    let mut bytes = Vec::new();
    encode_error(&ErrorCode::NotFound, &vec![b'x'; 100_000], &mut bytes);
    assert_eq!(bytes.len(), b"5:error,65536:,".len() + MAX_ERROR);
    assert_eq!(drive(&bytes, &Cut::of(&[1000])).seen, [failure(ErrorCode::NotFound, &vec![b'x'; MAX_ERROR - 10])]);
}

/// Bytes are shown as text; a derived `Debug` would show `[110, 111]`.
#[test]
fn debug_shows_bytes_as_text() {
    let reply = b"8:protocol,30:2 window=70000 options=cwd,env,5:error,11:strange no\xff,";
    let mut decoder = ReplyDecoder::of(Version::Two);
    let mut used = 0;
    let mut shown = Vec::new();
    while shown.len() < 2 {
        let (n, event) = decoder.next(&reply[used..]).unwrap();
        used += n;
        shown.push(format!("{event:?}"));
        if let Event::Failure(failure) = event {
            let error: Box<dyn std::error::Error + Send + Sync> = Box::new(failure);
            assert_eq!((error.to_string(), error.source().is_none()), ("strange: no\u{fffd}".to_owned(), true));
        }
    }
    let expected = [
        r#"Introduction(Introduction { version: 2, window: 70000, options: ["cwd", "env"] })"#,
        r#"Failure(Failure { code: strange, text: "no\xff" })"#,
    ];
    assert_eq!(shown, expected);
    let fault = ReplyDecoder::of(Version::Two).next(b"7:started,3:abc,").unwrap_err();
    assert_eq!(format!("{fault:?}"), "BadReply(bad started \"abc\" at byte 12)");
}
