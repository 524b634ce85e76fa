//! Providers that use a model server: what is asked arrives under the server's own names, and
//! whatever goes wrong is an error with the server's words, never an answer of the model.
//!
//! The servers here are fakes. `benches/llama_server.py` solves tasks through a real one.

mod adapters;
mod fake_vllm;
mod parking;

use std::path::Path;
use std::time::Duration;

use rune::config::Config;
use rune::config::ConfigLayer;
use rune::model;
use rune::provider::CompletionRequest;
use rune::provider::ModelServer;
use rune::provider::Provider;
use rune::provider::ProviderError;
use rune::trajectory::Completion;
use rune::trajectory::FinishReason;
use rune::trajectory::Message;
use rune::trajectory::Sampling;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use wiremock::Mock;
use wiremock::MockServer;
use wiremock::ResponseTemplate;
use wiremock::matchers::method;
use wiremock::matchers::path;

use crate::bench::smollm2_file;

/// Lines of a streamed answer.
fn lines(texts: &[&str], finish: &str, usage: (u32, u32)) -> String {
    let mut all: Vec<Value> =
        texts.iter().map(|text| json!({ "choices": [{ "delta": { "content": text } }] })).collect();
    all.push(json!({ "choices": [{ "delta": {}, "finish_reason": finish }] }));
    let usage = json!({ "prompt_tokens": usage.0, "completion_tokens": usage.1 });
    all.push(json!({ "choices": [], "usage": usage }));
    let lines: Vec<String> = all.iter().map(|line| format!("data: {line}\n\n")).collect();
    lines.concat() + "data: [DONE]\n\n"
}

fn stream(body: impl Into<String>) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body.into(), "text/event-stream")
}

/// A server that has `models` and answers chats with `answer`.
async fn server(models: Value, answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    let models = ResponseTemplate::new(200).set_body_json(json!({ "data": models }));
    Mock::given(method("GET")).and(path("/v1/models")).respond_with(models).mount(&server).await;
    answering(&server, answer).await;
    server
}

async fn answering(server: &MockServer, answer: ResponseTemplate) {
    let chat = Mock::given(method("POST")).and(path("/v1/chat/completions"));
    chat.respond_with(answer).mount(server).await;
}

