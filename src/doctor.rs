//! Looks at the whole: what works on this machine, and how to mend the rest.

mod sandbox;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde::Serialize;

use crate::config::Config;
use crate::evaluation::EvaluationError;
use crate::evaluation::SuiteStore;
use crate::hardware;
use crate::hardware::Machine;
use crate::home::Home;
use crate::hub;
use crate::hub::CataloguedModel;
use crate::hub::ModelCatalogue;
use crate::model::Isa;
use crate::registry::AdapterStore;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxError;
use crate::training;
use crate::training::ExampleSets;
use crate::training::Preset;
use crate::training::TrainingOptions;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// It works.
    Ok,
    /// It works less well, or is not there yet.
    Warn,
    /// Something that is needed doesn't work.
    Fail,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorCheck {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What to look at.
#[derive(Debug)]
pub struct DoctorInput<'a> {
    /// Rune's home.
    pub home: &'a Home,
    /// The settings in force.
    pub config: &'a Config,
    /// The Python that was found.
    pub python: Option<PathBuf>,
    /// The sandbox, started before this process had other threads, or why there is none.
    pub sandbox: Result<Arc<Sandbox>, SandboxError>,
}

/// Does every check. Takes some seconds: installed models are hashed, hostile programs are run in
/// the sandbox.
pub fn examine(patient: &DoctorInput<'_>) -> Vec<DoctorCheck> {
    let mut checks = machine();
    checks.extend(home(patient.home));
    checks.extend(programs(patient.python.as_deref()));
    checks.extend(sandbox::examine(patient));
    checks.extend(models(patient.home, &patient.config.run.model));
    checks.extend(registry(patient.home));
    checks.extend(training(patient));
    checks.extend(suites(patient.home));
    checks
}

impl DoctorCheck {
    fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: CheckStatus::Ok, detail: detail.into(), fix: None }
    }

    fn warn(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: CheckStatus::Warn, fix: Some(fix.into()), ..Self::ok(name, detail) }
    }

    fn fail(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: CheckStatus::Fail, fix: Some(fix.into()), ..Self::ok(name, detail) }
    }
}

fn machine() -> Vec<DoctorCheck> {
    let machine = match Machine::read() {
        Ok(machine) => machine,
        Err(error) => {
            return vec![DoctorCheck::fail("machine", error.to_string(), "mount /proc")];
        }
    };
    vec![kernel(&machine), processor(&machine), memory(&machine)]
}

fn kernel(machine: &Machine) -> DoctorCheck {
    let mut numbers = machine.kernel.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 14) {
        DoctorCheck::ok("kernel", &machine.kernel)
    } else {
        DoctorCheck::warn("kernel", &machine.kernel, "the jail needs Linux 5.14 or newer")
    }
}

fn processor(machine: &Machine) -> DoctorCheck {
    let features = machine.features;
    let names = [
        ("avx2", features.avx2),
        ("f16c", features.f16c),
        ("avx512f", features.avx512f),
        ("avx512bw", features.avx512bw),
        ("avx512vnni", features.avx512vnni),
    ];
    let names: Vec<_> = names.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    let Machine { cpu, n_cores, n_threads, load, .. } = machine;
    let (names, isa) = (names.join(" "), Isa::detect());
    let detail = format!(
        "{cpu}, {n_cores} cores, {n_threads} threads, load {load}, {names}; kernels: {}",
        isa.name()
    );
    if isa == Isa::Portable {
        DoctorCheck::warn(
            "processor",
            detail,
            "without AVX2, FMA and F16C the in-process engine is slow",
        )
    } else {
        DoctorCheck::ok("processor", detail)
    }
}

fn memory(machine: &Machine) -> DoctorCheck {
    let detail = format!(
        "{} free of {}",
        mebibytes(machine.available_bytes),
        mebibytes(machine.memory_bytes)
    );
    match machine.available_bytes >> 20 {
        2048.. => DoctorCheck::ok("memory", detail),
        _ => DoctorCheck::warn(
            "memory",
            detail,
            "the default model wants 2 GiB: close other programs",
        ),
    }
}

