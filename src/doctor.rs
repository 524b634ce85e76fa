//! Health checks: what works on this machine, and how to fix the rest.

mod sandbox;
mod server;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde::Serialize;

use crate::config::Config;
use crate::error_class::with_causes;
use crate::evaluation::EvaluationError;
use crate::evaluation::SuiteStore;
use crate::hardware;
use crate::hardware::Gpu;
use crate::hardware::Machine;
use crate::home::Home;
use crate::hub;
use crate::hub::CataloguedModel;
use crate::hub::ModelCatalogue;
use crate::model;
use crate::model::Isa;
use crate::provider::is_model_path;
use crate::registry::AdapterStore;
use crate::registry::Registry;
use crate::registry::RunStatus;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxError;
use crate::training;
use crate::training::ExampleSets;
use crate::training::Preset;
use crate::training::TrainingOptions;

/// The page that explains warnings and failures, by the names of checks.
const TROUBLESHOOTING: &str = include_str!("../docs/troubleshooting.md");

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Everything works as it should.
    Ok,
    /// Works with limitations, or is not installed yet.
    Warn,
    /// Required and not working.
    Fail,
}

/// One check with its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorCheck {
    /// Name of the check.
    pub name: String,
    /// Result of the check.
    pub status: CheckStatus,
    /// Details, such as a version or an error.
    pub detail: String,
    /// Advice on how to fix a warning or failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// File and anchor of the section that explains a warning or failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
}

/// Input of the checks.
#[derive(Debug)]
pub struct DoctorInput<'a> {
    /// Rune's home, which may not exist yet.
    pub home: &'a Home,
    /// Settings from all layers.
    pub config: &'a Config,
    /// Python interpreter, if one was found.
    pub python: Option<PathBuf>,
    /// Sandbox, which must be started before this process has other threads; or the reason why it
    /// is unavailable.
    pub sandbox: Result<Arc<Sandbox>, SandboxError>,
}

/// Runs all checks. Takes several seconds: downloaded models are hashed, and hostile programs run
/// in the sandbox.
pub fn run_checks(input: &DoctorInput<'_>) -> Vec<DoctorCheck> {
    let mut checks = machine();
    checks.extend(home(input.home));
    checks.extend(programs(input.python.as_deref()));
    checks.extend(sandbox::run_checks(input));
    checks.extend(models(input.home, &input.config.run.model));
    checks.extend(gpu());
    checks.extend(server::check(input.config));
    checks.extend(server::leases(input.home));
    checks.extend(registry(input.home));
    checks.extend(training(input));
    checks.extend(suites(input.home));
    checks
}

/// Names the GPUs; `None` without a driver, as Rune needs none.
fn gpu() -> Option<DoctorCheck> {
    let gpus = match hardware::gpus() {
        Ok(gpus) => gpus,
        Err(error) => {
            let fix = "check the driver with `nvidia-smi`";
            return Some(DoctorCheck::warn("gpu", error.to_string(), fix));
        }
    };
    let describe = |gpu: &Gpu| {
        format!(
            "{}, {} of {} MiB free, {} processes, driver {}",
            gpu.name,
            gpu.free_bytes >> 20,
            gpu.memory_bytes >> 20,
            gpu.processes.len(),
            gpu.driver
        )
    };
    let all: Vec<String> = gpus.iter().map(describe).collect();
    (!all.is_empty()).then(|| DoctorCheck::ok("gpu", all.join("; ")))
}

impl DoctorCheck {
    fn ok(name: &str, detail: impl Into<String>) -> Self {
        let (name, detail) = (name.to_owned(), detail.into());
        Self { name, status: CheckStatus::Ok, detail, fix: None, docs: None }
    }

    fn warn(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let (fix, docs) = (Some(fix.into()), section(name));
        Self { status: CheckStatus::Warn, fix, docs, ..Self::ok(name, detail) }
    }

    fn fail(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: CheckStatus::Fail, ..Self::warn(name, detail, fix) }
    }
}

