//! One connection from its handshake to its end.
//!
//! Invariant: it ends. What is left unread is thrown away within [`LINGER`], so that the client gets to read why.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::places::Place;
use super::turn::{Timed, Turn};
use super::{Handler, Port, request};
use crate::net::tls::Tls;

/// How long, and how many bytes of, a request that was refused unread is thrown away: closing a socket with unread
/// bytes resets it, and the client may lose the response over that.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Serves a connection.
pub(super) async fn run<H: Handler>(
    port: Arc<Port<H>>,
    tls: Option<Tls>,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
) {
    port.stats.accepted.add();
    let _open = port.stats.connections.enter();
    let _place = place;
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return serve(&port, stream, peer).await;
    };
    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
    let handshake = tokio::time::timeout(port.bounds.handshake, handshake);
    match port.stop.run_until_cancelled(handshake).await {
        None => {}
        Some(Ok(Ok(stream))) => serve(&port, stream, peer).await,
        Some(failed) => {
            port.stats.handshake_failures.add();
            let problem = failed
                .map_or_else(|slow| slow.to_string(), |r| r.err().map(|e| e.to_string()).unwrap_or_default());
            tracing::debug!(%peer, problem, "no TLS handshake");
        }
    }
}

async fn serve<H, S>(port: &Arc<Port<H>>, stream: S, peer: SocketAddr)
where
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let turn = Turn::new(port.bounds, port.stats.clone());
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (port, turn) = (port.clone(), turn.clone());
        let answer: Pin<Box<dyn Future<Output = Result<_, Infallible>> + Send>> = Box::pin(async move {
            turn.ours();
            let response = request::answer(&port, &turn, peer, request).await;
            Ok(turn.respond(response))
        });
        answer
    });
    let mut connection = http1::Builder::new()
        // The stream keeps the time.
        .header_read_timeout(None)
        .max_buf_size(port.bounds.header_bytes.max(8192))
        .serve_connection(TokioIo::new(Timed::new(stream, turn.clone())), service);
    let first = {
        let stop = pin!(port.stop.cancelled());
        let ended = pin!(poll_fn(|cx| connection.poll_without_shutdown(cx)));
        match select(ended, stop).await {
            Either::Left((ended, _)) => Some(ended),
            Either::Right(_) => None,
        }
    };
    let ended = match first {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    let mut unread = turn.unread();
    if let Err(e) = ended {
        // Clients that hang up or send nonsense are no news.
        tracing::debug!(%peer, problem = %e, "a connection ended");
        unread |= e.is_parse();
        if !unread {
            return;
        }
    }
    let stream = connection.into_parts().io.into_inner().into_inner();
    let _ = tokio::time::timeout(LINGER, close(stream, unread)).await;
}

/// Ends our side and, where the client may still be sending, takes some of that in.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, unread: bool) -> io::Result<()> {
    stream.shutdown().await?;
    if unread {
        let mut waste = vec![0; 16 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 {
            let read = stream.read(&mut waste).await?;
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
        }
    }
    Ok(())
}
