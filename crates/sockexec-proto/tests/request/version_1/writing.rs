//! What a client writes.

use sockexec_proto::request::{self, END_OF_STDIN, chunk_header, encode_exec};

#[test]
fn the_documented_numbers_hold() {
    assert_eq!(request::MAX_ARGUMENTS, 65_536);
    assert_eq!(request::MAX_HEADER_BYTES, 4 * 1024 * 1024);
    assert_eq!(request::MAX_HEADER_DIGITS, 8);
    assert_eq!(request::MAX_STDIN_DIGITS, 19);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes, and fewer arguments show the same")]
fn the_number_of_arguments_is_written_in_decimal_whatever_its_size() {
    for count in [1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 65_536, 65_537] {
        let argv = vec![""; count];
        let mut out = Vec::new();
        encode_exec(&argv, &mut out);
        let number = count.to_string();
        assert_eq!(out, format!("{}:{number},{}", number.len(), "0:,".repeat(count)).into_bytes());
    }
}

#[test]
fn a_client_writes_what_the_protocol_says() {
    let mut out = b"before".to_vec();
    encode_exec(&["echo", "hello, world", ""], &mut out);
    assert_eq!(out, b"before1:3,4:echo,12:hello, world,0:,");

    let mut out = Vec::new();
    encode_exec::<&[u8]>(&[], &mut out);
    assert_eq!(out, b"1:0,", "the daemon refuses it, not the client");

    assert_eq!(chunk_header(1).as_bytes(), b"1:");
    assert_eq!(chunk_header(10_000_000_000).as_bytes(), b"10000000000:");
    assert_eq!(chunk_header(0).as_bytes(), b"0:");
    assert_eq!(END_OF_STDIN, b"0:,");
}
