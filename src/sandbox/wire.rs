//! Messages between `rune`, the helper and a supervisor, and their encoding.
//!
//! Output and files stay raw bytes: as JSON numbers, megabytes of them would cost more time than
//! the jail.
//!
//! ```text
//! +-------------+------------+------------------------------+------------------+
//! | total (u64) | head (u64) | JSON: lengths, message       | bulk parts, raw  |
//! +-------------+------------+------------------------------+------------------+
//!                            |<-------- head bytes -------->|
//!               |<----------------------- total bytes ----------------------->|
//! ```
//!
//! Lengths are little endian. Descriptors are passed beside the frames (`SCM_RIGHTS`).

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::recv;
use nix::sys::socket::recvmsg;
use nix::sys::socket::send;
use nix::sys::socket::sendmsg;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fault::JailFault;
use super::helper::HelperGreeting;
use super::job::ExecOutcome;
use super::job::ExecRequest;
use super::sys;

/// Maximum size of a frame in bytes, far above that of any valid one.
const MAX_FRAME: u64 = 1 << 30;

/// The order for a supervisor: the job and how to run it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SupervisorOrder {
    pub(super) job: ExecRequest,
    /// Whether a descriptor for the program follows the frame.
    pub(super) passes: bool,
    /// Whether the program is trusted and builds jails itself.
    pub(super) is_zygote: bool,
}

/// The answer of a supervisor.
pub(super) type SupervisorAnswer = Result<ExecOutcome, JailFault>;

/// A message with large byte strings, which are sent raw after the JSON.
pub(super) trait BulkParts: Serialize + DeserializeOwned {
    /// The byte strings, in a fixed order.
    fn bulk(&mut self) -> Vec<&mut Vec<u8>>;
}

impl BulkParts for SupervisorOrder {
    fn bulk(&mut self) -> Vec<&mut Vec<u8>> {
        let ExecRequest { stdin, inputs, work, .. } = &mut self.job;
        let files = inputs.iter_mut().chain(work).map(|(_, content)| content);
        std::iter::once(stdin).chain(files).collect()
    }
}

impl BulkParts for SupervisorAnswer {
    fn bulk(&mut self) -> Vec<&mut Vec<u8>> {
        match self {
            Ok(outcome) => {
                let files = outcome.files.iter_mut().map(|(_, content)| content);
                let streams = [&mut outcome.stdout.bytes, &mut outcome.stderr.bytes];
                streams.into_iter().chain([&mut outcome.channel]).chain(files).collect()
            }
            Err(_) => Vec::new(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct MessageHeader<T> {
    lengths: Vec<usize>,
    message: T,
}

/// Encodes `message` as a frame.
pub(super) fn encode<T: BulkParts>(mut message: T) -> io::Result<Vec<u8>> {
    let bulk: Vec<Vec<u8>> = message.bulk().into_iter().map(std::mem::take).collect();
    let lengths = bulk.iter().map(Vec::len).collect();
    let head = serde_json::to_vec(&MessageHeader { lengths, message })?;
    let total = 8 + head.len() + bulk.iter().map(Vec::len).sum::<usize>();
    frame_length((total as u64).to_le_bytes())?;
    let mut frame = Vec::with_capacity(8 + total);
    frame.extend((total as u64).to_le_bytes());
    frame.extend((head.len() as u64).to_le_bytes());
    frame.extend(head);
    frame.extend(bulk.concat());
    Ok(frame)
}

/// Decodes a frame without its total length.
pub(super) fn decode<T: BulkParts>(frame: &[u8]) -> io::Result<T> {
    let (length, rest) = frame.split_at_checked(8).ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = u64::from_le_bytes(length.try_into().map_err(io::Error::other)?);
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let (head, mut rest) = rest.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
    let MessageHeader::<T> { lengths, mut message } = serde_json::from_slice(head)?;
    for (part, length) in message.bulk().into_iter().zip(lengths) {
        let bytes;
        (bytes, rest) = rest.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        *part = bytes.to_vec();
    }
    Ok(message)
}

/// Parses the total length of a frame from its first eight bytes.
pub(super) fn frame_length(prefix: [u8; 8]) -> io::Result<usize> {
    let length = u64::from_le_bytes(prefix);
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
    }
    usize::try_from(length).map_err(io::Error::other)
}

/// Reads one frame, blocking.
pub(super) fn receive<T: BulkParts>(mut socket: impl Read) -> io::Result<T> {
    let mut prefix = [0; 8];
    socket.read_exact(&mut prefix)?;
    let mut frame = vec![0; frame_length(prefix)?];
    socket.read_exact(&mut frame)?;
    decode(&frame)
}

/// Sends the helper's greeting.
pub(super) fn greet(socket: BorrowedFd<'_>, greeting: &HelperGreeting) -> io::Result<()> {
    let text = serde_json::to_vec(greeting)?;
    send(socket.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Receives the helper's greeting, blocking up to the socket's timeout.
pub(super) fn receive_greeting(socket: BorrowedFd<'_>) -> io::Result<HelperGreeting> {
    let mut text = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut text, MsgFlags::empty())?;
    Ok(serde_json::from_slice(&text[..length])?)
}

/// Sends the descriptor `passed` over `socket` without blocking.
pub(super) fn send_fd(socket: BorrowedFd<'_>, passed: BorrowedFd<'_>) -> nix::Result<()> {
    send_with_fds(socket, b"j", &[passed])
}

/// Sends `text` with the descriptors `passed` over `socket` without blocking.
pub(super) fn send_with_fds(
    socket: BorrowedFd<'_>,
    text: &[u8],
    passed: &[BorrowedFd<'_>],
) -> nix::Result<()> {
    let fds: Vec<_> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(text)], &rights, flags, None).map(drop)
}

/// Receives a descriptor; `None` if the other end is closed.
pub(super) fn receive_fd(socket: BorrowedFd<'_>) -> nix::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let received = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    Ok(received.map(sys::own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> SupervisorOrder {
        let job = ExecRequest {
            args: vec!["-".into()],
            stdin: vec![0, 255, 10],
            inputs: vec![("a.py".into(), b"pass".to_vec())],
            work: vec![("b".into(), Vec::new()), ("c".into(), vec![7; 9])],
            channel: true,
            ..ExecRequest::new("/bin/cat")
        };
        SupervisorOrder { job, passes: true, is_zygote: true }
    }

    #[test]
    fn orders_round_trip() {
        let frame = encode(order()).unwrap();
        let back: SupervisorOrder = receive(frame.as_slice()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", order()));
    }

    #[test]
    fn truncated_frames_are_errors() {
        let frame = encode(order()).unwrap();
        for length in 0..frame.len() {
            receive::<SupervisorOrder>(&frame[..length]).unwrap_err();
        }
    }
}
