//! Trajectories as JSON Lines: the session, then its attempts.

use serde::Deserialize;
use serde::Serialize;

use super::Attempt;
use super::Session;

/// Line of an exported trajectory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum TrajectoryLine {
    Session(Box<Session>),
    Attempt(Box<Attempt>),
}

/// Renders a session and its attempts as JSON Lines.
///
/// # Errors
/// [`serde_json::Error`] for a number that JSON does not have, such as NaN.
pub fn to_lines(session: &Session, attempts: &[Attempt]) -> serde_json::Result<String> {
    let session = TrajectoryLine::Session(Box::new(session.clone()));
    let attempts = attempts.iter().map(|one| TrajectoryLine::Attempt(Box::new(one.clone())));
    let lines = std::iter::once(session).chain(attempts);
    lines.map(|line| Ok(serde_json::to_string(&line)? + "\n")).collect()
}

/// Reads what [`to_lines`] has rendered: the session, if there is one, and its attempts.
///
/// # Errors
/// [`serde_json::Error`] for the first line that is neither.
pub fn from_lines(text: &str) -> serde_json::Result<(Option<Session>, Vec<Attempt>)> {
    let (mut session, mut attempts) = (None, Vec::new());
    for line in text.lines() {
        match serde_json::from_str(line)? {
            TrajectoryLine::Session(found) => session = Some(*found),
            TrajectoryLine::Attempt(found) => attempts.push(*found),
        }
    }
    Ok((session, attempts))
}
