//! [`HttpServer`]: HTTP requests to a model server.
#![expect(clippy::disallowed_types, reason = "outgoing HTTP lives in provider/ and hub/")]

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Client;
use reqwest::RequestBuilder;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::Url;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;

use crate::config::ServerConfig;
use crate::provider::ProviderError;

/// Timeout to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Maximum characters of a response body in an error.
const MESSAGE: usize = 300;
/// Requests that a busy server is sent before its refusal counts.
const TRIES: u32 = 4;
/// Longest time that a busy server may ask to wait.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// Connection pool to one server.
#[derive(Debug, Clone)]
pub(in crate::provider) struct HttpServer {
    client: Client,
    url: String,
    /// Secret that every request carries.
    key: Option<String>,
}

impl HttpServer {
    /// Creates a client for the server at `url` without connecting. A connection that is silent for
    /// `patience` is lost.
    ///
    /// # Errors
    /// [`ProviderError::BadUrl`] unless `url` is an `http://` or `https://` URL.
    pub(in crate::provider) fn new(
        url: &str,
        key: Option<String>,
        patience: Duration,
    ) -> Result<Self, ProviderError> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if parsed.and_then(|url| url.host_str().map(drop)).is_none() {
            return Err(ProviderError::BadUrl(url.to_owned()));
        }
        let url = trimmed(url).to_owned();
        // Fails if another module already installed it.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(patience)
            .redirect(reqwest::redirect::Policy::none());
        let client = if is_loopback(&url) { client.no_proxy() } else { client };
        let client = client
            .build()
            .map_err(|source| ProviderError::Unreachable { url: url.clone(), source })?;
        Ok(Self { client, url, key })
    }

    /// Creates a client for `url` as the settings say. Their key goes to their own server alone.
    ///
    /// # Errors
    /// [`ProviderError::NoKey`]; [`ProviderError::BadUrl`].
    pub(in crate::provider) fn of(
        settings: &ServerConfig,
        url: &str,
    ) -> Result<Self, ProviderError> {
        let key = match settings.key_variable.as_str() {
            "" => None,
            _ if trimmed(url) != trimmed(&settings.url) => None,
            name => Some(std::env::var(name).map_err(|_| ProviderError::NoKey(name.to_owned()))?),
        };
        Self::new(url, key, Duration::from_secs(settings.timeout_seconds))
    }

    /// Returns the URL of the server.
    pub(in crate::provider) fn url(&self) -> &str {
        &self.url
    }

    /// Requests the JSON document at `path`; `None` if the server has none there. A server that is
    /// busy is asked again.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub(in crate::provider) async fn get(
        &self,
        path: &str,
    ) -> Result<Option<Value>, ProviderError> {
        match self.send(self.client.get(format!("{}{path}", self.url))).await {
            Err(ProviderError::Refused { status: 404 | 405, .. }) => Ok(None),
            other => self.document(other?).await.map(Some),
        }
    }

    /// Returns status and body of `path`.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`].
    pub(in crate::provider) async fn probe(
        &self,
        path: &str,
    ) -> Result<(StatusCode, String), ProviderError> {
        let request = self.client.get(format!("{}{path}", self.url));
        let response = self.with_key(request).send().await;
        let response = response.map_err(|source| self.unreachable(source))?;
        let status = response.status();
        Ok((status, response.text().await.map_err(|source| self.unreachable(source))?))
    }

    /// Sends `body` to `path`, and returns the response once its head is there. A server that is
    /// busy is asked again, as nothing has been generated then.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub(in crate::provider) async fn post(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Response, ProviderError> {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(body.to_string());
        self.send(request).await
    }

    /// Sends `body` to `path`, and returns the JSON document that comes back.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub(in crate::provider) async fn post_for(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Value, ProviderError> {
        let response = self.post(path, body).await?;
        self.document(response).await
    }

    /// Reads the JSON document of a response.
    async fn document(&self, response: Response) -> Result<Value, ProviderError> {
        let status = response.status();
        let text = response.text().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_str(&text).map_err(|_| self.refused(status, &text))
    }

    /// Sends the bytes of a file to `path`.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`].
    pub(in crate::provider) async fn upload(
        &self,
        path: &str,
        bytes: Vec<u8>,
    ) -> Result<(), ProviderError> {
        self.send(self.client.post(format!("{}{path}", self.url)).body(bytes)).await.map(drop)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ProviderError> {
        let request = self.with_key(request);
        let mut n_tries = 0;
        loop {
            let again = request.try_clone().expect("no body is a stream");
            let response = again.send().await.map_err(|source| self.unreachable(source))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            n_tries += 1;
            let pause = pause_before(&response, n_tries);
            let text = response.text().await.map_err(|source| self.unreachable(source))?;
            match pause.filter(|_| n_tries < TRIES) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(self.refused(status, &text)),
            }
        }
    }

    fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(in crate::provider) fn unreachable(&self, source: reqwest::Error) -> ProviderError {
        ProviderError::Unreachable { url: self.url.clone(), source: source.without_url() }
    }

    /// Returns the error of a response, with the server's own message.
    pub(in crate::provider) fn refused(&self, status: StatusCode, text: &str) -> ProviderError {
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        let own = [&body["error"]["message"], &body["message"], &body["error"], &body["detail"]];
        let message = own.into_iter().find_map(Value::as_str).unwrap_or(text);
        ProviderError::Refused {
            url: self.url.clone(),
            status: status.as_u16(),
            message: message.chars().take(MESSAGE).collect(),
        }
    }
}

/// Returns a URL as it stands in the registry and in messages.
fn trimmed(url: &str) -> &str {
    url.trim_end_matches('/')
}

/// Returns how long to wait for a busy server; `None` if it is not merely busy.
fn pause_before(response: &Response, n_tries: u32) -> Option<Duration> {
    let is_busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    if !is_busy.contains(&response.status()) {
        return None;
    }
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let asked = asked.and_then(|seconds| seconds.trim().parse().ok());
    let pause = Duration::from_secs(asked.unwrap_or(1 << n_tries));
    (pause <= MAX_WAIT).then_some(pause)
}

/// Whether a URL names this machine.
pub(in crate::provider) fn is_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback())
}
