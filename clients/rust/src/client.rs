//! The connection, and a typed client per service on it.

use std::{path::PathBuf, time::Duration};

use tonic::{
    GrpcMethod, Request, Status,
    codec::CompressionEncoding,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    api::{
        connector_service_client::ConnectorServiceClient, customer_service_client::CustomerServiceClient,
        evidence_service_client::EvidenceServiceClient, key_service_client::KeyServiceClient,
        package_service_client::PackageServiceClient, request_service_client::RequestServiceClient,
        system_service_client::SystemServiceClient,
    },
    error::ClientError,
};

/// What every service client speaks over.
pub type Transport = InterceptedService<Channel, Bearer>;

/// Calls that last as long as there is something to say: a time limit would cut them in the middle.
const STREAMS: [&str; 5] =
    ["BatchCreateRequests", "WatchRequests", "DownloadPackage", "UploadRecords", "UploadHeldKeys"];

/// What databases take for one value.
const RECORD_MAX: usize = 1 << 30;

/// Puts the token on every call, and a time limit on those that bear none of their own.
#[derive(Clone)]
pub struct Bearer {
    authorization: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bearer").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        let stream = request.extensions().get::<GrpcMethod<'static>>().is_some_and(|m| STREAMS.contains(&m.method()));
        if !stream && request.metadata().get("grpc-timeout").is_none() {
            request.set_timeout(self.timeout);
        }
        Ok(request)
    }
}

/// One connection to the service. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    max_message: usize,
}

/// How to connect.
#[must_use]
pub struct ClientBuilder {
    endpoint: String,
    token: Option<String>,
    ca_file: Option<PathBuf>,
    server_name: Option<String>,
    connect_timeout: Duration,
    timeout: Duration,
    max_message: usize,
}

impl ClientBuilder {
    /// The bearer token. Without one, only a service that asks for none will answer.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// A PEM file with the authority that signed the service's certificate. Without one, the operating system's authorities hold.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// The name in the service's certificate, where it is not the endpoint's.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// How long a connection may take to stand. 10 s unless set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long a single call may take; streams have no limit. 60 s unless set.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// The largest message in either direction. 16 MiB unless set. A package's records may be longer.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    async fn prepare(&self) -> Result<(Endpoint, Bearer), ClientError> {
        let bad_endpoint = || ClientError::Endpoint(self.endpoint.clone());
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(|_| bad_endpoint())?;
        let tls = match endpoint.uri().scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad_endpoint()),
        };
        let mut endpoint = endpoint
            .user_agent(concat!("quittance-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| bad_endpoint())?
            .connect_timeout(self.connect_timeout)
            // A peer that is gone without a word is noticed, and with it every call that hangs on it.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if tls {
            let mut config = match &self.ca_file {
                Some(path) => {
                    let pem = tokio::fs::read(path).await;
                    let pem = pem.map_err(|source| ClientError::CaFile { path: path.clone(), source })?;
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
                }
                None => ClientTlsConfig::new().with_native_roots(),
            };
            if let Some(name) = &self.server_name {
                config = config.domain_name(name.clone());
            }
            endpoint = endpoint.tls_config(config).map_err(ClientError::Tls)?;
        }
        let authorization = match self.token.as_deref().map(str::trim) {
            None => None,
            Some("") => return Err(ClientError::Token),
            Some(token) => {
                let mut value: MetadataValue<Ascii> =
                    format!("Bearer {token}").parse().map_err(|_| ClientError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok((endpoint, Bearer { authorization, timeout: self.timeout }))
    }

    /// Connects now, so that a wrong endpoint is told at once.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let (endpoint, bearer) = self.prepare().await?;
        let channel = endpoint.connect().await.map_err(ClientError::Connect)?;
        Ok(Client { transport: InterceptedService::new(channel, bearer), max_message: self.max_message })
    }

    /// Connects with the first call, for programs that may start before the service does.
    pub async fn connect_lazy(self) -> Result<Client, ClientError> {
        let (endpoint, bearer) = self.prepare().await?;
        let channel = endpoint.connect_lazy();
        Ok(Client { transport: InterceptedService::new(channel, bearer), max_message: self.max_message })
    }
}

macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $client:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> $client<Transport> {
            $client::new(self.transport.clone())
                .max_decoding_message_size(self.max_message)
                .max_encoding_message_size(self.max_message)
                .accept_compressed(CompressionEncoding::Gzip)
        }
    };
}

impl Client {
    /// Where to connect: `http://host:port`, or `https://` with TLS.
    pub fn builder(endpoint: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            endpoint: endpoint.into(),
            token: None,
            ca_file: None,
            server_name: None,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            max_message: 16 << 20,
        }
    }

    /// Connects with what is usual.
    pub async fn connect(endpoint: impl Into<String>, token: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder(endpoint).token(token).connect().await
    }

    service!(
        /// Customers and agreements.
        customers, CustomerServiceClient
    );
    service!(
        /// Storage backends and sub-processors.
        systems, SystemServiceClient
    );
    service!(
        /// Requests and their tasks.
        requests, RequestServiceClient
    );
    /// Access packages. A record is one message, as long as the row that it tells of; or, with `record_bytes_max`, several, which
    /// [`crate::RecordJoiner`] puts together.
    pub fn packages(&self) -> PackageServiceClient<Transport> {
        PackageServiceClient::new(self.transport.clone())
            .max_decoding_message_size(self.max_message.max(RECORD_MAX))
            .max_encoding_message_size(self.max_message)
            .accept_compressed(CompressionEncoding::Gzip)
    }

    service!(
        /// For workers; see [`crate::worker`].
        connectors, ConnectorServiceClient
    );
    service!(
        /// Confirmations, statements, certificates.
        evidence, EvidenceServiceClient
    );
    service!(
        /// The keys under which requests are sealed; for operators.
        keys, KeyServiceClient
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_work_is_told_before_the_first_call() {
        for bad in ["", "quittance.example", "ftp://quittance.example", "http://"] {
            let error = Client::builder(bad).connect_lazy().await.map(drop);
            assert!(matches!(error, Err(ClientError::Endpoint(_))), "{bad:?}");
        }
        for bad in ["", " ", "a\nb"] {
            let error = Client::builder("http://127.0.0.1:1").token(bad).connect_lazy().await.map(drop);
            assert!(matches!(error, Err(ClientError::Token)), "{bad:?}");
        }
        let error = Client::builder("https://127.0.0.1:1").ca_file("/nowhere.pem").connect_lazy().await.map(drop);
        assert!(matches!(error, Err(ClientError::CaFile { .. })));
    }

    #[tokio::test]
    async fn the_token_is_in_no_debug_output() {
        let client = Client::builder("http://127.0.0.1:1").token("very-secret").connect_lazy().await.unwrap();
        assert!(!format!("{client:?}").contains("very-secret"));
    }

    #[test]
    fn streams_have_no_time_limit_and_calls_do() {
        let mut bearer = Bearer { authorization: None, timeout: Duration::from_secs(7) };
        for (method, limited) in [("WatchRequests", false), ("GetRequest", true)] {
            let mut request = Request::new(());
            request.extensions_mut().insert(GrpcMethod::new("quittance.v1.RequestService", method));
            let request = bearer.call(request).unwrap();
            assert_eq!(request.metadata().get("grpc-timeout").is_some(), limited, "{method}");
        }
    }
}
