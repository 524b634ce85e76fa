//! [`SwarmTasks`]: what agents solve, and what their adapters are measured on.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::TryStreamExt;
use futures_util::stream;

use crate::evaluation;
use crate::evaluation::EvalTask;
use crate::evaluation::TaskSuite;
use crate::families::FamilySplit;
use crate::pipeline;
use crate::pipeline::ReadTask;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::task::Task;

use super::error::SwarmError;

/// The tasks of a swarm.
#[derive(Debug, Clone)]
pub struct SwarmTasks {
    /// All tasks that can be judged by one answer; those outside of train families measure
    /// adapters.
    pub suite: TaskSuite,
    /// Tasks of train families, for the agents.
    pub to_solve: Vec<Task>,
}

impl SwarmTasks {
    /// Takes the tasks of a suite.
    ///
    /// # Errors
    /// [`SwarmError::NoTasks`] if none may be trained on.
    pub fn of_suite(suite: TaskSuite) -> Result<Self, SwarmError> {
        Self::new(suite, Vec::new())
    }

    /// Reads the tasks of a file, all of which are checked: their tests run and can fail.
    ///
    /// # Errors
    /// [`SwarmError::TaskFile`] with every fault; [`SwarmError::Task`] for the first task whose
    /// tests cannot decide; [`SwarmError::NoTasks`].
    pub async fn of_file(
        (services, sandbox): (&Services, &Arc<Sandbox>),
        path: &Path,
    ) -> Result<Self, SwarmError> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut tasks = Vec::new();
        let mut is_measured = Vec::new();
        let check = |ReadTask { task, left_out }| async move {
            for omitted in left_out {
                services.notice(format!("task {}: left out {omitted}", task.id));
            }
            let plan = pipeline::plan_session((services, sandbox), task.clone()).await;
            plan.map(|plan| (task.clone(), plan.paths))
                .map_err(|source| SwarmError::Task { id: task.id.0, source })
        };
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let read = stream::iter(pipeline::read_tasks(path)?);
        let checked: Vec<_> = read.map(check).buffered(n_threads).try_collect().await?;
        for (task, paths) in checked {
            // One answer cannot be judged if there are several files, but a session can.
            is_measured.push(paths.len() == 1 && !task.tests.is_empty());
            tasks.push(evaluation::task_of_user(&task, paths.first().map_or("", String::as_str)));
        }
        // All of them together: a variant of a task that measures is never solved.
        evaluation::join_families(&mut tasks);
        let (mut measured, mut others) = (Vec::new(), Vec::new());
        for (task, is_measured) in tasks.into_iter().zip(is_measured) {
            if is_measured { measured.push(task) } else { others.push(task) }
        }
        let others = TaskSuite::new("others", others).part(FamilySplit::Train);
        let others = others.tasks().iter().filter_map(EvalTask::as_user_task);
        Self::new(TaskSuite::new(name, measured), others.collect())
    }

    /// Takes the tasks of train families of a suite, and `others` that it cannot have.
    fn new(suite: TaskSuite, others: Vec<Task>) -> Result<Self, SwarmError> {
        let train = suite.clone().part(FamilySplit::Train);
        let mut to_solve: Vec<Task> =
            train.tasks().iter().filter_map(EvalTask::as_user_task).collect();
        to_solve.extend(others);
        if to_solve.is_empty() {
            return Err(SwarmError::NoTasks(suite.name));
        }
        Ok(Self { suite, to_solve })
    }

    /// Returns the number of tasks that adapters race on.
    pub fn n_dev(&self) -> usize {
        self.suite.clone().part(FamilySplit::Dev).n_tasks()
    }

    /// Returns the number of tasks that decide about adapters, and that the report is about.
    pub fn n_gate(&self) -> usize {
        self.suite.clone().part(FamilySplit::Gate).n_tasks()
    }

    /// Keeps only the first `n` tasks to solve.
    #[must_use]
    pub fn first(mut self, n: usize) -> Self {
        self.to_solve.truncate(n);
        self
    }
}
