//! Prompts within the context window.
//!
//! Records of earlier sessions are dropped and optional sections are cut at whole lines until the
//! prompt, counted in tokens, leaves space for the answer. A warning names what was cut. The task
//! itself is never cut.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::PipelineError;
use super::runner::SessionRunner;
use crate::documents::Passage;
use crate::event::Event;
use crate::memory;
use crate::provider::EncodedPrompt;
use crate::provider::ProviderError;
use crate::registry::ExperienceRecord;
use crate::trajectory::Message;
use crate::trajectory::Phase;

/// End of a section that is kept when it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptEnd {
    /// Keep the first lines.
    Head,
    /// Keep the last lines.
    Tail,
}

/// Builder of a prompt: fixed values, and sections that may be cut.
#[derive(Debug, Clone)]
pub(super) struct PromptDraft {
    template: &'static str,
    values: BTreeMap<&'static str, Value>,
    sections: Vec<(&'static str, KeptEnd)>,
    /// Records of earlier sessions, nearest first.
    records: Vec<ExperienceRecord>,
    /// Passages of documents, in their order.
    passages: Vec<Passage>,
    /// Messages after the first one: answers of the model and replies to them.
    follow_up: Vec<String>,
}

impl PromptDraft {
    /// Creates a prompt from `templates/<template>.j2`.
    pub(super) fn new(template: &'static str) -> Self {
        Self {
            template,
            values: BTreeMap::new(),
            sections: Vec::new(),
            records: Vec::new(),
            passages: Vec::new(),
            follow_up: Vec::new(),
        }
    }

    /// Shows records of earlier sessions, nearest first, as earlier turns. If the prompt must be
    /// cut, they go before any section, farthest first.
    pub(super) fn with_records(mut self, records: &[ExperienceRecord]) -> Self {
        self.records = records.to_vec();
        self
    }

    /// Shows passages of documents. If the prompt must be cut, they go after the records, the last
    /// one first.
    pub(super) fn with_passages(mut self, passages: &[Passage]) -> Self {
        self.passages = passages.to_vec();
        self
    }

    /// Sets a value that is never cut.
    pub(super) fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("plain data becomes JSON");
        self.values.insert(name, value);
        self
    }

    /// Sets a text or a list of texts that may be cut. Sections set first are cut first.
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

    /// Adds an answer of the model and the reply to it.
    pub(super) fn and_then(mut self, text: String) -> Self {
        self.follow_up.push(text);
        self
    }

    /// Renders the prompt, cut to leave space for an answer of `phase`.
    ///
    /// # Errors
    /// [`ProviderError::ContextOverflow`] if it does not fit even with all sections cut.
    pub(super) fn fit(
        mut self,
        run: &SessionRunner<'_>,
        phase: Phase,
    ) -> Result<EncodedPrompt, PipelineError> {
        let provider = run.tools.provider;
        let answer = run.tools.settings.max_tokens_of(phase) as usize;
        let limit = provider.capabilities().context_length;
        // Most answers are shorter than the maximum, so a quarter of the window is reserved at
        // most.
        let space = limit.saturating_sub(answer.min(limit / 4));
        let mut cut = Vec::new();
        loop {
            let prompt = provider.encode(self.render(run)?)?;
            let n_tokens = prompt.n_tokens();
            if n_tokens < space {
                self.tell_cuts(run, &cut)?;
                return Ok(prompt);
            }
            match self.cut_some(n_tokens - space) {
                Some(section) => cut.push(section),
                None => {
                    return Err(ProviderError::ContextOverflow { n_tokens, limit: space }.into());
                }
            }
        }
    }

    fn render(&self, run: &SessionRunner<'_>) -> Result<Vec<Message>, PipelineError> {
        let system = json!({ "has_documents": !self.passages.is_empty() });
        let system = run.templates.render("system", system)?;
        let mut values = self.values.clone();
        values.insert("documents", self.passages.iter().map(ToString::to_string).collect());
        let mut text = run.templates.render(self.template, &values)?;
        for follow_up in &self.follow_up {
            text.push_str("\n\n");
            text.push_str(follow_up);
        }
        let mut messages = vec![Message::system(system)];
        messages.extend(memory::turns(&self.records));
        messages.push(Message::user(text));
        Ok(messages)
    }

    /// Drops the farthest record, or the last passage, or cuts about `n_tokens`, at least one line,
    /// from the first section that has lines left.
    fn cut_some(&mut self, n_tokens: usize) -> Option<&'static str> {
        if self.records.pop().is_some() {
            return Some("memory");
        }
        if self.passages.pop().is_some() {
            return Some("documents");
        }
        for (name, keep) in &self.sections {
            let value = self.values.get_mut(name)?;
            let text = match value {
                Value::Array(texts) => texts.iter_mut().rev().find(|text| !is_empty(text)),
                text => Some(text).filter(|text| !is_empty(text)),
            };
            if let Some(Value::String(text)) = text {
                // Code has three to four bytes per token; cutting too little only repeats the loop.
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

/// Removes about `n_bytes` of whole lines at one end of a text.
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
    use super::PromptDraft;
    use super::without_lines;
    use crate::registry::ExperienceRecord;

    #[test]
    fn records_are_cut_before_sections_and_the_farthest_first() {
        let record = |question: &str| ExperienceRecord {
            session_id: String::new(),
            project: String::new(),
            family: String::new(),
            question: question.to_owned(),
            answer: String::new(),
        };
        let mut draft = PromptDraft::new("code")
            .with_section("tests", "one", KeptEnd::Head)
            .with_records(&[record("near"), record("far")]);
        assert_eq!(draft.cut_some(1), Some("memory"));
        assert_eq!(draft.records, [record("near")]);
        let cut = [draft.cut_some(1), draft.cut_some(1), draft.cut_some(1)];
        assert_eq!(cut, [Some("memory"), Some("tests"), None]);
    }

    #[test]
    fn text_is_cut_at_whole_lines() {
        let text = "one\ntwo\nthree";
        assert_eq!(without_lines(text, 1, KeptEnd::Head), "one\ntwo");
        assert_eq!(without_lines(text, 7, KeptEnd::Head), "one");
        assert_eq!(without_lines(text, 5, KeptEnd::Tail), "three");
        assert_eq!(without_lines(text, 500, KeptEnd::Tail), "");
    }
}
