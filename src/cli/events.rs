//! `rune events`.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::output::escape_line;
use crate::event::Event;
use crate::event::SCHEMA;
use crate::registry::StoredEvent;

/// Pause between two polls for new events.
const POLL: Duration = Duration::from_millis(200);
/// Maximum events per database query.
const PAGE: u32 = 500;

/// Print recorded events (CloudEvents 1.0 with --json)
#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Print only the events of this session
    session: Option<String>,
    /// Keep printing new events; stops when the given session ends
    #[arg(long, short)]
    follow: bool,
    /// Print only events after this sequence number
    #[arg(long, visible_alias = "since", value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// Print only the JSON schema of the event lines of `rune run --json` and other commands
    #[arg(long, conflicts_with_all = ["session", "follow", "after"])]
    schema: bool,
}

pub(super) fn run(context: &Context, args: &EventsArgs) -> anyhow::Result<ExitCode> {
    if args.schema {
        output::print(SCHEMA)?;
        return Ok(ExitCode::SUCCESS);
    }
    let registry = context.registry()?;
    let session = args.session.as_deref();
    if let Some(id) = session {
        registry.session(id)?;
    }
    let mut after = args.after;
    loop {
        let events = registry.events(after, session, PAGE)?;
        for event in &events {
            output::print(&line(event, context.json)?)?;
            after = event.seq;
        }
        // Only the last event counts: a failed session may have been resumed after its end.
        let is_over = session.is_some() && events.last().is_some_and(ends_session);
        match (events.is_empty(), args.follow && !is_over) {
            (true, true) => thread::sleep(POLL),
            (true, false) => return Ok(ExitCode::SUCCESS),
            (false, _) if is_over && args.follow => return Ok(ExitCode::SUCCESS),
            (false, _) => {}
        }
    }
}

fn ends_session(event: &StoredEvent) -> bool {
    matches!(event.data, Event::SessionCompleted { .. } | Event::SessionFailed { .. })
}

fn line(event: &StoredEvent, json: bool) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(event)?;
    if json {
        value["specversion"] = Value::from("1.0");
        return Ok(format!("{value}\n"));
    }
    let mut data = value["data"].take();
    if let Value::Object(fields) = &mut data {
        fields.remove("type");
    }
    let StoredEvent { seq, time, subject, .. } = event;
    let data = data.to_string();
    Ok(format!("{seq:>6}  {time}  {subject}  {}  {}\n", event.data.kind(), escape_line(&data)))
}
