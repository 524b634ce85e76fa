//! Renders events to the terminal or as JSON lines.
//!
//! On a terminal, one live line at the bottom is redrawn and other lines scroll above it. Without a
//! terminal, progress is an occasional line on stderr.

mod words;

use std::io;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::cli::context::Context;
use crate::cli::exit;
use crate::cli::output;
use crate::cli::output::escape_line;
use crate::event::Event;
use crate::event::EventStream;
use crate::event::Reporter;
use crate::event::timestamp;
use crate::trajectory::AttemptVerdict;

use words::event_words;
pub(super) use words::step_words;

/// Minimum time between two lines about training steps without a terminal.
const PERIOD: Duration = Duration::from_secs(5);

/// Minimum time between two lines about downloaded bytes without a terminal.
const PULL_PERIOD: Duration = Duration::from_secs(1);

/// Answers between two lines about an evaluation without a terminal.
const ANSWERS: usize = 50;

/// Live line of a generation.
const SPINNER: &str = "{spinner} {elapsed} {wide_msg}";
/// Live line of steps that take equally long.
const BAR: &str = "{bar:30} {pos}/{len} {msg} eta {eta}";
/// Live line of a benchmark, whose steps take different times, so that an ETA would mislead.
const STEPS: &str = "{bar:30} {pos}/{len} {msg}";
/// Live line of a download.
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// Reporter of the command line.
pub(super) struct Screen {
    mode: ScreenMode,
    /// Whether JSON lines include progress events.
    has_progress: bool,
    colors: bool,
    state: Mutex<ScreenState>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ScreenMode {
    Quiet,
    Json,
    Lines,
    Terminal,
}

#[derive(Default)]
struct ScreenState {
    stream: EventStream,
    /// Whether the final JSON line of a session was printed.
    is_over: bool,
    /// The live line, and its template.
    bar: Option<(ProgressBar, &'static str)>,
    generation: Option<GenerationProgress>,
    /// Last validation loss of a training run.
    validation: Option<f64>,
    /// Time of the last line about a training step.
    last_step: Option<Instant>,
    /// Time of the last line about downloaded bytes.
    last_bytes: Option<Instant>,
    /// Step of a benchmark that the last line was about.
    measuring: String,
    answers: AnswerCounts,
}

/// Progress of the generation on the live line.
struct GenerationProgress {
    /// Phase and part, as shown.
    label: String,
    /// Pieces of text so far, about one per token.
    n_pieces: u32,
    started: Instant,
}

/// Answers of the base or of one adapter in an evaluation.
#[derive(Default)]
struct AnswerCounts {
    /// `None` is the base.
    adapter_id: Option<String>,
    n_answers: u32,
    n_passed: u32,
}

impl Screen {
    pub(super) fn new(context: &Context) -> Self {
        Self::with_json(context, ScreenMode::Json)
    }

    /// Creates the screen of a command whose `--json` prints a document: no event goes to stdout.
    pub(super) fn of_document(context: &Context) -> Self {
        Self::with_json(context, ScreenMode::Quiet)
    }

    fn with_json(context: &Context, json: ScreenMode) -> Self {
        let mode = match (context.json, context.quiet) {
            (true, _) => json,
            (_, true) => ScreenMode::Quiet,
            _ if io::stderr().is_terminal() => ScreenMode::Terminal,
            _ => ScreenMode::Lines,
        };
        let colors = mode == ScreenMode::Terminal && context.color_stderr;
        Self { mode, has_progress: !context.quiet, colors, state: Mutex::default() }
    }

    /// Reports events without a subject.
    pub(super) fn report_all(&self, events: &[Event]) {
        for event in events {
            self.report("", event);
        }
    }

    /// Prints a line for people to stderr, above the live line.
    pub(super) fn say(&self, text: &str) {
        self.say_styled(text, None);
    }

    fn say_styled(&self, text: &str, style: Option<&str>) {
        match (self.mode, &self.state().bar) {
            (ScreenMode::Quiet | ScreenMode::Json, _) => {}
            (_, Some((bar, _))) => bar.suspend(|| output::note_styled(text, style)),
            _ => output::note_styled(text, style),
        }
    }

    /// Prints a result to stdout after closing the live line, which would share its row.
    pub(super) fn print(&self, text: &str) -> io::Result<()> {
        self.close();
        output::print(text)
    }

    /// Prints the final JSON line of a session that failed, unless it was already printed.
    pub(super) fn fail(&self, subject: &str, error: &anyhow::Error) {
        if self.mode == ScreenMode::Json && !self.state().is_over && !exit::is_broken_pipe(error) {
            self.json_line(subject, &failure(error));
        }
    }

    /// Removes the live line.
    pub(super) fn close(&self) {
        if let Some((bar, _)) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }

