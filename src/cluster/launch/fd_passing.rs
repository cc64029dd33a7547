//! File descriptors passed between processes over a unix socket (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Sends bytes, and a file descriptor with the first of them. Returns the number of bytes sent.
///
/// # Errors
///
/// Errors of `sendmsg(2)`.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let fds = fd.map(|fd| [fd]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(fds) = &fds {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    // Without `NOSIGNAL` a write to a closed socket would end this process by SIGPIPE.
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// Receives bytes and the file descriptor that came with them. The descriptor is missing if none was sent, or if
/// this process has reached its limit of open files. Zero bytes are the end of the stream.
///
/// # Errors
///
/// Errors of `recvmsg(2)`.
pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // Close-on-exec is set by the kernel with the receipt: a fork on another thread cannot inherit the descriptor.
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = fds.next().and_then(|mut fds| fds.next());
    Ok((received.bytes, fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_connection_arrives_with_its_own_byte_only() {
        let (here, there) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut dialed = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(send(&here, b"c", Some(accepted.as_fd())).unwrap(), 1);
        drop(accepted);
        assert_eq!(send(&here, b"s", None).unwrap(), 1);

        let mut byte = [0];
        let (count, fd) = receive(&there, &mut byte).unwrap();
        assert_eq!((count, &byte), (1, b"c"));
        let mut passed = TcpStream::from(fd.unwrap());
        dialed.write_all(b"x").unwrap();
        let mut read = [0];
        passed.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"x");
        let (count, fd) = receive(&there, &mut byte).unwrap();
        assert_eq!((count, &byte), (1, b"s"));
        assert!(fd.is_none());
        drop(here);
        assert_eq!(receive(&there, &mut byte).unwrap().0, 0);
    }
}
