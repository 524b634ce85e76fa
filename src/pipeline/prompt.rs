//! Prompts within the context window.
//!
//! What may be shortened is cut at whole lines until the prompt, counted in tokens, leaves room for
//! the answer; the user is told what was cut. The task itself is never cut.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::PipelineError;
use super::runner::SessionRunner;
use crate::event::Event;
use crate::provider::EncodedPrompt;
use crate::provider::ProviderError;
use crate::trajectory::Message;
use crate::trajectory::Phase;

/// Which end of a section stays when it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptEnd {
    /// The first lines.
    Head,
    /// The last lines.
    Tail,
}

/// A prompt in the making: fixed values, and sections that may be cut.
#[derive(Debug, Clone)]
pub(super) struct PromptDraft {
    template: &'static str,
    values: BTreeMap<&'static str, Value>,
    sections: Vec<(&'static str, KeptEnd)>,
    /// Exchanges after the first message: what the model said, and what is said to that.
    follow_up: Vec<String>,
}

impl PromptDraft {
    /// A prompt from `templates/<template>.j2`.
    pub(super) fn new(template: &'static str) -> Self {
        Self { template, values: BTreeMap::new(), sections: Vec::new(), follow_up: Vec::new() }
    }

    /// Sets a value that is never cut.
    pub(super) fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("plain data becomes JSON");
        self.values.insert(name, value);
        self
    }

    /// Sets a text, or a list of texts, that may be cut; those named first are cut first.
    pub(super) fn with_section(
        self,
        name: &'static str,
        value: impl Serialize,
        keep: KeptEnd,
    ) -> Self {
        let mut prompt = self.with(name, value);
        prompt.sections.push((name, keep));
        prompt
    }

    /// Adds what is said after the template's text.
    pub(super) fn and_then(mut self, text: String) -> Self {
        self.follow_up.push(text);
        self
    }

    /// The prompt, short enough to leave room for an answer of `phase`.
    ///
    /// # Errors
    /// [`ProviderError::ContextOverflow`] when they do not fit even with all sections cut.
    pub(super) fn fit(
        mut self,
        run: &SessionRunner<'_>,
        phase: Phase,
    ) -> Result<EncodedPrompt, PipelineError> {
        let provider = run.tools.provider;
        let answer = run.tools.settings.max_tokens_of(phase) as usize;
        let limit = provider.capabilities().context_length;
        // An answer may be shorter than it may be at most: a quarter of the window is enough to go
        // on.
        let room = limit.saturating_sub(answer.min(limit / 4));
        let mut cut = Vec::new();
        loop {
            let prompt = provider.encode(self.render(run)?)?;
            let n_tokens = prompt.n_tokens();
            if n_tokens < room {
                self.tell_cuts(run, &cut)?;
                return Ok(prompt);
            }
            match self.cut_some(n_tokens - room) {
                Some(section) => cut.push(section),
                None => return Err(ProviderError::ContextOverflow { n_tokens, limit: room }.into()),
            }
        }
    }

    fn render(&self, run: &SessionRunner<'_>) -> Result<Vec<Message>, PipelineError> {
        let system = run.templates.render("system", ())?;
        let mut text = run.templates.render(self.template, &self.values)?;
        for follow_up in &self.follow_up {
            text.push_str("\n\n");
            text.push_str(follow_up);
        }
        Ok(vec![Message::system(system), Message::user(text)])
    }

    /// Shortens the first section that has lines left by about `n_tokens`, at least by a line.
    fn cut_some(&mut self, n_tokens: usize) -> Option<&'static str> {
        for (name, keep) in &self.sections {
            let value = self.values.get_mut(name)?;
            let text = match value {
                Value::Array(texts) => texts.iter_mut().rev().find(|text| !is_empty(text)),
                text => Some(text).filter(|text| !is_empty(text)),
            };
            if let Some(Value::String(text)) = text {
                *text = without_lines(text, n_tokens * 3, *keep);
                return Some(name);
            }
        }
        None
    }

    fn tell_cuts(&self, run: &SessionRunner<'_>, cut: &[&str]) -> Result<(), PipelineError> {
        let names: std::collections::BTreeSet<&str> = cut.iter().copied().collect();
        if names.is_empty() {
            return Ok(());
        }
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let message =
            format!("the prompt of `{}` was cut to fit the context window: {names}", self.template);
        run.tell(&Event::Warning { message })
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_str().is_none_or(str::is_empty)
}

/// The text without about `n_bytes` of whole lines at one end.
fn without_lines(text: &str, n_bytes: usize, keep: KeptEnd) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut dropped = 0;
    let mut n = 0;
    while n < lines.len() && dropped < n_bytes.max(1) {
        let line = if keep == KeptEnd::Head { lines[lines.len() - 1 - n] } else { lines[n] };
        dropped += line.len() + 1;
        n += 1;
    }
    match keep {
        KeptEnd::Head => lines[..lines.len() - n].join("\n"),
        KeptEnd::Tail => lines[n..].join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::KeptEnd;
    use super::without_lines;

    #[test]
    fn text_is_cut_at_whole_lines() {
        let text = "one\ntwo\nthree";
        assert_eq!(without_lines(text, 1, KeptEnd::Head), "one\ntwo");
        assert_eq!(without_lines(text, 7, KeptEnd::Head), "one");
        assert_eq!(without_lines(text, 5, KeptEnd::Tail), "three");
        assert_eq!(without_lines(text, 500, KeptEnd::Tail), "");
    }
}
