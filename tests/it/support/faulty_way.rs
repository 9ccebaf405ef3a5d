//! A way to a service over a network that fails: slow, cut, cut in the middle of a reply, half open, narrow.
//!
//! It can be switched while connections live, and meets those that are there as well as new ones. It forwards bytes and
//! knows nothing of what they mean. Which piece of a connection a fault meets is drawn from a seed.
//!
//! Invariants: bytes that come through are the right ones in the right order; what a client has sent and not got through
//! is gone when it hangs up, so that nothing arrives long after its sender; a connection that lost bytes never comes back.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use angzarr_relay::time::Random;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// The most that is taken from a connection at a time.
const PIECE_BYTES: usize = 16 << 10;

/// Pieces that wait in one direction of a connection; a sender that is faster waits.
const PIECES_MAX: usize = 256;

/// The longest delay of a slow network, for each direction.
const LATENCY_MAX: Duration = Duration::from_millis(400);

/// What a narrow network lets through, in each direction of a connection.
const NARROW_BYTES_PER_SECOND: u32 = 12 << 10;

/// How much of a piece goes through a narrow network at a time.
const NARROW_STEP_BYTES: usize = 512;

/// Of a hundred pieces, how many a reset meets.
const RESET_PERCENT: u64 = 25;

/// What is wrong with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Everything comes later, in each direction.
    Latency,
    /// Connections are reset, at rest and in the middle of requests and replies.
    Resets,
    /// Requests get through, and some connections are reset before or within the reply.
    LostReplies,
    /// Nothing gets through and nobody is told.
    HalfOpen,
    /// Little gets through in a second.
    Narrow,
}

/// A way to a service; it ends with the test's runtime, or when it is dropped.
#[derive(Debug)]
pub(crate) struct FaultyWay {
    /// What a client is given in the service's place.
    pub(crate) endpoint: String,
    fault: watch::Sender<Option<Fault>>,
    met: Arc<AtomicUsize>,
}

impl FaultyWay {
    /// Forwards to the service at `endpoint`, for the time being without a fault.
    pub(crate) async fn to(endpoint: &str, chance: Random) -> Self {
        let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let ((fault, watched), met) = (watch::channel(None), Arc::<AtomicUsize>::default());
        tokio::spawn(accept(listener, address, watched, chance, met.clone()));
        Self { endpoint, fault, met }
    }

    /// Takes the network into this state.
    pub(crate) fn set(&self, fault: Option<Fault>) {
        self.fault.send_replace(fault);
    }

