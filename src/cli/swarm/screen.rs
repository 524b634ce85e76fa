//! [`SwarmScreen`]: one live line an agent, one for training, one for measuring, one for the queue.
//! Without a terminal, one line for each thing that happens.

use std::collections::BTreeMap;
use std::io;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::output::escape_line;
use crate::cli::screen::Screen;
use crate::cli::screen::step_words;
use crate::event::Event;
use crate::event::Reporter;
use crate::job::JobState;

/// Pause between two lines about progress without a terminal.
const PERIOD: Duration = Duration::from_mins(1);
/// Maximum characters of a task on a line.
const TASK_WIDTH: usize = 40;

/// Reporter of a swarm.
pub(super) struct SwarmScreen {
    /// Prints JSON lines, if they are wanted.
    json: Option<Screen>,
    is_quiet: bool,
    live: Option<MultiProgress>,
    state: Mutex<SwarmLines>,
}

/// The live lines.
#[derive(Default)]
struct SwarmLines {
    /// Line of each running session, by its id.
    agents: BTreeMap<String, AgentLine>,
    training: Option<ProgressBar>,
    measuring: Option<ProgressBar>,
    queue: Option<ProgressBar>,
    validation: Option<f64>,
    /// Time of the last line about progress.
    last: Option<Instant>,
}

/// What an agent does.
struct AgentLine {
    bar: Option<ProgressBar>,
    task: String,
    phase: &'static str,
    n_pieces: u32,
    started: Instant,
    verdict: String,
}

impl AgentLine {
    fn new(bar: Option<ProgressBar>, task: String) -> Self {
        let started = Instant::now();
        Self { bar, task, phase: "starts", n_pieces: 0, started, verdict: String::new() }
    }

    fn draw(&self) {
        let Some(bar) = &self.bar else { return };
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = if seconds > 0.2 { f64::from(self.n_pieces) / seconds } else { 0.0 };
        let Self { task, phase, verdict, .. } = self;
        bar.set_message(format!("{task:<TASK_WIDTH$} {phase:<9} {rate:>4.0} tok/s  {verdict}"));
    }
}

impl SwarmScreen {
    pub(super) fn new(context: &Context) -> Self {
        let is_terminal = io::stderr().is_terminal() && !context.quiet && !context.json;
        Self {
            json: context.json.then(|| Screen::new(context)),
            is_quiet: context.quiet,
            live: is_terminal.then(MultiProgress::new),
            state: Mutex::default(),
        }
    }

    /// Prints a result to stdout after removing the live lines.
    pub(super) fn print(&self, text: &str) -> io::Result<()> {
        self.close();
        output::print(text)
    }

