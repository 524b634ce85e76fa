//! How a run shows itself: a live line on a terminal, a line an event elsewhere, or JSON lines on stdout.

use std::io;
use std::io::IsTerminal;
use std::sync::Mutex;
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
use crate::event::Stream;
use crate::event::timestamp;
use crate::pipeline::Progress;

/// The terminal's view of a run.
pub(super) struct Screen {
    json: bool,
    quiet: bool,
    colors: bool,
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

struct State {
    stream: Stream,
    /// Whether a last line was printed.
    is_over: bool,
    /// Pieces of text since the clock was set, and the clock: each piece is about a token.
    n_pieces: u32,
    since: Instant,
    doing: String,
}

impl Screen {
    pub(super) fn new(context: &Context) -> Self {
        let live = !context.json && !context.quiet && io::stderr().is_terminal();
        let bar = live.then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
            let bar = ProgressBar::new_spinner();
            bar.set_style(style.expect("the template is well formed"));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let state = State {
            stream: Stream::new(""),
            is_over: false,
            n_pieces: 0,
            since: Instant::now(),
            doing: String::new(),
        };
        Self {
            json: context.json,
            quiet: context.quiet || context.json,
            colors: live && context.color_stderr,
            bar,
            state: Mutex::new(state),
        }
    }

    /// Names the session that the lines are about.
    pub(super) fn open(&self, session_id: &str) {
        self.state().stream = Stream::new(session_id);
        self.say(&format!("session {session_id}"));
    }

    /// A line for the user's eyes alone.
    pub(super) fn say(&self, text: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Shows news of the pipeline.
    pub(super) fn show(&self, progress: Progress<'_>) {
        match progress {
            Progress::Event(event) => self.event(event),
            Progress::Text { place, .. } => {
                let subtask = place.subtask.as_deref().unwrap_or("the task");
                let doing = format!("{} {}", place.phase.as_str(), escape_line(subtask));
                self.count_piece(doing);
            }
        }
    }

    /// Shows an event.
    pub(super) fn event(&self, event: &Event) {
        if self.json {
            self.json_line(event);
        } else if let Some(line) = words(event) {
            let style = match event {
                Event::AttemptCompleted { verdict, .. } if verdict == "passed" => "32",
                Event::AttemptCompleted { verdict, .. } if verdict == "failed" => "33",
                Event::Warning { .. } => "33",
                _ => "0",
            };
            self.say(&output::paint(&line, style, self.colors));
        }
    }

    /// Ends the JSON lines of a run that failed before or after its session began.
    pub(super) fn fail(&self, error: &anyhow::Error) {
        if self.json && !self.state().is_over && !exit::is_broken_pipe(error) {
            self.json_line(&failure(error));
        }
    }

    /// Takes the live line away.
    pub(super) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn json_line(&self, event: &Event) {
        let mut state = self.state();
        state.is_over |=
            matches!(event, Event::SessionCompleted { .. } | Event::SessionFailed { .. });
        let line = state.stream.line(&timestamp(SystemTime::now()), event);
        // The run goes on when nobody reads of it: its record is in the registry.
        let _unread = output::print(&format!("{line}\n"));
    }

    fn count_piece(&self, doing: String) {
        let Some(bar) = &self.bar else { return };
        let mut state = self.state();
        if state.doing != doing {
            state.doing = doing;
            state.n_pieces = 0;
            state.since = Instant::now();
        }
        state.n_pieces += 1;
        let seconds = state.since.elapsed().as_secs_f64();
        let rate = if seconds > 0.2 { f64::from(state.n_pieces) / seconds } else { 0.0 };
        bar.set_message(format!("{}: {} tokens, {rate:.0} tok/s", state.doing, state.n_pieces));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last event of a run that an error ends.
pub(super) fn failure(error: &anyhow::Error) -> Event {
    Event::SessionFailed { exit_code: i32::from(exit::code(error)), error: format!("{error:#}") }
}

/// The only JSON line of a run that ends before there is a screen.
pub(super) fn print_failure(error: &anyhow::Error) {
    let line = Stream::new("").line(&timestamp(SystemTime::now()), &failure(error));
    let _unread = output::print(&format!("{line}\n"));
}

/// An event as a line; `None` for those that say nothing to a reader.
fn words(event: &Event) -> Option<String> {
    Some(match event {
        Event::SessionResumed { n_attempts, .. } => {
            format!("resumed: {n_attempts} attempts are there already")
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
                "{:<9} {what} #{candidate}: {verdict}, {summary} [{tokens_in}+{tokens_out} tokens, {:.1} s, {rate:.0} tok/s]",
                phase.as_str(),
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
        Event::SessionStarted { .. }
        | Event::PhaseStarted { .. }
        | Event::SessionFailed { .. }
        | Event::SessionInterrupted
        | Event::JudgeTest { .. }
        | Event::JudgeCompleted { .. }
        | Event::JudgeFailed { .. }
        | Event::AdapterCreated { .. }
        | Event::AdapterArchived { .. }
        | Event::AdapterRestored
        | Event::TrainingStarted { .. }
        | Event::TrainingResumed { .. }
        | Event::TrainingCompleted { .. }
        | Event::TrainingFailed { .. }
        | Event::EvaluationCreated { .. } => return None,
    })
}
