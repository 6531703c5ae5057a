//! Many programs that run at once and wait.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;

use std::io::Write as _;
use std::time::Duration;

use sockexec_proto::reply;
use sockexec_proto::request::{END_OF_STDIN, encode_exec};

use super::program::RUNNING;
use crate::{Result, context};

/// Clients of a server. The program of each runs until the crowd leaves.
#[derive(Debug)]
pub(crate) struct Crowd {
    clients: Vec<UnixStream>,
}

impl Crowd {
    /// Starts `size` programs `argv`, and returns when all have reported that they run.
    pub(crate) fn gather(socket: &Path, argv: &[String], size: usize) -> Result<Self> {
        let mut request = Vec::new();
        encode_exec(argv, &mut request);
        let mut clients = Vec::with_capacity(size);
        for _ in 0..size {
            let mut client = UnixStream::connect(socket).map_err(context(socket.display()))?;
            client.set_read_timeout(Some(Duration::from_secs(10)))?;
            client.write_all(&request)?;
            clients.push(client);
        }
        let mut said = Vec::new();
        reply::encode_pair("stdout", RUNNING, &mut said);
        let mut crowd = Self { clients };
        crowd.expect(&said)?;
        Ok(crowd)
    }

    /// Lets all programs end, and returns when all have ended.
    pub(crate) fn leave(mut self) -> Result<()> {
        for client in &mut self.clients {
            client.write_all(END_OF_STDIN)?;
        }
        self.expect(b"8:exitcode,1:0,")?;
        for client in &mut self.clients {
            if client.read(&mut [0])? > 0 {
                return Err("something follows the exit status".into());
            }
        }
        Ok(())
    }

    fn expect(&mut self, expected: &[u8]) -> Result<()> {
        let mut got = vec![0; expected.len()];
        for client in &mut self.clients {
            client.read_exact(&mut got).map_err(context("one of many programs"))?;
            if got != expected {
                return Err(format!("one of many programs: wrong reply: {}", got.escape_ascii()).into());
            }
        }
        Ok(())
    }
}
