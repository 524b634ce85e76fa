//! Client of a local llama.cpp server: health check, and completions of token ids.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::ProviderError;
use super::server::HttpServer;
use super::server::is_loopback;

/// Timeout of a silent connection. It is long because an answer arrives in one piece.
const READ_TIMEOUT: Duration = Duration::from_mins(10);

/// Client of one server.
#[derive(Debug, Clone)]
pub struct LlamaCpp(HttpServer);

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
        if !url.starts_with("http:") || !is_loopback(url) {
            return Err(ProviderError::NotLoopback(url.to_owned()));
        }
        HttpServer::new(url, None, READ_TIMEOUT).map(Self)
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> &str {
        self.0.url()
    }

    /// Whether the server has loaded its model.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`]; [`ProviderError::Refused`] for an unexpected response.
    pub async fn is_ready(&self) -> Result<bool, ProviderError> {
        let (status, text) = self.0.probe("/health").await?;
        match status {
            StatusCode::OK => Ok(true),
            StatusCode::SERVICE_UNAVAILABLE => Ok(false),
            _ => Err(self.0.refused(status, &text)),
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
        let response = self.0.post("/completion", &body).await?;
        let status = response.status();
        let text = response.text().await.map_err(|source| self.0.unreachable(source))?;
        match serde_json::from_str::<LlamaCppAnswer>(&text) {
            Ok(answer) => Ok(answer.timings),
            Err(_) => Err(self.0.refused(status, &text)),
        }
    }
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
