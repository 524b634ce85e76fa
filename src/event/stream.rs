//! [`EventStream`]: events as JSON lines.

use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use super::kind::Event;

/// Formats the events of one stream as JSON lines with consecutive numbers.
#[derive(Debug, Clone, Default)]
pub struct EventStream {
    next_seq: u64,
}

impl EventStream {
    /// Returns the next line, without a line break, for an event about `subject` at the time `ts`
    /// (RFC 3339 with milliseconds).
    pub fn line(&mut self, ts: &str, subject: &str, event: &Event) -> String {
        let mut line = json!({ "ts": ts, "seq": self.next_seq, "type": event.kind() });
        self.next_seq += 1;
        line["subject"] = Value::from(subject);
        // The fields of the event are flattened into the envelope.
        if let (Value::Object(line), Ok(Value::Object(fields))) =
            (&mut line, serde_json::to_value(event))
        {
            line.extend(fields);
        }
        line.to_string()
    }
}

/// Formats a time as events, attempts and sessions store it: RFC 3339 UTC with milliseconds.
pub fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
