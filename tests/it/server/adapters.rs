//! Adapters on model servers: the one that was asked for answers, or the base and nothing else.

use std::path::Path;

use rune::adapter::AdapterId;
use rune::model::Grammar;
use rune::provider::CompletionRequest;
use rune::provider::ModelServer;
use rune::provider::Provider;
use rune::provider::ProviderError;
use rune::provider::PushedAdapter;
use rune::trajectory::Message;
use rune::trajectory::Sampling;
use serde_json::Value;
use serde_json::json;
use wiremock::Mock;
use wiremock::MockServer;
use wiremock::ResponseTemplate;
use wiremock::matchers::method;
use wiremock::matchers::path;
use wiremock::matchers::path_regex;

use super::bodies;
use super::config;
use super::connect;
use super::fake_vllm::FakeVllm;
use super::fake_vllm::MODEL;
use super::lines;
use super::server;
use super::stream;
use crate::bench::smollm2_file;
use crate::model::adapters;

/// Writes an adapter for SmolLM2 with the given alpha.
fn write_adapter(folder: &Path, alpha: u32) {
    let tensors = adapters::halves("model.layers.0.self_attn.q_proj", (576, 576), 4, 1);
    let config = adapters::config(&json!({ "r": 4, "lora_alpha": alpha }));
    adapters::save(folder, &config, &tensors);
}

fn id(name: &str) -> AdapterId {
    AdapterId::parse(name).unwrap()
}

async fn ask(
    provider: &Provider,
    adapter: Option<&AdapterId>,
    grammar: Option<&Grammar>,
) -> Result<String, ProviderError> {
    let prompt = provider.encode(vec![Message::user("x")]).unwrap();
    let sampling = Sampling::default();
    let plain = CompletionRequest::new(&prompt, &sampling);
    let request = CompletionRequest { adapter, grammar, ..plain };
    provider.generate(&request, &mut |_| ()).await.map(|answer| answer.text)
}

/// Adds an answer to GET requests of `place`.
async fn tell(server: &MockServer, place: &str, answer: Value) {
    let answer = ResponseTemplate::new(200).set_body_json(answer);
    Mock::given(method("GET")).and(path(place)).respond_with(answer).mount(server).await;
}

#[tokio::test]
async fn vllm_loads_adapters_and_is_given_them_again_after_a_restart() {
    let fake = FakeVllm::start().await;
    let [first, second] = [1, 2].map(|_| tempfile::tempdir().unwrap());
    write_adapter(first.path(), 8);
    write_adapter(second.path(), 16);
    let provider = connect(&config("vllm", &fake.url, &[])).await.unwrap();
    let (a, b) = (id("a"), id("b"));
    let unknown = ask(&provider, Some(&a), None).await.unwrap_err();
    assert!(matches!(unknown, ProviderError::AdapterNotLoaded(_)), "{unknown}");
    provider.load_adapter(&a, first.path()).await.unwrap();
    provider.load_adapter(&b, second.path()).await.unwrap();
    // Adapters that differ in their scaling alone are two.
    let names: Vec<String> = fake.state().loras.keys().cloned().collect();
    assert_eq!(names.len(), 2);
    let answer = ask(&provider, Some(&a), None).await.unwrap();
    let name = answer.strip_prefix("adapted by ").unwrap().to_owned();
    assert_eq!(fake.state().loras[&name], first.path().to_str().unwrap());
    assert_eq!(ask(&provider, None, None).await.unwrap(), "base");
    // Another process finds it there, and sees one model beside its adapters.
    let other = connect(&config("vllm", &fake.url, &[])).await.unwrap();
    other.load_adapter(&a, first.path()).await.unwrap();
    assert_eq!(fake.state().calls.len(), 2);
    fake.state().loras.clear();
    assert_eq!(ask(&provider, Some(&a), None).await.unwrap(), answer);
    other.unload_adapter(&a).await.unwrap();
    provider.unload_adapter(&a).await.unwrap();
    assert!(fake.state().loras.is_empty());
}

