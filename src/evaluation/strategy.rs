//! Answering strategies: a single completion, best-of-n, or the full pipeline.

use std::path::Path;

use serde_json::Value;
use serde_json::json;

use crate::adapter::AdapterId;
use crate::digest::sha256;
use crate::event::Event;
use crate::judge::Judge;
use crate::judge::TestSuite;
use crate::memory;
use crate::memory::ShownMemory;
use crate::pipeline;
use crate::pipeline::Assignment;
use crate::pipeline::NewSession;
use crate::pipeline::PipelineTools;
use crate::pipeline::SessionSettings;
use crate::provider::CompletionRequest;
use crate::provider::EncodedPrompt;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::registry::AnswerCost;
use crate::registry::Registry;
use crate::registry::RegistryError;
use crate::template;
use crate::trajectory::Completion;
use crate::trajectory::Message;
use crate::trajectory::Phase;
use crate::trajectory::Role;
use crate::trajectory::Sampling;

use super::error::EvaluationError;
use super::task::EvalTask;

/// One task to be answered by the base or by `adapter` with `seed`.
#[derive(Clone, Copy)]
pub(super) struct TaskQuestion<'a> {
    pub(super) provider: &'a Provider,
    pub(super) task: &'a EvalTask,
    pub(super) adapter: Option<&'a AdapterId>,
    pub(super) seed: u64,
    /// Records of earlier sessions and passages to show.
    pub(super) memory: &'a ShownMemory,
}

impl TaskQuestion<'_> {
    fn encode(&self) -> Result<EncodedPrompt, ProviderError> {
        self.provider.encode(with_memory(&self.task.messages, self.memory))
    }
}

/// Puts records as turns before the last question of `messages`, and passages at its start.
fn with_memory(messages: &[Message], memory: &ShownMemory) -> Vec<Message> {
    let mut messages = messages.to_vec();
    if let Some(last) = messages.iter().rposition(|message| message.role == Role::User) {
        let passages = memory.passages.iter().map(|passage| format!("{passage}\n\n"));
        let question = messages[last].content.clone();
        messages[last].content = passages.chain([question]).collect();
        messages.splice(last..last, memory::turns(&memory.records));
    }
    messages
}

/// Answering strategy with what it needs.
pub enum AnswerStrategy<'a> {
    /// One completion of the model.
    Completions(&'a Sampling),
    /// Completions, one after the other, until one passes the visible tests.
    BestOfN(&'a StrategyTools),
    /// The pipeline with the visible tests.
    Pipeline(&'a StrategyTools),
}

/// Judge, settings and registry of the strategies that use visible tests.
pub struct StrategyTools {
    /// Judge of the visible tests.
    pub judge: Judge,
    /// Budgets and sampling of each session.
    pub settings: SessionSettings,
    /// Temporary registry of the sessions, which must not become training data.
    pub registry: Registry,
}

impl StrategyTools {
    /// Creates tools that record sessions in the new database `scratch`.
    ///
    /// # Errors
    /// [`RegistryError`] if the database cannot be created.
    pub fn new(
        judge: Judge,
        settings: SessionSettings,
        scratch: &Path,
    ) -> Result<Self, RegistryError> {
        Ok(Self { judge, settings, registry: Registry::open(scratch)? })
    }
}

impl AnswerStrategy<'_> {
    /// Returns the name of the strategy in the registry.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Completions(_) => "completions",
            Self::BestOfN(_) => "best_of_n",
            Self::Pipeline(_) => "pipeline",
        }
    }

    /// Returns the sampling without seeds, with the versions of the pipeline and its prompts.
    pub fn sampling(&self) -> Value {
        match self {
            Self::Completions(sampling) => json!(Sampling { seed: 0, ..(*sampling).clone() }),
            Self::BestOfN(tools) => tools.sampling(),
            Self::Pipeline(tools) => {
                let mut sampling = tools.sampling();
                let prompts = sha256(format!("{:?}", template::TEMPLATES).as_bytes());
                sampling["version"] = json!([pipeline::VERSION, prompts]);
                sampling
            }
        }
    }

    /// Whether the strategy can answer this task.
    pub fn supports(&self, task: &EvalTask) -> bool {
        matches!(self, Self::Completions(_)) || task.has_visible_tests()
    }

    /// Answers one task with this strategy, and returns what the model spent on it.
    pub(super) async fn answer(
        &self,
        ask: TaskQuestion<'_>,
    ) -> Result<(String, AnswerCost), EvaluationError> {
        match self {
            Self::Completions(sampling) => {
                let TaskQuestion { provider, adapter, seed, .. } = ask;
                let sampling = Sampling { seed, ..(*sampling).clone() };
                let prompt = ask.encode()?;
                let request =
                    CompletionRequest { adapter, ..CompletionRequest::new(&prompt, &sampling) };
                let completion = provider.generate(&request, &mut |_| {}).await?;
                let cost = cost_of(&completion);
                Ok((completion.text, cost))
            }
            Self::BestOfN(tools) => tools.best_of_n(ask).await,
            Self::Pipeline(tools) => tools.answer(ask).await,
        }
    }
}

