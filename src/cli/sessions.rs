//! `rune sessions`.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::Value;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::output::escape;
use crate::cli::output::escape_line;
use crate::registry::SessionFilter;
use crate::trajectory::Attempt;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;

/// List, show and export recorded sessions
#[derive(Debug, clap::Subcommand)]
pub(super) enum SessionsArgs {
    /// List sessions, newest first
    List {
        /// List only sessions with this status
        #[arg(long)]
        status: Option<StatusName>,
        /// List only sessions of this project
        #[arg(long)]
        project: Option<String>,
        /// Maximum number of sessions
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Print a session and its attempts
    Show {
        /// Session id
        id: String,
    },
    /// Print a session as JSON lines: the session, then every attempt in full
    Export {
        /// Session id
        id: String,
    },
}

/// Session status, as spelled on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum StatusName {
    Running,
    Interrupted,
    Solved,
    Unsolved,
    Failed,
}

impl From<StatusName> for SessionStatus {
    fn from(name: StatusName) -> Self {
        match name {
            StatusName::Running => Self::Running,
            StatusName::Interrupted => Self::Interrupted,
            StatusName::Solved => Self::Solved,
            StatusName::Unsolved => Self::Unsolved,
            StatusName::Failed => Self::Failed,
        }
    }
}

pub(super) fn run(context: &Context, args: &SessionsArgs) -> anyhow::Result<ExitCode> {
    let registry = context.registry()?;
    let text = match args {
        SessionsArgs::List { status, project, limit } => {
            let filter =
                SessionFilter { status: status.map(SessionStatus::from), project: project.clone() };
            list(context, &registry.sessions(&filter, *limit)?)
        }
        SessionsArgs::Show { id } if !context.json => {
            show(&registry.session(id)?, &registry.attempts(id)?)
        }
        SessionsArgs::Show { id } | SessionsArgs::Export { id } => {
            export(&registry.session(id)?, &registry.attempts(id)?)?
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context, sessions: &[Session]) -> String {
    if context.json {
        return sessions.iter().map(|session| json!(session).to_string() + "\n").collect();
    }
    if sessions.is_empty() && !context.quiet {
        output::note("no sessions yet: `rune run` starts one");
        return String::new();
    }
    let head = ["ID", "STATUS", "STARTED", "MODEL", "TOKENS", "TASK"].map(str::to_owned).to_vec();
    let rows = sessions.iter().map(|session| {
        vec![
            session.id.clone(),
            session.status.as_str().to_owned(),
            session.started_at.chars().take(19).collect(),
            escape_line(&session.base_model).into_owned(),
            session.tokens_out.to_string(),
            first_line(&session.task.text),
        ]
    });
    output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn show(session: &Session, attempts: &[Attempt]) -> String {
    let adapter = session.adapter_id.as_ref().map_or("none", |id| id.as_str());
    let code = session.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    let rows = [
        ("session", session.id.clone()),
        ("status", format!("{} ({}){code}", session.status.as_str(), verification(session))),
        ("project", session.project.clone()),
        ("model", format!("{} by {}", session.base_model, session.provider)),
        ("adapter", format!("{adapter} ({})", session.adapter_reason)),
        ("memory", memory(session)),
        ("documents", documents(session)),
        ("sandbox", session.sandbox_tier.clone()),
        ("seed", session.seed.to_string()),
        ("tokens", format!("{} in, {} out", session.tokens_in, session.tokens_out)),
        ("started", session.started_at.clone()),
        ("ended", session.ended_at.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), escape_line(&value).into_owned()]);
    let attempts: Vec<_> = attempts.iter().map(attempt_row).collect();
    format!(
        "{}\n{}\n\n{}",
        output::table(&rows),
        escape(session.task.text.trim()),
        output::table(&attempts)
    )
}

/// Such as `01k9x3 (similarity 0.82), 01k9wz (similarity 0.61)`.
fn memory(session: &Session) -> String {
    let shown: Vec<String> = session.memory.iter().map(ToString::to_string).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

/// Such as `README.md (passages: 2), zorb (passages: 1)`.
fn documents(session: &Session) -> String {
    let mut sources: Vec<(&str, usize)> = Vec::new();
    for passage in &session.passages {
        match sources.last_mut() {
            Some((source, n)) if *source == passage.source => *n += 1,
            _ => sources.push((&passage.source, 1)),
        }
    }
    let shown = sources.iter().map(|(source, n)| format!("{source} (passages: {n})"));
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

/// Such as `verified by user_tests, decided in a separate process`.
fn verification(session: &Session) -> String {
    let verified_by = format!("verified by {}", session.verified_by.as_str());
    session.assurance.map_or(verified_by.clone(), |assurance| format!("{verified_by}, {assurance}"))
}

fn attempt_row(attempt: &Attempt) -> Vec<String> {
    let completion = &attempt.completion;
    vec![
        format!("{:>3}", attempt.seq),
        attempt.phase.as_str().to_owned(),
        escape_line(attempt.subtask.as_deref().unwrap_or("-")).into_owned(),
        format!("#{}", attempt.candidate),
        format!("{} tokens", completion.tokens_out),
        format!("{:.1} s", seconds(completion.prefill_ms + completion.decode_ms)),
        attempt.verdict.as_str().to_owned(),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a time to be read, not to be reckoned with")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

fn export(session: &Session, attempts: &[Attempt]) -> anyhow::Result<String> {
    let tagged = |kind: &str, value: Value| {
        let mut line = json!({ "type": kind });
        if let (Value::Object(line), Value::Object(fields)) = (&mut line, value) {
            line.extend(fields);
        }
        format!("{line}\n")
    };
    let mut text = tagged("session", serde_json::to_value(session)?);
    for attempt in attempts {
        text += &tagged("attempt", serde_json::to_value(attempt)?);
    }
    Ok(text)
}

/// The first line of a task, cut to what fits beside the other columns.
fn first_line(text: &str) -> String {
    let line = escape_line(text.trim().lines().next().unwrap_or_default()).into_owned();
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