#[tokio::test]
async fn a_vllm_that_loads_none_is_told_apart_from_one_that_refuses_an_adapter() {
    let fake = FakeVllm::start().await;
    let folder = tempfile::tempdir().unwrap();
    write_adapter(folder.path(), 8);
    let provider = connect(&config("vllm", &fake.url, &[])).await.unwrap();
    fake.state().has_fixed_loras = true;
    let error = provider.load_adapter(&id("a"), folder.path()).await.unwrap_err();
    assert!(matches!(error, ProviderError::AdapterNotServed { .. }), "{error}");
    assert!(error.hint().unwrap().contains("VLLM_ALLOW_RUNTIME_LORA_UPDATING"));
    let openai = connect(&config("openai", &fake.url, &[])).await.unwrap();
    let error = openai.load_adapter(&id("a"), folder.path()).await.unwrap_err();
    assert_eq!(error.to_string(), "provider `openai` does not support adapters");
}

#[tokio::test]
async fn every_request_to_llama_server_names_the_scale_of_every_adapter() {
    let server = server(json!([{ "id": "m" }]), stream(lines(&["a"], "stop", (9, 1)))).await;
    tell(&server, "/props", json!({ "model_path": smollm2_file() })).await;
    let others = json!([{ "id": 0, "path": "/x/other.gguf", "scale": 1.0 }]);
    tell(&server, "/lora-adapters", others.clone()).await;
    let [home, folder] = [1, 2].map(|_| tempfile::tempdir().unwrap());
    write_adapter(folder.path(), 8);
    let config = config("llama-cpp", &server.uri(), &[]);
    let Provider::Server(client) = connect(&config).await.unwrap() else { panic!() };
    let pushed = client.push_adapter(folder.path(), home.path()).await.unwrap();
    let PushedAdapter::NeedsRestart(file) = pushed else { panic!("{pushed:?}") };
    assert!(std::fs::read(&file).unwrap().starts_with(b"GGUF"));
    let provider = Provider::Server(client);
    let missing = provider.load_adapter(&id("a"), folder.path()).await.unwrap_err();
    assert!(matches!(missing, ProviderError::AdapterNotServed { .. }), "{missing}");
    ask(&provider, None, None).await.unwrap();
    assert_eq!(bodies(&server).await.pop().unwrap()["lora"], json!([{ "id": 0, "scale": 0.0 }]));
    // The server is restarted with the file.
    server.reset().await;
    super::answering(&server, stream(lines(&["a"], "stop", (9, 1)))).await;
    let both = json!([others[0], { "id": 7, "path": file, "scale": 1.0 }]);
    tell(&server, "/lora-adapters", both).await;
    provider.load_adapter(&id("a"), folder.path()).await.unwrap();
    ask(&provider, Some(&id("a")), None).await.unwrap();
    let expected = json!([{ "id": 0, "scale": 0.0 }, { "id": 7, "scale": 1.0 }]);
    assert_eq!(bodies(&server).await.pop().unwrap()["lora"], expected);
    // It is restarted without: the base does not answer in the adapter's name.
    server.reset().await;
    super::answering(&server, stream(lines(&["a"], "stop", (9, 1)))).await;
    let missing = ask(&provider, Some(&id("a")), None).await.unwrap_err();
    assert!(matches!(missing, ProviderError::AdapterNotServed { .. }), "{missing}");
    assert_eq!(bodies(&server).await.len(), 0);
}

