//! The Python programs of the judge, and how one is run in the jail.

use std::io;
use std::io::Read;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error_class::ErrorClass;
use crate::sandbox::CapturedStream;
use crate::sandbox::ExecOutcome;
use crate::sandbox::ExecRequest;
use crate::sandbox::ExitKind;
use crate::sandbox::Interpreter;
use crate::sandbox::JailTier;
use crate::sandbox::Limits;
use crate::sandbox::Mount;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxError;
use crate::task::SourceFile;

/// Why there is no verdict. A solution that fails is a verdict, not an error.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The jail failed.
    #[error("the sandbox failed")]
    Sandbox(#[from] SandboxError),
    /// The suite needs pytest, and neither the interpreter nor the mounted libraries have it.
    #[error("the tests need pytest, which this Python does not have")]
    PytestMissing,
    /// A test file is not Python.
    #[error("test file `{path}`, line {line}: {message}")]
    BrokenTest {
        /// Its path within the suite.
        path: String,
        /// The line, from 1; 0 when unknown.
        line: u32,
        /// What the parser says.
        message: String,
    },
    /// A check of a function does not run, whatever the function.
    #[error("the check does not run: {0}")]
    BrokenCheck(String),
    /// A program of the judge itself failed.
    #[error("the judge's program `{program}` failed ({exit:?}): {stderr}")]
    Harness {
        /// Which one.
        program: &'static str,
        /// How it ended.
        exit: ExitKind,
        /// The end of what it wrote on standard error.
        stderr: String,
    },
    /// No random numbers.
    #[error("cannot read random numbers")]
    Random(#[from] io::Error),
}

impl JudgeError {
    /// Its class.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Sandbox(error) => error.class(),
            _ => ErrorClass::Environment,
        }
    }
}

/// Judges Python code in a jail.
#[derive(Debug, Clone)]
pub struct Judge {
    /// Where code runs.
    pub sandbox: Arc<Sandbox>,
    /// What runs it.
    pub interpreter: Arc<Interpreter>,
    /// What one run of a suite may use.
    pub limits: Limits,
    /// Host folders of importable packages, such as an installation of pytest.
    pub libs: Vec<Mount>,
}

/// What the coordinator is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CoordinatorMode {
    /// Find the tests.
    Collect,
    /// Judge a solution by them.
    Judge,
}

/// A program of the judge.
#[derive(Debug, Clone, Copy)]
pub(super) enum JudgeProgram {
    Coordinator,
    Inspect,
    Stub,
    Probe,
}

impl JudgeProgram {
    fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator.py",
            Self::Inspect => "inspection.py",
            Self::Stub => "stub.py",
            Self::Probe => "probe.py",
        }
    }

    /// Its files, below `/in/rune`.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Coordinator => COORDINATOR,
            Self::Inspect => &[("inspection.py", include_str!("python/inspection.py")), STANDARD],
            Self::Stub => &[("stub.py", include_str!("python/stub.py"))],
            Self::Probe => &[("probe.py", include_str!("python/probe.py"))],
        }
    }
}

const STANDARD: (&str, &str) = ("rune_standard.py", include_str!("python/standard.py"));

const COORDINATOR: &[(&str, &str)] = &[
    ("coordinator.py", include_str!("python/coordinator.py")),
    ("rune_asserts.py", include_str!("python/asserts.py")),
    ("rune_collector.py", include_str!("python/collector.py")),
    ("rune_remote.py", include_str!("python/remote.py")),
    ("rune_runner.py", include_str!("python/runner.py")),
    ("rune_screen.py", include_str!("python/screen.py")),
    STANDARD,
    ("rune_surroundings.py", include_str!("python/surroundings.py")),
    ("rune_tester.py", include_str!("python/tester.py")),
    ("rune_trace.py", include_str!("python/trace.py")),
    ("rune_worker.py", include_str!("python/worker.py")),
];

impl Judge {
    /// A judge with default limits and no libraries.
    pub fn new(sandbox: &Arc<Sandbox>, interpreter: &Arc<Interpreter>) -> Self {
        let (sandbox, interpreter) = (Arc::clone(sandbox), Arc::clone(interpreter));
        Self { sandbox, interpreter, limits: Limits::default(), libs: Vec::new() }
    }