/// Finds the section about the check `name`: the longest heading that the name begins with.
fn section(name: &str) -> Option<String> {
    let headings = TROUBLESHOOTING.lines().filter(|line| line.starts_with("##"));
    let headings = headings.map(|line| line.trim_start_matches('#').trim_start());
    let heading = headings.filter(|heading| name.starts_with(heading)).max_by_key(|h| h.len())?;
    let anchor = heading.replace(':', "").replace(' ', "-");
    Some(format!("docs/troubleshooting.md#{anchor}"))
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
            "close other programs: the default model needs 2 GiB",
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
            "free 2 GiB of disk space for models",
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
        || DoctorCheck::warn("git", "not found", "install git, which identifies projects"),
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
                "install pip, which downloads pytest and models from the mirror",
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

/// Checks the configured model and every downloaded one.
fn models(home: &Home, configured: &str) -> Vec<DoctorCheck> {
    let catalogue = ModelCatalogue::embedded();
    let mut checks = Vec::new();
    if is_model_path(configured) {
        checks.push(model_file(configured));
    } else if let Err(error) = catalogue.get(configured) {
        let fix = "set run.model to a name from `rune models list`, or to the path of a GGUF file";
        checks.push(DoctorCheck::fail("model", error.to_string(), fix));
    }
    for model in catalogue.models() {
        let is_downloaded = hub::path(home, model).is_some();
        if is_downloaded || model.name == configured {
            checks.push(catalog_model(home, model, is_downloaded));
        }
    }
    checks
}

/// Checks a GGUF file outside the catalog, for which no digest is pinned.
fn model_file(path: &str) -> DoctorCheck {
    let name = format!("model {path}");
    match model::identify(Path::new(path)) {
        Ok(identity) => DoctorCheck::ok(&name, format!("sha256 {}", identity.base_digest)),
        Err(error) => {
            let fix = "set run.model to a GGUF file that Rune supports";
            DoctorCheck::fail(&name, with_causes(&error), fix)
        }
    }
}

fn catalog_model(home: &Home, model: &CataloguedModel, is_downloaded: bool) -> DoctorCheck {
    let name = format!("model {}", model.name);
    let pull = format!("rune models pull {}", model.name);
    if !is_downloaded {
        return DoctorCheck::warn(&name, "not downloaded", pull);
    }
    match hub::verify(home, model) {
        Ok(path) => DoctorCheck::ok(&name, format!("{}, sha256 verified", path.display())),
        Err(error) => {
            DoctorCheck::fail(&name, error.to_string(), format!("delete the file, then {pull}"))
        }
    }
}

/// Checks the database and the adapters in it.
fn registry(home: &Home) -> Vec<DoctorCheck> {
    let path = home.registry();
    if !path.exists() {
        return vec![DoctorCheck::ok("registry", "not created yet")];
    }
    let fix = "restore rune.db from a backup, or move it away";
    let fail = |detail: String| vec![DoctorCheck::fail("registry", detail, fix)];
    let registry = match Registry::open(&path).map(Arc::new) {
        Ok(registry) => registry,
        Err(error) => return fail(error.to_string()),
    };
    let checked = registry.quick_check().and_then(|found| Ok((found, registry.n_experiences()?)));
    match checked {
        Ok((found, n_records)) if found.is_empty() => {
            let detail = format!("{}, {n_records} solved tasks to show", path.display());
            vec![DoctorCheck::ok("registry", detail), adapters(&registry, home), swarm(&registry)]
        }
        Ok((found, _)) => fail(found.join("; ")),
        Err(error) => fail(error.to_string()),
    }
}

/// Reports the newest swarm, and how to go on with one that has not ended.
fn swarm(registry: &Registry) -> DoctorCheck {
    match registry.swarms(1) {
        Ok(swarms) => match swarms.first() {
            None => DoctorCheck::ok("swarm", "none yet"),
            Some(swarm) if swarm.status == RunStatus::Completed => {
                DoctorCheck::ok("swarm", format!("{} is completed", swarm.id))
            }
            Some(swarm) => {
                let (id, status) = (&swarm.id, swarm.status.as_str());
                let next = "unless it is at work, `rune swarm --resume` continues it";
                DoctorCheck::ok("swarm", format!("{id} is {status}: {next}"))
            }
        },
        Err(error) => {
            DoctorCheck::fail("registry: swarm", error.to_string(), "restore rune.db from a backup")
        }
    }
}

fn adapters(registry: &Arc<Registry>, home: &Home) -> DoctorCheck {
    let fix = "restore the folder from a backup; `rune adapters verify` lists all damaged ones";
    let mut n_adapters = 0;
    let verified =
        AdapterStore::open(registry, home).and_then(|store| store.verify(&mut |_| n_adapters += 1));
    match verified {
        Ok(damages) => match damages.first() {
            None => {
                DoctorCheck::ok("adapters", format!("{n_adapters}, matching their stored digests"))
            }
            Some(damage) => {
                let detail = format!("{}: {}", damage.path.display(), damage.reason);
                DoctorCheck::fail("adapters", detail, fix)
            }
        },
        Err(error) => DoctorCheck::fail("adapters", error.to_string(), fix),
    }
}

/// Checks the memory for training the configured model, and looks for interrupted runs.
fn training(input: &DoctorInput<'_>) -> Vec<DoctorCheck> {
    let mut checks = Vec::new();
    if let Some(path) = model_path(input) {
        let options = TrainingOptions::preset(Preset::Quick);
        let needed = training::memory(&path, &options, &ExampleSets::default());
        let available = Machine::read().map(|machine| machine.available_bytes);
        if let (Ok(needed), Ok(available)) = (needed, available) {
            let detail = format!(
                "this model needs about {}, {} are free",
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
    let database = input.home.registry();
    let runs = database.exists().then(|| Registry::open(&database)).and_then(Result::ok);
    let runs = runs.and_then(|registry| registry.training_runs(100).ok()).unwrap_or_default();
    let waiting: Vec<&str> = runs
        .iter()
        .filter(|run| input.home.training().join(&run.id).exists())
        .map(|run| run.id.as_str())
        .collect();
    if let Some(id) = waiting.first() {
        let detail = format!("{} active or interrupted: {}", waiting.len(), waiting.join(", "));
        let fix = format!("resume an interrupted run with `rune train --resume {id}`");
        checks.push(DoctorCheck::warn("training runs", detail, fix));
    }
    checks
}

/// Returns the file of the configured model, if it is downloaded or given by path.
fn model_path(input: &DoctorInput<'_>) -> Option<PathBuf> {
    let configured = &input.config.run.model;
    if is_model_path(configured) {
        return Some(PathBuf::from(configured));
    }
    hub::path(input.home, ModelCatalogue::embedded().get(configured).ok()?)
}

/// Checks that stored suites are unchanged; `None` if there are none.
fn suites(home: &Home) -> Option<DoctorCheck> {
    if !home.suites().exists() {
        return None;
    }
    let fix = "remove the file, then pull or import the suite again with `rune eval suites`";
    let read = || {
        let store = SuiteStore::open(home)?;
        let names = store.names()?;
        for name in &names {
            store.read(name)?;
        }
        Ok(names.len())
    };
    Some(match read() {
        Ok(n) => DoctorCheck::ok("suites", format!("{n}, matching their stored digests")),
        Err::<_, EvaluationError>(error) => DoctorCheck::fail("suites", error.to_string(), fix),
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_link_to_their_section() {
        let check = |name| section(name).unwrap_or_default();
        assert_eq!(check("model smollm2-135m-instruct"), "docs/troubleshooting.md#model");
        assert_eq!(check("memory cap"), "docs/troubleshooting.md#memory-cap");
        assert_eq!(check("gap: processes"), "docs/troubleshooting.md#gap-processes");
        assert_eq!(section("unknown"), None);
    }

    /// Every name that the source of this module gives to a check.
    #[test]
    fn every_check_has_a_section() {
        let source = [include_str!("doctor.rs"), include_str!("doctor/sandbox.rs")].concat();
        let calls = source.split("DoctorCheck::").skip(1);
        let calls = calls.filter_map(|call| {
            ["warn(", "fail("].iter().find_map(|start| call.strip_prefix(start))
        });
        let names = calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next());
        let names: Vec<_> = names.collect();
        assert!(names.len() > 15, "{names:?}");
        let missing: Vec<_> = names.iter().filter(|name| section(name).is_none()).collect();
        assert!(missing.is_empty(), "no section in docs/troubleshooting.md: {missing:?}");
    }
}
