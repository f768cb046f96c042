//! A proxy before a server that cuts a connection after so many bytes, or swallows everything.
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Whose bytes are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Request,
    Reply,
}

#[derive(Default)]
struct Plan {
    /// Cut after so many more bytes of this side.
    cut: Mutex<Option<(Side, usize)>>,
    /// Swallow everything, and keep the connections open.
    hole: AtomicBool,
    passed: [AtomicUsize; 2],
}

/// The proxy. It ends with the runtime.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    plan: Arc<Plan>,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let plan = Arc::new(Plan::default());
        let own = listener.local_addr().expect("an address").port();
        let shared = plan.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), shared.clone()));
            }
        });
        Self { port: own, plan }
    }

    /// Cuts after `bytes` more bytes of `side`, once.
    pub(crate) fn cut(&self, side: Side, bytes: usize) {
        *self.plan.cut.lock().expect("a lock") = Some((side, bytes));
    }

    /// Takes back a cut that did not come to pass. Whether there was one.
    pub(crate) fn spare(&self) -> bool {
        self.plan.cut.lock().expect("a lock").take().is_some()
    }

    pub(crate) fn swallow(&self, on: bool) {
        self.plan.hole.store(on, Ordering::SeqCst);
    }

    /// Bytes that have passed: requests, replies.
    pub(crate) fn passed(&self) -> [usize; 2] {
        [0, 1].map(|side| self.plan.passed[side].load(Ordering::SeqCst))
    }
}

async fn serve(client: TcpStream, server: SocketAddr, plan: Arc<Plan>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        drop(stream.set_nodelay(true));
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever ends first takes both sockets along.
    tokio::select! {
        () = pump(from_client, to_server, Side::Request, &plan) => {}
        () = pump(from_server, to_client, Side::Reply, &plan) => {}
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, side: Side, plan: &Plan) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if plan.hole.load(Ordering::SeqCst) {
            continue;
        }
        let (pass, cut) = {
            let mut planned = plan.cut.lock().expect("a lock");
            match &mut *planned {
                Some((wanted, left)) if *wanted == side => {
                    if read >= *left {
                        let pass = *left;
                        *planned = None;
                        (pass, true)
                    } else {
                        *left -= read;
                        (read, false)
                    }
                }
                _ => (read, false),
            }
        };
        plan.passed[side as usize].fetch_add(pass, Ordering::SeqCst);
        if to.write_all(&buffer[..pass]).await.is_err() || cut {
            return;
        }
    }
}