#[tokio::test]
async fn ollama_is_asked_by_its_own_api_and_makes_a_model_of_an_adapter() {
    let server = MockServer::start().await;
    let models = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|name| json!({ "id": name })).collect();
        json!({ "data": all })
    };
    tell(&server, "/v1/models", models(&["smol:latest"])).await;
    let file = smollm2_file();
    let shown = json!({
        "modelfile": format!("# comment\nFROM {}\n", file.display()),
        "model_info": { "general.architecture": "llama", "llama.context_length": 2048 },
    });
    let post = |place: &str| Mock::given(method("POST")).and(path(place));
    let ok = ResponseTemplate::new(200);
    post("/api/show").respond_with(ok.clone().set_body_json(shown)).mount(&server).await;
    let end = "{\"message\":{\"content\":\"hi\"},\"done\":true,\"done_reason\":\"stop\",\
               \"prompt_eval_count\":40,\"eval_count\":1}\n";
    let answer = ok.clone().set_body_raw(end, "application/x-ndjson");
    post("/api/chat").respond_with(answer).mount(&server).await;
    let blob = Mock::given(method("POST")).and(path_regex("^/api/blobs/sha256:[0-9a-f]{64}$"));
    blob.respond_with(ResponseTemplate::new(201)).expect(1).mount(&server).await;
    let success = ok.set_body_json(json!({ "status": "success" }));
    post("/api/create").respond_with(success).expect(1).mount(&server).await;
    let context = [("engine.context", 1500.into())];
    let config = config("ollama", &server.uri(), &context);
    let Provider::Server(client) = connect(&config).await.unwrap() else { panic!() };
    assert!(client.reads_weights());
    let folder = tempfile::tempdir().unwrap();
    write_adapter(folder.path(), 8);
    let pushed = client.push_adapter(folder.path(), folder.path()).await.unwrap();
    let PushedAdapter::Served(name) = pushed else { panic!("{pushed:?}") };
    let provider = Provider::Server(client);
    let schema = Grammar::JsonSchema(json!({ "type": "integer" }));
    assert_eq!(ask(&provider, None, Some(&schema)).await.unwrap(), "hi");
    let regex = Grammar::Regex("x".to_owned());
    let refused = ask(&provider, None, Some(&regex)).await.unwrap_err();
    assert_eq!(refused.to_string(), "provider `ollama` does not support this grammar");
    let requests = server.received_requests().await.unwrap();
    let chat: Value = requests.last().unwrap().body_json().unwrap();
    assert_eq!(chat["options"]["num_ctx"], 1500);
    assert_eq!(
        (&chat["format"], &chat["model"]),
        (&json!({ "type": "integer" }), &"smol:latest".into())
    );
    let create = requests.iter().find(|request| request.url.path() == "/api/create").unwrap();
    let create: Value = create.body_json().unwrap();
    assert_eq!((&create["model"], &create["from"]), (&json!(name), &json!("smol:latest")));
    // It is known once the server lists it, with a tag.
    let missing = provider.load_adapter(&id("a"), folder.path()).await.unwrap_err();
    assert!(matches!(missing, ProviderError::AdapterNotServed { .. }), "{missing}");
    server.reset().await;
    tell(&server, "/v1/models", models(&["smol:latest", &format!("{name}:latest")])).await;
    provider.load_adapter(&id("a"), folder.path()).await.unwrap();
}

#[tokio::test]
async fn grammars_arrive_in_the_language_of_each_server() {
    let regex = Grammar::Regex("(ab|c){2}".to_owned());
    let schema = Grammar::JsonSchema(json!({ "type": "integer" }));
    let cases = [
        ("llama-cpp", &regex, "/grammar", json!("root ::= ((\"ab\" | \"c\")){2}")),
        ("llama-cpp", &schema, "/json_schema", json!({ "type": "integer" })),
        ("vllm", &regex, "/structured_outputs", json!({ "regex": "(ab|c){2}" })),
        ("vllm", &schema, "/structured_outputs", json!({ "json": { "type": "integer" } })),
        ("openai", &schema, "/response_format/json_schema/schema", json!({ "type": "integer" })),
    ];
    for (kind, grammar, place, expected) in cases {
        let server = server(json!([{ "id": "m" }]), stream(lines(&["a"], "stop", (9, 1)))).await;
        let provider = connect(&config(kind, &server.uri(), &[])).await.unwrap();
        ask(&provider, None, Some(grammar)).await.unwrap();
        let body = bodies(&server).await.pop().unwrap();
        assert_eq!(body.pointer(place), Some(&expected), "{kind}: {body}");
    }
}

#[tokio::test]
async fn a_stated_model_counts_tokens_but_its_weights_are_those_of_the_server() {
    let fake = FakeVllm::start().await;
    let file = smollm2_file();
    let stated = rune::provider::ModelFile { hub_id: "h/smol".to_owned(), path: file.clone() };
    let config = config("vllm", &fake.url, &[]);
    let stated = ModelServer::connect(&config, Some(stated), &|_| unreachable!()).await.unwrap();
    let identity = rune::model::identify(&file).unwrap();
    assert_eq!(stated.base().base_model, format!("h/smol@{}", identity.tokenizer_digest));
    assert_ne!(stated.base().base_digest, identity.base_digest);
    assert!(!stated.reads_weights() && stated.file() == Some(&*file));
    let report = stated.report().await.unwrap();
    assert_eq!((report.model.as_str(), report.context_length), (MODEL, 1024));
    assert_eq!((report.keeps_grammar, report.is_sleeping), (Some(false), Some(false)));
}
