//! Sandbox checks: available isolation, the interpreter, and hostile programs that must be
//! contained.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::CheckStatus;
use super::DoctorCheck;
use super::DoctorInput;
use super::section;
use crate::home::Home;
use crate::hub;
use crate::judge::FunctionJudge;
use crate::judge::FunctionTask;
use crate::judge::Judge;
use crate::judge::JudgeError;
use crate::sandbox::CanaryResult;
use crate::sandbox::Interpreter;
use crate::sandbox::JailCapabilities;
use crate::sandbox::JailTier;
use crate::sandbox::Limits;
use crate::sandbox::MemoryCap;
use crate::sandbox::MissingCapability;
use crate::sandbox::Mount;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxError;
use crate::sandbox::probe;

/// Advice for a sandbox failure of unknown cause.
const UNKNOWN: &str = "no generated code runs until this is fixed; `rune run --unsafe-no-sandbox` runs without a \
                       sandbox, on a disposable machine";

/// Runs the checks of the sandbox: first its capabilities, then programs in it.
pub(super) fn run_checks(input: &DoctorInput<'_>) -> Vec<DoctorCheck> {
    let sandbox = match &input.sandbox {
        Ok(sandbox) => sandbox,
        Err(error) => return vec![failure("sandbox", error)],
    };
    let mut checks = describe_capabilities(sandbox.facilities());
    let configured = Path::new(&input.config.sandbox.python);
    let configured = (!configured.as_os_str().is_empty()).then_some(configured);
    match sandbox.interpreter(configured) {
        Ok(interpreter) => {
            checks.extend(describe_interpreter(&interpreter));
            checks.extend(run_programs(input.home, sandbox, &interpreter));
        }
        Err(error) => {
            let fix = "install python3, or set sandbox.python to one that every user may read";
            checks.push(DoctorCheck::fail("interpreter", error.to_string(), fix));
        }
    }
    checks
}

/// Describes the interpreter, and names packages that programs cannot import.
fn describe_interpreter(interpreter: &Interpreter) -> Vec<DoctorCheck> {
    let environment = interpreter
        .environment()
        .map(|folder| format!(" of the virtual environment {}", folder.display()));
    let shown = format!(
        "Python {}, {}{}, packages installed: {}",
        interpreter.version(),
        interpreter.executable().display(),
        environment.unwrap_or_default(),
        interpreter.n_packages(),
    );
    let left_out: Vec<String> =
        interpreter.left_out().iter().map(|path| path.display().to_string()).collect();
    let mut checks = vec![DoctorCheck::ok("interpreter", shown)];
    if !left_out.is_empty() {
        let detail = format!("programs cannot import {}", left_out.join(", "));
        let fix = "install copies of these packages instead of links to their sources";
        checks.push(DoctorCheck::warn("packages", detail, fix));
    }
    checks
}

fn describe_capabilities(facilities: &JailCapabilities) -> Vec<DoctorCheck> {
    let tier = match facilities.tier {
        JailTier::Namespaces => {
            DoctorCheck::ok("sandbox", "namespaces: user, mount, pid, network, ipc, uts, cgroup")
        }
        JailTier::Landlock => {
            let why = facilities.refused.as_deref().unwrap_or("not requested");
            let detail = format!("Landlock, seccomp and limits, but no namespaces ({why})");
            let fix = "allow user namespaces, which close the gaps named below";
            DoctorCheck::warn("sandbox", detail, facilities.hint.as_deref().unwrap_or(fix))
        }
        JailTier::None => DoctorCheck::fail("sandbox", "none", UNKNOWN),
    };
    let cap = facilities.memory_cap.to_string();
    let memory = match facilities.memory_cap {
        MemoryCap::CgroupV2 | MemoryCap::CgroupV1 => DoctorCheck::ok("memory cap", cap),
        MemoryCap::Watchdog | MemoryCap::Process => {
            let fix = "start `rune` with `systemd-run --user --scope -p Delegate=yes`: a writable \
                       control group limits the whole process tree";
            DoctorCheck::warn("memory cap", cap, fix)
        }
    };
    let landlock = match facilities.landlock_version {
        0 => DoctorCheck::warn(
            "landlock",
            "none",
            "use Linux 5.13 or newer, with `landlock` in lsm=",
        ),
        version @ 1..4 => {
            let fix = "use Linux 6.7 or newer, which can also deny TCP without a network namespace";
            DoctorCheck::warn("landlock", format!("ABI {version}"), fix)
        }
        version => DoctorCheck::ok("landlock", format!("ABI {version}")),
    };
    let seccomp = if facilities.seccomp {
        DoctorCheck::ok("seccomp", "system calls are filtered")
    } else {
        DoctorCheck::fail("seccomp", "none", "use a kernel with CONFIG_SECCOMP_FILTER")
    };
    let gap = |gap: &MissingCapability| {
        let name = format!("gap: {}", gap.name);
        let docs = section(&name);
        DoctorCheck { docs, status: CheckStatus::Warn, ..DoctorCheck::ok(&name, gap.detail) }
    };
    let gaps = facilities.gaps();
    [tier, memory, landlock, seccomp].into_iter().chain(gaps.iter().map(gap)).collect()
}

