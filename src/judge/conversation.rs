//! Frames between the judge and the processes that run judged code or checks.
//!
//! ```text
//! +-------------------+-----------+------------------------------+
//! | length (u32, LE)  | kind (u8) | value: length bytes, marshal |
//! +-------------------+-----------+------------------------------+
//! ```

use std::io;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;

use super::value::PlainValue;

/// Maximum size of a frame's value in bytes.
const MAX_FRAME: u32 = 32 << 20;
/// Values of at most this many bytes are decoded inline; larger ones on a blocking thread, so that
/// the runtime stays responsive to interrupts.
const INLINE_BYTES: usize = 1 << 20;

/// A frame that was received, decoded.
#[derive(Debug)]
pub(super) enum ReceivedFrame {
    /// The kind and the value.
    Frame(u8, PlainValue),
    /// The bytes are not a valid value, for this reason. An honest program of ours sends such bytes
    /// only for a value that is nested too deeply.
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

/// Encodes a frame of this kind with `value`.
pub(super) fn frame(kind: u8, value: &PlainValue) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, kind];
    value.encode(&mut frame);
    // A longer value would be refused by the receiver anyway.
    let n = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&n.to_le_bytes());
    frame
}

/// Sends a frame. If the process has ended, that is noticed when its answer is awaited.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), kind: u8, value: &PlainValue) {
    let _it_has_ended = stream.write_all(&frame(kind, value)).await;
}

/// Receives a frame; `None` at the end of the stream.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<ReceivedFrame> {
    let n = stream.read_u32_le().await.ok()?;
    let kind = stream.read_u8().await.ok()?;
    if n > MAX_FRAME {
        // The rest of the stream is not read: after this the conversation is over.
        return Some(ReceivedFrame::Refused("it is larger than 32 MiB"));
    }
    let body = read_body(stream, n as usize).await.ok()?;
    if body.len() <= INLINE_BYTES {
        return Some(ReceivedFrame::decode(kind, &body));
    }
    tokio::task::spawn_blocking(move || ReceivedFrame::decode(kind, &body)).await.ok()
}

/// Reads exactly `n` bytes.
async fn read_body(stream: &mut (impl AsyncRead + Unpin), n: usize) -> io::Result<Vec<u8>> {
    // The judged process chooses `n`: memory grows with the bytes that arrive, not with its claim.
    let mut body = Vec::with_capacity(n.min(INLINE_BYTES));
    stream.take(n as u64).read_to_end(&mut body).await?;
    if body.len() < n { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(body) }
}

/// Iterates over frames that a process has written to a file; ends at the first incomplete one.
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
