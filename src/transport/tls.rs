//! Links over TLS 1.3 with certificates of the cluster on both sides.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, CommonState, Error as TlsError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::credentials::Credentials;
use super::{Certificate, DetachedLink, Link, LinkRead, LinkReader, LinkWriter, host_name};
use crate::id::HostUid;

/// Time for a rejected peer to read the reason. Closing earlier would reset the connection, and the
/// reason might be lost.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read and discarded from a rejected peer.
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// Establishes a link to host `to` over a dialled connection.
pub(super) async fn connect(
    stream: TcpStream,
    credentials: &Credentials,
    to: HostUid,
) -> io::Result<Box<dyn Link>> {
    // The name contains the incarnation: a certificate of an earlier process with this host id is
    // rejected.
    let name = ServerName::try_from(host_name(to)).map_err(io::Error::other)?;
    let connecting = TlsConnector::from(credentials.host_client()).connect(name, Socket(Some(stream)));
    let stream = connecting.await.map_err(explain)?;
    open(TlsStream::Client(stream))
}

/// Establishes a link over an accepted connection.
pub(super) async fn accept(stream: TcpStream, credentials: &Credentials) -> io::Result<Box<dyn Link>> {
    let accepting = TlsAcceptor::from(credentials.host_server()).accept(Socket(Some(stream)));
    match accepting.into_fallible().await {
        Ok(stream) => open(TlsStream::Server(stream)),
        Err((error, socket)) => {
            linger(socket).await;
            Err(explain(error))
        }
    }
}

/// Closes a connection so that the other side can read why it was rejected.
pub(crate) async fn linger(mut socket: impl AsyncRead + AsyncWrite + Unpin) {
    let drain = async {
        // First the half-close, then the drain: closing a socket with unread data makes the kernel
        // send a reset, by which the peer may lose the reason.
        socket.shutdown().await?;
        tokio::io::copy(&mut socket.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // The connection is closed in either case.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

fn open(stream: TlsStream<Socket>) -> io::Result<Box<dyn Link>> {
    let certificate = certificate_of(stream.get_ref().1)?;
    Ok(Box::new(TlsLink { stream, certificate }))
}

fn certificate_of(connection: &CommonState) -> io::Result<Certificate> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let certificate = chain.first().ok_or_else(|| io::Error::other("a verified peer has a certificate"))?;
    Ok(Certificate::verified(certificate.clone()))
}

struct TlsLink {
    stream: TlsStream<Socket>,
    certificate: Certificate,
}

impl Link for TlsLink {
    fn detach(mut self: Box<Self>) -> io::Result<Box<dyn DetachedLink>> {
        // Only the socket is bound to a reactor. The TLS state, with its keys and buffered records,
        // is not.
        let socket = &mut self.stream.get_mut().0.0;
        let stream = socket.take().ok_or(ErrorKind::NotConnected)?.into_std()?;
        Ok(Box::new(DetachedTlsLink { stream, link: *self }))
    }

    fn into_split(self: Box<Self>) -> (LinkReader, LinkWriter) {
        let (reader, writer) = split(*self);
        (Box::new(reader), Box::new(writer))
    }

    fn certificate(&self) -> Option<&Certificate> {
        Some(&self.certificate)
    }
}

impl LinkRead for ReadHalf<TlsLink> {
    fn is_socket(&self) -> bool {
        true
    }
}

/// TLS state, and apart from it the socket, which is registered with no reactor.
#[derive(Debug)]
struct DetachedTlsLink {
    link: TlsLink,
    stream: std::net::TcpStream,
}

impl DetachedLink for DetachedTlsLink {
    fn attach(mut self: Box<Self>) -> io::Result<Box<dyn Link>> {
        self.link.stream.get_mut().0.0 = Some(TcpStream::from_std(self.stream)?);
        Ok(Box::new(self.link))
    }
}

impl AsyncRead for TlsLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_read(task, buf)) {
            // Sessions have their own end of stream, as over plain TCP, so a missing close_notify
            // is no attack.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read.map_err(explain)),
        }
    }
}

impl AsyncWrite for TlsLink {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(task, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

impl fmt::Debug for TlsLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsLink").field(&self.stream.get_ref().0.0).finish()
    }
}

/// Socket that can be removed from its TLS stream, to move to another reactor.
struct Socket(Option<TcpStream>);

impl Socket {
    fn get(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get()?.poll_read(task, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get()?.poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get()?.poll_write_vectored(task, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get()?.poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get()?.poll_shutdown(task)
    }
}

/// Adds advice for the next step to a TLS error.
pub(crate) fn explain(error: io::Error) -> io::Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else { return error };
    io::Error::new(ErrorKind::InvalidData, format!("{} ({tls})", advice(tls)))
}

fn advice(error: &TlsError) -> &'static str {
    use AlertDescription as Alert;
    use CertificateError as Fault;
    match error {
        TlsError::InvalidCertificate(fault) => match fault {
            Fault::Expired | Fault::ExpiredContext { .. } => {
                "the peer's certificate has expired; check its clock, and whether it reaches the head"
            }
            Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
                "the peer's certificate is not valid yet; check the clocks of both machines"
            }
            Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
                "the peer's certificate is that of another host"
            }
            Fault::UnknownIssuer | Fault::BadSignature => {
                "the peer's certificate is not from this cluster's authority"
            }
            _ => "the peer's certificate is not one of this cluster",
        },
        TlsError::NoCertificatesPresented => {
            "the peer has presented no certificate, and every link needs one"
        }
        TlsError::AlertReceived(alert) => match alert {
            Alert::CertificateExpired => {
                "the peer rejected the connection: this process's certificate has expired; check the \
                 clocks, and whether this process reaches the head"
            }
            Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate => {
                "the peer rejected the connection: this process's certificate is not from its cluster's \
                 authority"
            }
            Alert::CertificateRequired => {
                "the peer requires a certificate, and this process has presented none"
            }
            Alert::NoApplicationProtocol => "the peer serves another protocol there",
            _ => "the peer aborted the connection",
        },
        _ => "the peer does not speak Roadshow's TLS 1.3; check the address",
    }
}
