//! The line between the runtime and the process that becomes the container.
//!
//! A message is a word and a text. After the seccomp filter is in place the child only uses
//! read(2) and write(2) on it, which every profile that can run a program at all allows.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, socketpair,
};

/// Longest message in bytes.
const LIMIT: usize = 16 * 1024;
/// The word of an error message.
const FAILED: &str = "failed";

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends of a new channel, close-on-exec.
    pub fn pair() -> Result<(Self, Self)> {
        let kind = SocketType::SEQPACKET;
        let (a, b) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .context("make a socket pair")?;
        Ok((Self(a), Self(b)))
    }

    /// Sends a word.
    pub fn send(&self, word: &str, text: &str) -> Result<()> {
        let message = format!("{word}\0{text}");
        let length = message.len().min(LIMIT);
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &message.as_bytes()[..length]))
            .with_context(|| format!("send \"{word}\""))?;
        Ok(())
    }

    /// Sends the whole chain of an error; the other side's `expect` returns it.
    pub fn send_error(&self, error: &anyhow::Error) {
        // If nobody listens any more there is nobody to tell.
        let _ = self.send(FAILED, &crate::log::chain(error));
    }

    /// Receives the next message; `None` when the other side is gone.
    pub fn receive(&self) -> Result<Option<(String, String)>> {
        let mut buffer = [0; LIMIT];
        let n = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut buffer))
            .context("wait for a message")?;
        if n == 0 {
            return Ok(None);
        }
        let message = String::from_utf8_lossy(&buffer[..n]);
        let (word, text) = message.split_once('\0').unwrap_or((&message, ""));
        if word == FAILED {
            bail!("{text}");
        }
        Ok(Some((word.to_owned(), text.to_owned())))
    }

    /// Waits for a certain word and returns its text.
    pub fn expect(&self, word: &str) -> Result<String> {
        match self.receive()? {
            Some((got, text)) if got == word => Ok(text),
            Some((got, _)) => bail!("expected \"{word}\" from the other process, got \"{got}\""),
            None => bail!("the other process died before it sent \"{word}\""),
        }
    }

    /// Sends a word with a descriptor.
    pub fn send_fd(&self, word: &str, fd: BorrowedFd<'_>) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let message = [IoSlice::new(word.as_bytes())];
        rustix::net::sendmsg(&self.0, &message, &mut control, SendFlags::NOSIGNAL)
            .with_context(|| format!("send the descriptor \"{word}\""))?;
        Ok(())
    }

    /// Waits for a descriptor that was sent with `word`.
    pub fn receive_fd(&self, word: &str) -> Result<OwnedFd> {
        let mut buffer = [0; LIMIT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut parts, &mut control, flags)
        })
        .with_context(|| format!("wait for the descriptor \"{word}\""))?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(fd) = fds.next()
            {
                return Ok(fd);
            }
        }
        let text = String::from_utf8_lossy(&buffer[..received.bytes]);
        match text.strip_prefix("failed\0") {
            Some(error) => bail!("{error}"),
            None => bail!("the other process ended without sending \"{word}\""),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
