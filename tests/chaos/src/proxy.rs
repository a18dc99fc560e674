//! A TCP proxy in this process, between two others: it can cut, stall, slow, and lose answers.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Open,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Nothing goes through, and nobody is told.
    Stalled,
    /// Every piece takes this long.
    Slow(Duration),
    /// What the server answers is lost, and the connection with it: done, though reported as failed.
    Deaf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    FromServer,
}

pub struct Proxy {
    pub port: u16,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// Passes on what comes to a free port.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (mode, seen) = watch::channel(Mode::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target, seen.clone()));
            }
        });
        Ok(Self { port, mode })
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

async fn pass(client: TcpStream, target: SocketAddr, mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Without it, latencies would be the proxy's own; where it cannot be set, they are.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Either way's end is the connection's.
    tokio::select! {
        () = pump(from_client, to_server, mode.clone(), Way::ToServer) => {}
        () = pump(from_server, to_client, mode, Way::FromServer) => {}
    }
}

/// Until the connection ends, or must.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>, way: Way) {
    let mut piece = vec![0; 16 << 10];
    let lost = AtomicBool::new(false);
    loop {
        // What is in the pipe while nothing goes through waits there.
        if !may_pass(&mut mode, &lost).await {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut piece) => read,
            changed = mode.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok(read @ 1..) = read else { return };
        let now = *mode.borrow();
        if let Mode::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if !may_pass(&mut mode, &lost).await {
            return;
        }
        if way == Way::FromServer && *mode.borrow() == Mode::Deaf {
            lost.store(true, Ordering::Relaxed);
            continue;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits while it stalls. A connection that is cut, or from which something was lost before, is over.
async fn may_pass(mode: &mut watch::Receiver<Mode>, lost: &AtomicBool) -> bool {
    loop {
        match *mode.borrow_and_update() {
            Mode::Cut => return false,
            Mode::Stalled => {}
            Mode::Deaf => return true,
            Mode::Open | Mode::Slow(_) => return !lost.load(Ordering::Relaxed),
        }
        if mode.changed().await.is_err() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) -> Option<Vec<u8>> {
        stream.write_all(text).await.ok()?;
        let mut heard = vec![0; text.len()];
        let answer = tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut heard)).await;
        answer.ok()?.ok().map(|_| heard)
    }

    #[tokio::test]
    async fn it_passes_stalls_loses_and_cuts() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let connect = async || TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        let mut stream = connect().await;
        assert_eq!(say(&mut stream, b"one").await.as_deref(), Some(b"one".as_slice()));
        proxy.set(Mode::Stalled);
        assert_eq!(say(&mut stream, b"two").await, None);
        proxy.set(Mode::Open);
        let mut late = [0; 3];
        stream.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"two", "what was stalled arrives");
        proxy.set(Mode::Deaf);
        assert_eq!(say(&mut stream, b"three").await, None);
        proxy.set(Mode::Open);
        assert_eq!(say(&mut stream, b"four").await, None, "a connection that lost something is over");
        let mut stream = connect().await;
        assert_eq!(say(&mut stream, b"five").await.as_deref(), Some(b"five".as_slice()));
        proxy.set(Mode::Cut);
        assert_eq!(say(&mut stream, b"six").await, None);
        assert_eq!(say(&mut connect().await, b"seven").await, None);
    }
}
