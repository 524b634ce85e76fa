//! Judges a function by what it returns, with the expected values out of its reach.
//!
//! A check that is a list of questions (`assert f(args) == value` and the like) becomes data: the process with the
//! judged code gets inputs and sends outputs, and they are compared here. Any other check runs in a second process,
//! which has a proxy for the function: calls go through here to the first process, and results come back as plain data.
//! So there is nothing in the judged process to forge, and exit codes, output and frames mean nothing.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use super::conversation;
use super::conversation::Answers;
use super::conversation::frame;
use super::harness::JudgeError;
use super::harness::hex;
use super::harness::random;
use super::value::Value;
use super::verdict::Assurance;
use super::verdict::Outcome;
use super::verdict::Status;
use super::verdict::TestResult;
use super::verdict::Verdict;
use crate::sandbox::Ended;
use crate::sandbox::Exit;
use crate::sandbox::Forked;
use crate::sandbox::Interpreter;
use crate::sandbox::Limits;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxError;
use crate::sandbox::Zygote;

/// Each question is asked a second time at the end by a chance of one in so many: a function of its arguments says the
/// same again.
const ONE_AGAIN_OF: usize = 20;

/// How much slower than the reference a solution may be, and what it may always take.
const SLOWER: u32 = 4;
const LEAST_CPU: Duration = Duration::from_secs(1);

/// What a function is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionTask {
    /// Its name.
    pub entry_point: String,
    /// Code that the check needs, without the function itself: imports, helpers.
    pub prelude: String,
    /// Asserts that call the function by its name, or a function `check(candidate)` with such asserts.
    pub test: String,
}

/// A check, ready to be used any number of times.
#[derive(Debug, Clone)]
pub struct Check {
    task: FunctionTask,
    /// `None` where the check has to be run.
    questions: Option<Vec<Question>>,
    /// Processor time that a solution may take, where that is known of the task.
    cpu: Option<Duration>,
}

impl Check {
    /// Whether it is a list of questions, so that no second process is needed.
    pub fn is_data(&self) -> bool {
        self.questions.is_some()
    }
}

/// A call and what must come of it.
#[derive(Debug, Clone)]
struct Question {
    /// `(args, kwargs)`.
    call: Value,
    wanted: Wanted,
}

#[derive(Debug, Clone)]
enum Wanted {
    Equal(Value),
    /// `None`, `True` or `False` itself.
    Is(Value),
    True,
    False,
    /// Nearer to a number than a bound.
    Near(f64, f64),
}

impl Wanted {
    fn holds(&self, found: &Value) -> bool {
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

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Equal(value) | Self::Is(value) => value.fmt(f),
            Self::True => f.write_str("something true"),
            Self::False => f.write_str("something false"),
            Self::Near(value, bound) => write!(f, "{value:?} to within {bound:?}"),
        }
    }
}

/// What the process with the judged code came to.
enum Answer {
    Value {
        value: Value,
        changed: Value,
    },
    Raised {
        name: String,
        message: String,
        place: String,
    },
    /// A value that is not plain data, of this type.
    Opaque(String),
    /// Nothing: the process has ended, or sent what no program of ours sends.
    Gone,
}

impl Answer {
    /// What the oracle is told; `None` where the check can't go on.
    fn frame(&self) -> Option<(u8, Value)> {
        match self {
            Self::Value { value, changed } => {
                Some((b'v', Value::Tuple(vec![value.clone(), changed.clone()])))
            }
            Self::Raised { name, message, .. } => {
                Some((b'e', Value::Tuple([name, message].map(|text| Value::text(text)).into())))
            }
            Self::Opaque(_) | Self::Gone => None,
        }
    }
}

/// Judges functions in forked processes of Python.
#[derive(Debug)]
pub struct FunctionJudge<'a> {
    zygote: Zygote<'a>,
    limits: Limits,
}

impl<'a> FunctionJudge<'a> {
    /// Starts the process from which others are forked. `limits` hold for each of those.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`].
    pub async fn start(
        sandbox: &'a Sandbox,
        interpreter: &Interpreter,
        limits: Limits,
    ) -> Result<Self, JudgeError> {
        let programs = [
            ("rune_frames", include_str!("python/frames.py")),
            ("candidate", include_str!("python/candidate.py")),
            ("oracle", include_str!("python/oracle.py")),
        ];
        let imports =
            ["math", "re", "collections", "itertools", "functools", "typing", "string", "heapq"];
        let zygote = Zygote::start(sandbox, interpreter, &imports, &programs).await?;
        Ok(Self { zygote, limits })
    }

