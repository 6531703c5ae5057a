//! Replies of version 2, through the public interface: what the daemon writes and what a client reads.

mod common;

use std::time::Duration;

use common::{Stop, TRAILING, any_bytes, config, cuts, naive_comma, naive_head, naive_payload, pieces, sizes};
use proptest::prelude::*;
use sockexec_proto::error::BadReplyKind as Kind;
use sockexec_proto::reply::{
    self, Event, Header, MAX_ERROR, MIN_WINDOW, encode_end_of, encode_error, encode_exit, encode_input_closed,
    encode_introduction, encode_pair, encode_queued, encode_started, encode_taken, encode_usage,
};
use sockexec_proto::{BadReply, ErrorCode, Exit, Failure, Introduction, ReplyDecoder, Signal, Stream, Usage, Version};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The payload of a pair, as far as it was read.
    Payload(Source, u64, Vec<u8>),
    /// Anything else.
    Told(Event),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Output(Stream),
    Status,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    seen: Vec<Seen>,
    /// Bytes read, and whether they may end there; or what is wrong, where, and in words.
    verdict: Result<(u64, bool), (Kind, u64, String)>,
}

fn drive(input: &[u8], sizes: &[usize]) -> Outcome {
    let mut decoder = ReplyDecoder::of(Version::Two);
    let mut reading = Reading::default();
    for piece in pieces(input, sizes) {
        if let Err(error) = reading.feed(&mut decoder, piece) {
            let text = error.to_string();
            return Outcome { seen: reading.seen, verdict: Err((error.kind, error.offset, text)) };
        }
    }
    Outcome { seen: reading.seen, verdict: Ok((decoder.offset(), decoder.at_boundary())) }
}

#[derive(Debug, Default)]
struct Reading {
    seen: Vec<Seen>,
    /// Bytes of the current payload that are still to come.
    left: u64,
}

impl Reading {
    fn feed(&mut self, decoder: &mut ReplyDecoder, mut input: &[u8]) -> Result<(), BadReply> {
        loop {
            let (used, event) = decoder.next(input)?;
            input = &input[used..];
            let (source, next) = match event {
                Event::NeedMore => {
                    assert_eq!(input, b"", "NeedMore leaves nothing");
                    return Ok(());
                }
                Event::Output(stream, next) => (Source::Output(stream), next),
                Event::Status(next) => (Source::Status, next),
                Event::Unknown(next) => (Source::Unknown, next),
                Event::Introduction(_)
                | Event::Queued(_)
                | Event::Taken(_)
                | Event::InputClosed
                | Event::Started(_)
                | Event::EndOfOutput(_)
                | Event::Failure(_)
                | Event::Usage(_)
                | Event::Exit(_) => {
                    self.seen.push(Seen::Told(event));
                    continue;
                }
            };
            let here = naive_payload(input, 0, next);
            if self.left == 0 {
                self.seen.push(Seen::Payload(source, next, Vec::new()));
                self.left = next;
            }
            assert_eq!(next, self.left, "bytes of the payload yet to come");
            if let Some(Seen::Payload(_, _, bytes)) = self.seen.last_mut() {
                bytes.extend_from_slice(here);
            }
            self.left -= here.len() as u64;
            if input.is_empty() {
                return Ok(());
            }
            decoder.advance(here.len() as u64);
            input = &input[here.len()..];
        }
    }
}

fn check(input: &[u8], expected: &Outcome) {
    for sizes in cuts(input.len()) {
        assert_eq!(drive(input, &sizes), *expected, "\"{}\" in {sizes:?}", input.escape_ascii());
    }
}

/// That these are whole pairs which say `expected`, and that what follows changes nothing in that.
fn check_read(input: &[u8], expected: &[Seen]) {
    let offset = input.len() as u64;
    check(input, &Outcome { seen: expected.to_vec(), verdict: Ok((offset, true)) });
    let mut seen = expected.to_vec();
    seen.push(Seen::Payload(Source::Output(Stream::Stderr), 3, b"ab".to_vec()));
    check(&[input, b"6:stderr,3:ab"].concat(), &Outcome { seen, verdict: Ok((offset + 13, false)) });
}

/// That `input` is refused with its last byte and not before, whatever follows.
fn check_refused(input: &[u8], kind: &Kind, offset: u64, text: &str) {
    let verdict = Err((kind.clone(), offset, format!("{text} at byte {offset}")));
    let refused = Outcome { seen: Vec::new(), verdict };
    check(input, &refused);
    for trailing in TRAILING {
        check(&[input, trailing].concat(), &refused);
    }
    let before = drive(&input[..input.len() - 1], &[1]);
    assert!(before.verdict.is_ok(), "\"{}\": {before:?}", input.escape_ascii());
}

