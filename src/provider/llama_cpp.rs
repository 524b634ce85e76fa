//! Client of a local llama.cpp server: health check, and completions of token ids.
#![expect(clippy::disallowed_types, reason = "outgoing HTTP lives in provider/ and hub/")]

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Client;
use reqwest::RequestBuilder;
use reqwest::StatusCode;
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;

use super::ProviderError;

/// Timeout to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Timeout of a silent connection. It is long because an answer arrives in one piece.
const READ_TIMEOUT: Duration = Duration::from_mins(10);
/// Maximum characters of a response body in an error.
const MESSAGE: usize = 300;

/// Client of one server.
#[derive(Debug, Clone)]
pub struct LlamaCpp {
    client: Client,
    url: String,
}

/// Greedy completion of token ids that ignores end-of-sequence tokens.
#[derive(Debug, Clone, Copy)]
pub struct RawRequest<'a> {
    /// Token ids of the prompt.
    pub tokens: &'a [u32],
    /// Number of tokens to generate.
    pub n_predict: u32,
    /// Whether the server may reuse its KV cache of a prompt prefix.
    pub cache_prompt: bool,
}

/// Times of a completion, as measured by the server.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct ServerTimings {
    /// Number of prefilled prompt tokens.
    pub prompt_n: u32,
    /// Prefill time in milliseconds.
    pub prompt_ms: f64,
    /// Number of generated tokens.
    pub predicted_n: u32,
    /// Decode time from the first to the last token, in milliseconds.
    pub predicted_ms: f64,
}

#[derive(Deserialize)]
struct LlamaCppAnswer {
    timings: ServerTimings,
}

impl LlamaCpp {
    /// Creates a client for the server at `url` without connecting.
    ///
    /// # Errors
    /// [`ProviderError::NotLoopback`] unless `url` is an `http://` URL of this machine.
    pub fn new(url: &str) -> Result<Self, ProviderError> {
        if !Url::parse(url).is_ok_and(|url| is_loopback(&url)) {
            return Err(ProviderError::NotLoopback(url.to_owned()));
        }
        let url = url.trim_end_matches('/').to_owned();
        // Fails if another module already installed it.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| ProviderError::Unreachable { url: url.clone(), source })?;
        Ok(Self { client, url })
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the server has loaded its model.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`] for an unexpected response.
    pub async fn is_ready(&self) -> Result<bool, ProviderError> {
        let (status, text) = self.send(self.client.get(format!("{}/health", self.url))).await?;
        match status {
            StatusCode::OK => Ok(true),
            StatusCode::SERVICE_UNAVAILABLE => Ok(false),
            _ => Err(self.refused(status, &text)),
        }
    }

    /// Completes `request`, and returns the server's timings.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`], [`ProviderError::Refused`].
    pub async fn complete(&self, request: &RawRequest<'_>) -> Result<ServerTimings, ProviderError> {
        let body = json!({
            "prompt": request.tokens,
            "n_predict": request.n_predict,
            "temperature": 0,
            "ignore_eos": true,
            "cache_prompt": request.cache_prompt,
        });
        let post = self.client.post(format!("{}/completion", self.url));
        let post = post.header("content-type", "application/json").body(body.to_string());
        let (status, text) = self.send(post).await?;
        match serde_json::from_str::<LlamaCppAnswer>(&text) {
            Ok(answer) if status == StatusCode::OK => Ok(answer.timings),
            _ => Err(self.refused(status, &text)),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, String), ProviderError> {
        let unreachable = |source: reqwest::Error| ProviderError::Unreachable {
            url: self.url.clone(),
            source: source.without_url(),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        Ok((status, response.text().await.map_err(unreachable)?))
    }

    fn refused(&self, status: StatusCode, text: &str) -> ProviderError {
        ProviderError::Refused {
            url: self.url.clone(),
            status: status.as_u16(),
            message: text.chars().take(MESSAGE).collect(),
        }
    }
}

/// Whether a URL is plain HTTP to a loopback address or `localhost`.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
    url.scheme() == "http" && is_here
}

#[cfg(test)]
mod tests {
    use super::LlamaCpp;

    #[test]
    fn only_loopback_urls_are_accepted() {
        for url in ["http://127.0.0.1:8080", "http://localhost:1/", "http://[::1]:80"] {
            assert!(LlamaCpp::new(url).is_ok(), "{url}");
        }
        for url in ["http://10.0.0.1:80", "http://127.0.0.1@example.org", "https://127.0.0.1", "x"]
        {
            assert!(LlamaCpp::new(url).is_err(), "{url}");
        }
    }
}