    /// Reads what `task` asks; judged code has no part in it.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`]; [`JudgeError::BrokenCheck`] when the check or its prelude does not run.
    pub async fn read(&self, task: FunctionTask) -> Result<Check, JudgeError> {
        let mut oracle = Process::fork(self, "oracle", &self.limits).await?;
        oracle.send(b'q', &order(&task, "")).await;
        let (kind, value) = oracle.receive().await.unwrap_or((0, Value::None));
        let ended = oracle.end().await?;
        let questions = match (kind, value) {
            (b'q', Value::List(all)) => Some(all.into_iter().map(question).collect::<Option<_>>()),
            (b'n', _) => None,
            (b'x', Value::Text(message)) => {
                let message = String::from_utf8_lossy(&message).into_owned();
                return Err(JudgeError::BrokenCheck(message));
            }
            _ => return Err(JudgeError::BrokenCheck(format!("{:?}", ended.exit))),
        };
        match questions {
            Some(None) => Err(JudgeError::BrokenCheck("its questions are no questions".to_owned())),
            questions => Ok(Check { task, questions: questions.flatten(), cpu: None }),
        }
    }

    /// Proves that `check` is worth something: `reference`, where there is one, passes it and `stub` does not. What is judged
    /// by what comes back may take four times the processor time of the reference, and a second at least.
    ///
    /// # Errors
    /// [`JudgeError::BrokenCheck`] when it is not; [`JudgeError::Sandbox`].
    pub async fn prove(
        &self,
        check: Check,
        reference: Option<&str>,
        stub: &str,
    ) -> Result<Check, JudgeError> {
        if self.run(&check, stub, 0).await?.passed() {
            return Err(JudgeError::BrokenCheck("it passes on a stub".to_owned()));
        }
        let Some(reference) = reference else { return Ok(check) };
        let verdict = self.run(&check, reference, 0).await?;
        if !verdict.passed() {
            let reason = format!("its reference: {}", verdict.summary());
            return Err(JudgeError::BrokenCheck(reason));
        }
        Ok(Check { cpu: Some((verdict.cpu * SLOWER).max(LEAST_CPU)), ..check })
    }

    /// What holds for a process with judged code. Processor time decides; the clock only stops what uses none.
    fn limits(&self, check: &Check) -> Limits {
        match check.cpu {
            Some(cpu) => Limits { cpu, wall: 10 * cpu, ..self.limits },
            None => self.limits,
        }
    }

    /// Judges `solution`, the text of a module. `seed` decides the order of the questions and which are repeated.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`]: never for what the solution did.
    pub async fn run(
        &self,
        check: &Check,
        solution: &str,
        seed: u64,
    ) -> Result<Verdict, JudgeError> {
        let started = Instant::now();
        let mut report = Report::default();
        let (ended, cpu) = match &check.questions {
            Some(questions) => {
                let ended = self.ask(check, questions, solution, seed, &mut report).await?;
                (ended, ended.cpu)
            }
            None => self.converse(check, solution, &mut report).await?,
        };
        Ok(report.verdict(check, ended, cpu, started.elapsed()))
    }

    /// Asks all questions in an order of chance, and some of them again.
    async fn ask(
        &self,
        check: &Check,
        questions: &[Question],
        solution: &str,
        seed: u64,
        report: &mut Report,
    ) -> Result<Ended, SandboxError> {
        let mut order: Vec<usize> = (0..questions.len()).collect();
        shuffle(&mut order, seed);
        let mut chance = Chance(!seed);
        let again: Vec<usize> =
            order.iter().copied().filter(|_| chance.below(ONE_AGAIN_OF) == 0).collect();
        let calls = order.iter().chain(&again).map(|index| questions[*index].call.clone());
        let source = source(check, solution, Value::List(calls.collect()));
        let sent = frame(b's', &source);
        let limits = self.limits(check);
        let (ended, written) = self.zygote.run("candidate", &limits, &sent).await?;
        let mut answers = Answers(&written);
        match answers.next() {
            Some((b'r', _)) => report.compare(questions, &order, &again, answers),
            failed => report.add("import".to_owned(), read_answer(failed), None),
        }
        Ok(ended)
    }

    /// Runs a check that is no list of questions, and carries its calls to the judged code. Gives how that ended and the
    /// processor time of both.
    async fn converse(
        &self,
        check: &Check,
        solution: &str,
        report: &mut Report,
    ) -> Result<(Ended, Duration), JudgeError> {
        let mut process = Process::fork(self, "candidate", &self.limits(check)).await?;
        process.send(b's', &source(check, solution, Value::None)).await;
        let mut oracle_cpu = Duration::ZERO;
        match process.receive().await {
            Some((b'r', _)) => oracle_cpu = self.carry(check, &mut process, report).await?,
            failed => report.add("import".to_owned(), read_answer(failed), None),
        }
        let ended = process.end().await?;
        Ok((ended, ended.cpu + oracle_cpu))
    }

