//! What the frameworks find in a suite.

use serde::Deserialize;
use serde::Serialize;

/// What runs the tests of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TestFramework {
    /// Whichever the files need: to be found out.
    Auto,
    Unittest,
    /// Test functions that take nothing, and unittest's classes beside them: unittest runs both.
    Functions,
    Pytest,
    /// Files of asserts without a test function or class: each is one test.
    Script,
}

/// The tests of a suite.
#[derive(Debug, Clone)]
pub(super) struct CollectedTests {
    pub(super) framework: TestFramework,
    /// Node ids, in order.
    pub(super) ids: Vec<String>,
    /// Whether they depend on nothing that the solution decides.
    pub(super) is_whole: bool,
}
