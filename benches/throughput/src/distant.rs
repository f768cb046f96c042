//! A server that is a round trip away: a proxy that holds every answer back for a while. It delays and does not narrow.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Listens before the server at `port` and returns its own port. Its threads end with the connections, or the program.
pub(crate) fn before(port: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let own = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server answers");
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("a socket");
            }
            let copy = |stream: &TcpStream| stream.try_clone().expect("a socket");
            let (from_client, from_server) = (copy(&client), copy(&server));
            thread::spawn(move || pass(from_client, server, Duration::ZERO));
            thread::spawn(move || pass(from_server, client, delay));
        }
    });
    own
}

/// Passes on what comes, each piece `delay` after it came.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (later, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || {
        for (at, bytes) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // It may be closed already.
        drop(to.shutdown(Shutdown::Both));
    });
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if later.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
            break;
        }
    }
    drop(later);
    drop(writer.join());
}
