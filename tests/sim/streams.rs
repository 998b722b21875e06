//! Connections and streams between simulated nodes, over the delays and cuts of the network.

use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use kvs::model::Member;
use kvs::peer::{Counters, Incoming, Link, PeerError, Stream, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use crate::network::{Network, Way};

/// The most bytes of one direction of a stream that are on their way.
const PIPE_BYTES: usize = 64 << 10;
/// The bytes that travel together.
const CHUNK_BYTES: usize = 16 << 10;

/// A connection that a node dialed.
pub struct SimLink {
    pub network: Network,
    pub me: Member,
    pub target: SocketAddr,
    pub broken: CancellationToken,
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.broken.cancel();
    }
}

impl Link for SimLink {
    fn open(&self, kind: StreamKind) -> BoxFuture<'_, Result<Stream, PeerError>> {
        Box::pin(async move {
            let (near, near_wire) = tokio::io::duplex(PIPE_BYTES);
            let (far, far_wire) = tokio::io::duplex(PIPE_BYTES);
            let (near_read, near_write) = tokio::io::split(near_wire);
            let (far_read, far_write) = tokio::io::split(far_wire);
            let (network, broken) = (&self.network, &self.broken);
            let (own, target) = (self.me.gossip, self.target);
            let there = carry(network.clone(), broken.clone(), (own, target), near_read, far_write);
            let back = carry(network.clone(), broken.clone(), (target, own), far_read, near_write);
            tokio::spawn(there);
            tokio::spawn(back);
            let incoming = Incoming { from: self.me.clone(), kind, stream: framed(far) };
            network.hand_over(target, incoming)?;
            Ok(framed(near))
        })
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.broken.cancelled())
    }
}

fn framed(pipe: DuplexStream) -> Stream {
    let (reader, writer) = tokio::io::split(pipe);
    Stream::new(reader, writer, &Counters::default())
}

/// Moves one direction of a stream, chunk by chunk, until it ends or the connection breaks.
async fn carry(
    network: Network,
    broken: CancellationToken,
    way: Way,
    mut reader: ReadHalf<DuplexStream>,
    mut writer: WriteHalf<DuplexStream>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let moving = async {
        loop {
            let Ok(length @ 1..) = reader.read(&mut buffer).await else {
                let _ = writer.shutdown().await;
                return;
            };
            if !network.cross(way, &buffer[..length]).await {
                return broken.cancel();
            }
            if writer.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = broken.cancelled() => {}
        () = moving => {}
    }
}
