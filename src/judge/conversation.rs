//! Frames between processes with judged code, or with tests, and the judge: a length, a kind, a value of plain data.

use std::io;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;

use super::value::Value;

/// Bytes of a frame, at most.
const LARGEST_FRAME: u32 = 16 << 20;

/// A frame: the length of the value, a kind, the value.
pub(super) fn frame(kind: u8, value: &Value) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, kind];
    value.encode(&mut frame);
    let n = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&n.to_le_bytes());
    frame
}

fn value(body: &[u8]) -> Option<Value> {
    if body.is_empty() { Some(Value::None) } else { Value::decode(body).ok() }
}

/// Sends a frame. Whoever has ended does not read it; that is seen when it should answer.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), kind: u8, value: &Value) {
    let _it_has_ended = stream.write_all(&frame(kind, value)).await;
}

/// Receives a frame; `None` at the end, and for what is none.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Value)> {
    let read = async {
        let n = stream.read_u32_le().await?;
        let kind = stream.read_u8().await?;
        if n > LARGEST_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; n as usize];
        stream.read_exact(&mut body).await?;
        Ok::<_, io::Error>((kind, body))
    };
    let (kind, body) = read.await.ok()?;
    Some((kind, value(&body)?))
}

/// Frames that were written down; they end where there is no whole one.
#[derive(Debug)]
pub(super) struct Answers<'a>(pub(super) &'a [u8]);

impl Iterator for Answers<'_> {
    type Item = (u8, Value);

    fn next(&mut self) -> Option<Self::Item> {
        let (n, rest) = self.0.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first()?;
        let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*n) as usize)?;
        self.0 = rest;
        Some((*kind, value(body)?))
    }
}