    /// How many pieces and connections a fault has met so far.
    pub(crate) fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    service: SocketAddr,
    fault: watch::Receiver<Option<Fault>>,
    chance: Random,
    met: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    let (mut dropped, watched) = (fault.clone(), fault);
    loop {
        tokio::select! {
            Err(_dropped) = dropped.changed() => return,
            Some(_ended) = connections.join_next() => {}
            Ok((client, _)) = listener.accept() => {
                let connection = Connection {
                    fault: watched.clone(),
                    chance: chance.clone(),
                    met: met.clone(),
                    is_dead: Arc::default(),
                };
                connections.spawn(connection.serve(client, service));
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Reply,
}

/// How a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// A piece of what was sent, and when it came.
type Piece = (Instant, Bytes);

#[derive(Debug, Clone)]
struct Connection {
    fault: watch::Receiver<Option<Fault>>,
    chance: Random,
    met: Arc<AtomicUsize>,
    /// Bytes of it were lost.
    is_dead: Arc<AtomicBool>,
}

impl Connection {
    async fn serve(self, mut client: TcpStream, service: SocketAddr) {
        let Ok(mut server) = TcpStream::connect(service).await else { return };
        let end = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            tokio::select! {
                end = self.clone().pass(Direction::Request, from_client, to_server) => end,
                end = self.clone().pass(Direction::Reply, from_server, to_client) => end,
            }
        };
        if end == End::Reset {
            // One that the other side has closed already needs no reset.
            client.set_zero_linger().ok();
            server.set_zero_linger().ok();
        }
    }

    /// Forwards one direction until the connection ends. What the client has hung up on is dropped; what the server has
    /// said to its end still gets through.
    async fn pass(mut self, direction: Direction, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) -> End {
        let (queue, pieces) = mpsc::channel(PIECES_MAX);
        let mut writing = std::pin::pin!(self.write(direction, pieces, to));
        tokio::select! {
            end = &mut writing => return end,
            () = read(from, queue) => {}
        }
        if direction == Direction::Request { End::Closed } else { writing.await }
    }

    async fn write(
        &mut self,
        direction: Direction,
        mut pieces: mpsc::Receiver<Piece>,
        mut to: impl AsyncWrite + Unpin,
    ) -> End {
        loop {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                Ok(()) = self.fault.changed() => {
                    let resets = *self.fault.borrow() == Some(Fault::Resets);
                    // Half of the connections, whatever they are doing.
                    if resets && direction == Direction::Request && self.is_met(50) {
                        return End::Reset;
                    }
                    continue;
                }
            };
            let Some((came, bytes)) = piece else {
                // The end of a half-open connection does not get through, either.
                if self.is_dead.load(Ordering::Relaxed) {
                    pending::<()>().await;
                }
                return End::Closed;
            };
            if let Some(end) = self.forward(direction, came, &bytes, &mut to).await {
                return end;
            }
        }
    }

    /// Forwards a piece as the network allows; how the connection ends, when it does.
    async fn forward(
        &self,
        direction: Direction,
        came: Instant,
        bytes: &Bytes,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Option<End> {
        let fault = *self.fault.borrow();
        if self.is_dead.load(Ordering::Relaxed) {
            return None;
        }
        let is_reset = match fault {
            Some(Fault::Resets) => self.is_met(RESET_PERCENT),
            Some(Fault::LostReplies) => direction == Direction::Reply && self.is_met(RESET_PERCENT),
            _ => false,
        };
        if is_reset {
            let through = usize::try_from(self.chance.below(bytes.len() as u64)).unwrap_or_default();
            to.write_all(&bytes[..through]).await.ok();
            return Some(End::Reset);
        }
        let written = match fault {
            Some(Fault::HalfOpen) => {
                self.is_met(100);
                self.is_dead.store(true, Ordering::Relaxed);
                Ok(())
            }
            Some(Fault::Latency) => {
                self.is_met(100);
                sleep_until(came + self.chance.up_to(LATENCY_MAX)).await;
                to.write_all(bytes).await
            }
            Some(Fault::Narrow) => self.squeeze(bytes, to).await,
            _ => to.write_all(bytes).await,
        };
        written.is_err().then_some(End::Closed)
    }

    /// A little at a time, as long as the network is narrow.
    async fn squeeze(&self, bytes: &Bytes, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        self.is_met(100);
        for step in bytes.chunks(NARROW_STEP_BYTES) {
            to.write_all(step).await?;
            if *self.fault.borrow() == Some(Fault::Narrow) {
                let share = u32::try_from(step.len()).unwrap_or_default();
                sleep(Duration::from_secs(1) * share / NARROW_BYTES_PER_SECOND).await;
            }
        }
        Ok(())
    }

    /// Whether the fault meets what is at hand; counted if so.
    fn is_met(&self, percent: u64) -> bool {
        let is_met = self.chance.percent(percent);
        self.met.fetch_add(usize::from(is_met), Ordering::Relaxed);
        is_met
    }
}

async fn read(mut from: impl AsyncRead + Unpin, queue: mpsc::Sender<Piece>) {
    let mut buffer = vec![0; PIECE_BYTES];
    // A connection that breaks has ended, as one that was closed.
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if queue.send((Instant::now(), Bytes::copy_from_slice(&buffer[..bytes]))).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::until;
    use super::*;

    const WORD: &[u8; 4] = b"word";

    /// A service that says back what it is told; how many bytes it has been told.
    async fn echo() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, told) = (listener.local_addr().unwrap().to_string(), Arc::<AtomicUsize>::default());
        let counted = told.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let told = counted.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(bytes @ 1..) = client.read(&mut buffer).await {
                        told.fetch_add(bytes, Ordering::Relaxed);
                        if client.write_all(&buffer[..bytes]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (address, told)
    }

    async fn connect(way: &FaultyWay) -> TcpStream {
        TcpStream::connect(way.endpoint.strip_prefix("http://").unwrap()).await.unwrap()
    }

    /// Says something and hears it back.
    async fn said_back(client: &mut TcpStream, said: &[u8]) -> io::Result<()> {
        client.write_all(said).await?;
        let mut heard = vec![0; said.len()];
        client.read_exact(&mut heard).await?;
        assert_eq!(heard, said);
        Ok(())
    }

    #[tokio::test]
    async fn a_slow_and_a_narrow_network_bring_everything() {
        let (service, _) = echo().await;
        let way = FaultyWay::to(&service, Random::seeded(1)).await;
        let mut client = connect(&way).await;
        said_back(&mut client, WORD).await.unwrap();
        assert_eq!(way.met(), 0);
        for fault in [Fault::Latency, Fault::Narrow] {
            way.set(Some(fault));
            let before = way.met();
            let said: Vec<u8> = (0..=255).cycle().take(3000).collect();
            said_back(&mut client, &said).await.unwrap();
            assert!(way.met() >= before + 2, "both directions met {fault:?}");
        }
    }

    #[tokio::test]
    async fn a_reset_is_an_error_and_no_end() {
        let (service, _) = echo().await;
        let way = FaultyWay::to(&service, Random::seeded(2)).await;
        way.set(Some(Fault::Resets));
        until("a connection is reset", async || {
            let mut client = connect(&way).await;
            let error = said_back(&mut client, WORD).await.err()?;
            // One whose reply was torn is reset behind what came of it.
            (error.kind() == io::ErrorKind::ConnectionReset).then_some(())
        })
        .await;
        way.set(None);
        said_back(&mut connect(&way).await, WORD).await.unwrap();
    }

    #[tokio::test]
    async fn a_reply_is_lost_after_its_request_got_through() {
        let (service, told) = echo().await;
        let way = FaultyWay::to(&service, Random::seeded(3)).await;
        way.set(Some(Fault::LostReplies));
        let mut asked = 0;
        until("a reply is lost", async || {
            asked += 1;
            said_back(&mut connect(&way).await, WORD).await.is_err().then_some(())
        })
        .await;
        assert_eq!(told.load(Ordering::Relaxed), asked * WORD.len());
    }

    #[tokio::test]
    async fn a_half_open_connection_never_comes_back_and_new_ones_do() {
        let (service, told) = echo().await;
        let way = FaultyWay::to(&service, Random::seeded(4)).await;
        let mut idle = connect(&way).await;
        said_back(&mut idle, WORD).await.unwrap();
        way.set(Some(Fault::HalfOpen));
        let mut client = connect(&way).await;
        client.write_all(WORD).await.unwrap();
        until("the bytes are swallowed", async || (way.met() == 1).then_some(())).await;
        way.set(None);
        client.write_all(WORD).await.unwrap();
        said_back(&mut connect(&way).await, WORD).await.unwrap();
        said_back(&mut idle, WORD).await.unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 3 * WORD.len());
        let mut buffer = [0; 1];
        assert_eq!(client.try_read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
