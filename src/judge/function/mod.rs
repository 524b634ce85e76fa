//! Judges a function by what it returns, with the expected values out of its reach.
//!
//! A check that is a list of questions (`assert f(args) == value` and the like) becomes data: the
//! process with the judged code gets inputs and sends outputs, and they are compared here. Any
//! other check runs in a second process, which has a proxy for the function: calls go through here
//! to the first process, and results come back as plain data. So there is nothing in the judged
//! process to forge, and exit codes, output and frames mean nothing.
//!
//! ```text
//!                        zygote  knows our programs, and neither checks nor solutions
//!                       /      \      fork, each into a jail and a process namespace of its own
//!          oracle  (trusted)    candidate  (judged code)
//!      the check's text,          the solution and inputs;
//!      expected values            no text of a check
//!               \                /
//!                judge (this process)  decodes every frame and writes it anew
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

/// A solution may take this many times the processor time of the reference, and [`LEAST_CPU`] in
/// any case.
const SLOWER: u32 = 4;
const LEAST_CPU: Duration = Duration::from_secs(1);
/// Answers of at most this many bytes are compared at once; larger ones on a thread of their own,
/// so that the runtime's threads stay free for interrupts.
const COMPARED_AT_ONCE: usize = 64 << 10;

/// Judges functions in forked processes of Python.
#[derive(Debug)]
pub struct FunctionJudge {
    zygote: Zygote,
    limits: Limits,
}

impl FunctionJudge {
    /// Starts the process from which others are forked. `limits` hold for each of those.
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
        let imports =
            ["math", "re", "collections", "itertools", "functools", "typing", "string", "heapq"];
        let zygote = Zygote::start(sandbox, interpreter, &imports, &programs).await?;
        Ok(Self { zygote, limits })
    }

    /// Reads what `task` asks; judged code has no part in it.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`]; [`JudgeError::BrokenCheck`] when the check or its prelude does not
    /// run.
    pub async fn read(&self, task: FunctionTask) -> Result<PreparedCheck, JudgeError> {
        let mut oracle = JudgedProcess::fork(self, "oracle", &self.limits).await?;
        oracle.send(b'q', &task.order("")).await;
        let received = oracle.receive().await;
        let ended = oracle.end().await?;
        let questions = match received {
            Some(ReceivedFrame::Frame(b'q', PlainValue::List(all))) => {
                let questions =
                    all.into_iter().map(CallQuestion::parse).collect::<Option<Arc<[_]>>>();
                Some(questions.ok_or_else(|| broken("its questions cannot be read"))?)
            }
            Some(ReceivedFrame::Frame(b'n', _)) => None,
            Some(ReceivedFrame::Frame(b'f', message)) => {
                let (name, message) = (&task.entry_point, message.words());
                let reason = format!("an assert fails that never calls `{name}`");
                return Err(broken([reason, message].join(": ").trim_end_matches(": ")));
            }
            Some(ReceivedFrame::Frame(b'x', message)) => return Err(broken(&message.words())),
            Some(ReceivedFrame::Refused(reason)) => {
                return Err(broken(&format!("its values cannot be taken: {reason}")));
            }
            Some(ReceivedFrame::Frame(..)) | None => return Err(broken(&ending(ended.exit))),
        };
        Ok(PreparedCheck { task, questions, cpu: None })
    }

    /// Proves that `check` is worth something: `reference`, where there is one, passes it and
    /// `stub` does not. What is judged by what comes back may take four times the processor time of
    /// the reference, and a second at least.
    ///
    /// # Errors
    /// [`JudgeError::BrokenCheck`] when it is not; [`JudgeError::Sandbox`].
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
        Ok(PreparedCheck { cpu: Some((verdict.cpu * SLOWER).max(LEAST_CPU)), ..check })
    }

    /// The limits of a process with judged code. Processor time decides; the clock only stops what
    /// uses none.
    fn limits(&self, check: &PreparedCheck) -> Limits {
        match check.cpu {
            Some(cpu) => Limits { cpu, wall: 10 * cpu, ..self.limits },
            None => self.limits,
        }
    }

    /// Judges `solution`, the text of a module. `seed` decides the order of the questions and which
    /// are repeated.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`]: never for what the solution did.
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

    /// Asks all questions in a random order, and some of them again.
    async fn ask(
        &self,
        check: &PreparedCheck,
        questions: &Arc<[CallQuestion]>,
        solution: &str,
        seed: u64,
    ) -> Result<(RunResults, ForkEnd), SandboxError> {
        let sequence = QuestionOrder::draw(questions.len(), seed);
        let sent = frame(b's', &check.order(solution, sequence.calls(questions)));
        let limits = self.limits(check);
        let (ended, written) = self.zygote.run("candidate", &limits, &sent).await?;
        let n_bytes = written.len();
        let questions = Arc::clone(questions);
        let compare = move || compared(&questions, &sequence, &written);
        if n_bytes <= COMPARED_AT_ONCE {
            return Ok((compare(), ended));
        }
        let report = tokio::task::spawn_blocking(compare).await;
        Ok((report.unwrap_or_else(|error| panic::resume_unwind(error.into_panic())), ended))
    }

    /// Runs a check that is not a list of questions, and carries its calls to the judged code.
    /// Gives how that ended and the processor time of both.
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
            Some(ReceivedFrame::Frame(b'r', _)) => {
                oracle_cpu = self.carry(check, &mut process, &mut report).await?;
            }
            failed => report.add("import".to_owned(), JudgedAnswer::read(failed), None),
        }
        let ended = process.end().await?;
        Ok((report, ended, ended.cpu + oracle_cpu))
    }

    /// Carries the calls of a check to `process`, and the answers back. Gives the processor time of
    /// the check.
    async fn carry(
        &self,
        check: &PreparedCheck,
        process: &mut JudgedProcess,
        report: &mut RunResults,
    ) -> Result<Duration, JudgeError> {
        let nonce = hex(&random::<16>()?);
        let mut oracle = JudgedProcess::fork(self, "oracle", &self.limits).await?;
        oracle.send(b'r', &check.task.order(&nonce)).await;
        let mut last = None;
        let word = loop {
            let Some(ReceivedFrame::Frame(kind, value)) = oracle.receive().await else {
                break None;
            };
            // A call, the same with packed values, the next item of an iterator.
            if !matches!(kind, b'c' | b'k' | b'n') {
                break Some((kind, value));
            }
            let answer = process.ask(kind, &value).await;
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

/// Compares the answers that were written down.
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

/// Why a reference proves nothing, with what its first failing test says of values that can't be
/// compared.
fn unproven(verdict: &Verdict) -> String {
    let reason = format!("its reference: {}", verdict.summary());
    match verdict.first_failure() {
        Some(test) if verdict.outcome == VerdictOutcome::Opaque => {
            format!("{reason}: {}", test.message)
        }
        _ => reason,
    }
}

/// How the process with a check ended, when it should have said something.
fn ending(exit: ExitKind) -> String {
    let reason = match exit {
        ExitKind::Code(_) => "it ended its own process".to_owned(),
        ExitKind::ProcessLimit => "it started too many processes or threads".to_owned(),
        ExitKind::StackLimit => "its stack was full".to_owned(),
        ExitKind::Signal(number) => format!("its process was killed by signal {number}"),
        limit => report::limit(limit).map_or_else(String::new, |limit| format!("it is {limit}")),
    };
    format!("the check came to no end: {reason}")
}