    fn json_line(&self, subject: &str, event: &Event) {
        let mut state = self.state();
        state.is_over |=
            matches!(event, Event::SessionCompleted { .. } | Event::SessionFailed { .. });
        let line = state.stream.line(&timestamp(SystemTime::now()), subject, event);
        // A closed stdout does not stop the work: its record is in the registry.
        let _unread = output::print(&format!("{line}\n"));
    }

    fn show_generation(&self, label: String) {
        let mut state = self.state();
        let mut generation = match state.generation.take() {
            Some(generation) if generation.label == label => generation,
            _ => GenerationProgress { label, n_pieces: 0, started: Instant::now() },
        };
        generation.n_pieces += 1;
        let GenerationProgress { label, n_pieces, started } = &generation;
        let seconds = started.elapsed().as_secs_f64();
        // The rate of the first few tokens is noise.
        let rate = if seconds > 0.2 { f64::from(*n_pieces) / seconds } else { 0.0 };
        let message = format!("{label}: {n_pieces} tokens, {rate:.0} tok/s");
        state.generation = Some(generation);
        self.live(&mut state, SPINNER, |bar| bar.set_message(message));
    }

    fn show_training(&self, event: &Event) {
        let mut state = self.state();
        match event {
            Event::TrainingValidated { step, loss, rehearsal_loss } => {
                state.validation = Some(*loss);
                if self.mode == ScreenMode::Lines {
                    let rehearsal = rehearsal_loss.map(|loss| format!(", rehearsal {loss:.4}"));
                    let rehearsal = rehearsal.unwrap_or_default();
                    output::note(&format!("validation after step {step}: {loss:.4}{rehearsal}"));
                }
            }
            Event::TrainingStep { step, total, .. } => {
                let words = step_words(event, state.validation);
                let is_due = state.last_step.is_none_or(|last| last.elapsed() >= PERIOD);
                if self.mode == ScreenMode::Lines && (is_due || step == total) {
                    state.last_step = Some(Instant::now());
                    output::note(&format!("step {step}/{total} {words}"));
                }
                self.live(&mut state, BAR, |bar| {
                    bar.set_length(u64::from(*total));
                    bar.set_message(words);
                    bar.set_position(u64::from(*step));
                });
            }
            _ => {}
        }
    }

    fn show_answer(
        &self,
        adapter_id: Option<String>,
        passed: bool,
        (n_done, n_total): (usize, usize),
    ) {
        let mut state = self.state();
        if state.answers.adapter_id != adapter_id {
            state.answers = AnswerCounts { adapter_id, ..AnswerCounts::default() };
        }
        state.answers.n_answers += 1;
        state.answers.n_passed += u32::from(passed);
        let AnswerCounts { adapter_id, n_answers, n_passed } = &state.answers;
        let who = adapter_id.as_deref().unwrap_or("base");
        // The count is that of the model at work, the rest that of all.
        let passed = format!("{who} passed {n_passed} of {n_answers}");
        if self.mode == ScreenMode::Lines && n_done.is_multiple_of(ANSWERS) {
            output::note(&format!("{n_done} of {n_total} answers; {passed}"));
        }
        self.live(&mut state, BAR, |bar| {
            if bar.position() > n_done as u64 {
                bar.reset(); // another evaluation
            }
            bar.set_length(n_total as u64);
            bar.set_message(format!("answers; {passed},"));
            bar.set_position(n_done as u64);
        });
    }

    fn show_download(&self, model: &str, done: u64, total: u64) {
        let mut state = self.state();
        if self.mode == ScreenMode::Lines && is_due(&mut state.last_bytes, PULL_PERIOD) {
            let percent = done * 100 / total.max(1);
            let (done, total) = (done / 1_000_000, total / 1_000_000);
            output::note(&format!("{model}: {done} of {total} MB ({percent} %)"));
        }
        self.live(&mut state, BYTES, |bar| {
            if bar.length() != Some(total) {
                bar.set_length(total);
                bar.set_message(model.to_owned());
                // Bytes of an earlier, interrupted download must not count toward the speed.
                bar.set_position(done);
                bar.reset_eta();
            }
            bar.set_position(done);
        });
    }

    fn show_benchmark(&self, next: &str, (done, total): (usize, usize)) {
        let mut state = self.state();
        if self.mode == ScreenMode::Lines && state.measuring != next {
            next.clone_into(&mut state.measuring);
            output::note(&format!("{next} ({done} of {total} steps done)"));
        }
        self.live(&mut state, STEPS, |bar| {
            bar.set_length(total as u64);
            bar.set_message(next.to_owned());
            bar.set_position(done as u64);
        });
    }

    fn show_count(&self, what: &'static str, (done, total): (usize, usize)) {
        self.live(&mut self.state(), BAR, |bar| {
            bar.set_length(total as u64);
            bar.set_message(what);
            bar.set_position(done as u64);
        });
    }

