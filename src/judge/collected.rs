//! The tests that a framework finds in a suite.

use serde::Deserialize;
use serde::Serialize;

/// The framework that runs the tests of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TestFramework {
    /// Not known yet: to be detected from the files.
    Auto,
    Unittest,
    /// Test functions without arguments, perhaps beside unittest classes: unittest runs both.
    Functions,
    Pytest,
    /// Files of asserts without test functions or classes: each file is one test.
    Script,
}

/// The tests of a suite.
#[derive(Debug, Clone)]
pub(super) struct CollectedTests {
    pub(super) framework: TestFramework,
    /// Node ids, in order.
    pub(super) ids: Vec<String>,
    /// Whether the list is independent of the solution: no test is generated from its values.
    pub(super) is_whole: bool,
}
