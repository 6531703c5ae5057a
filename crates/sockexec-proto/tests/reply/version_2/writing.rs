//! What the daemon writes.

use std::time::Duration;

use sockexec_proto::reply::{
    self, encode_end_of, encode_exit, encode_input_closed, encode_introduction, encode_queued, encode_started,
    encode_taken, encode_usage,
};
use sockexec_proto::request::OPTIONS;
use sockexec_proto::{Exit, Signal, Stream, Usage};

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
    // docs/protocol.md shows their list, and an end-to-end test compares it.
    let options: Vec<&str> = OPTIONS.iter().map(|option| option.name).collect();
    let introduction = format!("2 window=671088 options={}", options.join(","));
    let rest = "6:queued,1:3,7:started,4:4711,5:taken,6:335544,12:input-closed,0:,6:stdout,0:,6:stderr,0:,5:usage,36:utime=1.000002 stime=0.5 maxrss=1320,\
                    8:exitcode,1:3,7:termsig,1:9,7:termsig,4:TERM,";
    let expected = format!("8:protocol,{}:{introduction},{rest}", introduction.len());
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    assert_eq!(reply::STATUS, "status");
}