impl StrategyTools {
    fn sampling(&self) -> Value {
        let settings = &self.settings;
        json!({
            "temperature": settings.temperature,
            "retry_temperature": settings.retry_temperature,
            "max_tokens": settings.max_tokens,
            "candidates": settings.candidates,
            "attempts": settings.attempts,
            "repairs": settings.repairs,
        })
    }

    /// Draws completions until one passes the visible tests, else returns the one that passes most
    /// of them. Budget and temperatures are those of the pipeline, so that both can be compared.
    async fn best_of_n(
        &self,
        ask: TaskQuestion<'_>,
    ) -> Result<(String, AnswerCost), EvaluationError> {
        let TaskQuestion { provider, task, adapter, seed, .. } = ask;
        let mut spent = AnswerCost::default();
        let visible = task.as_user_task().and_then(|task| TestSuite::of_task(&task));
        let Some(suite) = visible else { return Ok((String::new(), spent)) };
        let settings = SessionSettings { seed, ..self.settings.clone() };
        let prompt = ask.encode()?;
        let mut best = None::<(f64, String)>;
        for trial in 0_u32.. {
            let sampling = settings.sampling(Phase::Integrate, trial);
            let request =
                CompletionRequest { adapter, ..CompletionRequest::new(&prompt, &sampling) };
            let completion = provider.generate(&request, &mut |_| {}).await?;
            let cost = cost_of(&completion);
            spent.tokens_in += cost.tokens_in;
            spent.tokens_out += cost.tokens_out;
            spent.ms += cost.ms;
            let verdict = self.judge.run_suite(&suite, &[task.file(&completion.text)]).await?;
            if best.as_ref().is_none_or(|(score, _)| verdict.score() > *score) {
                best = Some((verdict.score(), completion.text));
            }
            if verdict.passed() || spent.tokens_out >= settings.max_tokens {
                break;
            }
        }
        Ok((best.map(|(_, answer)| answer).unwrap_or_default(), spent))
    }

    /// Runs a session, and returns its files as one code block.
    async fn answer(
        &self,
        TaskQuestion { provider, task, adapter, seed, memory }: TaskQuestion<'_>,
    ) -> Result<(String, AnswerCost), EvaluationError> {
        let Some(task) = task.as_user_task() else {
            return Ok((String::new(), AnswerCost::default()));
        };
        let settings =
            SessionSettings { adapter_id: adapter.cloned(), seed, ..self.settings.clone() };
        let new = NewSession::new(task.clone(), seed);
        let (_, claim, _) = new.record(&self.registry, provider)?;
        let tools = PipelineTools {
            provider,
            judge: self.judge.clone(),
            registry: &self.registry,
            settings,
            memory,
            reporter: &|_: &str, _: &Event| {},
        };
        let assignment = Assignment::read(&self.judge, task).await?;
        let solution = pipeline::solve(&tools, &claim, &assignment, Vec::new()).await?;
        let files = solution.files.iter().map(|file| file.text.as_str()).collect::<Vec<_>>();
        let cost = AnswerCost {
            tokens_in: solution.tokens_in,
            tokens_out: solution.tokens_out,
            ms: u64::try_from(solution.elapsed.as_millis()).unwrap_or(u64::MAX),
        };
        Ok((format!("```python\n{}\n```\n", files.join("\n").trim_end()), cost))
    }
}

fn cost_of(completion: &Completion) -> AnswerCost {
    AnswerCost {
        tokens_in: completion.tokens_in.into(),
        tokens_out: completion.tokens_out.into(),
        ms: completion.prefill_ms + completion.decode_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::Passage;
    use crate::registry::ExperienceRecord;

    #[test]
    fn memory_stands_before_the_last_question() {
        let record = ExperienceRecord {
            session_id: "one".to_owned(),
            project: "project".to_owned(),
            family: "family".to_owned(),
            question: "Add.".to_owned(),
            answer: "a + b".to_owned(),
        };
        let passage = Passage { source: "zorb".to_owned(), text: "plus(a, b)".to_owned() };
        let memory = ShownMemory { records: vec![record], passages: vec![passage] };
        let asked = [Message::user("First."), Message::assistant("Yes."), Message::user("Sum.")];
        let shown = with_memory(&asked, &memory);
        let texts: Vec<&str> = shown.iter().map(|message| message.content.as_str()).collect();
        let question = "From `zorb`:\n\nplus(a, b)\n\nSum.";
        assert_eq!(texts, ["First.", "Yes.", "Add.", "a + b", question]);
        assert_eq!(with_memory(&asked, &ShownMemory::default()), asked);
    }
}
