//! The load generator: one thread that keeps a number of requests under way.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use super::stats::{float, percentile};
use super::{Result, context, stream};

/// How long to wait for any reply.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A load: the request, and how often it is made.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    /// Where the server listens.
    pub(crate) socket: &'a Path,
    /// What each client sends at once. It fits into a socket's buffer.
    pub(crate) request: &'a [u8],
    /// What each client must get before the end of the connection.
    pub(crate) reply: Expected<'a>,
    /// Requests under way at any time.
    pub(crate) at_a_time: usize,
    /// How long new requests are made. After that the load waits for those under way.
    pub(crate) time: Duration,
}

/// What a client must get.
#[derive(Debug)]
pub(crate) enum Expected<'a> {
    /// These bytes.
    Exactly(&'a [u8]),
    /// In version 2: exit code 0 of a program that writes nothing. Its process number and its cost vary.
    Quiet,
}

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// From the first request to the last reply.
    pub(crate) elapsed: Duration,
    /// From connect to the end of the connection, one for each program.
    pub(crate) latencies: Vec<Duration>,
}

impl Outcome {
    /// How many programs were run.
    pub(crate) const fn programs(&self) -> u64 {
        self.latencies.len() as u64
    }

    /// Programs a second.
    pub(crate) fn rate(&self) -> f64 {
        float(self.programs()) / self.elapsed.as_secs_f64()
    }

    /// The microseconds that `percent` percent of the programs did not exceed.
    pub(crate) fn percentile(&mut self, percent: usize) -> Option<f64> {
        percentile(&mut self.latencies, percent).map(|time| time.as_secs_f64() * 1e6)
    }
}

impl Load<'_> {
    /// Runs it, and checks every reply.
    pub(crate) fn run(&self) -> Result<Outcome> {
        Generator::new(self)?.run()
    }

    fn check(&self, reply: &[u8]) -> Result<()> {
        let expected = match self.reply {
            Expected::Exactly(expected) if reply == expected => return Ok(()),
            Expected::Exactly(expected) => format!("\"{}\" was expected", expected.escape_ascii()),
            Expected::Quiet => match stream::expect_quiet(reply) {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
        };
        let got = reply.escape_ascii();
        Err(format!("wrong reply on {}: \"{got}\": {expected}", self.socket.display()).into())
    }
}

/// One request under way.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    started: Instant,
}

struct Generator<'a> {
    load: &'a Load<'a>,
    epoll: OwnedFd,
    clients: Vec<Option<Client>>,
    /// How many requests were made.
    started: u64,
    reply: Vec<u8>,
    latencies: Vec<Duration>,
}

impl<'a> Generator<'a> {
    fn new(load: &'a Load<'a>) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let clients = (0..load.at_a_time).map(|_| None).collect();
        Ok(Self { load, epoll, clients, started: 0, reply: Vec::new(), latencies: Vec::new() })
    }

    fn run(mut self) -> Result<Outcome> {
        let started = Instant::now();
        let deadline = started + self.load.time;
        for slot in 0..self.load.at_a_time {
            self.start(slot)?;
        }
        let mut under_way = self.load.at_a_time;
        let mut events = Vec::with_capacity(self.load.at_a_time);
        while under_way > 0 {
            events.clear();
            if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&PATIENCE))? == 0 {
                return Err(format!("{under_way} of {} requests got no answer in 5 seconds", self.started).into());
            }
            for event in &events {
                let slot = usize::try_from(event.data.u64())?;
                self.finish(slot)?;
                if Instant::now() < deadline {
                    self.start(slot)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(Outcome { elapsed: started.elapsed(), latencies: self.latencies })
    }

    fn start(&mut self, slot: usize) -> Result<()> {
        let started = Instant::now();
        // Blocking calls: connecting waits only while the queue is full, and a request fits into the buffer.
        let mut stream = UnixStream::connect(self.load.socket).map_err(context(self.load.socket.display()))?;
        stream.write_all(self.load.request)?;
        // Not IN: a reply fits into the buffer, and one wakeup for each request leaves the server more of the machine.
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(slot as u64), epoll::EventFlags::RDHUP)?;
        self.started += 1;
        if let Some(client) = self.clients.get_mut(slot) {
            *client = Some(Client { stream, started });
        }
        Ok(())
    }

    /// Reads the reply of a client. The server has ended its side, so no read blocks.
    fn finish(&mut self, slot: usize) -> Result<()> {
        // Dropping the client closes its stream, which takes it out of the epoll instance.
        let Some(mut client) = self.clients.get_mut(slot).and_then(Option::take) else { return Ok(()) };
        self.reply.clear();
        client.stream.read_to_end(&mut self.reply)?;
        self.latencies.push(client.started.elapsed());
        self.load.check(&self.reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(reply: Expected<'_>) -> Load<'_> {
        Load { socket: Path::new("sock"), request: b"", reply, at_a_time: 1, time: Duration::ZERO }
    }

    #[test]
    fn a_wrong_reply_is_shown() {
        let good = || load(Expected::Exactly(b"8:exitcode,1:0,"));
        assert!(good().check(b"8:exitcode,1:0,").is_ok());
        let error = good().check(b"8:exitcode,1:1,\n").unwrap_err().to_string();
        assert_eq!(error, r#"wrong reply on sock: "8:exitcode,1:1,\n": "8:exitcode,1:0," was expected"#);
        assert!(load(Expected::Exactly(b"")).check(b"8:exitcode,1:0,").is_err());
        let error = load(Expected::Quiet).check(b"8:exitcode,1:1,").unwrap_err().to_string();
        assert_eq!(error, r#"wrong reply on sock: "8:exitcode,1:1,": the program ended with exit code 1"#);
    }

    #[test]
    fn a_rate_is_programs_over_time() {
        let latencies = vec![Duration::from_millis(3), Duration::from_millis(1), Duration::from_millis(2)];
        let mut outcome = Outcome { elapsed: Duration::from_millis(500), latencies };
        assert!((outcome.rate() - 6.0).abs() < 1e-9);
        assert_eq!(outcome.percentile(50).map(f64::round), Some(2000.0));
    }
}
