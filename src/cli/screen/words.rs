//! Renders events as lines for people.

use crate::event::Event;

/// Summarizes a training step.
pub(in crate::cli) fn step_words(event: &Event, validation: Option<f64>) -> String {
    let Event::TrainingStep { loss, lr, tokens_per_s, rss, .. } = event else {
        return String::new();
    };
    let validation = validation.map(|loss| format!(" val {loss:.3}")).unwrap_or_default();
    format!("loss {loss:.3}{validation} lr {lr:.1e} {tokens_per_s:.0} tok/s {} MiB", rss >> 20)
}

/// Renders an event as a line; `None` for events that people do not need to see.
pub(super) fn event_words(subject: &str, event: &Event) -> Option<String> {
    Some(match event {
        Event::SessionStarted { .. } => format!("session {subject}"),
        Event::SessionResumed { n_attempts, .. } => {
            format!("session {subject} resumed: {n_attempts} attempts already recorded")
        }
        Event::MemoryRecalled { records, sources } => {
            let records = records.iter().map(ToString::to_string);
            let passages = sources.iter().map(|source| format!("passages of {source}"));
            let shown: Vec<String> = records.chain(passages).collect();
            format!("memory    shows {}", shown.join(", "))
        }
        Event::SubtasksPlanned { subtasks } => {
            let names: Vec<String> =
                subtasks.iter().map(|part| format!("{} ({})", part.name, part.file)).collect();
            format!("parts: {}", names.join("; "))
        }
        Event::AttemptCompleted {
            phase,
            subtask,
            candidate,
            tokens_in,
            tokens_out,
            prefill_ms,
            decode_ms,
            verdict,
            summary,
            ..
        } => {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of one answer")]
            let seconds = (*decode_ms as f64 / 1e3).max(1e-3);
            let rate = f64::from(*tokens_out) / seconds;
            let what = subtask.as_deref().unwrap_or("the task");
            format!(
                "{:<9} {what} #{candidate}: {}, {summary} [{tokens_in}+{tokens_out} tokens, {:.1} s, {rate:.0} tok/s]",
                phase.as_str(),
                verdict.as_str(),
                seconds + f64::from(u32::try_from(*prefill_ms).unwrap_or(u32::MAX)) / 1e3,
            )
        }
        Event::SuiteJudged { n_passed, n_total, outcome } => {
            format!("judged    {n_passed} of {n_total} tests passed: {outcome}")
        }
        Event::Warning { message } => format!("warning: {message}"),
        Event::SessionCompleted { summary, tokens_in, tokens_out, seconds, .. } => {
            format!("{summary} ({seconds:.0} s, {tokens_in}+{tokens_out} tokens)")
        }
        Event::TrainingPrepared { trainable, tokens, memory_bytes, .. } => format!(
            "training {trainable} parameters on {tokens} tokens, about {} MiB",
            memory_bytes >> 20
        ),
        Event::LeaseChanged { state, detail } if detail.is_empty() => {
            format!("{subject} is {}", state.as_str())
        }
        Event::LeaseChanged { state, detail } => {
            format!("{subject} is {}: {detail}", state.as_str())
        }
        Event::PullWaiting => format!("{subject}: waiting for another rune to download it"),
        Event::PullTrying { source } => format!("{subject}: trying the {source}"),
        Event::PullVerifying => format!("{subject}: verifying the digest"),
        Event::PullFailed { source, reason } => format!("{subject}: {source} failed: {reason}"),
        Event::PullCompleted { source } if source == "here" => {
            format!("{subject}: already downloaded")
        }
        Event::PullCompleted { source } => {
            format!("{subject}: downloaded from the {source}, digest verified")
        }
        _ => return None,
    })
}
