//! Connections that a handler can reset, and whose end it can see.
//!
//! poem gives a handler no way to end a connection without an answer, and runs it to its end when
//! the client has long hung up. So the acceptor numbers each connection, hands the number on as its
//! remote address, and wraps its socket.
//! [`Connections::reset`] makes the next write fail; hyper then drops the socket, which closes with
//! a TCP reset and not a byte of answer. [`Connections::wait`] notices that the client has left.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Addr, Request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The open connections of a server, by their number.
#[derive(Clone, Default)]
pub(crate) struct Connections {
    open: Arc<Mutex<HashMap<String, Arc<Line>>>>,
    last: Arc<AtomicU64>,
}

/// What the socket and the handlers of one connection tell each other.
#[derive(Default)]
struct Line {
    /// Set by a handler: do not write any more.
    doomed: AtomicBool,
    /// Set by the socket: the client has closed its side.
    hung_up: CancellationToken,
}

/// The client has left before it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HungUp;

impl Connections {
    /// Makes the connection of this request end in a TCP reset instead of an answer.
    ///
    /// The handler still has to return a response, of which nothing will be sent.
    pub(crate) fn reset(&self, request: &Request) {
        if let Some(line) = self.line(request) {
            line.doomed.store(true, Ordering::Release);
        }
    }

    /// Waits, but no longer than the client does.
    pub(crate) async fn wait(&self, request: &Request, delay: Duration) -> std::result::Result<(), HungUp> {
        let line = self.line(request).ok_or(HungUp)?;
        tokio::select! {
            biased;
            () = line.hung_up.cancelled() => Err(HungUp),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }

    /// Tells whether the client of this request is known to have left.
    pub(crate) fn has_hung_up(&self, request: &Request) -> bool {
        self.line(request).is_none_or(|line| line.hung_up.is_cancelled())
    }

    /// Returns what is cancelled when the client of this request leaves.
    pub(crate) fn hangup(&self, request: &Request) -> CancellationToken {
        self.line(request).map_or_else(CancellationToken::new, |line| line.hung_up.clone())
    }

    fn open(&self) -> (String, Arc<Line>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed).to_string();
        let line = Arc::new(Line::default());
        self.lock().insert(number.clone(), line.clone());
        (number, line)
    }

    fn line(&self, request: &Request) -> Option<Arc<Line>> {
        match &request.remote_addr().0 {
            Addr::Custom(_, number) => self.lock().get(number.as_ref()).cloned(),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Line>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts TCP connections that can be reset.
pub(crate) struct ResettableAcceptor {
    listener: TcpListener,
    connections: Connections,
}

impl ResettableAcceptor {
    pub(crate) fn new(listener: TcpListener, connections: Connections) -> Self {
        Self { listener, connections }
    }
}

impl Acceptor for ResettableAcceptor {
    type Io = ResettableStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.listener.local_addr().map(|address| LocalAddr(address.into())).into_iter().collect()
    }

    async fn accept(&mut self) -> Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        let (stream, _) = self.listener.accept().await?;
        // Answers are small; waiting to fill a packet would be measured as latency of the platform.
        stream.set_nodelay(true)?;
        let local = LocalAddr(stream.local_addr()?.into());
        let (number, line) = self.connections.open();
        let remote = RemoteAddr(Addr::custom("connection", number.clone()));
        let stream = ResettableStream { stream, line, number, connections: self.connections.clone() };
        Ok((stream, local, remote, Scheme::HTTP))
    }
}

/// A socket that resets instead of writing once it is doomed.
pub(crate) struct ResettableStream {
    stream: TcpStream,
    line: Arc<Line>,
    number: String,
    connections: Connections,
}

impl ResettableStream {
    fn check(&self) -> Result<()> {
        if !self.line.doomed.load(Ordering::Acquire) {
            return Ok(());
        }
        // Closing without lingering is what makes the kernel send a reset rather than an end.
        self.stream.set_zero_linger()?;
        Err(Error::new(ErrorKind::ConnectionReset, "reset as planned"))
    }
}

impl Drop for ResettableStream {
    fn drop(&mut self) {
        self.line.hung_up.cancel();
        self.connections.lock().remove(&self.number);
    }
}

impl AsyncRead for ResettableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let is_end = match &read {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => buffer.remaining() > 0 && buffer.filled().len() == before,
            Poll::Ready(Err(_)) => true,
        };
        if is_end {
            self.line.hung_up.cancel();
        }
        read
    }
}

impl AsyncWrite for ResettableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
