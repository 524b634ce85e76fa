//! Captures the first and the last part of a stream of unbounded length.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::job::CapturedStream;

/// A stream may be this many times as long as the captured part.
const FLOOD: u64 = 64;

/// One output stream of the jail.
#[derive(Debug)]
pub(super) struct StreamCapture {
    /// Read end of the pipe, non-blocking; `None` after the end of the stream.
    pub(super) fd: Option<OwnedFd>,
    first: Vec<u8>,
    last: VecDeque<u8>,
    first_bytes: usize,
    last_bytes: usize,
    read: u64,
    flood: u64,
}

impl StreamCapture {
    /// Captures up to `output_bytes`: half from the start, half from the end of the stream.
    pub(super) fn halves(fd: OwnedFd, output_bytes: usize) -> Self {
        let last_bytes = output_bytes / 2;
        let flood = FLOOD.saturating_mul(output_bytes as u64);
        Self::new(fd, output_bytes - last_bytes, last_bytes, flood)
    }

    /// Captures up to `bytes` from the start; one byte more is a flood.
    pub(super) fn whole(fd: OwnedFd, bytes: usize) -> Self {
        Self::new(fd, bytes, 0, bytes as u64)
    }

    fn new(fd: OwnedFd, first_bytes: usize, last_bytes: usize, flood: u64) -> Self {
        let (first, last) = (Vec::new(), VecDeque::new());
        Self { fd: Some(fd), first, last, first_bytes, last_bytes, read: 0, flood }
    }

    /// Reads all available bytes, up to the flood limit; returns whether the limit is exceeded.
    pub(super) fn drain(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        // Bounded by the limit: a fast writer must not keep the supervisor from its clock for ever.
        while self.read <= self.flood {
            let Some(fd) = &self.fd else { break };
            match nix::unistd::read(fd, &mut buffer) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Ok(0) | Err(_) => self.fd = None,
                Ok(n) => self.push(&buffer[..n]),
            }
        }
        self.read > self.flood
    }

    fn push(&mut self, bytes: &[u8]) {
        self.read += bytes.len() as u64;
        let free = self.first_bytes - self.first.len();
        let (first, rest) = bytes.split_at(free.min(bytes.len()));
        self.first.extend(first);
        self.last.extend(rest);
        let excess = self.last.len().saturating_sub(self.last_bytes);
        self.last.drain(..excess);
    }

    /// Returns the captured part of the stream.
    pub(super) fn finish(self) -> CapturedStream {
        let n_captured = (self.first.len() + self.last.len()) as u64;
        let bytes = self.first.into_iter().chain(self.last).collect();
        CapturedStream { bytes, dropped: self.read - n_captured }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(capacity: usize, chunks: &[&str]) -> String {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        let mut capture = StreamCapture::halves(fd, capacity);
        for chunk in chunks {
            capture.push(chunk.as_bytes());
        }
        let CapturedStream { bytes, dropped } = capture.finish();
        format!("{} -{dropped}", String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn first_and_last_halves_are_kept() {
        assert_eq!(check(6, &[]), " -0");
        assert_eq!(check(6, &["abcdef"]), "abcdef -0");
        assert_eq!(check(6, &["ab", "cd", "efgh"]), "abcfgh -2");
        assert_eq!(check(5, &["abcdefghij"]), "abcij -5");
        assert_eq!(check(0, &["abc"]), " -3");
    }
}
