//! Scripted provider: canned answers for tests of the whole binary.
//!
//! A script is a JSON Lines file. Each line answers the first request whose prompt contains all
//! texts of its `when`, in the order of the file, once, or with `"repeat": true` any number of
//! times. Example: `{"when": ["Write part"], "text": "answer", "finish_reason": "stop", "delay_ms":
//! 0, "repeat": false}`. With `"adapts": "q_proj"`, it answers only requests with an adapter of a
//! module with that name.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;

use crate::adapter::AdapterId;
use crate::model::ModelError;
use crate::peft::PeftFiles;
use crate::trajectory::Completion;
use crate::trajectory::FinishReason;
use crate::trajectory::Message;

use super::AdapterFormat;
use super::BaseModel;
use super::Capabilities;
use super::CompletionRequest;
use super::EncodedPrompt;
use super::GrammarSupport;
use super::ProviderError;

/// Provider that answers from a script.
#[derive(Debug)]
pub struct Scripted {
    lines: Mutex<Vec<ScriptLine>>,
    /// Modules of each loaded adapter.
    adapters: Mutex<HashMap<AdapterId, Vec<String>>>,
    context_length: usize,
}

/// Line of a script.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptLine {
    #[serde(default)]
    when: Vec<String>,
    #[serde(default)]
    adapts: Option<String>,
    text: String,
    #[serde(default = "stop")]
    finish_reason: FinishReason,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    repeat: bool,
    #[serde(skip)]
    used: bool,
}

fn stop() -> FinishReason {
    FinishReason::Stop
}

/// Errors of a script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("cannot read the script `{}`", path.display())]
    Io {
        /// Path of the script.
        path: PathBuf,
        /// Cause reported by the system.
        source: std::io::Error,
    },
    /// A line is not a valid answer.
    #[error("line {line} of the script")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// Error of the parser.
        source: serde_json::Error,
    },
    /// No remaining line matches the prompt.
    #[error("the script has no answer left for a prompt that ends `{0}`")]
    Exhausted(String),
}

impl Scripted {
    /// Reads the script at `path`.
    ///
    /// # Errors
    /// [`ScriptError::Io`], [`ScriptError::Line`].
    pub fn load(path: &Path, context_length: usize) -> Result<Self, ScriptError> {
        let io = |source| ScriptError::Io { path: path.to_owned(), source };
        Self::parse(&std::fs::read_to_string(path).map_err(io)?, context_length)
    }

    /// Parses a script. `context_length` is the context window that the provider reports.
    ///
    /// # Errors
    /// [`ScriptError::Line`].
    pub fn parse(text: &str, context_length: usize) -> Result<Self, ScriptError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parsed = lines.map(|(index, line)| {
            serde_json::from_str(line)
                .map_err(|source| ScriptError::Line { line: index + 1, source })
        });
        let lines = Mutex::new(parsed.collect::<Result<_, _>>()?);
        Ok(Self { lines, adapters: Mutex::default(), context_length })
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            adapters: AdapterFormat::Peft,
            grammar: GrammarSupport::None,
            logprobs: false,
            context_length: self.context_length,
            parallel: 1,
        }
    }

    #[expect(clippy::unused_self, reason = "stands beside the other backends' facts")]
    pub(super) fn base(&self) -> BaseModel {
        BaseModel { base_model: "scripted".to_owned(), base_digest: "scripted".to_owned() }
    }

    pub(super) fn load_adapter(&self, id: &AdapterId, folder: &Path) -> Result<(), ProviderError> {
        let files = PeftFiles::read(folder).map_err(ModelError::from)?;
        let modules = files.modules().map(|(module, _)| module.to_owned()).collect();
        let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        adapters.insert(id.clone(), modules);
        Ok(())
    }

    pub(super) fn unload_adapter(&self, id: &AdapterId) {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Returns the modules of an adapter, none for the base.
    fn modules(&self, adapter: Option<&AdapterId>) -> Result<Vec<String>, ProviderError> {
        let Some(id) = adapter else { return Ok(Vec::new()) };
        let adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        adapters.get(id).cloned().ok_or_else(|| ProviderError::AdapterNotLoaded(id.clone()))
    }

    /// Counts tokens as four bytes each.
    #[expect(clippy::unused_self, reason = "stands beside the other backends' encoders")]
    pub(super) fn encode(&self, messages: Vec<Message>) -> EncodedPrompt {
        let n_tokens = messages.iter().map(|message| message.content.len().div_ceil(4) + 4).sum();
        EncodedPrompt { messages, tokens: Vec::new(), n_tokens }
    }

    pub(super) async fn generate(
        &self,
        request: &CompletionRequest<'_>,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Completion, ProviderError> {
        let modules = self.modules(request.adapter)?;
        let (text, finish_reason, delay) = self.take(request.prompt.messages(), &modules)?;
        tokio::time::sleep(delay).await;
        on_text(&text);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Completion {
            tokens_in: count(request.prompt.n_tokens()),
            tokens_out: count(text.len().div_ceil(4)),
            text,
            finish_reason,
            prefill_ms: 0,
            decode_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            logprobs: None,
        })
    }

    fn take(
        &self,
        messages: &[Message],
        modules: &[String],
    ) -> Result<(String, FinishReason, Duration), ScriptError> {
        let prompt: String = messages.iter().map(|message| message.content.as_str()).collect();
        let is_adapted = |name: &str| modules.iter().any(|module| module.ends_with(name));
        let fits = |line: &ScriptLine| {
            !line.used
                && line.when.iter().all(|text| prompt.contains(text))
                && line.adapts.as_deref().is_none_or(is_adapted)
        };
        let mut lines = self.lines.lock().expect("no holder of the lock panics");
        let Some(line) = lines.iter_mut().find(|line| fits(line)) else {
            let from = prompt.floor_char_boundary(prompt.len().saturating_sub(60));
            return Err(ScriptError::Exhausted(prompt[from..].to_owned()));
        };
        line.used = !line.repeat;
        Ok((line.text.clone(), line.finish_reason, Duration::from_millis(line.delay_ms)))
    }
}