fn payload(source: Source, bytes: &[u8]) -> Seen {
    Seen::Payload(source, bytes.len() as u64, bytes.to_vec())
}

fn out(bytes: &[u8]) -> Seen {
    payload(Source::Output(Stream::Stdout), bytes)
}

fn end_of(stream: Stream) -> Seen {
    Seen::Told(Event::EndOfOutput(stream))
}

fn started(pid: u32) -> Seen {
    Seen::Told(Event::Started(pid))
}

fn introduction(version: u32, window: u64, options: &[&str]) -> Seen {
    let options = options.iter().map(|name| name.as_bytes().to_vec()).collect();
    Seen::Told(Event::Introduction(Introduction::new(version, window, options)))
}

fn failure(code: ErrorCode, text: &[u8]) -> Seen {
    Seen::Told(Event::Failure(Failure::new(code, text.to_vec())))
}

fn code(code: u8) -> Seen {
    Seen::Told(Event::Exit(Exit::Code(code)))
}

fn usage(user: u64, system: u64, max_rss_kib: u64) -> Usage {
    Usage::new(Duration::from_micros(user), Duration::from_micros(system), max_rss_kib)
}

#[test]
fn a_whole_reply_is_read_in_the_order_of_the_wire() {
    let input = b"7:started,4:1234,6:stdout,2:hi,6:stdout,0:,6:stderr,0:,5:usage,34:utime=0.001 stime=0.0025 maxrss=99,8:exitcode,1:0,";
    let expected = [
        started(1234),
        out(b"hi"),
        end_of(Stream::Stdout),
        end_of(Stream::Stderr),
        Seen::Told(Event::Usage(usage(1000, 2500, 99))),
        code(0),
    ];
    check_read(input, &expected);
}