fn home(home: &Home) -> Vec<DoctorCheck> {
    let made = home.create().and_then(|()| fs::metadata(home.path()));
    let metadata = match made {
        Ok(metadata) => metadata,
        Err(error) => return vec![unusable_home(home, &error)],
    };
    let shown = home.path().display();
    let mode = metadata.permissions().mode() & 0o777;
    let access = match mode & 0o077 {
        0 => DoctorCheck::ok("home", format!("{shown}")),
        _ => DoctorCheck::warn(
            "home",
            format!("{shown} has mode {mode:o}"),
            format!("chmod 700 {shown}"),
        ),
    };
    vec![access, disk(home), fsync(home)]
}

fn unusable_home(home: &Home, error: &io::Error) -> DoctorCheck {
    DoctorCheck::fail(
        "home",
        format!("{}: {error}", home.path().display()),
        "choose another with --home",
    )
}

fn disk(home: &Home) -> DoctorCheck {
    match hardware::disk_free(home.path()) {
        Ok(free) if free >> 30 >= 2 => DoctorCheck::ok("disk", format!("{} free", mebibytes(free))),
        Ok(free) => DoctorCheck::warn(
            "disk",
            format!("{} free", mebibytes(free)),
            "make room for models: 2 GiB",
        ),
        Err(error) => unusable_home(home, &error),
    }
}

fn fsync(home: &Home) -> DoctorCheck {
    match hardware::fsync_latency(home.path()) {
        Ok(time) if time.as_millis() < 50 => DoctorCheck::ok("fsync", format!("{time:.1?}")),
        Ok(time) => DoctorCheck::warn(
            "fsync",
            format!("{time:.1?}"),
            "put Rune's home on a local, faster disk",
        ),
        Err(error) => unusable_home(home, &error),
    }
}

fn programs(python: Option<&Path>) -> Vec<DoctorCheck> {
    let git = version_of(Path::new("git")).map_or_else(
        || DoctorCheck::warn("git", "not found", "install git: it tells projects apart"),
        |version| DoctorCheck::ok("git", version),
    );
    let install = "install python3, or set sandbox.python";
    let Some(python) = python else {
        return vec![git, DoctorCheck::fail("python", "not found", install)];
    };
    let found = version_of(python).map_or_else(
        || DoctorCheck::fail("python", format!("`{}` does not run", python.display()), install),
        |version| DoctorCheck::ok("python", format!("{version}, {}", python.display())),
    );
    let pip = hub::pip_version(python).map_or_else(
        || {
            DoctorCheck::warn(
                "pip",
                "not found",
                "install pip: the model mirror and pytest come by it",
            )
        },
        |version| DoctorCheck::ok("pip", version),
    );
    vec![git, found, pip]
}

fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The model in use, and every other that is here.
fn models(home: &Home, in_use: &str) -> Vec<DoctorCheck> {
    let catalogue = ModelCatalogue::embedded();
    let mut checks = Vec::new();
    if let Err(error) = catalogue.get(in_use) {
        checks.push(DoctorCheck::fail("model", error.to_string(), "set run.model to a known name"));
    }
    for model in catalogue.models() {
        let is_here = hub::path(home, model).is_some();
        if is_here || model.name == in_use {
            checks.push(one_model(home, model, is_here));
        }
    }
    checks
}

fn one_model(home: &Home, model: &CataloguedModel, is_here: bool) -> DoctorCheck {
    let name = format!("model {}", model.name);
    let pull = format!("rune models pull {}", model.name);
    if !is_here {
        return DoctorCheck::warn(&name, "not here yet", pull);
    }
    match hub::verify(home, model) {
        Ok(path) => DoctorCheck::ok(&name, format!("{}, sha256 as pinned", path.display())),
        Err(error) => {
            DoctorCheck::fail(&name, error.to_string(), format!("delete the file, then {pull}"))
        }
    }
}

