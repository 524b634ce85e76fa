//! A fake of vLLM 0.32: its paths, status codes and states, and the faults that servers have been
//! seen with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::middleware::Next;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;

use super::lines;

/// Name of its model.
pub(super) const MODEL: &str = "smol";

/// A running fake.
pub(super) struct FakeVllm {
    pub(super) url: String,
    state: Arc<Mutex<FakeState>>,
}

/// What the fake does and has seen. Faults are off unless a test turns them on.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub(super) struct FakeState {
    /// Folder of each loaded adapter, by name.
    pub(super) loras: BTreeMap<String, String>,
    /// Bodies of the chats that it has answered.
    pub(super) chats: Vec<Value>,
    /// Path and query of each other request that changes something.
    pub(super) calls: Vec<String>,
    /// Whether it sleeps. Chats then wait without end.
    pub(super) sleeps: bool,
    /// Whether its weights are dropped: it slept at level 2, and they were not loaded again.
    pub(super) lacks_weights: bool,
    /// Requests of others.
    pub(super) n_requests: u32,
    /// Fault: it was started without the variable that allows adapters to be loaded.
    pub(super) has_fixed_loras: bool,
    /// Fault: it was started without the mode that lets it sleep.
    pub(super) lacks_sleep: bool,
    /// Fault: status with which it refuses to sleep.
    pub(super) refuses_sleep: Option<u16>,
    /// Fault: it sleeps, but never answers that it does.
    pub(super) hangs_asleep: bool,
    /// Fault: it says that it sleeps, and does not.
    pub(super) only_says_it_sleeps: bool,
    /// Fault: the next so many attempts to wake it fail.
    pub(super) n_wake_failures: u32,
    /// Fault: it answers garbage after it has slept.
    pub(super) garbles: bool,
    /// Fault: it wakes without the adapters that it had.
    pub(super) forgets_loras: bool,
    /// Fault: nothing is answered any more.
    pub(super) is_cut_off: bool,
}

impl FakeVllm {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(FakeState::default()));
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/load_lora_adapter", post(load))
            .route("/v1/unload_lora_adapter", post(unload))
            .route("/health", get(async || ""))
            .route("/metrics", get(metrics))
            .route("/is_sleeping", get(is_sleeping))
            .route("/sleep", post(sleep))
            .route("/wake_up", post(wake))
            .route("/collective_rpc", post(reload))
            .layer(from_fn_with_state(Arc::clone(&state), cut_off))
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }
}

type Shared = State<Arc<Mutex<FakeState>>>;

/// Never answers while the server is cut off.
async fn cut_off(State(state): Shared, request: Request, next: Next) -> Response {
    if state.lock().unwrap().is_cut_off {
        std::future::pending::<()>().await;
    }
    next.run(request).await
}

async fn models(State(state): Shared) -> Json<Value> {
    let state = state.lock().unwrap();
    let base = json!({ "id": MODEL, "max_model_len": 1024, "parent": null, "root": MODEL });
    let lora =
        |(name, folder): (&String, &String)| json!({ "id": name, "parent": MODEL, "root": folder });
    let all: Vec<Value> = std::iter::once(base).chain(state.loras.iter().map(lora)).collect();
    Json(json!({ "data": all }))
}

async fn chat(State(state): Shared, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    while state.lock().unwrap().sleeps {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut state = state.lock().unwrap();
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let streams = body["stream"].as_bool().unwrap_or_default();
    state.chats.push(body);
    let text = if state.lacks_weights {
        "!!!!".to_owned()
    } else if model == MODEL {
        "base".to_owned()
    } else if state.loras.contains_key(&model) {
        format!("adapted by {model}")
    } else {
        let message = format!("The model `{model}` does not exist.");
        return error(StatusCode::NOT_FOUND, &message);
    };
    if streams {
        let lines = lines(&[&text], "stop", (9, 1));
        return ([("content-type", "text/event-stream")], lines).into_response();
    }
    let message = json!({ "role": "assistant", "content": text });
    Json(json!({ "choices": [{ "message": message, "finish_reason": "stop" }] })).into_response()
}

async fn metrics(State(state): Shared) -> String {
    let n_requests = state.lock().unwrap().n_requests;
    format!(
        "# TYPE vllm:num_requests_running gauge\n\
         vllm:num_requests_running{{engine=\"0\",model_name=\"{MODEL}\"}} {n_requests}.0\n\
         vllm:num_requests_waiting{{engine=\"0\",model_name=\"{MODEL}\"}} 0.0\n"
    )
}

async fn is_sleeping(State(state): Shared) -> Response {
    let state = state.lock().unwrap();
    if state.lacks_sleep {
        return not_found();
    }
    Json(json!({ "is_sleeping": state.sleeps })).into_response()
}

async fn sleep(State(state): Shared, uri: Uri) -> Response {
    let hangs = {
        let mut state = state.lock().unwrap();
        state.calls.push(uri.to_string());
        if let Some(status) = state.refuses_sleep {
            return error(StatusCode::from_u16(status).unwrap(), "no sleep");
        }
        state.sleeps = !state.only_says_it_sleeps;
        state.lacks_weights = uri.query().unwrap_or_default().contains("level=2");
        state.hangs_asleep
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    Json(json!({ "status": "sleeping", "level": 1 })).into_response()
}

async fn wake(State(state): Shared, uri: Uri) -> Response {
    let mut state = state.lock().unwrap();
    state.calls.push(uri.to_string());
    if state.n_wake_failures > 0 {
        state.n_wake_failures -= 1;
        return error(StatusCode::INTERNAL_SERVER_ERROR, "EngineDeadError");
    }
    if state.forgets_loras {
        state.loras.clear();
    }
    state.lacks_weights |= state.garbles;
    state.sleeps = uri.query() == Some("tags=weights");
    Json(json!({ "status": if state.sleeps { "sleeping" } else { "awake" } })).into_response()
}

async fn reload(State(state): Shared, uri: Uri) -> Json<Value> {
    let mut state = state.lock().unwrap();
    state.calls.push(uri.to_string());
    state.lacks_weights = false;
    Json(json!({ "results": [null] }))
}

async fn load(State(state): Shared, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut state = state.lock().unwrap();
    state.calls.push(uri.to_string());
    if state.has_fixed_loras {
        return not_found();
    }
    let text = |key: &str| body[key].as_str().unwrap().to_owned();
    if state.loras.insert(text("lora_name"), text("lora_path")).is_some() {
        return error(StatusCode::BAD_REQUEST, "the adapter is already loaded");
    }
    "Success".into_response()
}

async fn unload(State(state): Shared, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut state = state.lock().unwrap();
    state.calls.push(uri.to_string());
    match state.loras.remove(body["lora_name"].as_str().unwrap()) {
        Some(_) => "Success".into_response(),
        None => error(StatusCode::NOT_FOUND, "the adapter cannot be found"),
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "detail": "Not Found" }))).into_response()
}

fn error(status: StatusCode, message: &str) -> Response {
    let error = json!({ "message": message, "type": "Error", "code": status.as_u16() });
    (status, Json(json!({ "error": error }))).into_response()
}