    /// Removes the live lines.
    pub(super) fn close(&self) {
        if let Some(live) = &self.live {
            *self.state() = SwarmLines::default();
            let _unseen = live.clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.live {
            _ if self.is_quiet => {}
            Some(live) => live.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Adds a live line above that of the queue.
    fn line(&self, state: &SwarmLines, template: &str) -> Option<ProgressBar> {
        let live = self.live.as_ref()?;
        let style = ProgressStyle::with_template(template).expect("the templates are valid");
        let bar = ProgressBar::new(0).with_style(style);
        Some(match &state.queue {
            Some(queue) => live.insert_before(queue, bar),
            None => live.add(bar),
        })
    }

    fn show_agent(&self, session_id: &str, event: &Event) {
        let mut state = self.state();
        match event {
            Event::SessionStarted { task, .. } => {
                let bar = self.line(&state, "  {elapsed:>4} {wide_msg}");
                let agent = AgentLine::new(bar, short(task));
                agent.draw();
                state.agents.insert(session_id.to_owned(), agent);
            }
            Event::SessionResumed { .. } => {
                let bar = self.line(&state, "  {elapsed:>4} {wide_msg}");
                state.agents.insert(session_id.to_owned(), AgentLine::new(bar, short(session_id)));
            }
            Event::PhaseStarted { phase, .. } => {
                if let Some(agent) = state.agents.get_mut(session_id) {
                    (agent.phase, agent.n_pieces, agent.started) =
                        (phase.as_str(), 0, Instant::now());
                    agent.draw();
                }
            }
            Event::TextGenerated { .. } => {
                if let Some(agent) = state.agents.get_mut(session_id) {
                    agent.n_pieces += 1;
                    agent.draw();
                }
            }
            Event::AttemptCompleted { summary, .. } => {
                if let Some(agent) = state.agents.get_mut(session_id) {
                    agent.verdict = short(summary);
                    agent.draw();
                }
            }
            Event::SessionCompleted { summary, .. } => {
                let ended = self.end_agent(&mut state, session_id);
                drop(state);
                self.say(&format!("{ended}: {}", escape_line(summary)));
            }
            Event::SessionFailed { error, .. } => {
                let ended = self.end_agent(&mut state, session_id);
                drop(state);
                self.say(&format!("{ended}: {}", escape_line(error)));
            }
            _ => {}
        }
    }

    /// Removes the line of an agent, and returns what it was about.
    fn end_agent(&self, state: &mut SwarmLines, session_id: &str) -> String {
        let Some(agent) = state.agents.remove(session_id) else { return session_id.to_owned() };
        self.remove(agent.bar.as_ref());
        agent.task
    }

    fn show_training(&self, event: &Event) {
        let mut state = self.state();
        match event {
            Event::TrainingValidated { loss, .. } => state.validation = Some(*loss),
            Event::TrainingStep { step, total, .. } => {
                let words = step_words(event, state.validation);
                if state.training.is_none() {
                    state.training =
                        self.line(&state, "training {bar:20} {pos}/{len} {msg} eta {eta}");
                }
                if let Some(bar) = &state.training {
                    bar.set_length(u64::from(*total));
                    bar.set_position(u64::from(*step));
                    bar.set_message(words);
                } else if is_due(&mut state.last) {
                    drop(state);
                    self.say(&format!("training: step {step} of {total}, {words}"));
                }
            }
            _ => self.remove(state.training.take().as_ref()),
        }
    }

    fn show_answer(&self, n_done: usize, n_total: usize) {
        let mut state = self.state();
        if state.measuring.is_none() {
            state.measuring = self.line(&state, "measuring {bar:20} {pos}/{len} answers eta {eta}");
        }
        if let Some(bar) = &state.measuring {
            bar.set_length(n_total as u64);
            bar.set_position(n_done as u64);
        } else if is_due(&mut state.last) {
            // `say` draws the live lines again, so the lock is released first.
            drop(state);
            return self.say(&format!("measuring: {n_done} of {n_total} answers"));
        }
        if n_done == n_total {
            self.remove(state.measuring.take().as_ref());
        }
    }

    /// Removes a live line, if there is one.
    fn remove(&self, bar: Option<&ProgressBar>) {
        if let (Some(live), Some(bar)) = (&self.live, bar) {
            live.remove(bar);
        }
    }

    fn show_progress(&self, event: &Event) {
        let Some(words) = progress_words(event) else { return };
        let mut state = self.state();
        if let Some(live) = &self.live {
            let style = ProgressStyle::with_template("{elapsed} {wide_msg}");
            let new = || live.add(ProgressBar::new(0).with_style(style.expect("it is valid")));
            state.queue.get_or_insert_with(new).set_message(words);
        } else if is_due(&mut state.last) {
            drop(state);
            self.say(&words);
        }
    }

    fn state(&self) -> MutexGuard<'_, SwarmLines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter for SwarmScreen {
    fn report(&self, subject: &str, event: &Event) {
        if let Some(screen) = &self.json {
            return screen.report(subject, event);
        }
        match event {
            Event::SwarmProgress { .. } => self.show_progress(event),
            Event::TrainingStep { .. }
            | Event::TrainingValidated { .. }
            | Event::TrainingCompleted { .. }
            | Event::TrainingFailed { .. } => {
                self.show_training(event);
                if let Some(words) = event_words(subject, event) {
                    self.say(&words);
                }
            }
            Event::EvaluationAnswered { n_done, n_total, .. } => {
                self.show_answer(*n_done, *n_total);
            }
            Event::Notice { message } if subject.is_empty() => self.say(message),
            _ => match event_words(subject, event) {
                Some(words) => self.say(&words),
                None => self.show_agent(subject, event),
            },
        }
    }
}

/// Describes an event of the swarm itself in one line.
fn event_words(subject: &str, event: &Event) -> Option<String> {
    Some(match event {
        Event::SwarmStarted { suite, n_tasks, generations } => {
            format!(
                "swarm {subject}: {n_tasks} tasks of `{suite}`, up to {generations} generations"
            )
        }
        Event::SwarmResumed { generation } => {
            format!("swarm {subject} goes on with generation {generation}")
        }
        Event::SwarmGenerationStarted { generation, n_tasks } => {
            format!("generation {generation}: {n_tasks} tasks are tried again")
        }
        Event::SwarmEnded { status, reason } => format!("swarm {status}: {reason}"),
        Event::JobChanged { kind, state, error: Some(error), .. } => {
            let then = match state {
                JobState::Queued => "tried again later",
                state => state.as_str(),
            };
            format!("{} {subject} ({then}): {}", kind.as_str(), escape_line(error))
        }
        Event::TrainingStarted { .. } => format!("training run {subject}"),
        Event::TrainingCompleted { adapter_id } => format!("trained adapter {adapter_id}"),
        Event::EvolutionDecided { kind, decision, other, .. } => {
            let other = other.as_ref().map(|id| format!(" against {id}")).unwrap_or_default();
            format!("{} of {subject}{other}: {decision}", kind.as_str())
        }
        _ => return None,
    })
}

/// Describes the queue and the machine in one line.
fn progress_words(event: &Event) -> Option<String> {
    let Event::SwarmProgress {
        generation,
        n_queued,
        n_running,
        n_ended,
        n_solved,
        rss,
        available,
        paused,
    } = event
    else {
        return None;
    };
    let paused = paused.as_ref().map(|why| format!(", paused: {why}")).unwrap_or_default();
    let gib = |bytes: u64| format!("{}.{} GiB", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30);
    Some(format!(
        "generation {generation}: {n_ended} ended, {n_running} at work, {n_queued} waiting; \
         {n_solved} solved; {} used, {} left{paused}",
        gib(*rss),
        gib(*available),
    ))
}

/// Returns the first line of a text, shortened.
fn short(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    escape_line(&line.chars().take(TASK_WIDTH).collect::<String>()).into_owned()
}

/// Whether the last line about progress is long ago; if so, it is now.
fn is_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= PERIOD);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}
