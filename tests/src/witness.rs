//! A witness as the specification has it (C2SP tlog-witness), and everything that a bad one may do.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use quittance_ledger::{
    checkpoint::{Checkpoint, LogKeys},
    cosignature::cosign,
    key::{KeyType, SignerKey, VerifierKey},
    tree::TreeHead,
    witness::{AddCheckpoint, Refusal},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    Faithful,
    /// Faithful, and slow.
    Slow(Duration),
    /// Never answers.
    Silent,
    /// Signs another tree than it was asked about, with its own key and with a stranger's, and adds what is no signature.
    Nonsense,
    /// Answers so, whatever it is asked.
    Status(u16),
    /// Says that it has signed a tree of this size already.
    Size(u64),
    /// Says another size every time, in a form of its own.
    Riddles,
    /// Answers without an end.
    Endless,
}

struct Mind {
    log: LogKeys,
    signer: SignerKey,
    latest: TreeHead,
    manner: Manner,
    /// The statuses that it answered, in order.
    answered: Vec<u16>,
    clock_s: u64,
}

#[derive(Clone)]
pub struct TestWitness {
    mind: Arc<Mutex<Mind>>,
    address: SocketAddr,
}

fn signer(name: &str, seed: u8) -> SignerKey {
    SignerKey::from_seed(name.parse().unwrap(), KeyType::CosignatureV1, &[seed; 32]).unwrap()
}

impl TestWitness {
    /// Listens, and knows one log.
    pub async fn start(name: &str, seed: u8, log: LogKeys, manner: Manner) -> Self {
        let (signer, latest) = (signer(name, seed), TreeHead::empty());
        let mind = Mind { log, signer, latest, manner, answered: Vec::new(), clock_s: 1_900_000_000 };
        let mind = Arc::new(Mutex::new(mind));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/w/add-checkpoint", post(answer)).with_state(mind.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { mind, address }
    }

    /// The public key of one that is not started yet.
    pub fn key_of(name: &str, seed: u8) -> VerifierKey {
        signer(name, seed).verifier().clone()
    }

    pub fn url(&self) -> String {
        format!("http://{}/w", self.address)
    }

    pub fn key(&self) -> VerifierKey {
        self.mind.lock().unwrap().signer.verifier().clone()
    }

    pub fn behave(&self, manner: Manner) {
        self.mind.lock().unwrap().manner = manner;
    }

    /// The log's keys may be made after the witness.
    pub fn know(&self, log: LogKeys) {
        self.mind.lock().unwrap().log = log;
    }

    pub fn answered(&self) -> Vec<u16> {
        self.mind.lock().unwrap().answered.clone()
    }
}

fn text(status: u16, kind: &'static str, body: String) -> Response {
    (StatusCode::from_u16(status).unwrap(), [(CONTENT_TYPE, kind)], body).into_response()
}

async fn answer(State(mind): State<Arc<Mutex<Mind>>>, body: Bytes) -> Response {
    let manner = mind.lock().unwrap().manner;
    match manner {
        Manner::Silent => std::future::pending::<()>().await,
        Manner::Slow(pause) => tokio::time::sleep(pause).await,
        _ => {}
    }
    let mut mind = mind.lock().unwrap();
    let answer = match manner {
        Manner::Faithful | Manner::Slow(_) | Manner::Silent => mind.judge(&body),
        Manner::Nonsense => mind.nonsense(),
        Manner::Status(status) => text(status, "text/plain", "no\n".to_owned()),
        Manner::Size(size) => text(409, "text/x.tlog.size", format!("{size}\n")),
        Manner::Riddles => {
            let size = mind.answered.len() as u64;
            let kinds = ["text/x.tlog.size", "text/plain"];
            text(
                409,
                kinds[mind.answered.len() % 2],
                format!("{}{size}\n", if size.is_multiple_of(3) { "0" } else { "" }),
            )
        }
        Manner::Endless => {
            let more = tokio_stream::iter(std::iter::repeat_with(|| {
                Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 4096]))
            }));
            Body::from_stream(more).into_response()
        }
    };
    mind.answered.push(answer.status().as_u16());
    answer
}

impl Mind {
    fn judge(&mut self, body: &[u8]) -> Response {
        match AddCheckpoint::parse(body).and_then(|request| request.judge(&self.log, &self.latest)) {
            Ok(checkpoint) => {
                self.latest = *checkpoint.head();
                self.clock_s += 1;
                text(200, "text/plain", format!("{}\n", cosign(&self.signer, &checkpoint, self.clock_s).unwrap()))
            }
            Err(refusal @ Refusal::OldSize(size)) => {
                text(refusal.http_status(), "text/x.tlog.size", format!("{size}\n"))
            }
            Err(refusal) => text(refusal.http_status(), "text/plain", format!("{refusal}\n")),
        }
    }

    fn nonsense(&self) -> Response {
        let other = Checkpoint::new(self.log.origin().as_str(), TreeHead { size: 7, ..TreeHead::empty() }).unwrap();
        let stranger = signer("stranger.example", 99);
        let lines = [&self.signer, &stranger].map(|key| format!("{}\n", cosign(key, &other, 1_900_000_000).unwrap()));
        text(200, "text/plain", format!("{}no signature\n\u{2014} x\n", lines.concat()))
    }
}
