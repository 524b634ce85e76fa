//! The judge's Python programs, and running them in a jail.

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

/// A failure to reach a verdict. A solution that fails is a verdict, not an error.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The sandbox failed; see the source.
    #[error("the sandbox failed")]
    Sandbox(#[from] SandboxError),
    /// The suite needs pytest, but neither the interpreter nor the mounted libraries have it.
    #[error("the tests need pytest, which this Python does not have")]
    PytestMissing,
    /// A test file has a syntax error.
    #[error("test file `{path}`, line {line}: {message}")]
    BrokenTest {
        /// Path within the suite.
        path: String,
        /// Line number from 1; 0 if unknown.
        line: u32,
        /// Message of the parser.
        message: String,
    },
    /// The check of a function is unusable, whatever the function.
    #[error("invalid check: {0}")]
    BrokenCheck(String),
    /// A program of the judge itself failed.
    #[error("the judge's program `{program}` failed ({exit:?}): {stderr}")]
    Harness {
        /// File name of the program.
        program: &'static str,
        /// The way in which it ended.
        exit: ExitKind,
        /// The end of its standard error.
        stderr: String,
    },
    /// The system's random numbers cannot be read.
    #[error("cannot read random numbers")]
    Random(#[from] io::Error),
}

impl JudgeError {
    /// The class that decides the exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Sandbox(error) => error.class(),
            _ => ErrorClass::Environment,
        }
    }
}

/// Judges Python code in a jail.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use rune::judge::Judge;
/// use rune::judge::TestSuite;
/// use rune::sandbox::Sandbox;
/// use rune::task::SourceFile;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let sandbox = Arc::new(Sandbox::start("/usr/local/bin/rune".as_ref())?);
/// let judge = Judge::new(&sandbox, &sandbox.interpreter(None)?);
/// let tests = "from adder import add\n\ndef test_add():\n    assert add(1, 2) == 3\n";
/// let suite = TestSuite::new(vec![SourceFile::new("test_adder.py", tests)]);
///
/// let right = SourceFile::new("adder.py", "def add(a, b):\n    return a + b\n");
/// assert!(judge.run_suite(&suite, &[right]).await?.passed());
///
/// let wrong = SourceFile::new("adder.py", "def add(a, b):\n    return a - b\n");
/// let verdict = judge.run_suite(&suite, &[wrong]).await?;
/// assert_eq!((verdict.n_passed, verdict.n_total), (0, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Judge {
    /// The sandbox in which code runs.
    pub sandbox: Arc<Sandbox>,
    /// The Python interpreter that runs code.
    pub interpreter: Arc<Interpreter>,
    /// Resource limits of one run of a suite.
    pub limits: Limits,
    /// Host folders of importable packages, such as an installation of pytest.
    pub libs: Vec<Mount>,
}

/// The task of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CoordinatorMode {
    /// Collect the tests without a solution.
    Collect,
    /// Judge a solution by the tests.
    Judge,
}

/// A Python program of the judge.
#[derive(Debug, Clone, Copy)]
pub(super) enum JudgeProgram {
    Coordinator,
    Inspect,
    Document,
    Stub,
    Probe,
}

impl JudgeProgram {
    fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator.py",
            Self::Inspect => "inspection.py",
            Self::Document => "documentation.py",
            Self::Stub => "stub.py",
            Self::Probe => "probe.py",
        }
    }

    /// Files of the program, by their names below `/in/rune`.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Coordinator => COORDINATOR,
            Self::Inspect => {
                &[("inspection.py", include_str!("python/inspection.py")), INTERFACE, STANDARD]
            }
            Self::Document => {
                &[("documentation.py", include_str!("python/documentation.py")), INTERFACE]
            }
            Self::Stub => &[("stub.py", include_str!("python/stub.py"))],
            Self::Probe => &[("probe.py", include_str!("python/probe.py"))],
        }
    }
}