    /// Runs `program` with `tests` in `/in/tests`, `work` in `/box` and `plan` on standard input.
    pub(super) async fn start(
        &self,
        program: JudgeProgram,
        (tests, work): (&[SourceFile], &[SourceFile]),
        plan: &Value,
    ) -> Result<ExecOutcome, SandboxError> {
        self.sandbox.run(&self.job(program, (tests, work), plan)).await
    }

    /// What [`Self::start`] runs.
    pub(super) fn job(
        &self,
        program: JudgeProgram,
        (tests, work): (&[SourceFile], &[SourceFile]),
        plan: &Value,
    ) -> ExecRequest {
        let own =
            program.files().iter().map(|(name, text)| (format!("rune/{name}"), (*text).into()));
        let tests =
            tests.iter().map(|file| (format!("tests/{}", file.path), file.bytes().to_vec()));
        ExecRequest {
            args: ["-I", "-B", &format!("/in/rune/{}", program.name())].map(str::to_owned).into(),
            stdin: plan.to_string().into_bytes(),
            inputs: own.chain(tests).collect(),
            work: work.iter().map(|file| (file.path.clone(), file.bytes().to_vec())).collect(),
            mounts: self.mounts(),
            channel: true,
            limits: self.limits,
            ..ExecRequest::new(self.interpreter.executable())
        }
    }

    /// What the jails show beside the system's own folders.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        self.interpreter.mounts().into_iter().chain(self.libs.iter().cloned()).collect()
    }

    /// Runs a program that meets no judged code, and reads its answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        program: JudgeProgram,
        tests: &[SourceFile],
        plan: &Value,
    ) -> Result<T, JudgeError> {
        let outcome = self.start(program, (tests, &[]), plan).await?;
        serde_json::from_slice(&outcome.channel).map_err(|_| failure(program, &outcome))
    }

    /// Whether one of the libraries has the module `name`, which may be dotted.
    pub fn provides(&self, name: &str) -> bool {
        let top = name.split('.').next().unwrap_or(name);
        let has = |lib: &Mount| {
            lib.host.join(top).is_dir() || lib.host.join(format!("{top}.py")).exists()
        };
        self.libs.iter().any(has)
    }

    /// Paths of the libraries as programs see them.
    pub(super) fn lib_paths(&self) -> Vec<String> {
        let path = |mount: &Mount| match self.sandbox.facilities().tier {
            JailTier::Namespaces => mount.jail.to_string_lossy().into_owned(),
            JailTier::Landlock | JailTier::None => mount.host.to_string_lossy().into_owned(),
        };
        self.libs.iter().map(path).collect()
    }

    /// The version of pytest that suites would be run with; `None` without one.
    /// # Errors
    /// [`JudgeError::Sandbox`], [`JudgeError::Harness`].
    pub async fn pytest_version(&self) -> Result<Option<String>, JudgeError> {
        let plan = Value::from(self.lib_paths());
        let version: String = self.ask(JudgeProgram::Probe, &[], &plan).await?;
        Ok((!version.is_empty()).then_some(version))
    }
}

impl JudgeError {
    /// The coordinator failed; `message` says how.
    pub(super) fn broken(outcome: &ExecOutcome, message: &str) -> Self {
        let stderr = format!("{message}\n{}", tail(&outcome.stderr)).trim().to_owned();
        Self::Harness { program: JudgeProgram::Coordinator.name(), exit: outcome.exit, stderr }
    }
}

/// The error for a program of the judge that gave no answer.
fn failure(program: JudgeProgram, outcome: &ExecOutcome) -> JudgeError {
    let stderr = tail(&outcome.stderr);
    JudgeError::Harness { program: program.name(), exit: outcome.exit, stderr }
}

/// The last 4,000 characters or so of a stream.
pub(super) fn tail(captured: &CapturedStream) -> String {
    let start = captured.bytes.len().saturating_sub(4000);
    String::from_utf8_lossy(&captured.bytes[start..]).into_owned()
}

/// Fresh random bytes of the operating system.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
