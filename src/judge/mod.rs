//! Verdicts on Python code, decided outside the judged process.
//!
//! [`Judge::run_suite`] runs a user's tests against a solution in a jail, with the test framework
//! that the user runs. A pass in the process that also holds the solution is not trusted alone: the
//! tests run a second time in the tester, in which remote objects stand for the solution, which
//! runs in another process.
//!
//! ```text
//!  rune (this process)                              jail, one per suite and solution
//! +------------------------------+      plan     +---------------------------------------------+
//! | run_suite   starts the run   | --- stdin --> | coordinator   (trusted; runs no solution)   |
//! | record      parses lines     | <-- fd 3 ---- |     | forks each into a nested jail         |
//! | decide      makes a verdict  | JSON records  |     +-- collector  tests, stand-ins         |
//! +------------------------------+               |     +-- same       tests and solution       |
//!                                                |     +-- tester     tests, remote objects    |
//!                                                |     |     ^ socket pair: JSON messages      |
//!                                                |     |     v                                 |
//!                                                |     +-- worker     the solution alone       |
//!                                                |     +-- screen     the solution's syntax    |
//!                                                +---------------------------------------------+
//! ```
//!
//! - `collector` runs only if the files do not show the framework or the number of tests.
//! - `same` is fast and exact for honest code, but the solution could forge its records.
//! - `tester` decides. No code of the solution runs in it.
//! - `worker` has no tests, no expected values and no pipe to the coordinator.
//! - `screen` matters only for tests that the tester cannot run with remote objects.
//!
//! Every process reports over a pipe of its own, and the coordinator signs each line with the name
//! of its process before it passes the line on. [`FunctionJudge`] judges a single function by its
//! outputs, with the oracle in another process.

mod collect;
mod collected;
mod conversation;
mod decide;
mod error;
mod function;
mod harness;
mod inspect;
mod junit;
mod record;
mod request;
mod run_suite;
mod solution;
mod suite;
mod value;
mod verdict;

pub use error::RequestError;
pub use function::FunctionJudge;
pub use function::FunctionTask;
pub use function::PreparedCheck;
pub use harness::Judge;
pub use harness::JudgeError;
pub use inspect::DocumentedName;
pub use inspect::FileInspection;
pub use inspect::ImportNeed;
pub use inspect::StatementKind;
pub use inspect::StubKind;
pub use inspect::SyntaxFault;
pub use inspect::TopStatement;
pub use junit::junit_xml;
pub use request::JudgeReport;
pub use request::JudgeRequest;
pub use request::PytestSource;
pub use request::library_mounts;
pub use request::mount_installed_pytest;
pub use request::run_with_pytest;
pub use suite::FileLimits;
pub use suite::OmittedFile;
pub use suite::SuiteError;
pub use suite::TestSuite;
pub use suite::needed_modules;
pub use verdict::Assurance;
pub use verdict::TestResult;
pub use verdict::TestStatus;
pub use verdict::Verdict;
pub use verdict::VerdictOutcome;

/// Whether `bytes` are records of the coordinator; for fuzzing.
pub(crate) fn read_channel(bytes: &[u8]) -> bool {
    record::records(bytes).is_ok()
}

/// Whether `bytes` are a value that judged code may return; for fuzzing.
pub(crate) fn read_value(bytes: &[u8]) -> bool {
    value::PlainValue::decode(bytes).is_ok()
}
