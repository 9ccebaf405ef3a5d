//! A port on loopback that stands before a service and can be switched: refuse, forward, cut, keep silent.
//!
//! Every switch cuts the connections made before it, so that a client meets the new state at once. It forwards bytes
//! and knows nothing of what they mean.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections that may wait to be taken.
const BACKLOG: u32 = 128;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy)]
enum Route {
    Cut,
    Silent,
    To(SocketAddr),
}

/// A switchable way to a service.
#[derive(Debug)]
pub(crate) struct Forwarder {
    /// What a client is given in the service's place.
    pub(crate) endpoint: String,
    /// Bound but not listening, until the first switch.
    refusing: Option<TcpSocket>,
    route: watch::Sender<Route>,
    silenced: Arc<AtomicUsize>,
}

impl Forwarder {
    /// A port that is taken and refuses every connection.
    pub(crate) fn refusing() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", socket.local_addr().unwrap());
        let (route, _) = watch::channel(Route::Cut);
        Self { endpoint, refusing: Some(socket), route, silenced: Arc::default() }
    }

    /// Forwards to the service at `endpoint` from now on.
    pub(crate) fn forward(&mut self, endpoint: &str) {
        let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
        self.switch(Route::To(address.parse().unwrap()));
    }

    /// Takes connections and closes them at once.
    pub(crate) fn cut(&mut self) {
        self.switch(Route::Cut);
    }

    /// Takes connections and requests, and never answers.
    pub(crate) fn silence(&mut self) {
        self.silenced.store(0, Ordering::Relaxed);
        self.switch(Route::Silent);
    }

    /// Whether somebody waits for an answer that never comes.
    pub(crate) fn keeps_somebody_waiting(&self) -> bool {
        self.silenced.load(Ordering::Relaxed) > 0
    }

    fn switch(&mut self, route: Route) {
        self.route.send_replace(route);
        if let Some(socket) = self.refusing.take() {
            let listener = socket.listen(BACKLOG).unwrap();
            tokio::spawn(accept(listener, self.route.subscribe(), self.silenced.clone()));
        }
    }
}

async fn accept(listener: TcpListener, mut route: watch::Receiver<Route>, silenced: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            switched = route.changed() => match switched {
                Ok(()) => connections.shutdown().await,
                Err(_dropped) => return,
            },
            Some(_ended) = connections.join_next() => {}
            Ok((client, _)) = listener.accept() => {
                let (route, silenced) = (*route.borrow(), silenced.clone());
                connections.spawn(serve(client, route, silenced));
            }
        }
    }
}

async fn serve(mut client: TcpStream, route: Route, silenced: Arc<AtomicUsize>) {
    match route {
        Route::Cut => {}
        Route::Silent => {
            silenced.fetch_add(1, Ordering::Relaxed);
            pending::<()>().await;
        }
        Route::To(address) => {
            if let Ok(mut server) = TcpStream::connect(address).await {
                // A connection that breaks is what this is for.
                copy_bidirectional(&mut client, &mut server).await.ok();
            }
        }
    }
}
