//! A check of a function: questions and expected results.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::judge::value::PlainValue;

/// One in this many questions is repeated at the end, on average. A function that depends only on
/// its arguments gives the same answer again.
const REPEATED_ONE_IN: usize = 20;

/// The specification of a function: its name and the source of its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionTask {
    /// Name of the function.
    pub entry_point: String,
    /// Code that the check needs, such as imports and helpers, without the function itself.
    pub prelude: String,
    /// Asserts that call the function by its name, or a function `check(candidate)` with such
    /// asserts.
    pub test: String,
}

impl FunctionTask {
    /// Builds the order for the oracle: `(prelude, test, entry point, nonce)`.
    pub(super) fn order(&self, nonce: &str) -> PlainValue {
        let parts = [self.prelude.as_str(), &self.test, &self.entry_point, nonce];
        PlainValue::Tuple(parts.map(PlainValue::text).into())
    }
}

/// A check that is ready to be used any number of times.
#[derive(Debug, Clone)]
pub struct PreparedCheck {
    pub(super) task: FunctionTask,
    /// The check as questions; `None` if it has to be run.
    pub(super) questions: Option<Arc<[CallQuestion]>>,
    /// CPU time limit of a solution, if a reference was measured.
    pub(super) cpu: Option<Duration>,
}

impl PreparedCheck {
    /// Whether the check is a list of questions, so that no second process is needed.
    pub fn is_data(&self) -> bool {
        self.questions.is_some()
    }

    /// Builds the order for the process with the judged code: `(source, entry point, calls)`; the
    /// calls are `None` for a conversation.
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
    /// The arguments of the call, `(args, kwargs)`.
    pub(super) call: PlainValue,
    pub(super) expected: ExpectedResult,
}

impl CallQuestion {
    /// Parses `(kind, args, kwargs, expected, bound)`.
    pub(super) fn parse(value: PlainValue) -> Option<Self> {
        let PlainValue::Tuple(parts) = value else { return None };
        let [kind, args, kwargs, expected, bound] = <[PlainValue; 5]>::try_from(parts).ok()?;
        let PlainValue::Text(kind) = kind else { return None };
        let expected = match kind.as_slice() {
            b"equal" => ExpectedResult::Equal(expected),
            b"is" => ExpectedResult::Is(expected),
            b"true" => ExpectedResult::True,
            b"false" => ExpectedResult::False,
            b"near" => ExpectedResult::Near(expected.number()?, bound.number()?),
            _ => return None,
        };
        Some(Self { call: PlainValue::Tuple(vec![args, kwargs]), expected })
    }
}

/// The expected result of a call.
#[derive(Debug, Clone)]
pub(super) enum ExpectedResult {
    /// Equal in Python's sense (`==`).
    Equal(PlainValue),
    /// Identical (`is`) to `None`, `True` or `False`.
    Is(PlainValue),
    True,
    False,
    /// Within a bound (the second number, exclusive) of a number.
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

/// The order of questions, as indices.
#[derive(Debug)]
pub(super) struct QuestionOrder {
    /// Each question once, shuffled.
    pub(super) order: Vec<usize>,
    /// Questions that are repeated afterwards.
    pub(super) again: Vec<usize>,
}

impl QuestionOrder {
    /// Draws an order for `n` questions, determined by `seed`.
    pub(super) fn draw(n: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..n).collect();
        shuffle(&mut order, seed);
        // A different stream than that of the shuffle.
        let mut rng = QuestionRng(!seed);
        let again = order.iter().copied().filter(|_| rng.below(REPEATED_ONE_IN) == 0).collect();
        Self { order, again }
    }

    /// Lists the calls of `questions` in this order.
    pub(super) fn calls(&self, questions: &[CallQuestion]) -> PlainValue {
        let indices = self.order.iter().chain(&self.again);
        PlainValue::List(indices.map(|index| questions[*index].call.clone()).collect())
    }
}

/// A seeded random number generator: a linear congruential generator with Knuth's constants for
/// MMIX (TAOCP volume 2, 3.3.4).
struct QuestionRng(u64);

impl QuestionRng {
    /// Draws a number of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The low bits of such a generator have short periods.
        usize::try_from(self.0 >> 33).unwrap_or(0) % n
    }
}

/// Shuffles the indices (Fisher-Yates).
fn shuffle(order: &mut [usize], seed: u64) {
    let mut rng = QuestionRng(seed);
    for last in (1..order.len()).rev() {
        order.swap(last, rng.below(last + 1));
    }
}
