//! How many bytes per second the decoders and encoders pass, compared with a `memchr` over the same bytes.
//!
//! ```sh
//! cargo bench --package sockexec-proto
//! ```
//!
//! Each figure covers about [`TOTAL`] bytes: enough to hide the cost of calling the benchmark, and few
//! enough to stay in a cache. As in the daemon, nothing looks at a payload that is streamed: the decoder
//! announces it, and the caller passes over it.

#![expect(clippy::unwrap_used, reason = "the benchmark decodes what it has encoded")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use sockexec_proto::netstring::{TERMINATOR, at_most};
use sockexec_proto::request::{END_OF_STDIN, chunk_header, encode_exec};
use sockexec_proto::{ReplyDecoder, RequestDecoder, Stream, reply, request};

/// Bytes on the wire for one figure.
const TOTAL: usize = 1 << 20;

/// Bytes of payload in a frame. 32 KiB is the most that the daemon sends.
const SIZES: [usize; 4] = [64, 4 << 10, 32 << 10, 1 << 20];

/// A small request.
const ARGV: [&str; 3] = ["/usr/bin/env", "uname", "-a"];

fn main() {
    divan::main();
}

/// Whole requests that start a program without input, one after the other.
fn execs() -> Vec<u8> {
    let mut one = Vec::new();
    encode_exec(&ARGV, &mut one);
    one.extend_from_slice(END_OF_STDIN);
    one.repeat(TOTAL / one.len())
}

/// The standard input of one request, in chunks of `size` bytes.
fn chunks(size: usize) -> Vec<u8> {
    let mut one = chunk_header(size as u64).as_bytes().to_vec();
    one.resize(one.len() + size, b'x');
    one.push(TERMINATOR);
    one.repeat(TOTAL.div_ceil(size))
}

/// Output in pairs of `size` bytes.
fn pairs(size: usize) -> Vec<u8> {
    let mut one = Vec::new();
    reply::encode_pair(Stream::Stdout.tag(), &vec![b'x'; size], &mut one);
    one.repeat(TOTAL.div_ceil(size))
}

/// Searches `wire` for a byte that it does not have.
fn look(bencher: Bencher<'_, '_>, wire: &[u8]) {
    bencher.counter(BytesCount::of_slice(wire)).bench(|| memchr::memchr(b'\n', black_box(wire)));
}

mod exec_requests {
    use super::{ARGV, Bencher, BytesCount, END_OF_STDIN, RequestDecoder, black_box, encode_exec, execs, look};

    #[divan::bench]
    fn memchr(bencher: Bencher<'_, '_>) {
        look(bencher, &execs());
    }

    #[divan::bench]
    fn decode(bencher: Bencher<'_, '_>) {
        let wire = execs();
        bencher.counter(BytesCount::of_slice(&wire)).bench(|| {
            let mut input = black_box(wire.as_slice());
            while !input.is_empty() {
                let mut decoder = RequestDecoder::new();
                while !decoder.ended() {
                    let (used, event) = decoder.next(input).unwrap();
                    black_box(event);
                    input = &input[used..];
                }
            }
        });
    }

    #[divan::bench]
    fn encode(bencher: Bencher<'_, '_>) {
        let len = execs().len();
        let mut out = Vec::with_capacity(len);
        bencher.counter(BytesCount::new(len)).bench_local(|| {
            out.clear();
            while out.len() < len {
                encode_exec(black_box(&ARGV), &mut out);
                out.extend_from_slice(END_OF_STDIN);
            }
            black_box(&out);
        });
    }
}

mod stdin {
    use super::{
        ARGV, Bencher, BytesCount, RequestDecoder, SIZES, TERMINATOR, at_most, black_box, chunk_header, chunks,
        encode_exec, look, request,
    };

    #[divan::bench(args = SIZES)]
    fn memchr(bencher: Bencher<'_, '_>, size: usize) {
        look(bencher, &chunks(size));
    }

    #[divan::bench(args = SIZES)]
    fn decode(bencher: Bencher<'_, '_>, size: usize) {
        let mut head = Vec::new();
        encode_exec(&ARGV, &mut head);
        let wire = chunks(size);
        bencher.counter(BytesCount::of_slice(&wire)).bench(|| {
            let mut decoder = RequestDecoder::new();
            black_box(decoder.next(&head).unwrap());
            let mut input = black_box(wire.as_slice());
            while !input.is_empty() {
                let (used, event) = decoder.next(input).unwrap();
                input = &input[used..];
                if let request::Event::Stdin(len) = black_box(event) {
                    let (payload, rest) = input.split_at(at_most(input.len(), len));
                    decoder.advance(black_box(payload).len() as u64);
                    input = rest;
                }
            }
        });
    }

    #[divan::bench(args = SIZES)]
    fn encode(bencher: Bencher<'_, '_>, size: usize) {
        let wire = chunks(size);
        let payload = vec![b'x'; size];
        let mut out = Vec::with_capacity(wire.len());
        bencher.counter(BytesCount::of_slice(&wire)).bench_local(|| {
            out.clear();
            while out.len() < wire.len() {
                out.extend_from_slice(chunk_header(black_box(size) as u64).as_bytes());
                out.extend_from_slice(black_box(&payload));
                out.push(TERMINATOR);
            }
            black_box(&out);
        });
    }
}

mod output {
    use super::{Bencher, BytesCount, ReplyDecoder, SIZES, Stream, TERMINATOR, at_most, black_box, look, pairs, reply};

    #[divan::bench(args = SIZES)]
    fn memchr(bencher: Bencher<'_, '_>, size: usize) {
        look(bencher, &pairs(size));
    }

    #[divan::bench(args = SIZES)]
    fn decode(bencher: Bencher<'_, '_>, size: usize) {
        let wire = pairs(size);
        bencher.counter(BytesCount::of_slice(&wire)).bench(|| {
            let mut decoder = ReplyDecoder::new();
            let mut input = black_box(wire.as_slice());
            while !input.is_empty() {
                let (used, event) = decoder.next(input).unwrap();
                input = &input[used..];
                if let reply::Event::Output(_, len) = black_box(event) {
                    let (payload, rest) = input.split_at(at_most(input.len(), len));
                    decoder.advance(black_box(payload).len() as u64);
                    input = rest;
                }
            }
        });
    }

    #[divan::bench(args = SIZES)]
    fn encode(bencher: Bencher<'_, '_>, size: usize) {
        let wire = pairs(size);
        let payload = vec![b'x'; size];
        let mut out = Vec::with_capacity(wire.len());
        bencher.counter(BytesCount::of_slice(&wire)).bench_local(|| {
            out.clear();
            while out.len() < wire.len() {
                out.extend_from_slice(reply::Header::new(black_box(Stream::Stdout), size as u64).as_bytes());
                out.extend_from_slice(black_box(&payload));
                out.push(TERMINATOR);
            }
            black_box(&out);
        });
    }
}