fn config(provider: &str, url: &str, more: &[(&'static str, toml::Value)]) -> Config {
    let all = [("run.provider", provider.into()), ("server.url", url.into())];
    Config::load(&[ConfigLayer::from_flags(all.into_iter().chain(more.iter().cloned()))]).unwrap()
}

async fn connect(config: &Config) -> Result<Provider, ProviderError> {
    let canonical = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    ModelServer::connect(config, None, &canonical).await.map(Provider::Server)
}

/// Asks a question in so many words.
async fn ask(
    provider: &Provider,
    n_words: usize,
    sampling: &Sampling,
) -> Result<Completion, ProviderError> {
    let prompt = provider.encode(vec![Message::user("word ".repeat(n_words))]).unwrap();
    provider.generate(&CompletionRequest::new(&prompt, sampling), &mut |_| ()).await
}

/// The bodies of all chats that the server was sent.
async fn bodies(server: &MockServer) -> Vec<Value> {
    let requests = server.received_requests().await.unwrap();
    let chats = requests.iter().filter(|request| request.url.path() == "/v1/chat/completions");
    chats.map(|request| request.body_json().unwrap()).collect()
}

#[tokio::test]
async fn sampling_arrives_under_the_names_of_each_server() {
    let sampling = Sampling {
        temperature: 0.5,
        top_p: 0.75,
        top_k: 7,
        repetition_penalty: 1.5,
        seed: (1 << 40) + 5,
        stop: vec!["END".to_owned()],
        max_tokens: 33,
    };
    for (provider, penalty) in [("llama-cpp", "repeat_penalty"), ("vllm", "repetition_penalty")] {
        let models = json!([{ "id": "m", "max_model_len": 4096 }]);
        let server = server(models, stream(lines(&["a", "b"], "stop", (9, 2)))).await;
        let provider = connect(&config(provider, &server.uri(), &[])).await.unwrap();
        let answer = ask(&provider, 3, &sampling).await.unwrap();
        assert_eq!((answer.text.as_str(), answer.tokens_in, answer.tokens_out), ("ab", 9, 2));
        assert_eq!(answer.finish_reason, FinishReason::Stop);
        let body = bodies(&server).await.pop().unwrap();
        let sent =
            ["model", "temperature", "top_p", "top_k", "seed", "max_tokens", "stop", penalty];
        let expected = json!(["m", 0.5, 0.75, 7, 5, 33, ["END"], 1.5]);
        assert_eq!(json!(sent.map(|name| body[name].clone())), expected, "{body}");
        assert_eq!(body["messages"][0]["content"], "word word word ");
    }
    let models = json!([{ "id": "one" }, { "id": "two" }]);
    let server = server(models, stream(lines(&["a"], "length", (1, 1)))).await;
    let named = [("server.model", "two".into())];
    let provider = connect(&config("openai", &server.uri(), &named)).await.unwrap();
    let refused = ask(&provider, 3, &sampling).await.unwrap_err();
    assert_eq!(refused.to_string(), "provider `openai` does not support top_k");
    let answer = ask(&provider, 3, &Sampling::default()).await.unwrap();
    assert_eq!(answer.finish_reason, FinishReason::Length);
    assert_eq!(bodies(&server).await.pop().unwrap()["model"], "two");
}

#[tokio::test]
async fn whatever_goes_wrong_is_an_error_with_the_words_of_the_server() {
    let text = |status: u16, body: &str| ResponseTemplate::new(status).set_body_string(body);
    let whole = lines(&["a"], "stop", (9, 1));
    let cases = [
        (text(401, r#"{"error":{"message":"no key"}}"#), "status 401: no key"),
        (text(404, r#"{"detail":"Not Found"}"#), "status 404: Not Found"),
        (text(500, "oops"), "status 500: oops"),
        (text(429, "slow down").insert_header("retry-after", "3600"), "status 429: slow down"),
        (stream(&whole[..whole.find("\"stop\"").unwrap()]), "a line of the answer cannot be read"),
        (stream(whole.split_once("\n\n").unwrap().0.to_owned() + "\n\n"), "the answer is cut off"),
        (stream("data: {\"choices\": [\n\n"), "a line of the answer cannot be read"),
        (stream(lines(&["a"], "abort", (9, 1))), "the server has aborted the answer (`abort`)"),
        (stream(lines(&[], "stop", (9, 0))), "the answer is empty"),
        (stream(whole).set_delay(Duration::from_secs(30)), "no answer from"),
    ];
    for (answer, expected) in cases {
        let server = server(json!([{ "id": "m" }]), stream(lines(&["2"], "stop", (9, 1)))).await;
        let patience = [("server.timeout_seconds", 1.into())];
        let provider = connect(&config("openai", &server.uri(), &patience)).await.unwrap();
        server.reset().await;
        answering(&server, answer).await;
        let error = ask(&provider, 3, &Sampling::default()).await.unwrap_err();
        let shown = rune::error_class::with_causes(&error);
        assert!(shown.contains(expected), "{shown} instead of {expected}");
        assert_eq!(error.class().exit_code(), 4, "{shown}");
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let server = server(json!([{ "id": "m" }]), stream(lines(&["7"], "stop", (9, 1)))).await;
    let provider = connect(&config("openai", &server.uri(), &[])).await.unwrap();
    server.reset().await;
    let busy = ResponseTemplate::new(429).insert_header("retry-after", "0");
    let chat = Mock::given(path("/v1/chat/completions"));
    chat.respond_with(busy).up_to_n_times(2).mount(&server).await;
    answering(&server, stream(lines(&["8"], "stop", (9, 1)))).await;
    assert_eq!(ask(&provider, 3, &Sampling::default()).await.unwrap().text, "8");
    assert_eq!(bodies(&server).await.len(), 3);
}

#[tokio::test]
async fn servers_that_cannot_be_used_are_refused_before_anything_is_asked() {
    let server = server(json!([{ "id": "one" }, { "id": "two" }]), stream("")).await;
    let url = server.uri();
    let named = |name: &str| [("server.model", toml::Value::from(name))];
    let key = [("server.key_variable", "RUNE_NO_SUCH_KEY".into())];
    let cases = [
        (config("openai", "", &[]), "the provider `openai` needs the URL of a server", 3),
        (config("openai", "ftp://x", &[]), "`ftp://x` is not an http:// or https:// URL", 3),
        (config("openai", &url, &[]), "has several models: one, two", 3),
        (config("openai", &url, &named("three")), "has no model `three`, but one, two", 3),
        (config("openai", &url, &key), "variable `RUNE_NO_SUCH_KEY` with the server's key", 3),
        (config("vllm", "http://127.0.0.1:1", &[]), "no answer from http://127.0.0.1:1", 4),
        (config("vllm", &url.replace("http", "https"), &[]), "no answer from https://127.0.0.1", 4),
    ];
    for (config, expected, code) in cases {
        let error = connect(&config).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} instead of {expected}");
        assert_eq!(error.class().exit_code(), code, "{error}");
    }
    assert_eq!(bodies(&server).await, [Value::Null; 0]);
}

#[tokio::test]
async fn a_file_that_both_can_read_tells_which_model_it_is_and_counts_tokens() {
    let server = server(json!([{ "id": "m" }]), stream(lines(&["a"], "stop", (40, 1)))).await;
    let file = smollm2_file();
    let props = json!({
        "model_path": file,
        "total_slots": 3,
        "default_generation_settings": { "n_ctx": 600 },
    });
    let props = ResponseTemplate::new(200).set_body_json(props);
    Mock::given(path("/props")).respond_with(props).mount(&server).await;
    // Any variable will do as a key.
    let key = [("server.key_variable", "HOME".into())];
    let provider = connect(&config("llama-cpp", &server.uri(), &key)).await.unwrap();
    let base = provider.base();
    let identity = model::identify(&file).unwrap();
    assert_eq!(base.base_digest, identity.base_digest);
    assert!(base.base_model.ends_with(&format!("@{}", identity.tokenizer_digest)));
    let able = provider.capabilities();
    assert_eq!((able.context_length, able.parallel), (600, 3));
    assert!(ask(&provider, 20, &Sampling::default()).await.is_ok());
    // The server says that it has read 40 tokens of some 300.
    let cut = ask(&provider, 300, &Sampling::default()).await.unwrap_err();
    assert!(matches!(cut, ProviderError::PromptCut { used: 40, counted: 300.., .. }), "{cut}");
    let long = ask(&provider, 700, &Sampling::default()).await.unwrap_err();
    assert!(matches!(long, ProviderError::ContextOverflow { limit: 600, .. }), "{long}");
    let requests = server.received_requests().await.unwrap();
    let bearer = format!("Bearer {}", std::env::var("HOME").unwrap());
    assert!(requests.iter().all(|request| request.headers["authorization"] == *bearer));
}

#[tokio::test]
async fn a_dropped_generation_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        let mut n_chats = 0;
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 65536];
            let n = connection.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            let answer = |body: &str| {
                let length = body.len();
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                )
            };
            if request.starts_with("GET /v1/models") {
                let models = answer(r#"{"data":[{"id":"m"}]}"#);
                connection.write_all(models.as_bytes()).await.unwrap();
                continue;
            }
            n_chats += 1;
            if n_chats == 1 {
                let whole = answer(&lines(&["a"], "stop", (9, 1)));
                connection.write_all(whole.as_bytes()).await.unwrap();
                continue;
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            let piece = lines(&["a"], "stop", (9, 1));
            let piece = piece.split_once("\n\n").unwrap().0;
            connection.write_all(format!("{head}{piece}\n\n").as_bytes()).await.unwrap();
            // The end of the connection is all that follows.
            return connection.read(&mut [0; 16]).await.unwrap_or(0);
        }
    };
    let client = async {
        let provider = connect(&config("openai", &url, &[])).await.unwrap();
        let prompt = provider.encode(vec![Message::user("x")]).unwrap();
        let sampling = Sampling::default();
        let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut on_text = |text: &str| sender.send(text.to_owned()).unwrap();
        let request = CompletionRequest::new(&prompt, &sampling);
        tokio::select! {
            ended = provider.generate(&request, &mut on_text) => panic!("{ended:?}"),
            text = heard.recv() => assert_eq!(text.as_deref(), Some("a")),
        }
    };
    let both = Box::pin(async { tokio::join!(serve, client).0 });
    let both = tokio::time::timeout(Duration::from_secs(20), both);
    assert_eq!(both.await.unwrap(), 0, "bytes after the generation was dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_solved_by_the_model_of_a_server() {
    let code = "```python\ndef add(a, b):\n    return a + b\n```";
    let server = server(json!([{ "id": "m" }]), stream(lines(&[code], "stop", (99, 20)))).await;
    let folder = tempfile::tempdir().unwrap();
    let tests = folder.path().join("test_adder.py");
    std::fs::write(&tests, "from adder import add\nassert add(1, 2) == 3\n").unwrap();
    let run = |url: String| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rune"));
        command.env("RUNE_HOME", folder.path().join("home")).current_dir(folder.path());
        command.args(["run", "Write adder.py with add(a, b).", "--tests"]).arg(&tests);
        command.args(["--out", "out", "--force", "--url", &url]);
        async move { command.output().await.unwrap() }
    };
    let output = run(server.uri()).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(log.contains("m on http://127.0.0.1:"), "{log}");
    server.reset().await;
    let output = run(server.uri()).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains("has no model"), "{log}");
}
