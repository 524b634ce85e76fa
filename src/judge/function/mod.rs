//! Judges a function by its return values, with the expected values out of its reach.
//!
//! A check that is a list of questions (`assert f(args) == value` and the like) becomes data: the
//! process with the judged code receives inputs and sends outputs, which are compared here. Any
//! other check runs in a second process with a proxy for the function: its calls go through this
//! process to the judged code, and the results come back as plain data. So the judged process holds
//! nothing worth forging: its exit code and its output mean nothing.
//!
//! ```text
//!                        zygote  has our programs, but neither checks nor solutions
//!                       /      \      forks each into its own jail and pid namespace
//!          oracle  (trusted)    candidate  (judged code)
//!      source of the check,       the solution and inputs;
//!      expected values            nothing of the check
//!               \                /
//!                judge (this process)  decodes every frame and encodes it again
//! ```
//!
//! The two processes share no memory, file or descriptor, and neither is forked from the other.

mod check;
mod process;
mod report;

use std::panic;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::conversation::FrameLog;
use super::conversation::ReceivedFrame;
use super::conversation::frame;
use super::harness::JudgeError;
use super::harness::random;
use super::value::PlainValue;
use super::verdict::Verdict;
use super::verdict::VerdictOutcome;
use crate::digest::hex;
use crate::sandbox::ExitKind;
use crate::sandbox::ForkEnd;
use crate::sandbox::Interpreter;
use crate::sandbox::Limits;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxError;
use crate::sandbox::Zygote;

pub use check::FunctionTask;
pub use check::PreparedCheck;

use check::CallQuestion;
use check::QuestionOrder;
use process::JudgedAnswer;
use process::JudgedProcess;
use report::RunResults;
use report::RunTime;

/// A solution may take this many times the CPU time of the reference.
const SLOWER: u32 = 4;
/// Minimum CPU time limit of a solution, however fast the reference is.
const MIN_CPU: Duration = Duration::from_secs(1);
/// Answers of at most this many bytes are compared inline; larger ones on a blocking thread, so
/// that the runtime stays responsive to interrupts.
const INLINE_BYTES: usize = 64 << 10;

/// Judges functions in forked Python processes.
#[derive(Debug)]
pub struct FunctionJudge {
    zygote: Zygote,
    limits: Limits,
}

impl FunctionJudge {
    /// Starts the zygote from which processes are forked. `limits` apply to each of these.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`].
    pub async fn start(
        sandbox: &Arc<Sandbox>,
        interpreter: &Interpreter,
        limits: Limits,
    ) -> Result<Self, JudgeError> {
        let programs = [
            ("rune_frames", include_str!("../python/frames.py")),
            ("candidate", include_str!("../python/candidate.py")),
            ("oracle", include_str!("../python/oracle.py")),
        ];
        // Modules that solutions often import; loaded once, before the first fork.
        let imports =
            ["math", "re", "collections", "itertools", "functools", "typing", "string", "heapq"];
        let zygote = Zygote::start(sandbox, interpreter, &imports, &programs).await?;
        Ok(Self { zygote, limits })
    }

    /// Prepares the check of `task`, without any judged code.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`]; [`JudgeError::BrokenCheck`] when the check or its prelude fails.
    pub async fn read(&self, task: FunctionTask) -> Result<PreparedCheck, JudgeError> {
        let mut oracle = JudgedProcess::fork(self, "oracle", &self.limits).await?;
        oracle.send(b'q', &task.order("")).await;
        let received = oracle.receive().await;
        let ended = oracle.end().await?;
        let questions = match received {
            Some(ReceivedFrame::Frame(b'q', PlainValue::List(items))) => {
                let questions =
                    items.into_iter().map(CallQuestion::parse).collect::<Option<Arc<[_]>>>();
                Some(questions.ok_or_else(|| broken("its questions cannot be parsed"))?)
            }
            // Not a list of questions: the check has to be run.
            Some(ReceivedFrame::Frame(b'n', _)) => None,
            Some(ReceivedFrame::Frame(b'f', message)) => {
                let (name, message) = (&task.entry_point, message.words());
                let reason = format!("an assert that never calls `{name}` fails");
                return Err(broken([reason, message].join(": ").trim_end_matches(": ")));
            }
            Some(ReceivedFrame::Frame(b'x', message)) => return Err(broken(&message.words())),
            Some(ReceivedFrame::Refused(reason)) => {
                return Err(broken(&format!("its values cannot be decoded: {reason}")));
            }
            Some(ReceivedFrame::Frame(..)) | None => return Err(broken(&ending(ended.exit))),
        };
        Ok(PreparedCheck { task, questions, cpu: None })
    }

