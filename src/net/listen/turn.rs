//! Whose turn it is on a connection, and until when: the client's to send a request or to take its response, or
//! ours to answer. The stream watches the time of the client's turns; ours is bounded where requests are answered.
//!
//! Invariant: while it is the client's turn there is a deadline.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::{Bounds, Stats};

#[derive(Clone, Copy)]
enum Phase {
    /// Nothing has come since the last request.
    Idle,
    /// A head is coming.
    Head,
    /// A request is being answered.
    Ours,
    /// The response is on its way.
    Response,
}

struct State {
    phase: Phase,
    deadline: Instant,
    /// The whole response is in the server's buffers.
    written: bool,
    /// A request was answered without reading it to its end.
    unread: bool,
    /// The client took too long: the connection ends.
    late: bool,
}

pub(super) struct Turn {
    state: Mutex<State>,
    bounds: Bounds,
    stats: Arc<Stats>,
}

impl Turn {
    pub(super) fn new(bounds: Bounds, stats: Arc<Stats>) -> Arc<Self> {
        let deadline = Instant::now() + bounds.headers;
        let state = State { phase: Phase::Head, deadline, written: false, unread: false, late: false };
        Arc::new(Self { state: Mutex::new(state), bounds, stats })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head has come: ours.
    pub(super) fn ours(&self) {
        self.state().phase = Phase::Ours;
    }

    /// There is a response: the client's turn to take it.
    pub(super) fn respond(self: &Arc<Self>, response: super::Response) -> http::Response<Tracked> {
        let mut state = self.state();
        state.phase = Phase::Response;
        state.deadline = Instant::now() + self.bounds.request;
        state.written = false;
        drop(state);
        response.map(|body| Tracked { body, turn: self.clone() })
    }

    pub(super) fn leave_unread(&self) {
        self.state().unread = true;
    }

    /// Whether the client may still be sending what nobody reads.
    pub(super) fn unread(&self) -> bool {
        self.state().unread
    }

    fn arrived(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Idle) {
            state.phase = Phase::Head;
            state.deadline = Instant::now() + self.bounds.headers;
        }
    }

    fn flushed(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Response) && state.written {
            state.phase = Phase::Idle;
            state.deadline = Instant::now() + self.bounds.idle;
        }
    }

    /// Until when it is the client's turn.
    fn until(&self) -> Option<Instant> {
        let state = self.state();
        (!matches!(state.phase, Phase::Ours)).then_some(state.deadline)
    }

    /// Counted once, though the server may try again to say goodbye. An idle connection is nothing to count.
    fn overdue(&self) -> io::Error {
        let mut state = self.state();
        if !state.late && !matches!(state.phase, Phase::Idle) {
            self.stats.timeouts.add();
        }
        state.late = true;
        io::ErrorKind::TimedOut.into()
    }
}

/// A response's body that tells when it has been taken over into the server's buffers.
pub(super) struct Tracked {
    body: Full<Bytes>,
    turn: Arc<Turn>,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.turn.state().written = true;
    }
}

/// A stream that fails when the client's turn takes too long.
pub(super) struct Timed<S> {
    stream: S,
    turn: Arc<Turn>,
    sleep: Pin<Box<Sleep>>,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S, turn: Arc<Turn>) -> Self {
        let sleep = Box::pin(tokio::time::sleep_until(turn.state().deadline));
        Self { stream, turn, sleep }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = self.turn.until() else { return Ok(()) };
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
        if self.sleep.as_mut().poll(cx).is_ready() { Err(self.turn.overdue()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.turn.arrived();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            this.turn.flushed();
            // Nothing may be read before it is over: the timer must be set here.
            this.in_time(cx)?;
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
