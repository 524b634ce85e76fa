//! [`E2eReport`]: what held, and what did not.

use std::fmt::Write as _;

use serde::Serialize;

use crate::error_class::with_causes;

/// A step of the loop. Each needs those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum E2eStep {
    /// The jail holds, and the model is whole.
    Doctor,
    /// A task is solved; one that cannot be is not, and its best candidate is kept.
    Run,
    /// Both sessions are recorded, and exported as they are.
    Sessions,
    /// Adapters are trained; the same data and seed give the same file.
    Train,
    /// An adapter is better than the base on tasks of its own library, and not on another's.
    Evaluate,
    /// Two adapters are merged, and the merge is repeated byte for byte.
    Merge,
    /// What is better is promoted, what is broken archived, and a second call changes nothing.
    Evolve,
    /// The next session uses the promoted adapter, and says why.
    Use,
    /// A session, a training and a publication that were killed are completed.
    Crash,
    /// A swarm that was stopped ends as one that was not.
    Swarm,
    /// Every adapter is as it was stored, and nothing is left behind.
    Integrity,
}

impl E2eStep {
    /// Every step, in order.
    pub const ALL: [Self; 11] = [
        Self::Doctor,
        Self::Run,
        Self::Sessions,
        Self::Train,
        Self::Evaluate,
        Self::Merge,
        Self::Evolve,
        Self::Use,
        Self::Crash,
        Self::Swarm,
        Self::Integrity,
    ];

    /// Returns the name used in JSON and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Doctor => "doctor",
            Self::Run => "run",
            Self::Sessions => "sessions",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
            Self::Merge => "merge",
            Self::Evolve => "evolve",
            Self::Use => "use",
            Self::Crash => "crash",
            Self::Swarm => "swarm",
            Self::Integrity => "integrity",
        }
    }

    /// Returns the fault that the step has to notice.
    pub fn fault(self) -> &'static str {
        match self {
            Self::Doctor => "the file of the model is cut off",
            Self::Run => "the tests ask for 1 + 2 = 4",
            Self::Sessions => "a verdict in the export is changed",
            Self::Train => "the second training has another seed",
            Self::Evaluate => "the adapter of another library is measured",
            Self::Merge => "the repeated adapter is not the merged one",
            Self::Evolve => "the adapters belong to another project",
            Self::Use => "the session belongs to another project",
            Self::Crash => "what was killed is not resumed",
            Self::Swarm => "the stopped swarm is not resumed",
            Self::Integrity => "a process is left behind",
        }
    }
}

/// What a step has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepOutcome {
    /// The step that was taken.
    pub step: E2eStep,
    /// Wall time, in seconds.
    pub seconds: f64,
    /// What was measured and asserted, one line each.
    pub figures: Vec<String>,
    /// What did not hold; `None` if everything did.
    pub failure: Option<String>,
}

/// What all steps have found, up to the first that failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct E2eReport {
    /// Outcomes, in the order of the steps.
    pub steps: Vec<StepOutcome>,
}

impl E2eReport {
    /// Whether every step was taken and held.
    pub fn has_passed(&self) -> bool {
        self.steps.len() == E2eStep::ALL.len()
            && self.steps.iter().all(|step| step.failure.is_none())
    }

    /// Renders the report as JUnit XML. Steps that were not taken count as skipped.
    pub fn to_junit(&self) -> String {
        let n_failed = self.steps.iter().filter(|step| step.failure.is_some()).count();
        let n_skipped = E2eStep::ALL.len() - self.steps.len();
        let seconds: f64 = self.steps.iter().map(|step| step.seconds).sum();
        let counts = format!(
            "tests=\"{}\" failures=\"{n_failed}\" errors=\"0\" skipped=\"{n_skipped}\" \
             time=\"{seconds:.3}\"",
            E2eStep::ALL.len()
        );
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<testsuites {counts}>\n  \
             <testsuite name=\"rune e2e\" {counts}>\n"
        );
        for (index, step) in E2eStep::ALL.into_iter().enumerate() {
            xml += &case(step, self.steps.get(index));
        }
        xml + "  </testsuite>\n</testsuites>\n"
    }
}

/// Renders a step as a test case.
fn case(step: E2eStep, taken: Option<&StepOutcome>) -> String {
    let seconds = taken.map_or(0.0, |taken| taken.seconds);
    let name = step.as_str();
    let mut xml =
        format!("    <testcase classname=\"rune.e2e\" name=\"{name}\" time=\"{seconds:.3}\">\n");
    match taken {
        None => xml += "      <skipped/>\n",
        Some(taken) => {
            if let Some(failure) = &taken.failure {
                let _infallible = writeln!(xml, "      <failure message=\"{}\"/>", escape(failure));
            }
            let figures = escape(&taken.figures.join("; "));
            let _infallible = writeln!(xml, "      <system-out>{figures}</system-out>");
        }
    }
    xml + "    </testcase>\n"
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Why a step has failed.
#[derive(Debug)]
pub(super) struct StepFailure(pub(super) String);

/// What a step asserts, as lines; or why it has failed.
pub(super) type StepResult = Result<Vec<String>, StepFailure>;

impl<E: std::error::Error> From<E> for StepFailure {
    fn from(error: E) -> Self {
        Self(with_causes(&error))
    }
}

/// Fails with `what` unless `is_met`.
pub(super) fn ensure(is_met: bool, what: impl FnOnce() -> String) -> Result<(), StepFailure> {
    if is_met { Ok(()) } else { Err(StepFailure(what())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_not_taken_is_no_success() {
        let outcome = |step, failure| StepOutcome {
            step,
            seconds: 1.5,
            figures: vec!["1 < 2".to_owned()],
            failure,
        };
        let all = E2eStep::ALL.map(|step| outcome(step, None)).to_vec();
        assert!(E2eReport { steps: all.clone() }.has_passed());
        assert!(!E2eReport { steps: all[..10].to_vec() }.has_passed());
        let failure = Some("\"a\" & b".to_owned());
        let failed = E2eReport { steps: vec![all[0].clone(), outcome(E2eStep::Run, failure)] };
        assert!(!failed.has_passed());
        let xml = failed.to_junit();
        assert!(
            xml.contains("tests=\"11\" failures=\"1\" errors=\"0\" skipped=\"9\" time=\"3.000\"")
        );
        assert!(xml.contains("<failure message=\"&quot;a&quot; &amp; b\"/>"), "{xml}");
        assert!(xml.contains("<system-out>1 &lt; 2</system-out>"), "{xml}");
        assert_eq!(xml.matches("<skipped/>").count(), 9);
    }
}
