//! [`ServerReport`]: what a server can do, asked and tried.

use serde::Serialize;
use serde_json::json;

use crate::model::Grammar;
use crate::provider::CompletionRequest;
use crate::provider::GrammarSupport;
use crate::provider::ProviderError;
use crate::trajectory::Completion;
use crate::trajectory::Message;
use crate::trajectory::Sampling;

use super::ModelServer;

/// A question whose answer shows what is wanted in few tokens.
const QUESTION: &str = "Say hello.";
/// Tokens of its answer, at most.
const TOKENS: u32 = 16;
/// Answers that no model gives by itself.
const UNLIKELY: &str = "(qa|zb){3}";

/// What a server has been found to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerReport {
    /// Kind of the provider.
    pub provider: &'static str,
    /// URL of the server.
    pub url: String,
    /// Name of the model on the server.
    pub model: String,
    /// Canonical name of the model and digest of its tokenizer, or the server's name for it.
    pub base_model: String,
    /// Digest of the weights, or of a greedy answer.
    pub base_digest: String,
    /// Whether the digest is that of the file that the server has loaded.
    pub reads_weights: bool,
    /// Context window in tokens.
    pub context_length: usize,
    /// Useful number of concurrent requests.
    pub parallel: usize,
    /// Adapters that the server has: names, or files of llama-server.
    pub adapters: Vec<String>,
    /// Whether a constrained answer has kept to its grammar; `None` if the provider has none.
    pub keeps_grammar: Option<bool>,
    /// Whether log probabilities come with an answer; `None` if the provider has none.
    pub gives_logprobs: Option<bool>,
    /// Whether the server can sleep, and does; `None` if it cannot.
    pub is_sleeping: Option<bool>,
    /// Milliseconds to the first token of a short answer.
    pub first_token_ms: u64,
}

impl ModelServer {
    /// Asks the server what it has, and tries what the provider needs of it: an answer, a grammar,
    /// log probabilities.
    ///
    /// # Errors
    /// Those of a request. A server that refuses grammars or log probabilities does not have them.
    pub async fn report(&self) -> Result<ServerReport, ProviderError> {
        let is_sleeping = self.http.is_sleeping().await?;
        let plain = self.ask(None, false).await?;
        let able = self.capabilities;
        let grammar = match able.grammar {
            GrammarSupport::All => Some(Grammar::Regex(UNLIKELY.to_owned())),
            GrammarSupport::JsonSchema => Some(Grammar::JsonSchema(json!({ "enum": ["qa zb"] }))),
            GrammarSupport::None => None,
        };
        let keeps_grammar = match &grammar {
            Some(grammar) => Some(
                had(self.ask(Some(grammar), false).await)?.is_some_and(|answer| keeps(&answer)),
            ),
            None => None,
        };
        let has_logprobs = |answer: Completion| answer.logprobs.is_some_and(|all| !all.is_empty());
        let gives_logprobs = if able.logprobs {
            Some(had(self.ask(None, true).await)?.is_some_and(has_logprobs))
        } else {
            None
        };
        Ok(ServerReport {
            provider: self.name(),
            url: self.url().to_owned(),
            model: self.model.clone(),
            base_model: self.base.base_model.clone(),
            base_digest: self.base.base_digest.clone(),
            reads_weights: self.reads_weights,
            context_length: able.context_length,
            parallel: able.parallel,
            adapters: self.adapters().await?,
            keeps_grammar,
            gives_logprobs,
            is_sleeping,
            first_token_ms: plain.prefill_ms,
        })
    }

    async fn ask(
        &self,
        grammar: Option<&Grammar>,
        logprobs: bool,
    ) -> Result<Completion, ProviderError> {
        let prompt = self.encode(vec![Message::user(QUESTION)])?;
        let sampling = Sampling { max_tokens: TOKENS, ..Sampling::default() };
        let plain = CompletionRequest::new(&prompt, &sampling);
        self.generate(&CompletionRequest { grammar, logprobs, ..plain }, &mut |_| ()).await
    }
}

/// Returns an answer, unless the server has refused the request.
fn had(answer: Result<Completion, ProviderError>) -> Result<Option<Completion>, ProviderError> {
    match answer {
        Err(ProviderError::Refused { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether an answer is one of those that the grammar of the question allows.
fn keeps(answer: &Completion) -> bool {
    let text = answer.text.trim().trim_matches('"');
    let is_unlikely = |pair: &[u8]| pair == b"qa" || pair == b"zb";
    text == "qa zb" || (text.len() == 6 && text.as_bytes().chunks(2).all(is_unlikely))
}