    /// Carries the calls of a check to `process`, and what comes of them back. Gives the processor time of the check.
    async fn carry(
        &self,
        check: &Check,
        process: &mut Process,
        report: &mut Report,
    ) -> Result<Duration, JudgeError> {
        let nonce = hex(&random::<16>()?);
        let mut oracle = Process::fork(self, "oracle", &self.limits).await?;
        oracle.send(b'r', &order(&check.task, &nonce)).await;
        let mut last = None;
        loop {
            let (kind, value) = oracle.receive().await.unwrap_or((0, Value::None));
            if kind != b'c' {
                report.conclude(kind, &value, &nonce, last);
                break;
            }
            let answer = process.ask(&value).await;
            let Some((kind, value)) = answer.frame() else {
                report.add("check".to_owned(), answer, None);
                break;
            };
            oracle.send(kind, &value).await;
            last = Some(answer);
        }
        Ok(oracle.end().await?.cpu)
    }
}

/// What the process with the judged code is asked: `(source, entry point, calls)`; no calls for a conversation.
fn source(check: &Check, solution: &str, calls: Value) -> Value {
    Value::Tuple(vec![Value::text(solution), Value::text(&check.task.entry_point), calls])
}

/// Random numbers that a seed gives again (Knuth's MMIX generator, the upper bits).
struct Chance(u64);

impl Chance {
    /// One of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % n
    }
}

/// Puts them into an order of chance (Fisher and Yates).
fn shuffle(order: &mut [usize], seed: u64) {
    let mut chance = Chance(seed);
    for last in (1..order.len()).rev() {
        order.swap(last, chance.below(last + 1));
    }
}

/// What the oracle is asked to do.
fn order(task: &FunctionTask, nonce: &str) -> Value {
    let parts = [task.prelude.as_str(), &task.test, &task.entry_point, nonce];
    Value::Tuple(parts.map(Value::text).into())
}

/// Reads `(kind, args, kwargs, expected, bound)`.
fn question(value: Value) -> Option<Question> {
    let Value::Tuple(parts) = value else { return None };
    let [kind, args, kwargs, expected, bound] = <[Value; 5]>::try_from(parts).ok()?;
    let Value::Text(kind) = kind else { return None };
    let wanted = match kind.as_slice() {
        b"equal" => Wanted::Equal(expected),
        b"is" => Wanted::Is(expected),
        b"true" => Wanted::True,
        b"false" => Wanted::False,
        b"near" => Wanted::Near(expected.number()?, bound.number()?),
        _ => return None,
    };
    Some(Question { call: Value::Tuple(vec![args, kwargs]), wanted })
}

fn test(id: String, status: Status, message: String) -> TestResult {
    TestResult { id, status, message, trace: String::new(), seconds: 0.0 }
}

/// What has come of a run so far.
#[derive(Default)]
struct Report {
    tests: Vec<TestResult>,
    /// What the processes have to say beyond single tests.
    opaque: Option<String>,
    out_of_memory: bool,
    gone: bool,
    flaky: Option<usize>,
    void: Option<String>,
}

impl Report {
    fn add(&mut self, id: String, answer: Answer, wanted: Option<&Wanted>) {
        let result = match answer {
            Answer::Value { value, .. } => match wanted {
                Some(wanted) if !wanted.holds(&value) => {
                    test(id, Status::Failed, format!("gave {}, wanted {wanted}", brief(&value)))
                }
                _ => test(id, Status::Passed, String::new()),
            },
            Answer::Raised { name, message, place } => {
                self.out_of_memory |= name == "MemoryError";
                TestResult { trace: place, ..test(id, Status::Error, format!("{name}: {message}")) }
            }
            Answer::Opaque(kind) => {
                let message = format!("gave a {kind}, which is no plain data");
                self.opaque.get_or_insert(kind);
                test(id, Status::Failed, message)
            }
            Answer::Gone => {
                self.gone = true;
                test(id, Status::Missing, String::new())
            }
        };
        self.tests.push(result);
    }

    /// Takes the answers to the questions in `order`, then those to some that were asked `again`.
    fn compare(
        &mut self,
        questions: &[Question],
        order: &[usize],
        again: &[usize],
        mut answers: Answers<'_>,
    ) {
        let mut first = HashMap::new();
        for index in order {
            let answer = read_answer(answers.next());
            if let Answer::Value { value, .. } = &answer {
                first.insert(index, format!("{value:?}"));
            }
            self.add(format!("{}", index + 1), answer, Some(&questions[*index].wanted));
            if self.gone {
                return;
            }
        }
        for index in again {
            match (read_answer(answers.next()), first.get(index)) {
                (Answer::Gone, _) => return self.gone = true,
                (_, None) => {} // it failed the first time
                (Answer::Value { value, .. }, Some(first)) if format!("{value:?}") == *first => {}
                _ => self.flaky = Some(index + 1),
            }
        }
    }

