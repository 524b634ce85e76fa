//! A verdict on Python code, decided outside the judged process.
//!
//! [`Judge::run_suite`] runs a user's tests against a solution in a jail, with the framework that
//! the user runs them with. What the tests report beside the solution is never believed by itself:
//! they run a second time in the tester, where remote objects stand for the solution, which is in
//! another process.
//!
//! ```text
//! coordinator --+-- same      tests and solution: fast, exact for honest code, believed by nobody
//!   (trusted)   +-- tester    tests with remote objects: decides
//!               +-- worker    the solution alone: no tests, no expected values, no channel
//!               +-- screen    the solution's syntax, for when the tester could not follow the tests
//! ```
//!
//! [`FunctionJudge`] judges a function by its outputs, with the oracle outside of its process.

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
