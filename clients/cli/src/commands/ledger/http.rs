//! C2SP tlog-tiles, the reading side: GET below a prefix, bounded in time and size.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use quittance_ledger::{
    note::MAX_NOTE_BYTES,
    tile::{FULL_WIDTH, Tile},
    tree::HASH_BYTES,
};
use tokio::time::timeout;

use crate::failure::Failure;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const OK: u16 = 200;
const NOT_FOUND: u16 = 404;

/// Why something could not be fetched. That says nothing against the log: it may be there the next time.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0} is not a URL that can be fetched")]
    Url(String),
    #[error("{url} cannot be fetched: {source}")]
    Connection { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} was not answered within {} s", ANSWER_WITHIN.as_secs())]
    Timeout { url: String },
    #[error("{url} was answered with HTTP status {status}")]
    Status { url: String, status: u16 },
}

pub struct LogReader {
    client: Client<HttpsConnector<HttpConnector>, Empty<&'static [u8]>>,
    prefix: String,
}

impl LogReader {
    pub fn new(url: &str) -> Result<Self, Failure> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let tls = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider);
        let tls = tls.map_err(|error| Failure::Other(format!("TLS cannot be set up: {error}")))?;
        let client = Client::builder(TokioExecutor::new()).build(tls.https_or_http().enable_http1().build());
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::Usage(format!("{url} is not a URL: give one like https://log.example/quittance")));
        }
        Ok(Self { client, prefix: url.trim_end_matches('/').to_owned() })
    }

    pub async fn checkpoint(&self) -> Result<Vec<u8>, FetchError> {
        self.get("checkpoint", MAX_NOTE_BYTES).await
    }

    /// A tile of hashes. Where a partial one is gone, the full one begins with it.
    pub async fn tile(&self, tile: Tile) -> Result<Vec<u8>, FetchError> {
        let bytes = |tile: Tile| usize::from(tile.width()) * HASH_BYTES;
        match self.get(&tile.to_string(), bytes(tile)).await {
            Err(FetchError::Status { status: NOT_FOUND, .. }) if tile.width() < FULL_WIDTH => {
                let mut full = self.get(&tile.full().to_string(), bytes(tile.full())).await?;
                full.truncate(bytes(tile));
                Ok(full)
            }
            got => got,
        }
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Vec<u8>, FetchError> {
        let url = format!("{}/{path}", self.prefix);
        let uri = url.parse().map_err(|_| FetchError::Url(url.clone()))?;
        let fetch = async {
            let answer = self.client.get(uri).await?;
            let status = answer.status().as_u16();
            // The page of an error is not read: it may be longer than what was asked for.
            if status != OK {
                return Ok((status, Vec::new()));
            }
            let body = Limited::new(answer.into_body(), limit).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body.to_bytes().to_vec()))
        };
        match timeout(ANSWER_WITHIN, fetch).await {
            Err(_) => Err(FetchError::Timeout { url }),
            Ok(Err(source)) => Err(FetchError::Connection { url, source }),
            Ok(Ok((OK, body))) => Ok(body),
            Ok(Ok((status, _))) => Err(FetchError::Status { url, status }),
        }
    }
}
