//! A proxy before a server, for tests: it cuts a connection after so many bytes, or swallows everything.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

/// Whose bytes are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Of the client.
    Request,
    /// Of the server.
    Reply,
}

#[derive(Debug, Default)]
struct Plan {
    /// Cut after so many more bytes of this side.
    cut: Mutex<Option<(Side, usize)>>,
    /// Swallow everything, and keep the connections open.
    hole: AtomicBool,
    passed: [AtomicUsize; 2],
    over: AtomicBool,
}

impl Plan {
    fn cut(&self) -> MutexGuard<'_, Option<(Side, usize)>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of so many bytes pass, and whether the connection ends behind them.
    fn pass(&self, side: Side, bytes: usize) -> (usize, bool) {
        let mut planned = self.cut();
        match &mut *planned {
            Some((wanted, left)) if *wanted == side => {
                if bytes >= *left {
                    let pass = *left;
                    *planned = None;
                    return (pass, true);
                }
                *left -= bytes;
                (bytes, false)
            }
            _ => (bytes, false),
        }
    }
}

/// A proxy on a free port of the loopback interface. When it is dropped it takes no more connections; those that are open
/// go on until one of their ends closes.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    plan: Arc<Plan>,
}

impl Proxy {
    /// One before the server at `port` of the loopback interface.
    ///
    /// # Errors
    /// When no port is free.
    pub fn before(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a proxy")?;
        let proxy = Self { port: listener.local_addr()?.port(), plan: Arc::default() };
        let plan = Arc::clone(&proxy.plan);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(std::io::Result::ok) {
                if plan.over.load(Ordering::SeqCst) {
                    return;
                }
                // A server that is not there is one that hangs up.
                drop(serve(client, port, &plan));
            }
        });
        Ok(proxy)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the connection after `bytes` more bytes of `side`, once. Zero bytes: at the next byte, which does not pass.
    pub fn cut(&self, side: Side, bytes: usize) {
        *self.plan.cut() = Some((side, bytes));
    }

    /// Takes back a cut that did not come to pass. Whether there was one.
    pub fn spare(&self) -> bool {
        self.plan.cut().take().is_some()
    }

    /// Whether everything is swallowed from now on, with the connections kept open.
    pub fn swallow(&self, on: bool) {
        self.plan.hole.store(on, Ordering::SeqCst);
    }

    /// Bytes that have passed: requests, replies.
    #[must_use]
    pub fn passed(&self) -> [usize; 2] {
        [0, 1].map(|side| self.plan.passed[side].load(Ordering::SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.plan.over.store(true, Ordering::SeqCst);
        // The listener looks up at the next connection.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

/// Carries the bytes of one connection, on two threads of its own.
fn serve(client: TcpStream, port: u16, plan: &Arc<Plan>) -> Result<()> {
    let server = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to, side) in [
        (client.try_clone()?, server.try_clone()?, Side::Request),
        (server.try_clone()?, client.try_clone()?, Side::Reply),
    ] {
        let plan = Arc::clone(plan);
        std::thread::spawn(move || {
            pump(&from, &to, side, &plan);
            // Whichever ends first takes both along.
            drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
        });
    }
    Ok(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, side: Side, plan: &Plan) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if plan.hole.load(Ordering::SeqCst) {
            continue;
        }
        let (pass, cut) = plan.pass(side, read);
        plan.passed[side as usize].fetch_add(pass, Ordering::SeqCst);
        if to.write_all(&buffer[..pass]).is_err() || cut {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says everything back.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(std::io::Result::ok) {
                std::thread::spawn(move || std::io::copy(&mut &client, &mut &client));
            }
        });
        port
    }

    /// What comes back of eight bytes on a connection of its own, until it ends or all are there.
    fn said_back(proxy: &Proxy) -> usize {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).expect("a connection");
        let mut heard = [0; 8];
        if stream.write_all(b"12345678").is_err() {
            return 0;
        }
        let mut count = 0;
        while count < 8 {
            match stream.read(&mut heard[count..]) {
                Ok(read @ 1..) => count += read,
                _ => break,
            }
        }
        count
    }

    #[test]
    fn a_connection_is_cut_after_so_many_bytes_of_a_side_and_only_once() {
        let proxy = Proxy::before(echo()).expect("a proxy");
        assert_eq!(said_back(&proxy), 8);
        assert_eq!(proxy.passed(), [8, 8]);
        proxy.cut(Side::Reply, 3);
        assert_eq!(said_back(&proxy), 3);
        proxy.cut(Side::Request, 0);
        assert_eq!(said_back(&proxy), 0);
        assert_eq!(said_back(&proxy), 8);
        proxy.cut(Side::Reply, 100);
        assert!(said_back(&proxy) == 8 && proxy.spare() && !proxy.spare());
    }
}
