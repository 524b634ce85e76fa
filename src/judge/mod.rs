//! A verdict on Python code, decided outside the judged process.
//!
//! [`Judge::run_suite`] runs a user's tests against a solution in the jail. Which tests there are is read
//! from the test files' syntax in a run of its own, where the solution is absent. The runner then reports
//! every test on a channel with authenticated, numbered records, plants canaries that must fail, and closes
//! with a count; the [`Verdict`] is made here from what arrived. Exit status and standard output never
//! mean a pass.
//!
//! [`FunctionJudge`] judges a function by its outputs, with the oracle outside of its process.
//!
//! Not covered: the tests of a suite run in the process of the code they judge, so an object that is equal to
//! everything passes an equality check there.

mod channel;
mod collect;
mod conversation;
mod decide;
mod function;
mod harness;
mod inspect;
mod junit;
mod request;
mod run;
mod solution;
mod suite;
mod value;
mod verdict;

pub use function::Check;
pub use function::FunctionJudge;
pub use function::FunctionTask;
pub use harness::Judge;
pub use harness::JudgeError;
pub use inspect::Inspection;
pub use inspect::Need;
pub use inspect::Statement;
pub use inspect::StatementKind;
pub use inspect::StubKind;
pub use inspect::SyntaxFault;
pub use junit::junit_xml;
pub use request::JudgeReport;
pub use request::JudgeRequest;
pub use request::PytestSource;
pub use request::RequestError;
pub use request::library_mounts;
pub use request::run_with_pytest;
pub use suite::OmittedFile;
pub use suite::SuiteError;
pub use suite::TestSuite;
pub use suite::needed_modules;
pub use verdict::Assurance;
pub use verdict::Outcome;
pub use verdict::Status;
pub use verdict::TestResult;
pub use verdict::Verdict;
