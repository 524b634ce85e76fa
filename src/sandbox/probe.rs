//! Tests the jail with hostile programs (canaries), for `rune doctor`.

use std::net::TcpListener;
use std::time::Duration;

use super::error::SandboxError;
use super::interpreter::Interpreter;
use super::job::ExecRequest;
use super::job::ExitKind;
use super::job::Limits;
use super::launcher::Sandbox;

/// The result of one hostile program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryResult {
    /// Description of the attack, such as `connects to the host`.
    pub name: &'static str,
    /// Whether the jail contained it.
    pub contained: bool,
    /// The program's exit and last line of output, to show to the user; may contain control
    /// characters.
    pub detail: String,
}

/// The behavior that shows that a program is contained.
#[derive(Debug, Clone, Copy)]
enum ExpectedHold {
    /// Fails with this exception, with exit status 1.
    Raises(&'static str),
    /// Prints this and nothing else.
    Prints(&'static str),
    /// Is stopped for this reason.
    Stopped(ExitKind),
    /// Fails or is stopped, for any reason.
    Fails,
}

/// Name, program and expected behavior of each canary. `PORT` is replaced by the port of a
/// listening socket on the host, `SECRET` by the path of a file of the host.
const CANARIES: &[(&str, &str, ExpectedHold)] = &[
    (
        "reads a file of the host",
        "print(open('SECRET').read())",
        ExpectedHold::Raises("FileNotFoundError"),
    ),
    (
        "writes to the system",
        "open('/usr/rune-canary', 'w')",
        ExpectedHold::Raises("OSError: [Errno 30]"),
    ),
    (
        "sees the processes of the host",
        "import os; print([p for p in os.listdir('/proc') if p.isdigit()])",
        ExpectedHold::Prints("['2']"),
    ),
    (
        "sees the environment of rune",
        "import os; print(len(os.environ) <= 7)",
        ExpectedHold::Prints("True"),
    ),
    (
        "connects to the host",
        "import socket; socket.create_connection(('127.0.0.1', PORT), 2)",
        ExpectedHold::Raises("Error: [Errno"),
    ),
    (
        "makes a namespace",
        "import ctypes, os\nif ctypes.CDLL(None, use_errno=True).unshare(0x10000000):\n    raise OSError(ctypes.get_errno(), 'refused')",
        ExpectedHold::Raises("PermissionError"),
    ),
    ("fills the memory", "bytearray(1 << 40)", ExpectedHold::Raises("MemoryError")),
    ("starts processes without end", "import os\nwhile True:\n    os.fork()", ExpectedHold::Fails),
    ("never ends", "while True: pass", ExpectedHold::Stopped(ExitKind::CpuLimit)),
];

/// Runs the hostile programs one after the other; takes about a second.
/// # Errors
/// Those of [`Sandbox::run`]; [`SandboxError::Helper`] when no socket can be opened on the host.
pub async fn probe(
    sandbox: &Sandbox,
    interpreter: &Interpreter,
) -> Result<Vec<CanaryResult>, SandboxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port().to_string();
    let secret = tempfile::NamedTempFile::new()?;
    let secret = secret.path().display().to_string();
    let mut canaries = Vec::new();
    for &(name, program, held) in CANARIES {
        let program = program.replace("PORT", &port).replace("SECRET", &secret);
        canaries.push(run_canary(sandbox, interpreter, name, &program, held).await?);
    }
    Ok(canaries)
}

async fn run_canary(
    sandbox: &Sandbox,
    interpreter: &Interpreter,
    name: &'static str,
    program: &str,
    held: ExpectedHold,
) -> Result<CanaryResult, SandboxError> {
    let outcome = sandbox.run(&job(interpreter, program)).await?;
    let stdout = String::from_utf8_lossy(&outcome.stdout.bytes).into_owned();
    let stderr = String::from_utf8_lossy(&outcome.stderr.bytes).into_owned();
    let contained = match held {
        ExpectedHold::Raises(error) => outcome.exit == ExitKind::Code(1) && stderr.contains(error),
        ExpectedHold::Prints(text) => outcome.exit == ExitKind::Code(0) && stdout.trim() == text,
        ExpectedHold::Stopped(exit) => outcome.exit == exit,
        ExpectedHold::Fails => outcome.exit != ExitKind::Code(0),
    };
    let last_line = stderr.lines().last().or(stdout.lines().last()).unwrap_or_default();
    // Without namespaces the same attempts are refused by Landlock or the filters.
    let is_refused = outcome.exit == ExitKind::Code(1) && stderr.contains("\nPermissionError: ");
    let contained = contained || is_refused;
    Ok(CanaryResult { name, contained, detail: format!("{:?}: {last_line}", outcome.exit) })
}

fn job(interpreter: &Interpreter, program: &str) -> ExecRequest {
    let limits = Limits {
        cpu: Duration::from_millis(500),
        wall: Duration::from_secs(20),
        ..Limits::default()
    };
    ExecRequest {
        args: ["-I", "-S", "-c", program].map(str::to_owned).into(),
        mounts: interpreter.mounts(),
        limits,
        ..ExecRequest::new(interpreter.executable())
    }
}
