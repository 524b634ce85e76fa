//! Measures what a call of a model server costs beside the server, and streams from 64 requests at
//! once: no token is lost or doubled, dropped requests end on the server, memory stays flat.
//!
//! `cargo bench --bench provider -- [SECONDS]`. The server is a fake in this process, whose memory
//! is counted too.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "prints results for people")]

use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use futures_util::stream;
use rune::config::Config;
use rune::config::ConfigLayer;
use rune::hardware;
use rune::provider::CompletionRequest;
use rune::provider::ModelServer;
use rune::provider::Provider;
use rune::trajectory::Message;
use rune::trajectory::Sampling;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio::time::timeout;

/// Calls whose times are measured.
const CALLS: usize = 2000;
/// Requests at once.
const STREAMS: usize = 64;
/// Pieces of a streamed answer, and the pause before each.
const PIECES: usize = 40;
const PAUSE: Duration = Duration::from_millis(20);
/// One request in this many is dropped midway.
const DROPPED: usize = 8;
/// Bytes of a prompt, as of a repair with its tests.
const PROMPT: usize = 8000;

/// Answers that the server has not ended.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
/// Answers that the server was not able to end, as nobody listened.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// An answer of the server, which counts itself.
struct Answer {
    name: String,
    n_pieces: usize,
    sent: usize,
}

impl Drop for Answer {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, SeqCst);
        ABANDONED.fetch_add(usize::from(self.sent < self.n_pieces + 1), SeqCst);
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|text| text != "--bench");
    let seconds = arguments.next().map_or(300, |text| text.parse().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let models = json!({ "data": [{ "id": "m", "max_model_len": 32768 }] });
    let router = Router::new()
        .route("/v1/models", get(async move || Json(models.clone())))
        .route("/v1/chat/completions", post(chat));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = [("run.provider", "vllm".into()), ("server.url", url.into())];
    let config = Config::load(&[ConfigLayer::from_flags(settings)]).unwrap();
    let server = ModelServer::connect(&config, None, &|_| unreachable!()).await.unwrap();
    let provider = Provider::Server(server);
    measure_calls(&provider).await;
    soak(&provider, Duration::from_secs(seconds)).await;
}

async fn measure_calls(provider: &Provider) {
    let mut times = Vec::new();
    for number in 0..CALLS {
        let started = Instant::now();
        assert_eq!(
            ask(provider, &format!("once {number}")).await,
            expected(&format!("once {number}"))
        );
        times.push(started.elapsed());
    }
    times.sort();
    let millis = |percent: usize| times[CALLS * percent / 100].as_secs_f64() * 1e3;
    println!("{CALLS} calls: median {:.2} ms, 99% {:.2} ms", millis(50), millis(99));
}

async fn soak(provider: &Provider, time: Duration) {
    let started = Instant::now();
    let (n_whole, n_dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stream = async |lane: usize| {
        for number in 0.. {
            if started.elapsed() > time {
                break;
            }
            let name = format!("many {lane}-{number}");
            let answer = ask(provider, &name);
            if usize::is_multiple_of(lane + number, DROPPED) {
                // A third of the way, a piece or two apart for each lane.
                let early = PAUSE * u32::try_from(PIECES / 3 + lane % 5).unwrap();
                assert!(timeout(early, answer).await.is_err());
                n_dropped.fetch_add(1, SeqCst);
            } else {
                assert_eq!(answer.await, expected(&name));
                n_whole.fetch_add(1, SeqCst);
            }
        }
    };
    let watch = async {
        let mut last = 0;
        while started.elapsed() < time {
            sleep(time / 5).await;
            last = hardware::rss().unwrap_or_default() >> 10;
            println!("{:>4.0} s: {last} KiB", started.elapsed().as_secs_f64());
        }
        last
    };
    let all = futures_util::future::join_all((0..STREAMS).map(stream));
    tokio::join!(all, watch);
    // The server notices a closed connection when it writes the next piece.
    sleep(PAUSE * 5).await;
    let (whole, dropped) = (n_whole.load(SeqCst), n_dropped.load(SeqCst));
    println!(
        "{whole} answers of {PIECES} pieces whole, {dropped} dropped; on the server {} go on, {} \
         were abandoned",
        ACTIVE.load(SeqCst),
        ABANDONED.load(SeqCst)
    );
    assert_eq!((ACTIVE.load(SeqCst), ABANDONED.load(SeqCst)), (0, dropped));
}

/// Asks for the answer of this name.
async fn ask(provider: &Provider, name: &str) -> String {
    let text = format!("{name}\n{}", "x".repeat(PROMPT));
    let prompt = provider.encode(vec![Message::user(text)]).unwrap();
    let sampling = Sampling::default();
    let mut heard = String::new();
    let mut on_text = |text: &str| heard.push_str(text);
    let request = CompletionRequest::new(&prompt, &sampling);
    let answer = provider.generate(&request, &mut on_text).await.unwrap();
    assert_eq!(heard, answer.text);
    answer.text
}

/// Returns the answer of this name: one piece, or many with a pause before each.
fn expected(name: &str) -> String {
    let pieces = (0..n_pieces(name)).map(|number| format!("{name}:{number} "));
    pieces.collect::<Vec<_>>().concat()
}

fn n_pieces(name: &str) -> usize {
    if name.starts_with("many") { PIECES } else { 1 }
}

async fn chat(body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let asked = body["messages"][0]["content"].as_str().unwrap();
    let name = asked.lines().next().unwrap().to_owned();
    ACTIVE.fetch_add(1, SeqCst);
    let answer = Answer { n_pieces: n_pieces(&name), name, sent: 0 };
    let pieces = stream::unfold(answer, |mut answer| async move {
        if answer.sent > answer.n_pieces {
            return None;
        }
        if answer.n_pieces > 1 {
            sleep(PAUSE).await;
        }
        let line = if answer.sent < answer.n_pieces {
            let text = format!("{}:{} ", answer.name, answer.sent);
            json!({ "choices": [{ "delta": { "content": text } }] })
        } else {
            let usage = json!({ "prompt_tokens": 9, "completion_tokens": answer.n_pieces });
            json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }], "usage": usage })
        };
        answer.sent += 1;
        Some((Ok::<_, Infallible>(format!("data: {line}\n\n")), answer))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(pieces)).into_response()
}
