//! A check of a function: what is asked of it, and what has to come back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::judge::value::PlainValue;

/// The chance that a question is asked a second time at the end is one in this many. A function of
/// its arguments gives the same answer again.
const REPEATED_ONE_IN: usize = 20;

/// What a function has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionTask {
    /// Its name.
    pub entry_point: String,
    /// Code that the check needs, without the function itself: imports, helpers.
    pub prelude: String,
    /// Asserts that call the function by its name, or a function `check(candidate)` with such
    /// asserts.
    pub test: String,
}

impl FunctionTask {
    /// The order for the oracle: `(prelude, test, entry point, nonce)`.
    pub(super) fn order(&self, nonce: &str) -> PlainValue {
        let parts = [self.prelude.as_str(), &self.test, &self.entry_point, nonce];
        PlainValue::Tuple(parts.map(PlainValue::text).into())
    }
}

/// A check, ready to be used any number of times.
#[derive(Debug, Clone)]
pub struct PreparedCheck {
    pub(super) task: FunctionTask,
    /// `None` where the check has to be run.
    pub(super) questions: Option<Arc<[CallQuestion]>>,
    /// Processor time that a solution may take, where it is known for the task.
    pub(super) cpu: Option<Duration>,
}

impl PreparedCheck {
    /// Whether it is a list of questions, so that no second process is needed.
    pub fn is_data(&self) -> bool {
        self.questions.is_some()
    }

    /// The order for the process with the judged code: `(source, entry point, calls)`; no calls for
    /// a conversation.
    pub(super) fn order(&self, solution: &str, calls: PlainValue) -> PlainValue {
        PlainValue::Tuple(vec![
            PlainValue::text(solution),
            PlainValue::text(&self.task.entry_point),
            calls,
        ])
    }
}

/// A call and the expected result.
#[derive(Debug, Clone)]
pub(super) struct CallQuestion {
    /// `(args, kwargs)`.
    pub(super) call: PlainValue,
    pub(super) wanted: ExpectedResult,
}

impl CallQuestion {
    /// Reads `(kind, args, kwargs, expected, bound)`.
    pub(super) fn parse(value: PlainValue) -> Option<Self> {
        let PlainValue::Tuple(parts) = value else { return None };
        let [kind, args, kwargs, expected, bound] = <[PlainValue; 5]>::try_from(parts).ok()?;
        let PlainValue::Text(kind) = kind else { return None };
        let wanted = match kind.as_slice() {
            b"equal" => ExpectedResult::Equal(expected),
            b"is" => ExpectedResult::Is(expected),
            b"true" => ExpectedResult::True,
            b"false" => ExpectedResult::False,
            b"near" => ExpectedResult::Near(expected.number()?, bound.number()?),
            _ => return None,
        };
        Some(Self { call: PlainValue::Tuple(vec![args, kwargs]), wanted })
    }
}

/// What a result has to be.
#[derive(Debug, Clone)]
pub(super) enum ExpectedResult {
    Equal(PlainValue),
    /// `None`, `True` or `False` itself.
    Is(PlainValue),
    True,
    False,
    /// Nearer to a number than a bound.
    Near(f64, f64),
}

impl ExpectedResult {
    pub(super) fn holds(&self, found: &PlainValue) -> bool {
        match self {
            Self::Equal(value) => found.equals(value),
            Self::Is(value) => found == value,
            Self::True => found.is_true(),
            Self::False => !found.is_true(),
            Self::Near(value, bound) => {
                found.number().is_some_and(|number| (number - value).abs() < *bound)
            }
        }
    }
}

impl fmt::Display for ExpectedResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(value) | Self::Is(value) => value.fmt(f),
            Self::True => f.write_str("something true"),
            Self::False => f.write_str("something false"),
            Self::Near(value, bound) => write!(f, "{value:?} to within {bound:?}"),
        }
    }
}

/// The order in which questions are asked, as indices.
#[derive(Debug)]
pub(super) struct QuestionOrder {
    /// Each question once, shuffled.
    pub(super) order: Vec<usize>,
    /// Those that are asked again afterwards.
    pub(super) again: Vec<usize>,
}

impl QuestionOrder {
    /// Draws an order for `n` questions; the same for the same seed.
    pub(super) fn draw(n: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..n).collect();
        shuffle(&mut order, seed);
        let mut chance = QuestionRng(!seed);
        let again = order.iter().copied().filter(|_| chance.below(REPEATED_ONE_IN) == 0).collect();
        Self { order, again }
    }

    /// The calls in this order.
    pub(super) fn calls(&self, questions: &[CallQuestion]) -> PlainValue {
        let indices = self.order.iter().chain(&self.again);
        PlainValue::List(indices.map(|index| questions[*index].call.clone()).collect())
    }
}

/// Random numbers that a seed gives again (Knuth's MMIX generator, the upper bits).
struct QuestionRng(u64);

impl QuestionRng {
    /// One of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % n
    }
}

/// Puts the indices into a random order (Fisher and Yates).
fn shuffle(order: &mut [usize], seed: u64) {
    let mut chance = QuestionRng(seed);
    for last in (1..order.len()).rev() {
        order.swap(last, chance.below(last + 1));
    }
}
