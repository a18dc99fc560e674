//! HTTP with TLS, bounded in time and size.

use std::{path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Method, Request, body::Bytes, header::CONTENT_TYPE};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::timeout;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why something could not be fetched. That says nothing against whoever was asked: it may be there the next time.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("{0} is not a URL that can be fetched")]
    Url(String),
    #[error("{url} cannot be fetched: {}", chain(.source.as_ref()))]
    Connection { url: String, source: Failure },
    #[error("{0} was answered with more than was asked for")]
    TooLong(String),
    #[error("{url} was not answered within {} s", .within.as_secs())]
    Timeout { url: String, within: Duration },
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// What came back, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    within: Duration,
}

impl HttpClient {
    /// Believes the operating system's authorities, or those in a PEM file instead. Every answer must be whole within this time.
    pub fn new(ca_file: Option<&Path>, within: Duration) -> Result<Self, FetchError> {
        let tls = |e: &dyn std::fmt::Display| FetchError::Tls(e.to_string());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let builder = match ca_file {
            None => builder.with_provider_and_native_roots(provider).map_err(|e| tls(&e))?,
            Some(path) => {
                let file = |e: &dyn std::fmt::Display| tls(&format!("{}: {e}", path.display()));
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path).map_err(|e| file(&e))? {
                    roots.add(certificate.map_err(|e| file(&e))?).map_err(|e| file(&e))?;
                }
                if roots.is_empty() {
                    return Err(file(&"holds no certificate"));
                }
                let config = ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions()
                    .map_err(|e| tls(&e))?;
                builder.with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
            }
        };
        let client = Client::builder(TokioExecutor::new()).build(builder.https_or_http().enable_http1().build());
        Ok(Self { client, within })
    }

    pub(crate) async fn get(&self, url: &str, limit: usize) -> Result<Answer, FetchError> {
        self.send(Method::GET, url, Vec::new(), limit).await
    }

    pub(crate) async fn post(&self, url: &str, body: Vec<u8>, limit: usize) -> Result<Answer, FetchError> {
        self.send(Method::POST, url, body, limit).await
    }

    async fn send(&self, method: Method, url: &str, body: Vec<u8>, limit: usize) -> Result<Answer, FetchError> {
        let request = Request::builder().method(method).uri(url).body(Full::new(Bytes::from(body)));
        let request = request.map_err(|_| FetchError::Url(url.to_owned()))?;
        let fetch = async {
            let answer = self.client.request(request).await?;
            let status = answer.status().as_u16();
            let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or_default().to_owned();
            let body = Limited::new(answer.into_body(), limit).collect().await;
            // The page of an error may be longer than what was asked for, and is of no use.
            let body = match body {
                Ok(body) => body.to_bytes().to_vec(),
                Err(_) if status != OK => Vec::new(),
                Err(error) => return Err(error),
            };
            Ok::<_, Failure>(Answer { status, content_type, body })
        };
        match timeout(self.within, fetch).await {
            Err(_) => Err(FetchError::Timeout { url: url.to_owned(), within: self.within }),
            Ok(Err(source)) if source.is::<LengthLimitError>() => Err(FetchError::TooLong(url.to_owned())),
            Ok(Err(source)) => Err(FetchError::Connection { url: url.to_owned(), source }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

pub(crate) const OK: u16 = 200;