/// The database, and the adapters that it knows.
fn registry(home: &Home) -> Vec<DoctorCheck> {
    let path = home.registry();
    if !path.exists() {
        return vec![DoctorCheck::ok("registry", "none yet")];
    }
    let fix = "restore rune.db from a backup, or move it away";
    let fail = |detail: String| vec![DoctorCheck::fail("registry", detail, fix)];
    let registry = match Registry::open(&path).map(Arc::new) {
        Ok(registry) => registry,
        Err(error) => return fail(error.to_string()),
    };
    match registry.quick_check() {
        Ok(found) if found.is_empty() => {
            vec![
                DoctorCheck::ok("registry", format!("{}", path.display())),
                adapters(&registry, home),
            ]
        }
        Ok(found) => fail(found.join("; ")),
        Err(error) => fail(error.to_string()),
    }
}

fn adapters(registry: &Arc<Registry>, home: &Home) -> DoctorCheck {
    let fix = "restore the folders named from a backup; `rune adapters verify` lists all";
    let mut n_adapters = 0;
    let verified =
        AdapterStore::open(registry, home).and_then(|store| store.verify(&mut |_| n_adapters += 1));
    match verified {
        Ok(damages) => match damages.first() {
            None => DoctorCheck::ok("adapters", format!("{n_adapters}, as they were stored")),
            Some(damage) => {
                let detail = format!("{}: {}", damage.path.display(), damage.reason);
                DoctorCheck::fail("adapters", detail, fix)
            }
        },
        Err(error) => DoctorCheck::fail("adapters", error.to_string(), fix),
    }
}

/// Whether the model in use could be trained here, and runs that wait to be gone on with.
fn training(patient: &DoctorInput<'_>) -> Vec<DoctorCheck> {
    let mut checks = Vec::new();
    let catalogue = ModelCatalogue::embedded();
    let model = catalogue.get(&patient.config.run.model).ok();
    if let Some(path) = model.and_then(|model| hub::path(patient.home, model)) {
        let options = TrainingOptions::preset(Preset::Standard);
        let needed = training::memory(&path, &options, &ExampleSets::default());
        let available = Machine::read().map(|machine| machine.available_bytes);
        if let (Ok(needed), Ok(available)) = (needed, available) {
            let detail = format!(
                "this model takes some {}, {} are free",
                mebibytes(needed),
                mebibytes(available)
            );
            checks.push(if needed <= available {
                DoctorCheck::ok("training", detail)
            } else {
                DoctorCheck::warn("training", detail, "use --checkpointing or a smaller model")
            });
        }
    }
    let database = patient.home.registry();
    let runs = database.exists().then(|| Registry::open(&database)).and_then(Result::ok);
    let runs = runs.and_then(|registry| registry.training_runs(100).ok()).unwrap_or_default();
    let waiting: Vec<&str> = runs
        .iter()
        .filter(|run| patient.home.training().join(&run.id).exists())
        .map(|run| run.id.as_str())
        .collect();
    if let Some(id) = waiting.first() {
        let detail = format!("{} at work or waiting: {}", waiting.len(), waiting.join(", "));
        let fix = format!("`rune train --resume {id}` goes on with a run that is not at work");
        checks.push(DoctorCheck::warn("training runs", detail, fix));
    }
    checks
}

/// Whether the suites are what they were when they were taken in.
fn suites(home: &Home) -> Option<DoctorCheck> {
    if !home.suites().exists() {
        return None;
    }
    let fix = "remove the file, then `rune eval suites pull` or `import` it again";
    let read = || {
        let store = SuiteStore::open(home)?;
        let names = store.names()?;
        for name in &names {
            store.read(name)?;
        }
        Ok(names.len())
    };
    Some(match read() {
        Ok(n) => DoctorCheck::ok("suites", format!("{n} are what was stored")),
        Err::<_, EvaluationError>(error) => DoctorCheck::fail("suites", error.to_string(), fix),
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
