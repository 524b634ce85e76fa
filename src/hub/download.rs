//! Downloads from the Hugging Face hub over HTTP, with resumption.
#![expect(clippy::disallowed_types, reason = "outgoing HTTP lives in provider/ and hub/")]

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use reqwest::Client;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use reqwest::header::RANGE;

use crate::event::Event;
use crate::hub::catalogue::HubFile;
use crate::hub::error::HubError;
use crate::hub::files::length;
use crate::hub::progress::PullReporter;

/// Timeout for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Timeout for a connection without data.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum consecutive connections that break without any progress.
const FRUITLESS_TRIES: u32 = 3;

/// Returns the URL of a file on the hub at `endpoint`.
pub(super) fn url(endpoint: &str, file: &HubFile) -> String {
    let HubFile { repo, file, revision } = file;
    format!("{}/{repo}/resolve/{revision}/{file}", endpoint.trim_end_matches('/'))
}

/// Downloads `url` to `partial`, until the file has `bytes` bytes.
pub(super) async fn download(
    url: &str,
    partial: &Path,
    bytes: u64,
    reporter: PullReporter<'_>,
) -> Result<(), HubError> {
    let client = client().map_err(|source| unreachable_host(url, source))?;
    let mut fruitless = 0;
    while length(partial) != bytes {
        let before = length(partial);
        let Err(error) = fetch(&client, url, partial, bytes, reporter).await else { continue };
        let after = length(partial);
        fruitless = if after > before { 0 } else { fruitless + 1 };
        // An unreachable host is not retried, unless it has sent data before: then the network
        // may have dropped for a moment. A wrong size or status would only repeat itself.
        let may_retry = match &error {
            HubError::Unreachable { source, .. } => !source.is_connect() || after > 0,
            _ => false,
        };
        if !may_retry || fruitless >= FRUITLESS_TRIES {
            return Err(error);
        }
    }
    Ok(())
}

/// Sends one request for the rest of the file, and appends to `partial` until the connection ends.
async fn fetch(
    client: &Client,
    url: &str,
    partial: &Path,
    bytes: u64,
    reporter: PullReporter<'_>,
) -> Result<(), HubError> {
    // A partial file longer than the model belongs to something else: start over.
    let have = match length(partial) {
        have if have > bytes => 0,
        have => have,
    };
    let mut request = client.get(url);
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let response = request.send().await.map_err(|source| unreachable_host(url, source))?;
    let start = start_of(&response, have).ok_or_else(|| HubError::Refused {
        url: url.to_owned(),
        status: response.status().as_u16(),
    })?;
    let file = open_at(partial, start).map_err(HubError::file(partial))?;
    receive(response, file, ResponseBody { url, partial, start, bytes }, reporter).await
}

/// The response body that is being received.
struct ResponseBody<'a> {
    url: &'a str,
    partial: &'a Path,
    start: u64,
    bytes: u64,
}

async fn receive(
    mut response: Response,
    mut file: File,
    body: ResponseBody<'_>,
    reporter: PullReporter<'_>,
) -> Result<(), HubError> {
    let mut done = body.start;
    let chunk = |source| unreachable_host(body.url, source);
    while let Some(chunk) = response.chunk().await.map_err(chunk)? {
        done += chunk.len() as u64;
        if done > body.bytes {
            let origin = body.url.to_owned();
            return Err(HubError::WrongSize { origin, found: done, expected: body.bytes });
        }
        file.write_all(&chunk).map_err(HubError::file(body.partial))?;
        reporter.report(&Event::PullProgress { done, total: body.bytes });
    }
    if done < body.bytes {
        // The server ended the body cleanly, so another request would not return more.
        let origin = body.url.to_owned();
        return Err(HubError::WrongSize { origin, found: done, expected: body.bytes });
    }
    Ok(())
}

/// Returns the offset of the response body in the file; `None` if the body is not part of the file.
fn start_of(response: &Response, have: u64) -> Option<u64> {
    match response.status() {
        // The server ignores ranges and sends the whole file.
        StatusCode::OK => Some(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            let start = range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()?;
            (start == have).then_some(start)
        }
        _ => None,
    }
}

fn open_at(partial: &Path, start: u64) -> std::io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(partial)?;
    file.set_len(start)?;
    file.seek(SeekFrom::Start(start))?;
    Ok(file)
}

fn client() -> reqwest::Result<Client> {
    // Fails if a provider is already installed, which is fine.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(concat!("rune/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn unreachable_host(url: &str, source: reqwest::Error) -> HubError {
    // The message contains the URL already, and redirects carry long signed ones.
    HubError::Unreachable { url: url.to_owned(), source: source.without_url() }
}