    /// Takes the oracle's last word; `last` is what its last call came to.
    fn conclude(&mut self, kind: u8, value: &Value, nonce: &str, last: Option<Answer>) {
        let id = "check".to_owned();
        match (kind, value, last) {
            (b'd', Value::Text(said), _) if said == nonce.as_bytes() => {
                self.tests.push(test(id, Status::Passed, String::new()));
            }
            (b'x', _, Some(raised @ Answer::Raised { .. })) => self.add(id, raised, None),
            (b'f' | b'x', Value::Text(message), _) => {
                let message = String::from_utf8_lossy(message).into_owned();
                self.tests.push(test(id, Status::Failed, message));
            }
            _ => self.void = Some("the check ended without a word".to_owned()),
        }
    }

    fn verdict(mut self, check: &Check, ended: Ended, cpu: Duration, wall: Duration) -> Verdict {
        let n_total = check.questions.as_ref().map_or(1, Vec::len);
        let n_passed = self.tests.iter().filter(|test| test.status == Status::Passed).count();
        let n_passed = n_passed.min(n_total);
        let raised = self.tests.iter().any(|test| test.status == Status::Error);
        let outcome = if let Some(reason) = self.void.take() {
            Outcome::HarnessVoid(reason)
        } else if self.gone {
            match ended.exit {
                Exit::CpuLimit => Outcome::CpuLimit,
                Exit::WallLimit => Outcome::WallLimit,
                Exit::MemoryLimit => Outcome::MemoryLimit,
                Exit::OutputLimit => Outcome::OutputLimit,
                Exit::Code(_) | Exit::Signal(_) => Outcome::Exception,
            }
        } else if n_total == 0 {
            Outcome::NoTests
        } else if n_passed == n_total {
            self.flaky.map_or(Outcome::Pass, |_| Outcome::Flaky)
        } else if self.out_of_memory {
            Outcome::MemoryLimit
        } else if self.opaque.is_some() {
            Outcome::Opaque
        } else if raised {
            Outcome::Exception
        } else {
            Outcome::Wrong
        };
        let (stdout, stderr, tests) = (String::new(), String::new(), self.tests);
        Verdict {
            assurance: (outcome == Outcome::Pass).then_some(Assurance::Separate),
            reason: String::new(),
            outcome,
            tests,
            n_passed,
            n_total,
            cpu,
            wall,
            stdout,
            stderr,
        }
    }
}

/// A value as text, of a length that can be read.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    let end = text.char_indices().nth(300).map_or(text.len(), |(end, _)| end);
    if end < text.len() { format!("{}...", &text[..end]) } else { text }
}

/// A forked process and the conversation with it.
struct Process {
    forked: Forked,
}

impl Process {
    async fn fork(
        judge: &FunctionJudge<'_>,
        program: &str,
        limits: &Limits,
    ) -> Result<Self, SandboxError> {
        Ok(Self { forked: judge.zygote.fork(program, limits).await? })
    }

    async fn send(&mut self, kind: u8, value: &Value) {
        if let Ok(stream) = self.forked.stream() {
            conversation::send(stream, kind, value).await;
        }
    }

    async fn receive(&mut self) -> Option<(u8, Value)> {
        conversation::receive(self.forked.stream().ok()?).await
    }

    async fn ask(&mut self, call: &Value) -> Answer {
        self.send(b'c', call).await;
        read_answer(self.receive().await)
    }

    /// Ends the conversation, by which the process ends, and tells how it did.
    async fn end(mut self) -> Result<Ended, SandboxError> {
        self.forked.ended().await
    }
}

fn read_answer(frame: Option<(u8, Value)>) -> Answer {
    let text = |value: &Value| match value {
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => other.to_string(),
    };
    match frame {
        Some((b'v', Value::Tuple(parts))) => match <[Value; 2]>::try_from(parts) {
            Ok([value, changed]) => Answer::Value { value, changed },
            Err(_) => Answer::Gone,
        },
        Some((b'e', Value::Tuple(parts))) => match parts.as_slice() {
            [name, message, place] => {
                Answer::Raised { name: text(name), message: text(message), place: text(place) }
            }
            _ => Answer::Gone,
        },
        Some((b'o', kind)) => Answer::Opaque(text(&kind)),
        _ => Answer::Gone,
    }
}
