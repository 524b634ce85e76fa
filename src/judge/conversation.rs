//! Frames between processes with judged code, or with tests, and the judge: a length, a kind, a
//! value of plain data.

use std::io;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;

use super::value::PlainValue;

/// Bytes of a frame, at most.
const LARGEST_FRAME: u32 = 32 << 20;
/// Frames of at most this many bytes are decoded at once; larger ones on a thread of their own, so
/// that the runtime's threads stay free for interrupts.
const DECODED_AT_ONCE: usize = 1 << 20;

/// A frame that has arrived.
#[derive(Debug)]
pub(super) enum ReceivedFrame {
    /// Its kind and value.
    Frame(u8, PlainValue),
    /// The bytes are no value, for this reason. No honest program of ours sends such, but for a
    /// value that is nested too deeply.
    Refused(&'static str),
}

impl ReceivedFrame {
    fn decode(kind: u8, body: &[u8]) -> Self {
        if body.is_empty() {
            return Self::Frame(kind, PlainValue::None);
        }
        match PlainValue::decode(body) {
            Ok(value) => Self::Frame(kind, value),
            Err(reason) => Self::Refused(reason),
        }
    }
}

/// A frame: the length of the value, a kind, the value.
pub(super) fn frame(kind: u8, value: &PlainValue) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, kind];
    value.encode(&mut frame);
    let n = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&n.to_le_bytes());
    frame
}

/// Sends a frame. Whoever has ended does not read it; that is seen when it should answer.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), kind: u8, value: &PlainValue) {
    let _it_has_ended = stream.write_all(&frame(kind, value)).await;
}

/// Receives a frame; `None` at the end.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<ReceivedFrame> {
    let n = stream.read_u32_le().await.ok()?;
    let kind = stream.read_u8().await.ok()?;
    if n > LARGEST_FRAME {
        return Some(ReceivedFrame::Refused("it is larger than 32 MiB"));
    }
    let body = read_body(stream, n as usize).await.ok()?;
    if body.len() <= DECODED_AT_ONCE {
        return Some(ReceivedFrame::decode(kind, &body));
    }
    tokio::task::spawn_blocking(move || ReceivedFrame::decode(kind, &body)).await.ok()
}

/// Reads `n` bytes; no more memory is set aside than has arrived.
async fn read_body(stream: &mut (impl AsyncRead + Unpin), n: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(n.min(DECODED_AT_ONCE));
    stream.take(n as u64).read_to_end(&mut body).await?;
    if body.len() < n { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(body) }
}

/// Frames that were written down; they end where there is no whole one.
#[derive(Debug)]
pub(super) struct FrameLog<'a>(pub(super) &'a [u8]);

impl Iterator for FrameLog<'_> {
    type Item = ReceivedFrame;

    fn next(&mut self) -> Option<Self::Item> {
        let (n, rest) = self.0.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first()?;
        let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*n) as usize)?;
        self.0 = rest;
        Some(ReceivedFrame::decode(*kind, body))
    }
}
