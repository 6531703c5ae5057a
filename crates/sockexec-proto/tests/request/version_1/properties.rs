//! Any request, and any bytes, against the naive decoder.

use proptest::prelude::*;
use sockexec_proto::netstring;
use sockexec_proto::request::{END_OF_STDIN, chunk_header, encode_exec};

use super::naive::naive;
use super::{exec, place};
use crate::common::bytes::{any_bytes, any_cut, config};
use crate::{END_OF_INPUT, drive, stdin};

fn argument() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255_u8, 0..14)
}

fn request(argv: &[Vec<u8>], chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_exec(argv, &mut bytes);
    for chunk in chunks {
        bytes.extend_from_slice(chunk_header(chunk.len() as u64).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.push(netstring::TERMINATOR);
    }
    bytes
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    // The daemon refuses a request without arguments, and NUL bytes.
    let byte = prop_oneof![40 => 1..=255_u8, 1 => Just(0)];
    let argv = prop::collection::vec(prop::collection::vec(byte, 0..14), 0..5);
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..14), 0..5);
    (argv, chunks).prop_map(|(argv, chunks)| request(&argv, &chunks))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_a_client_sends_the_daemon_reads(
        argv in prop::collection::vec(argument(), 1..15),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..120), 0..5),
        ended in any::<bool>(),
        cut in any_cut(),
    ) {
        let mut bytes = request(&argv, &chunks);
        let mut expected = vec![exec(&argv)];
        expected.extend(chunks.iter().map(|bytes| stdin(bytes)));
        if ended {
            bytes.extend_from_slice(END_OF_STDIN);
            expected.push(END_OF_INPUT);
        }
        let outcome = drive(&bytes, &cut);
        prop_assert_eq!(outcome.seen, expected);
        prop_assert_eq!(outcome.verdict, Ok(place(bytes.len(), ended, Ok(()))));
    }

    #[test]
    fn any_bytes_are_judged_as_the_naive_decoder_judges_them(bytes in any_bytes(any_request()), cut in any_cut()) {
        prop_assert_eq!(drive(&bytes, &cut), naive(&bytes));
    }

    #[test]
    fn any_number_of_arguments_is_judged_as_the_naive_decoder_judges_it(
        number in "[0-9]{1,22}|[ +0-9x-]{0,22}",
        cut in any_cut(),
    ) {
        let bytes = format!("{}:{number},", number.len()).into_bytes();
        prop_assert_eq!(drive(&bytes, &cut), naive(&bytes));
    }

    #[test]
    fn any_length_after_the_program_is_judged_as_the_naive_decoder_judges_it(
        argc in 1..3_u8,
        length in "[0-9]{1,24}[:,x]?",
        cut in any_cut(),
    ) {
        let bytes = format!("1:{argc},1:a,{length}").into_bytes();
        prop_assert_eq!(drive(&bytes, &cut), naive(&bytes));
    }
}
