//! A TCP proxy between one operator and the API server, which fails in the ways in which networks do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Everything passes.
    Forward,
    /// Connections are accepted and stay open; what is sent waits.
    Stall,
    /// Connections are reset, those that are open as those that come.
    Reset,
}

/// A running proxy; it ends with the test's runtime.
pub struct Proxy {
    /// `127.0.0.1:<port>`.
    pub address: String,
    mode: watch::Sender<Mode>,
    held: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts one that lets everything pass to an address.
    pub async fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (mode, held) = (watch::Sender::new(Mode::Forward), Arc::new(AtomicUsize::new(0)));
        let (modes, count, to) = (mode.clone(), held.clone(), to.to_owned());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(connection(client, to.clone(), modes.subscribe(), count.clone()));
            }
        });
        Self { address, mode, held }
    }

    /// Holds everything back from now on, as a network that drops packets.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    /// Resets everything from now on.
    pub fn reset(&self) {
        self.mode.send_replace(Mode::Reset);
    }

    /// Lets pass what was held back, and everything from now on.
    pub fn forward(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Bytes towards the API server that were held back so far.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

async fn connection(client: TcpStream, to: String, mut mode: watch::Receiver<Mode>, held: Arc<AtomicUsize>) {
    // Closed, it is reset.
    client.set_zero_linger().unwrap();
    if *mode.borrow_and_update() == Mode::Reset {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let towards = pump(from_client, to_server, mode.clone(), Some(held));
    let back = pump(from_server, to_client, mode.clone(), None);
    tokio::select! {
        _ = async { tokio::join!(towards, back) } => {}
        _ = mode.wait_for(|m| *m == Mode::Reset) => {}
    }
}

/// Carries bytes one way, those that had to wait in their order.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    held: Option<Arc<AtomicUsize>>,
) {
    let (mut buffer, mut waiting) = (vec![0; 1 << 16], Vec::new());
    let mut open = true;
    loop {
        let stalled = *mode.borrow_and_update() == Mode::Stall;
        if !stalled && !waiting.is_empty() {
            if to.write_all(&waiting).await.is_err() {
                return;
            }
            waiting.clear();
        }
        if !open && !stalled {
            // Whoever sent this is gone; the other side has time to answer before it hears of it.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = to.shutdown().await;
            return;
        }
        tokio::select! {
            read = from.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(n) => {
                    if let (true, Some(held)) = (stalled, &held) {
                        held.fetch_add(n, Ordering::SeqCst);
                    }
                    waiting.extend_from_slice(&buffer[..n]);
                }
            },
            changed = mode.changed() => if changed.is_err() { return },
        }
    }
}
