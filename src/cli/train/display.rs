//! How a run shows itself: a bar on a terminal, else a line every few seconds, or JSON lines.

use std::cell::Cell;
use std::io;
use std::io::IsTerminal;
use std::time::Duration;
use std::time::Instant;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde_json::Value;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output;
use crate::training::Report;

/// Between two lines of progress where there is no terminal.
const PERIOD: Duration = Duration::from_secs(5);

/// Where progress goes.
pub(super) enum Display {
    Quiet,
    Json { run: String },
    Bar(ProgressBar, Cell<Option<f64>>),
    Lines(Cell<Option<Instant>>, Cell<Option<f64>>),
}

impl Display {
    pub(super) fn new(context: &Context, run: &str) -> Self {
        if context.json {
            return Self::Json { run: run.to_owned() };
        }
        if context.quiet {
            return Self::Quiet;
        }
        if !io::stderr().is_terminal() {
            return Self::Lines(Cell::new(None), Cell::new(None));
        }
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} eta {eta}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self::Bar(ProgressBar::new(0).with_style(style), Cell::new(None))
    }

    pub(super) fn show(&self, report: &Report) {
        match self {
            Self::Quiet => {}
            Self::Json { run } => {
                let Ok(mut line) = serde_json::to_value(report) else { return };
                let kind = line["type"].as_str().unwrap_or_default().to_owned();
                if kind == "heartbeat" {
                    return;
                }
                line["type"] = Value::from(format!("train.{kind}"));
                line["run"] = Value::from(run.as_str());
                // The run goes on when nobody reads of it.
                let _unread = output::print(&format!("{line}\n"));
            }
            Self::Bar(bar, validation) => {
                if let Report::Eval { loss, .. } = report {
                    validation.set(Some(*loss));
                }
                if let Report::Step { step, total, .. } = report {
                    bar.set_length(u64::from(*total));
                    bar.set_message(words(report, validation.get()));
                    bar.set_position(u64::from(*step));
                }
            }
            Self::Lines(last, validation) => {
                let is_due = last.get().is_none_or(|last| last.elapsed() >= PERIOD);
                match report {
                    Report::Step { step, total, .. } if is_due || step == total => {
                        last.set(Some(Instant::now()));
                        output::note(&format!(
                            "step {step}/{total} {}",
                            words(report, validation.get())
                        ));
                    }
                    Report::Eval { step, loss } => {
                        validation.set(Some(*loss));
                        output::note(&format!("validation after step {step}: {loss:.4}"));
                    }
                    Report::Started { trainable, tokens, memory_estimate, .. } => {
                        output::note(&format!(
                            "training {trainable} numbers on {tokens} tokens, some {} MiB",
                            memory_estimate >> 20
                        ));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The last JSON line.
    pub(super) fn end(&self, line: &Value) {
        if let Self::Json { run } = self {
            let mut line = line.clone();
            line["run"] = json!(run);
            let _unread = output::print(&format!("{line}\n"));
        }
        self.close();
    }

    pub(super) fn close(&self) {
        if let Self::Bar(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}

fn words(report: &Report, validation: Option<f64>) -> String {
    let Report::Step { loss, lr, tokens_per_s, rss, .. } = report else { return String::new() };
    let validation = validation.map(|loss| format!(" val {loss:.3}")).unwrap_or_default();
    format!("loss {loss:.3}{validation} lr {lr:.1e} {tokens_per_s:.0} tok/s {} MiB", rss >> 20)
}