const INTERFACE: (&str, &str) = ("rune_interface.py", include_str!("python/interface.py"));
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
    /// Creates a judge with default limits and no libraries.
    pub fn new(sandbox: &Arc<Sandbox>, interpreter: &Arc<Interpreter>) -> Self {
        let (sandbox, interpreter) = (Arc::clone(sandbox), Arc::clone(interpreter));
        Self { sandbox, interpreter, limits: Limits::default(), libs: Vec::new() }
    }

    /// Runs `program` with `tests` in `/in/tests`, `work` in `/box`, and `plan` as JSON on standard
    /// input.
    pub(super) async fn start(
        &self,
        program: JudgeProgram,
        (tests, work): (&[SourceFile], &[SourceFile]),
        plan: &Value,
    ) -> Result<ExecOutcome, SandboxError> {
        self.sandbox.run(&self.job(program, (tests, work), plan)).await
    }

    /// Builds the request that [`Self::start`] runs.
    pub(super) fn job(
        &self,
        program: JudgeProgram,
        (tests, work): (&[SourceFile], &[SourceFile]),
        plan: &Value,
    ) -> ExecRequest {
        // `-I` keeps user settings and the working directory off the search path; `-B` writes no
        // bytecode. The plan comes on standard input, where no other process can read it.
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

    /// Mounts of the jails: those of the interpreter, and the libraries.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        self.interpreter.mounts().into_iter().chain(self.libs.iter().cloned()).collect()
    }

    /// Runs a program that never executes judged code, and parses its answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        program: JudgeProgram,
        tests: &[SourceFile],
        plan: &Value,
    ) -> Result<T, JudgeError> {
        // The answer comes over the channel: on standard output a startup file of the interpreter
        // could print something, too.
        let outcome = self.start(program, (tests, &[]), plan).await?;
        serde_json::from_slice(&outcome.channel).map_err(|_| failure(program, &outcome))
    }

    /// Whether one of the libraries provides the module `name`, which may be dotted.
    pub fn provides(&self, name: &str) -> bool {
        let top = name.split('.').next().unwrap_or(name);
        let has = |lib: &Mount| {
            lib.host.join(top).is_dir() || lib.host.join(format!("{top}.py")).exists()
        };
        self.libs.iter().any(has)
    }

    /// Paths of the libraries inside the jail; without namespaces, on the host.
    pub(super) fn lib_paths(&self) -> Vec<String> {
        // Without a mount namespace nothing is mounted: a library is where it is on the host.
        let path = |mount: &Mount| match self.sandbox.facilities().tier {
            JailTier::Namespaces => mount.jail.to_string_lossy().into_owned(),
            JailTier::Landlock | JailTier::None => mount.host.to_string_lossy().into_owned(),
        };
        self.libs.iter().map(path).collect()
    }

    /// Returns the version of pytest that suites would run with; `None` if it is not installed.
    /// # Errors
    /// [`JudgeError::Sandbox`], [`JudgeError::Harness`].
    pub async fn pytest_version(&self) -> Result<Option<String>, JudgeError> {
        let plan = Value::from(self.lib_paths());
        let version: String = self.ask(JudgeProgram::Probe, &[], &plan).await?;
        Ok((!version.is_empty()).then_some(version))
    }
}

impl JudgeError {
    /// An error of the coordinator, with `message` and the end of its standard error.
    pub(super) fn broken(outcome: &ExecOutcome, message: &str) -> Self {
        let stderr = format!("{message}\n{}", tail(&outcome.stderr)).trim().to_owned();
        Self::Harness { program: JudgeProgram::Coordinator.name(), exit: outcome.exit, stderr }
    }
}

/// The error for a program of the judge that gave no valid answer.
fn failure(program: JudgeProgram, outcome: &ExecOutcome) -> JudgeError {
    let stderr = tail(&outcome.stderr);
    JudgeError::Harness { program: program.name(), exit: outcome.exit, stderr }
}

/// The last 4,000 bytes of a stream as text.
pub(super) fn tail(captured: &CapturedStream) -> String {
    let start = captured.bytes.len().saturating_sub(4000);
    String::from_utf8_lossy(&captured.bytes[start..]).into_owned()
}

/// Reads `N` random bytes from the operating system.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
