//! How work shows itself: a live line on a terminal, a line now and then elsewhere, or JSON lines
//! on stdout.

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
use words::step_words;

/// Between two lines about the steps of a training, where there is no terminal.
const PERIOD: Duration = Duration::from_secs(5);

/// Between two lines about the bytes of a pull, where there is no terminal.
const PULL_PERIOD: Duration = Duration::from_secs(1);

/// Answers between two lines about an evaluation, where there is no terminal.
const ANSWERS: usize = 50;

/// A live line with what the model is doing.
const SPINNER: &str = "{spinner} {elapsed} {wide_msg}";
/// A live line with how far it is.
const BAR: &str = "{bar:30} {pos}/{len} {msg} eta {eta}";
/// A live line with the steps of a benchmark, which take different times.
const STEPS: &str = "{bar:30} {pos}/{len} {msg}";
/// A live line with the bytes of a file.
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// Where news of work goes.
pub(super) struct Screen {
    mode: ScreenMode,
    /// Whether JSON lines include mere progress.
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
    /// Whether a last JSON line was printed.
    is_over: bool,
    /// The live line, and its template.
    bar: Option<(ProgressBar, &'static str)>,
    /// What the model writes, how many pieces of about a token it has, and since when.
    writing: Option<(String, u32, Instant)>,
    /// The last validation loss of a training.
    validation: Option<f64>,
    /// When the last line about a step was printed.
    last_step: Option<Instant>,
    /// When the last line about the bytes of a pull was printed.
    last_bytes: Option<Instant>,
    /// What a benchmark was last said to measure.
    measuring: String,
    /// Whose answers an evaluation is at, how many there are and how many passed.
    answers: (Option<String>, u32, u32),
}

impl Screen {
    pub(super) fn new(context: &Context) -> Self {
        Self::with_json(context, ScreenMode::Json)
    }

    /// The screen of a command whose `--json` prints a document: no event goes to stdout.
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

    /// Reports events of no subject.
    pub(super) fn report_all(&self, events: &[Event]) {
        for event in events {
            self.report("", event);
        }
    }

    /// A line for the user's eyes alone.
    pub(super) fn say(&self, text: &str) {
        self.say_in(&self.state(), text);
    }

    fn say_in(&self, state: &ScreenState, text: &str) {
        match (self.mode, &state.bar) {
            (ScreenMode::Quiet | ScreenMode::Json, _) => {}
            (_, Some((bar, _))) => bar.suspend(|| output::note(text)),
            _ => output::note(text),
        }
    }

    /// Ends the JSON lines of a session that an error ends.
    pub(super) fn fail(&self, subject: &str, error: &anyhow::Error) {
        if self.mode == ScreenMode::Json && !self.state().is_over && !exit::is_broken_pipe(error) {
            self.json_line(subject, &failure(error));
        }
    }

    /// Takes the live line away.
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
        // The work goes on when nobody reads of it: its record is in the registry.
        let _unread = output::print(&format!("{line}\n"));
    }

    fn wrote_piece(&self, doing: String) {
        let mut state = self.state();
        let (_, n, since) = match state.writing.take() {
            Some(writing) if writing.0 == doing => writing,
            _ => (String::new(), 0, Instant::now()),
        };
        let seconds = since.elapsed().as_secs_f64();
        let rate = if seconds > 0.2 { f64::from(n + 1) / seconds } else { 0.0 };
        let message = format!("{doing}: {} tokens, {rate:.0} tok/s", n + 1);
        state.writing = Some((doing, n + 1, since));
        self.live(&mut state, SPINNER, |bar| bar.set_message(message));
    }

