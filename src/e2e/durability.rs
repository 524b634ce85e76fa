//! Steps about what survives: crash, swarm, integrity.

use std::fs;
use std::path::Path;

use crate::failpoint::Failpoint;
use crate::job::JobKind;
use crate::job::JobState;
use crate::registry::AdapterFilter;
use crate::registry::JobFilter;
use crate::registry::SessionFilter;
use crate::trajectory::SessionStatus;

use super::binary::RuneBinary;
use super::binary::argument;
use super::course::Course;
use super::report::StepFailure;
use super::report::StepResult;
use super::report::ensure;
use super::solving::ADDER;
use super::solving::adder_tests;
use super::tasks::task_lines;

/// Tasks of the swarm.
const N_TASKS: usize = 8;
/// Tasks after which the swarm is stopped.
const N_BEFORE_STOP: usize = 2;

impl Course<'_> {
    pub(super) async fn crash(&mut self, has_fault: bool) -> StepResult {
        let rune = self.elsewhere("crash")?;
        self.crash_session(&rune, has_fault).await?;
        let mut training = rune.start(&self.short_args("6"))?;
        training.wait_for("\"type\":\"training.step\"", 2).await?;
        training.kill().await?;
        self.resume_training(&rune).await?;
        let adapter = Self::adapter_named(&rune, "short")?;
        ensure(adapter.sha256 == self.short_sha256, || {
            "the resumed training gave another file than one that was not killed".to_owned()
        })?;
        // The next training is another one, and dies while it is published.
        let armed = rune.with("RUNE_FAILPOINT", Failpoint::AdapterPlaced.name());
        let killed = armed.run(&self.short_args("8")).await?;
        ensure(killed.status.code().is_none(), || "the failpoint was not passed".to_owned())?;
        self.resume_training(&rune).await?;
        rune.succeed(&["adapters", "verify"]).await?;
        let n_adapters = rune.registry()?.adapters(&AdapterFilter::default())?.len();
        ensure(n_adapters == 2, || format!("{n_adapters} adapters instead of 2"))?;
        Ok(vec![
            "a killed session was resumed and solved".to_owned(),
            "a killed training gave the file of one that was not killed".to_owned(),
            "a killed publication was completed; 2 adapters, none twice".to_owned(),
        ])
    }

    /// Kills a session at its first answer, and resumes it.
    async fn crash_session(&self, rune: &RuneBinary, has_fault: bool) -> Result<(), StepFailure> {
        let rune = self.solver(rune);
        let args = self.task_args(("adder", ADDER, &adder_tests(3)))?;
        let mut session = rune.start(&args)?;
        session.wait_for("\"type\":\"phase.started\"", 1).await?;
        session.kill().await?;
        let sessions = rune.registry()?.sessions(&SessionFilter::default(), 10)?;
        let [killed] = sessions.as_slice() else {
            return Err(StepFailure(format!("{} sessions instead of 1", sessions.len())));
        };
        if !has_fault {
            rune.succeed(&["run", "--resume", &killed.id]).await?;
        }
        let status = rune.registry()?.session(&killed.id)?.status;
        ensure(status == SessionStatus::Solved, || {
            format!("the killed session is {}", status.as_str())
        })
    }

    /// Resumes the newest training.
    async fn resume_training(&self, rune: &RuneBinary) -> Result<(), StepFailure> {
        let runs = rune.registry()?.training_runs(1)?;
        let run = runs.first().ok_or_else(|| StepFailure("no training is known".to_owned()))?;
        rune.succeed(&["train", "--resume", &run.id]).await?;
        Ok(())
    }

    pub(super) async fn swarm(&mut self, has_fault: bool) -> StepResult {
        let rune = self.elsewhere("swarm")?;
        let tasks = rune.home.path().join("tasks.jsonl");
        fs::write(&tasks, task_lines(N_TASKS))?;
        let tasks = argument(&tasks);
        let args =
            ["swarm", "--tasks", &tasks, "--generations", "1", "--train-every", "0", "--json"];
        let mut swarm = rune.start(&args)?;
        swarm.wait_for("\"state\":\"done\"", N_BEFORE_STOP).await?;
        let status = swarm.interrupt().await?;
        ensure(status.code() == Some(130), || format!("the stopped swarm: {status}"))?;
        let registry = rune.registry()?;
        let before = registry.jobs(&solved(None), 100)?.len();
        let all = registry.swarms(1)?;
        let swarm = all.first().ok_or_else(|| StepFailure("no swarm is known".to_owned()))?;
        if !has_fault {
            rune.succeed(&["swarm", "--resume", &swarm.id]).await?;
        }
        let done = registry.jobs(&solved(Some(JobState::Done)), 100)?;
        ensure(done.len() == N_TASKS && before == N_TASKS, || {
            format!("{} of {before} jobs are done", done.len())
        })?;
        let sessions = registry.sessions(&SessionFilter::default(), 100)?;
        let ended = sessions.iter().filter(|session| session.ended_at.is_some()).count();
        ensure(sessions.len() == N_TASKS && ended == N_TASKS, || {
            format!("{ended} of {} sessions have ended", sessions.len())
        })?;
        let n_solved =
            sessions.iter().filter(|session| session.status == SessionStatus::Solved).count();
        Ok(vec![format!(
            "stopped after {N_BEFORE_STOP} of {N_TASKS} tasks and resumed: {N_TASKS} sessions, \
             {n_solved} solved"
        )])
    }

    pub(super) async fn integrity(&mut self, has_fault: bool) -> StepResult {
        let left_behind =
            if has_fault { Some(self.rune.start(&["events", "--follow"])?) } else { None };
        let n_processes = processes_of(&self.request.folder)?;
        if let Some(process) = left_behind {
            process.kill().await?;
        }
        ensure(n_processes == 0, || format!("processes still at work: {n_processes}"))?;
        self.rune.succeed(&["adapters", "verify"]).await?;
        self.rune.succeed(&["doctor"]).await?;
        let home = &self.rune.home;
        let left: Vec<String> = [home.training(), home.adapters().join(".staging")]
            .iter()
            .filter(|folder| folder.exists())
            .map(|folder| Ok(fs::read_dir(folder)?.count()))
            .zip(["training", "adapters/.staging"])
            .filter_map(|(found, name): (std::io::Result<usize>, _)| match found {
                Ok(0) => None,
                Ok(n) => Some(format!("{n} in {name}")),
                Err(error) => Some(format!("{name}: {error}")),
            })
            .collect();
        ensure(left.is_empty(), || format!("files left behind: {}", left.join(", ")))?;
        let n_adapters = self
            .rune
            .registry()?
            .adapters(&AdapterFilter { archived: true, ..Default::default() })?;
        Ok(vec![format!("{} adapters verified, no process and no file left", n_adapters.len())])
    }
}

fn solved(state: Option<JobState>) -> JobFilter {
    JobFilter { kind: Some(JobKind::Solve), state, ..JobFilter::default() }
}

/// Counts the processes whose environment names a path in `folder`.
fn processes_of(folder: &Path) -> Result<usize, StepFailure> {
    let wanted = format!("RUNE_HOME={}", folder.display());
    let mut n_found = 0;
    for entry in fs::read_dir("/proc")? {
        // A process may end while its folder is read.
        let Ok(environment) = fs::read(entry?.path().join("environ")) else { continue };
        let is_ours = |variable: &[u8]| variable.starts_with(wanted.as_bytes());
        n_found += usize::from(environment.split(|byte| *byte == 0).any(is_ours));
    }
    Ok(n_found)
}
