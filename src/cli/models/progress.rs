//! How a pull shows itself: a bar on a terminal, else a line a second, or JSON lines.

use std::io;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde_json::Value;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output;
use crate::hub::Progress;
use crate::hub::Reporter;

/// Between two lines of progress where there is no terminal.
const PERIOD: Duration = Duration::from_secs(1);

/// What is told of a pull to this user.
pub(super) fn reporter(context: &Context, model: &str) -> Reporter {
    let model = model.to_owned();
    if context.json {
        let pace = Pace::default();
        return Arc::new(move |progress| json_line(&model, &progress, &pace));
    }
    if context.quiet {
        return Arc::new(|_| {});
    }
    if io::stderr().is_terminal() {
        let bar = ProgressBar::new(0).with_style(style());
        return Arc::new(move |progress| draw(&bar, &model, progress));
    }
    let pace = Pace::default();
    Arc::new(move |progress| plain_line(&model, &progress, &pace))
}

/// As [`reporter`], but for a pull on the way to something else: nothing goes to stdout.
pub(in crate::cli) fn quiet_reporter(context: &Context, model: &str) -> Reporter {
    if context.json { Arc::new(|_| {}) } else { reporter(context, model) }
}

/// Lets one thing through a second.
#[derive(Debug, Default)]
struct Pace(Mutex<Option<Instant>>);

impl Pace {
    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= PERIOD);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

fn json_line(model: &str, progress: &Progress, pace: &Pace) {
    let mut line = match progress {
        Progress::Bytes { .. } if !pace.is_due() => return,
        Progress::Bytes { done, total } => {
            json!({ "type": "pull.progress", "done": done, "total": total })
        }
        Progress::Waiting => json!({ "type": "pull.waiting" }),
        Progress::Trying { source } => json!({ "type": "pull.trying", "source": source }),
        Progress::Verifying => json!({ "type": "pull.verifying" }),
        Progress::Failed { source, reason } => {
            json!({ "type": "pull.failed", "source": source, "reason": reason })
        }
        Progress::Placed { source } => json!({ "type": "pull.completed", "source": source }),
    };
    line["model"] = Value::from(model);
    // The pull goes on when nobody reads of it.
    let _unread = output::print(&format!("{line}\n"));
}

fn plain_line(model: &str, progress: &Progress, pace: &Pace) {
    match progress {
        Progress::Bytes { done, total } => {
            if pace.is_due() {
                let percent = done * 100 / total.max(&1);
                output::note(&format!(
                    "{model}: {} of {} MB ({percent} %)",
                    done / 1_000_000,
                    total / 1_000_000
                ));
            }
        }
        other => output::note(&words(model, other)),
    }
}

fn draw(bar: &ProgressBar, model: &str, progress: Progress) {
    match progress {
        Progress::Bytes { done, total } => {
            if bar.length() != Some(total) {
                bar.set_length(total);
                bar.set_message(model.to_owned());
                // What was here before this pull says nothing about its speed.
                bar.set_position(done);
                bar.reset_eta();
            }
            bar.set_position(done);
        }
        Progress::Placed { .. } => {
            bar.finish_and_clear();
            output::note(&words(model, &progress));
        }
        other => bar.suspend(|| output::note(&words(model, &other))),
    }
}

fn words(model: &str, progress: &Progress) -> String {
    match progress {
        Progress::Waiting => format!("{model}: another rune is pulling it, waiting"),
        Progress::Trying { source } => format!("{model}: trying the {source}"),
        Progress::Verifying => format!("{model}: checking the digest"),
        Progress::Failed { source, reason } => format!("{model}: {source} failed: {reason}"),
        Progress::Placed { source: "here" } => format!("{model}: here already"),
        Progress::Placed { source } => {
            format!("{model}: pulled from the {source}, digest as pinned")
        }
        Progress::Bytes { done, total } => format!("{model}: {done} of {total} bytes"),
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .expect("the template is well formed")
}