#[test]
fn each_pair_is_read() {
    let signal = |signal| Seen::Told(Event::Exit(Exit::Signal(signal)));
    let told = |user, system, rss| Seen::Told(Event::Usage(usage(user, system, rss)));
    let cases: [(&[u8], &[Seen]); 24] = [
        (b"8:protocol,30:2 window=100000 options=cwd,fd,", &[introduction(2, 100_000, &["cwd", "fd"])]),
        // What is missing is as little as it may be, and what is new is skipped.
        (b"8:protocol,1:2,", &[introduction(2, MIN_WINDOW, &[])]),
        (b"8:protocol,28:3  new=1 x window=1 options=,", &[introduction(3, MIN_WINDOW, &[])]),
        (b"6:queued,1:1,", &[Seen::Told(Event::Queued(1))]),
        (b"6:queued,2:09,", &[Seen::Told(Event::Queued(9))]),
        (b"5:taken,20:18446744073709551615,", &[Seen::Told(Event::Taken(u64::MAX))]),
        (b"12:input-closed,0:,", &[Seen::Told(Event::InputClosed)]),
        // Later versions may say more about it.
        (b"12:input-closed,3:why,", &[Seen::Told(Event::InputClosed)]),
        (b"5:taken,1:0,6:queued,1:0,", &[Seen::Told(Event::Taken(0)), Seen::Told(Event::Queued(0))]),
        (b"7:started,1:1,", &[started(1)]),
        (b"7:started,10:4294967295,", &[started(u32::MAX)]),
        (b"6:stderr,0:,", &[end_of(Stream::Stderr)]),
        (b"6:stdout,3:\0\xff,,", &[out(b"\0\xff,")]),
        (b"5:error,23:not-found no such thing,", &[failure(ErrorCode::NotFound, b"no such thing")]),
        (b"5:error,8:timeout ,", &[failure(ErrorCode::Timeout, b"")]),
        (b"5:error,8:shutdown,", &[failure(ErrorCode::Shutdown, b"")]),
        (b"5:error,11:denied \xff  x,", &[failure(ErrorCode::Denied, b"\xff  x")]),
        // A code of a later version is kept.
        (b"5:error,10:no-quota a,", &[failure(ErrorCode::Other(b"no-quota".to_vec()), b"a")]),
        (b"5:usage,24:utime=1 stime=2 maxrss=3,", &[told(1_000_000, 2_000_000, 3)]),
        // Other names and another order are for later versions.
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
    assert_eq!(codes.len(), ErrorCode::KNOWN.len() + 1);
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
fn what_is_none_is_refused_and_shown() {
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
fn to_a_client_of_version_1_the_tags_of_version_2_are_unknown_and_an_empty_payload_says_nothing() {
    let mut decoder = ReplyDecoder::new();
    let input = b"6:stdout,0:,5:error,1:x,8:exitcode,1:0,";
    assert_eq!(decoder.next(input), Ok((22, Event::Unknown(1))));
    decoder.advance(1);
    assert_eq!(decoder.next(&input[23..]), Ok((input.len() - 23, Event::Exit(Exit::Code(0)))));
}

#[test]
fn the_text_of_an_error_is_cut_to_what_a_client_takes() {
    let mut bytes = Vec::new();
    encode_error(&ErrorCode::NotFound, &vec![b'x'; 100_000], &mut bytes);
    assert_eq!(bytes.len(), b"5:error,65536:,".len() + MAX_ERROR);
    assert_eq!(drive(&bytes, &[1000]).seen, [failure(ErrorCode::NotFound, &vec![b'x'; MAX_ERROR - 10])]);
}

#[test]
fn a_daemon_writes_what_the_protocol_says() {
    let mut bytes = Vec::new();
    encode_introduction(671_088, &mut bytes);
    encode_queued(3, &mut bytes);
    encode_started(4711, &mut bytes);
    encode_taken(335_544, &mut bytes);
    encode_input_closed(&mut bytes);
    encode_end_of(Stream::Stdout, &mut bytes);
    encode_end_of(Stream::Stderr, &mut bytes);
    encode_usage(&Usage::new(Duration::new(1, 2_999), Duration::from_millis(500), 1320), &mut bytes);
    encode_exit(&Exit::Code(3), &mut bytes);
    encode_exit(&Exit::Signal(Signal::Number(9)), &mut bytes);
    encode_exit(&Exit::Signal(Signal::Name(b"TERM".to_vec())), &mut bytes);
    let expected = "8:protocol,84:2 window=671088 options=cwd,env,unsetenv,clearenv,timeout,stderr,pty,utf8,fds,status,\
                    6:queued,1:3,7:started,4:4711,5:taken,6:335544,12:input-closed,0:,6:stdout,0:,6:stderr,0:,5:usage,36:utime=1.000002 stime=0.5 maxrss=1320,\
                    8:exitcode,1:3,7:termsig,1:9,7:termsig,4:TERM,";
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    assert_eq!(reply::STATUS, "status");
}

/// What a decoder says that splits into netstrings first.
fn naive(input: &[u8]) -> Outcome {
    let (mut seen, mut at) = (Vec::new(), 0);
    let stop = loop {
        if at == input.len() {
            break Stop::Short;
        }
        match naive_pair(input, at, &mut seen) {
            Ok(next) => at = next,
            Err(stop) => break stop,
        }
    };
    let verdict = match stop {
        Stop::Short => Ok((input.len() as u64, at == input.len())),
        Stop::Bad(kind, offset) => {
            let text = BadReply { kind: kind.clone(), offset }.to_string();
            Err((kind, offset, text))
        }
    };
    Outcome { seen, verdict }
}

/// Where the pair ends that begins at `at`.
fn naive_pair(input: &[u8], at: usize, seen: &mut Vec<Seen>) -> Result<usize, Stop<Kind>> {
    let (len, start) = naive_head(input, at, 19, Kind::Netstring)?;
    if len > 64 {
        return Err(Stop::Bad(Kind::TooLong, start as u64));
    }
    let at = naive_comma(input, start, len, Kind::Netstring)?;
    let tag = naive_payload(input, start, len);

    let (len, start) = naive_head(input, at, 19, Kind::Netstring)?;
    let bytes = naive_payload(input, start, len).to_vec();
    let (source, limit) = match tag {
        b"stdout" => (Some(Source::Output(Stream::Stdout)), u64::MAX),
        b"stderr" => (Some(Source::Output(Stream::Stderr)), u64::MAX),
        b"status" => (Some(Source::Status), u64::MAX),
        b"exitcode" | b"termsig" | b"started" | b"queued" | b"taken" | b"input-closed" => (None, 64),
        b"protocol" | b"usage" => (None, 4096),
        b"error" => (None, 65_536),
        _ => (Some(Source::Unknown), u64::MAX),
    };
    if len > limit {
        return Err(Stop::Bad(Kind::TooLong, start as u64));
    }
    if let Some(source) = source
        && len > 0
    {
        seen.push(Seen::Payload(source, len, bytes.clone()));
    }
    let at = naive_comma(input, start, len, Kind::Netstring)?;
    match source {
        Some(Source::Output(stream)) if len == 0 => seen.push(end_of(stream)),
        Some(_) => {}
        None => seen.push(Seen::Told(naive_told(tag, bytes).map_err(|kind| Stop::Bad(kind, start as u64))?)),
    }
    Ok(at)
}

fn naive_told(tag: &[u8], bytes: Vec<u8>) -> Result<Event, Kind> {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let number = text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match tag {
        b"started" => match number.map(u32::try_from) {
            Some(Ok(pid)) if pid > 0 => Ok(Event::Started(pid)),
            _ => Err(Kind::Started(bytes)),
        },
        b"exitcode" => match number.map(u8::try_from) {
            Some(Ok(code)) => Ok(Event::Exit(Exit::Code(code))),
            _ => Err(Kind::ExitCode(bytes)),
        },
        b"error" => {
            let mut parts = bytes.splitn(2, |&byte| byte == b' ');
            let code = parts.next().unwrap_or_default();
            let found = ErrorCode::KNOWN.iter().find(|known| known.to_string().as_bytes() == code);
            let code = match found {
                Some(code) => code.clone(),
                None if code.is_empty() => return Err(Kind::ErrorCode(bytes)),
                None => ErrorCode::Other(code.to_vec()),
            };
            Ok(Event::Failure(Failure::new(code, parts.next().unwrap_or_default().to_vec())))
        }
        b"queued" => number.map(Event::Queued).ok_or(Kind::Queued(bytes)),
        b"taken" => number.map(Event::Taken).ok_or(Kind::Taken(bytes)),
        b"input-closed" => Ok(Event::InputClosed),
        // And of introductions.
        b"protocol" if text == "2" => Ok(Event::Introduction(Introduction::new(2, MIN_WINDOW, vec![]))),
        b"protocol" => Err(Kind::Introduction(bytes)),
        // Of usages the generator has this one, and damaged ones: those are the business of the tests above.
        b"usage" if text == "utime=0 stime=0 maxrss=0" => Ok(Event::Usage(Usage::default())),
        b"usage" => Err(Kind::Usage(bytes)),
        _ => Err(Kind::TermSig(bytes)),
    }
}

fn any_pair() -> impl Strategy<Value = Vec<u8>> {
    let stream = || prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    let encoded = |encode: fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    };
    prop_oneof![
        (stream(), prop::collection::vec(any::<u8>(), 0..10)).prop_map(|(stream, payload)| {
            let mut bytes = Header::new(stream, payload.len() as u64).as_bytes().to_vec();
            bytes.extend_from_slice(&payload);
            bytes.push(b',');
            bytes
        }),
        Just(encoded(|out| encode_pair(reply::PROTOCOL, b"2", out))),
        Just(encoded(|out| encode_queued(5, out))),
        Just(encoded(|out| encode_taken(6, out))),
        Just(encoded(encode_input_closed)),
        Just(encoded(|out| encode_started(77, out))),
        Just(encoded(|out| encode_error(&ErrorCode::Timeout, b"late", out))),
        Just(encoded(|out| encode_usage(&Usage::default(), out))),
        Just(encoded(|out| encode_exit(&Exit::Code(1), out))),
        Just(encoded(|out| encode_pair("status", b"{}", out))),
        Just(encoded(|out| encode_pair("later", b"12", out))),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_judged_as_the_naive_decoder_judges_them(
        bytes in any_bytes(prop::collection::vec(any_pair(), 0..6).prop_map(|pairs| pairs.concat())),
        sizes in sizes(),
    ) {
        let (read, expected) = (drive(&bytes, &sizes), naive(&bytes));
        // A usage or an introduction that was damaged and is one still.
        let unsure = |kind: &Kind| matches!(kind, Kind::Usage(_) | Kind::Introduction(_));
        prop_assume!(!expected.verdict.as_ref().is_err_and(|(kind, ..)| unsure(kind)));
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_are_cut(
        bytes in any_bytes(prop::collection::vec(any_pair(), 0..6).prop_map(|pairs| pairs.concat())),
        sizes in sizes(),
    ) {
        prop_assert_eq!(drive(&bytes, &sizes), drive(&bytes, &[bytes.len()]));
    }

    #[test]
    fn what_the_daemon_sends_a_client_reads(
        pid in 1..=u32::MAX,
        text in prop::collection::vec(any::<u8>(), 0..40),
        (user, system, rss) in (0..10_u64.pow(15), 0..10_u64.pow(15), any::<u64>()),
        sizes in sizes(),
    ) {
        let mut bytes = Vec::new();
        encode_started(pid, &mut bytes);
        encode_error(&ErrorCode::Shutdown, &text, &mut bytes);
        encode_usage(&usage(user, system, rss), &mut bytes);
        let expected =
            [started(pid), failure(ErrorCode::Shutdown, &text), Seen::Told(Event::Usage(usage(user, system, rss)))];
        let outcome = drive(&bytes, &sizes);
        prop_assert_eq!(outcome.seen, expected);
        prop_assert_eq!(outcome.verdict, Ok((bytes.len() as u64, true)));
    }
}

/// Bytes are shown as text: a derived `Debug` shows `[110, 111]`.
#[test]
fn what_debug_shows() {
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
