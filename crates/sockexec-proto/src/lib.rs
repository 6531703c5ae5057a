//! The wire protocol of sockexec and nothing else: no input, no output, no clock.
//!
//! Everything on the wire is a [netstring]. A client sends a request (the number of arguments, the
//! arguments, then the program's standard input in chunks, ended by the empty netstring); the
//! daemon answers with pairs of a tag and a payload, the last of which tells how the program
//! ended. `docs/protocol.md` is the contract.
//!
//! | side | reads with | writes with |
//! | --- | --- | --- |
//! | daemon | [`RequestDecoder`] | [`reply::Header`], [`reply::encode_pair`] |
//! | client | [`ReplyDecoder`] | [`request::encode_exec`], [`request::chunk_header`], [`request::END_OF_STDIN`] |
//!
//! Decoders are fed whatever has arrived, cut anywhere. They say how many bytes they took and what
//! was found, and hold no payload that is to be streamed: for standard input and for output the
//! caller is told how many bytes of payload come next and moves them itself, by whatever means
//! (a copy, a write, `splice(2)`), so memory does not grow with a length that a peer announces.
//!
//! [netstring]: https://cr.yp.to/proto/netstrings.txt
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod error;
pub mod netstring;
pub mod reply;
pub mod request;

pub use error::{BadReply, BadRequest};
pub use reply::{Exit, ReplyDecoder, Signal, Stream};
pub use request::RequestDecoder;