    /// Updates the live line; replaces it if its template is not `template`.
    fn live(
        &self,
        state: &mut ScreenState,
        template: &'static str,
        change: impl FnOnce(&ProgressBar),
    ) {
        if self.mode != ScreenMode::Terminal {
            return;
        }
        if state.bar.as_ref().is_none_or(|(_, known)| *known != template) {
            if let Some((bar, _)) = state.bar.take() {
                bar.finish_and_clear();
            }
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::new(0).with_style(style.expect("the templates are valid"));
            if template == SPINNER {
                bar.enable_steady_tick(Duration::from_millis(120));
            }
            state.bar = Some((bar, template));
        }
        if let Some((bar, _)) = &state.bar {
            change(bar);
        }
    }

    fn state(&self) -> MutexGuard<'_, ScreenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Screen {
    /// Whether to print an event as a JSON line.
    fn has_line(&self, event: &Event) -> bool {
        match event {
            // One event per token would flood the stream, and notices are meant for people.
            Event::TextGenerated { .. } | Event::Notice { .. } => false,
            Event::EvaluationAnswered { .. }
            | Event::RehearsalAnswered { .. }
            | Event::MergeProgress { .. }
            | Event::BenchProgress { .. } => self.has_progress,
            Event::PullProgress { .. } => is_due(&mut self.state().last_bytes, PULL_PERIOD),
            _ => true,
        }
    }

    /// Shows an event to people.
    fn show(&self, subject: &str, event: &Event) {
        match event {
            Event::TextGenerated { phase, subtask, .. } => {
                let part = subtask.as_deref().unwrap_or("the task");
                self.show_generation(format!("{} {}", phase.as_str(), escape_line(part)));
            }
            Event::Notice { message } => self.say(message),
            Event::EvaluationAnswered { adapter_id, passed, n_done, n_total, .. } => {
                let adapter_id = adapter_id.as_ref().map(ToString::to_string);
                self.show_answer(adapter_id, *passed, (*n_done, *n_total));
            }
            Event::RehearsalAnswered { n_done, n_total } => {
                self.show_count("answers", (*n_done, *n_total));
            }
            Event::MergeProgress { n_done, n_total } => {
                self.show_count("modules", (*n_done, *n_total));
            }
            Event::PullProgress { done, total } => self.show_download(subject, *done, *total),
            Event::BenchProgress { done, total, next } => {
                self.show_benchmark(next, (*done, *total));
            }
            Event::TrainingStep { .. } | Event::TrainingValidated { .. } => {
                self.show_training(event);
            }
            _ => {
                if ends_live_line(event) {
                    self.close();
                }
                if matches!(event, Event::TrainingPrepared { .. }) {
                    self.state().validation = None;
                }
                if let Some(line) = event_words(subject, event) {
                    self.say_styled(&line, style(event).filter(|_| self.colors));
                }
            }
        }
    }
}

impl Reporter for Screen {
    fn report(&self, subject: &str, event: &Event) {
        match self.mode {
            ScreenMode::Json if self.has_line(event) => self.json_line(subject, event),
            ScreenMode::Json | ScreenMode::Quiet => {}
            ScreenMode::Lines | ScreenMode::Terminal => self.show(subject, event),
        }
    }
}

/// Whether an event ends the work that the live line shows.
fn ends_live_line(event: &Event) -> bool {
    matches!(
        event,
        Event::PullCompleted { .. }
            | Event::TrainingPrepared { .. }
            | Event::TrainingCompleted { .. }
    )
}

/// Returns the SGR style of an event's line.
fn style(event: &Event) -> Option<&'static str> {
    match event {
        Event::AttemptCompleted { verdict: AttemptVerdict::Passed, .. } => Some("32"),
        Event::AttemptCompleted { verdict: AttemptVerdict::Failed, .. } | Event::Warning { .. } => {
            Some("33")
        }
        _ => None,
    }
}

/// Whether `period` has passed since `last`; if so, resets `last` to now.
fn is_due(last: &mut Option<Instant>, period: Duration) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= period);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

/// Returns the final event of a session that failed.
pub(super) fn failure(error: &anyhow::Error) -> Event {
    Event::SessionFailed { exit_code: i32::from(exit::code(error)), error: format!("{error:#}") }
}

/// Prints the only JSON line of a command that fails before there is a screen.
pub(super) fn print_only_line(event: &Event) {
    let line = EventStream::default().line(&timestamp(SystemTime::now()), "", event);
    let _unread = output::print(&format!("{line}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trajectory::Phase;

    #[test]
    fn live_line_is_closed_before_a_result_is_printed() {
        let screen = Screen {
            mode: ScreenMode::Terminal,
            has_progress: true,
            colors: false,
            state: Mutex::default(),
        };
        let (subtask, text) = (None, "def".to_owned());
        screen.report("s", &Event::TextGenerated { phase: Phase::Code, subtask, text });
        assert!(screen.state().bar.is_some());
        screen.print("").unwrap();
        assert!(screen.state().bar.is_none());
    }
}