    fn trained(&self, event: &Event) {
        let mut state = self.state();
        match event {
            Event::TrainingValidated { step, loss } => {
                state.validation = Some(*loss);
                if self.mode == ScreenMode::Lines {
                    output::note(&format!("validation after step {step}: {loss:.4}"));
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

    fn answered(&self, who: Option<String>, passed: bool, (n_done, n_total): (usize, usize)) {
        let mut state = self.state();
        if state.answers.0 != who {
            state.answers = (who, 0, 0);
        }
        state.answers.1 += 1;
        state.answers.2 += u32::from(passed);
        let rate = 100.0 * f64::from(state.answers.2) / f64::from(state.answers.1);
        if self.mode == ScreenMode::Lines && n_done.is_multiple_of(ANSWERS) {
            output::note(&format!("{n_done} of {n_total} answers, {rate:.1} % passed"));
        }
        self.live(&mut state, BAR, |bar| {
            if bar.position() > n_done as u64 {
                bar.reset(); // another evaluation
            }
            bar.set_length(n_total as u64);
            bar.set_message(format!("answers, {rate:.1} % passed,"));
            bar.set_position(n_done as u64);
        });
    }

    fn pulled_bytes(&self, model: &str, done: u64, total: u64) {
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
                // What was here before this pull says nothing about its speed.
                bar.set_position(done);
                bar.reset_eta();
            }
            bar.set_position(done);
        });
    }

    fn measures(&self, next: &str, (done, total): (usize, usize)) {
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

    /// Changes the live line, and makes it when there is none of this `template`.
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
            let bar = ProgressBar::new(0).with_style(style.expect("the template is well formed"));
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
    /// Whether an event is printed as a JSON line.
    fn has_line(&self, event: &Event) -> bool {
        match event {
            // A token each, and words for a person.
            Event::TextGenerated { .. } | Event::Notice { .. } => false,
            Event::EvaluationAnswered { .. }
            | Event::RehearsalAnswered { .. }
            | Event::BenchProgress { .. } => self.has_progress,
            Event::PullProgress { .. } => is_due(&mut self.state().last_bytes, PULL_PERIOD),
            _ => true,
        }
    }

    /// Shows an event to a person.
    fn show(&self, subject: &str, event: &Event) {
        match event {
            Event::TextGenerated { phase, subtask, .. } => {
                let what = subtask.as_deref().unwrap_or("the task");
                self.wrote_piece(format!("{} {}", phase.as_str(), escape_line(what)));
            }
            Event::Notice { message } => self.say(message),
            Event::EvaluationAnswered { adapter_id, passed, n_done, n_total, .. } => {
                let who = adapter_id.as_ref().map(ToString::to_string);
                self.answered(who, *passed, (*n_done, *n_total));
            }
            Event::RehearsalAnswered { n_done, n_total } => {
                self.live(&mut self.state(), BAR, |bar| {
                    bar.set_length(*n_total as u64);
                    bar.set_message("answers");
                    bar.set_position(*n_done as u64);
                });
            }
            Event::PullProgress { done, total } => self.pulled_bytes(subject, *done, *total),
            Event::BenchProgress { done, total, next } => self.measures(next, (*done, *total)),
            Event::TrainingStep { .. } | Event::TrainingValidated { .. } => self.trained(event),
            _ => {
                if ends_live_line(event) {
                    self.close();
                }
                if matches!(event, Event::TrainingPrepared { .. }) {
                    self.state().validation = None;
                }
                if let Some(line) = event_words(subject, event) {
                    self.say(&output::paint(&line, style(event), self.colors));
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

/// Whether what the live line shows is over.
fn ends_live_line(event: &Event) -> bool {
    matches!(
        event,
        Event::PullCompleted { .. }
            | Event::TrainingPrepared { .. }
            | Event::TrainingCompleted { .. }
    )
}

fn style(event: &Event) -> &'static str {
    match event {
        Event::AttemptCompleted { verdict: AttemptVerdict::Passed, .. } => "32",
        Event::AttemptCompleted { verdict: AttemptVerdict::Failed, .. } | Event::Warning { .. } => {
            "33"
        }
        _ => "0",
    }
}

/// Whether `period` is over since `last`, which then is now.
fn is_due(last: &mut Option<Instant>, period: Duration) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= period);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

/// The last event of a session that an error ends.
pub(super) fn failure(error: &anyhow::Error) -> Event {
    Event::SessionFailed { exit_code: i32::from(exit::code(error)), error: format!("{error:#}") }
}

/// Prints the only JSON line of work that ends before there is a screen.
pub(super) fn print_only_line(event: &Event) {
    let line = EventStream::default().line(&timestamp(SystemTime::now()), "", event);
    let _unread = output::print(&format!("{line}\n"));
}