/// Runs hostile programs and the judge's own programs in the sandbox.
fn run_programs(
    home: &Home,
    sandbox: &Arc<Sandbox>,
    interpreter: &Arc<Interpreter>,
) -> Vec<DoctorCheck> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![failure("hostile programs", &SandboxError::Helper(error))],
    };
    runtime.block_on(async {
        let started = Instant::now();
        let hostile = match probe(sandbox, interpreter).await {
            Ok(canaries) => verdict(&canaries, started.elapsed()),
            Err(error) => return vec![failure("hostile programs", &error)],
        };
        let pytest = pytest(home, Judge::new(sandbox, interpreter)).await;
        vec![hostile, functions(sandbox, interpreter).await, pytest]
    })
}

fn verdict(canaries: &[CanaryResult], time: Duration) -> DoctorCheck {
    let escaped: Vec<String> = canaries
        .iter()
        .filter(|canary| !canary.contained)
        .map(|canary| format!("{} ({})", canary.name, canary.detail))
        .collect();
    let n_contained = canaries.len() - escaped.len();
    let seconds = time.as_secs_f64();
    let detail = format!("{n_contained} of {} contained, in {seconds:.1} s", canaries.len());
    if escaped.is_empty() {
        DoctorCheck::ok("hostile programs", detail)
    } else {
        let fix = "run no generated code on this machine, and report this";
        let detail = format!("{detail}; not contained: {}", escaped.join("; "));
        DoctorCheck::fail("hostile programs", detail, fix)
    }
}

/// Forks Python into jails, and judges two functions there: a correct one and a cheat.
async fn functions(sandbox: &Arc<Sandbox>, interpreter: &Interpreter) -> DoctorCheck {
    let name = "forked jails";
    match judged_functions(sandbox, interpreter).await {
        Ok((true, false)) => {
            DoctorCheck::ok(name, "a correct function passes, and a cheat is detected")
        }
        Ok((honest, cheat)) => {
            let detail = format!("a correct function passes: {honest}, a cheat passes: {cheat}");
            DoctorCheck::fail(name, detail, "judge no functions on this machine, and report this")
        }
        Err(JudgeError::Sandbox(error)) => failure(name, &error),
        Err(error) => DoctorCheck::fail(name, error.to_string(), UNKNOWN),
    }
}

async fn judged_functions(
    sandbox: &Arc<Sandbox>,
    interpreter: &Interpreter,
) -> Result<(bool, bool), JudgeError> {
    let judge = FunctionJudge::start(sandbox, interpreter, Limits::default()).await?;
    let check = judge
        .read(FunctionTask {
            entry_point: "double".to_owned(),
            prelude: String::new(),
            test: "for n in range(9):\n    assert double(n) == 2 * n\n".to_owned(),
        })
        .await?;
    let honest = judge.run(&check, "def double(n):\n    return n + n\n", 0).await?;
    let equal = "class Equal:\n    def __eq__(self, other):\n        return True\n";
    let cheat = format!("{equal}def double(n):\n    return Equal()\n");
    let cheat = judge.run(&check, &cheat, 0).await?;
    Ok((honest.passed(), cheat.passed()))
}

/// Finds the pytest that suites will use: the interpreter's own, else the one in Rune's home.
async fn pytest(home: &Home, mut judge: Judge) -> DoctorCheck {
    let folder = hub::pytest_path(home);
    let mut origin = "from the interpreter".to_owned();
    let mut found = judge.pytest_version().await;
    if let (Ok(None), Some(folder)) = (&found, folder) {
        origin = folder.display().to_string();
        judge.libs.push(Mount { host: folder, jail: "/opt/pytest".into() });
        found = judge.pytest_version().await;
    }
    match found {
        Ok(Some(version)) => DoctorCheck::ok("pytest", format!("{version}, {origin}")),
        Ok(None) => {
            DoctorCheck::warn("pytest", "not installed", "nothing to do: installed on first use")
        }
        Err(JudgeError::Sandbox(error)) => failure("pytest", &error),
        Err(error) => DoctorCheck::fail("pytest", error.to_string(), UNKNOWN),
    }
}

fn failure(name: &str, error: &SandboxError) -> DoctorCheck {
    match error {
        SandboxError::Unavailable { reason, hint } => DoctorCheck::fail(name, reason, hint),
        other => DoctorCheck::fail(name, other.to_string(), UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_program_is_named() {
        let canary =
            |contained| CanaryResult { name: "never ends", contained, detail: "d".to_owned() };
        let check =
            |canaries: &[CanaryResult]| verdict(canaries, Duration::from_millis(1500)).detail;
        assert_eq!(check(&[canary(true)]), "1 of 1 contained, in 1.5 s");
        assert_eq!(
            check(&[canary(true), canary(false)]),
            "1 of 2 contained, in 1.5 s; not contained: never ends (d)"
        );
    }

    #[test]
    fn missing_capabilities_come_with_a_fix() {
        let weak = JailCapabilities {
            tier: JailTier::Namespaces,
            refused: None,
            hint: None,
            programs_have_own_user: false,
            memory_cap: MemoryCap::Watchdog,
            landlock_version: 0,
            seccomp: true,
        };
        let shown: Vec<String> = describe_capabilities(&weak)
            .into_iter()
            .map(|check| format!("{} {:?} {}", check.name, check.status, check.fix.is_some()))
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        sandbox Ok false
        memory cap Warn true
        landlock Warn true
        seccomp Ok false
        ");
    }
}
