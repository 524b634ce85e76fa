//! Bodies of requests: every parameter under the server's own name, or a refusal.

use serde_json::Value;
use serde_json::json;

use crate::config::ProviderKind;
use crate::model::Grammar;
use crate::provider::CompletionRequest;
use crate::provider::ProviderError;
use crate::trajectory::Sampling;

use super::ModelServer;
use super::gbnf;

/// Bits of a seed that are sent: servers take signed numbers of 32 or 64 bits.
const SEED_BITS: u64 = 0x7fff_ffff;

impl ModelServer {
    /// Returns the path of a request, and its body.
    ///
    /// # Errors
    /// [`ProviderError::Unsupported`] for what the server lacks.
    pub(super) fn body(
        &self,
        request: &CompletionRequest<'_>,
    ) -> Result<(&'static str, Value), ProviderError> {
        let mut body = json!({
            "model": self.model,
            "messages": request.prompt.messages(),
            "stream": true,
        });
        if self.kind == ProviderKind::Ollama {
            body["options"] = self.ollama_options(request.sampling);
            if let Some(grammar) = request.grammar {
                body["format"] = self.schema(grammar)?.clone();
            }
            return Ok(("/api/chat", body));
        }
        let Sampling { temperature, top_p, top_k, repetition_penalty, seed, stop, max_tokens } =
            request.sampling;
        body["stream_options"] = json!({ "include_usage": true });
        body["temperature"] = json!(temperature);
        body["top_p"] = json!(top_p);
        body["seed"] = json!(seed & SEED_BITS);
        body["max_tokens"] = json!(max_tokens + self.reasoning_tokens);
        if !stop.is_empty() {
            body["stop"] = json!(stop);
        }
        if request.logprobs {
            body["logprobs"] = json!(true);
        }
        match self.kind {
            ProviderKind::LlamaCpp => {
                body["top_k"] = json!(top_k);
                body["repeat_penalty"] = json!(repetition_penalty);
                // Other samplers of this server are on unless they are turned off.
                body["min_p"] = json!(0.0);
            }
            ProviderKind::Vllm => {
                body["top_k"] = json!(top_k);
                body["repetition_penalty"] = json!(repetition_penalty);
            }
            _ => self.refuse(*top_k != 0, "top_k").and_then(|()| {
                self.refuse((repetition_penalty - 1.0).abs() > f32::EPSILON, "a repetition penalty")
            })?,
        }
        if let Some(grammar) = request.grammar {
            let (name, value) = self.grammar(grammar)?;
            body[name] = value;
        }
        Ok(("/v1/chat/completions", body))
    }

    /// Returns the options of Ollama's own API. The other one cannot set the context window, and
    /// cuts the front of a longer prompt off.
    fn ollama_options(&self, sampling: &Sampling) -> Value {
        let Sampling { temperature, top_p, top_k, repetition_penalty, seed, stop, max_tokens } =
            sampling;
        json!({
            "num_ctx": self.capabilities.context_length + self.reasoning_tokens as usize,
            "num_predict": max_tokens + self.reasoning_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": 0.0,
            "repeat_penalty": repetition_penalty,
            "seed": seed & SEED_BITS,
            "stop": stop,
        })
    }

    /// Returns name and value of the parameter that constrains an answer.
    fn grammar(&self, grammar: &Grammar) -> Result<(&'static str, Value), ProviderError> {
        let (provider, what) = (self.name(), "this grammar");
        Ok(match (self.kind, grammar) {
            (ProviderKind::LlamaCpp, Grammar::Regex(regex)) => {
                let gbnf = gbnf::of_regex(regex);
                ("grammar", json!(gbnf.ok_or(ProviderError::Unsupported { provider, what })?))
            }
            (ProviderKind::LlamaCpp, Grammar::JsonSchema(schema)) => {
                ("json_schema", schema.clone())
            }
            (ProviderKind::Vllm, Grammar::Regex(regex)) => {
                ("structured_outputs", json!({ "regex": regex }))
            }
            (ProviderKind::Vllm, Grammar::JsonSchema(schema)) => {
                ("structured_outputs", json!({ "json": schema }))
            }
            (_, grammar) => {
                let schema = json!({ "name": "answer", "schema": self.schema(grammar)? });
                ("response_format", json!({ "type": "json_schema", "json_schema": schema }))
            }
        })
    }

    /// Returns the schema of a grammar that is one.
    fn schema<'g>(&self, grammar: &'g Grammar) -> Result<&'g Value, ProviderError> {
        match grammar {
            Grammar::JsonSchema(schema) => Ok(schema),
            Grammar::Regex(_) => {
                let what = "regular expressions as grammars";
                Err(ProviderError::Unsupported { provider: self.name(), what })
            }
        }
    }

    /// Fails if something is wanted that the server does not have.
    pub(super) fn refuse(&self, is_wanted: bool, what: &'static str) -> Result<(), ProviderError> {
        let provider = self.name();
        if is_wanted { Err(ProviderError::Unsupported { provider, what }) } else { Ok(()) }
    }
}