    /// Validates `check`: `reference`, if given, has to pass, and `stub` must not. The CPU time
    /// limit of the returned check is four times the time of the reference, but at least a second.
    ///
    /// # Errors
    /// [`JudgeError::BrokenCheck`] when the check is not valid; [`JudgeError::Sandbox`].
    pub async fn prove(
        &self,
        check: PreparedCheck,
        reference: Option<&str>,
        stub: &str,
    ) -> Result<PreparedCheck, JudgeError> {
        if self.run(&check, stub, 0).await?.passed() {
            return Err(broken("it passes on a stub"));
        }
        let Some(reference) = reference else { return Ok(check) };
        let verdict = self.run(&check, reference, 0).await?;
        if !verdict.passed() {
            return Err(broken(&unproven(&verdict)));
        }
        Ok(PreparedCheck { cpu: Some((verdict.cpu * SLOWER).max(MIN_CPU)), ..check })
    }

    /// Limits of a process with judged code. CPU time decides, independent of the machine's load;
    /// wall time only stops a process that uses no CPU.
    fn limits(&self, check: &PreparedCheck) -> Limits {
        match check.cpu {
            Some(cpu) => Limits { cpu, wall: 10 * cpu, ..self.limits },
            None => self.limits,
        }
    }

    /// Judges `solution`, the source of a module. `seed` decides the order of the questions and
    /// which of them are repeated.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`], never because of what the solution does.
    pub async fn run(
        &self,
        check: &PreparedCheck,
        solution: &str,
        seed: u64,
    ) -> Result<Verdict, JudgeError> {
        let started = Instant::now();
        let (report, ended, cpu) = match &check.questions {
            Some(questions) => {
                let (report, ended) = self.ask(check, questions, solution, seed).await?;
                (report, ended, ended.cpu)
            }
            None => self.converse(check, solution).await?,
        };
        Ok(report.verdict(check, ended, RunTime { cpu, wall: started.elapsed() }))
    }

    /// Asks all questions in random order, and some of them a second time.
    async fn ask(
        &self,
        check: &PreparedCheck,
        questions: &Arc<[CallQuestion]>,
        solution: &str,
        seed: u64,
    ) -> Result<(RunResults, ForkEnd), SandboxError> {
        let sequence = QuestionOrder::draw(questions.len(), seed);
        // The process gets all questions at once and writes all answers to a file: no answer can
        // depend on how an earlier one was received, and nobody is woken up in between.
        let sent = frame(b's', &check.order(solution, sequence.calls(questions)));
        let limits = self.limits(check);
        let (ended, written) = self.zygote.run("candidate", &limits, &sent).await?;
        let n_bytes = written.len();
        let questions = Arc::clone(questions);
        let compare = move || compared(&questions, &sequence, &written);
        if n_bytes <= INLINE_BYTES {
            return Ok((compare(), ended));
        }
        let report = tokio::task::spawn_blocking(compare).await;
        Ok((report.unwrap_or_else(|error| panic::resume_unwind(error.into_panic())), ended))
    }

    /// Runs a check that is not a list of questions, and forwards its calls to the judged code.
    /// Returns the results, the end of the judged process, and the CPU time of both processes.
    async fn converse(
        &self,
        check: &PreparedCheck,
        solution: &str,
    ) -> Result<(RunResults, ForkEnd, Duration), JudgeError> {
        let mut report = RunResults::default();
        let mut process = JudgedProcess::fork(self, "candidate", &self.limits(check)).await?;
        process.send(b's', &check.order(solution, PlainValue::None)).await;
        let mut oracle_cpu = Duration::ZERO;
        match process.receive().await {
            // The solution is loaded. Only now is the check started: it may not run at all.
            Some(ReceivedFrame::Frame(b'r', _)) => {
                oracle_cpu = self.carry(check, &mut process, &mut report).await?;
            }
            failed => report.add("import".to_owned(), JudgedAnswer::read(failed), None),
        }
        let ended = process.end().await?;
        Ok((report, ended, ended.cpu + oracle_cpu))
    }

    /// Forwards the calls of a check to `process`, and the answers back. Returns the CPU time of
    /// the check.
    async fn carry(
        &self,
        check: &PreparedCheck,
        process: &mut JudgedProcess,
        report: &mut RunResults,
    ) -> Result<Duration, JudgeError> {
        // The check proves with the nonce that it has ended by itself: exiting early, which a
        // hostile answer might provoke, is not a pass.
        let nonce = hex(&random::<16>()?);
        let mut oracle = JudgedProcess::fork(self, "oracle", &self.limits).await?;
        oracle.send(b'r', &check.task.order(&nonce)).await;
        let mut last = None;
        let word = loop {
            let Some(ReceivedFrame::Frame(kind, value)) = oracle.receive().await else {
                break None;
            };
            // `c`: a call; `k`: a call with packed values; `n`: the next item of an iterator. Any
            // other kind is the last word of the check.
            if !matches!(kind, b'c' | b'k' | b'n') {
                break Some((kind, value));
            }
            let answer = process.ask(kind, &value).await;
            // An answer that the check must not see ends it as a failure.
            let Some((kind, value)) = answer.frame() else {
                report.add("check".to_owned(), answer, None);
                return Ok(oracle.end().await?.cpu);
            };
            oracle.send(kind, &value).await;
            last = Some(answer);
        };
        let ended = oracle.end().await?;
        match word {
            Some((kind, value)) => report.conclude((kind, &value), &nonce, last),
            None => report.void(ending(ended.exit)),
        }
        Ok(ended.cpu)
    }
}

/// Compares the answers that the judged process has written to its file.
fn compared(questions: &[CallQuestion], sequence: &QuestionOrder, written: &[u8]) -> RunResults {
    let mut report = RunResults::default();
    let mut answers = FrameLog(written);
    match answers.next() {
        Some(ReceivedFrame::Frame(b'r', _)) => report.compare(questions, sequence, answers),
        failed => report.add("import".to_owned(), JudgedAnswer::read(failed), None),
    }
    report
}

fn broken(reason: &str) -> JudgeError {
    JudgeError::BrokenCheck(reason.to_owned())
}

/// Describes why a reference does not pass. If its values cannot be compared, the message of its
/// first failing test says why.
fn unproven(verdict: &Verdict) -> String {
    let reason = format!("its reference: {}", verdict.summary());
    match verdict.first_failure() {
        Some(test) if verdict.outcome == VerdictOutcome::Opaque => {
            format!("{reason}: {}", test.message)
        }
        _ => reason,
    }
}

/// Describes how the process of a check ended without a result.
fn ending(exit: ExitKind) -> String {
    let reason = match exit {
        ExitKind::Code(_) => "it exited its own process".to_owned(),
        ExitKind::ProcessLimit => "it started too many processes or threads".to_owned(),
        ExitKind::StackLimit => "its stack overflowed".to_owned(),
        ExitKind::Signal(number) => format!("its process was killed by signal {number}"),
        limit => report::limit(limit).map_or_else(String::new, |limit| format!("it is {limit}")),
    };
    format!("the check did not finish: {reason}")
}
