//! [`Evaluator`]: an opened model with the judges and the strategy of an evaluation.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use crate::adapter::AdapterId;
use crate::error_class::with_causes;
use crate::judge::FunctionJudge;
use crate::judge::Judge;
use crate::judge::library_mounts;
use crate::judge::mount_installed_pytest;
use crate::pipeline::SessionSettings;
use crate::provider::Provider;
use crate::registry::AdapterStore;
use crate::sandbox::Limits;
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::trajectory::Sampling;

use super::answers::AdapterWeights;
use super::answers::EvaluationTools;
use super::error::EvaluationError;
use super::memory::SuiteMemory;
use super::modules::PackageModules;
use super::options::MeasureOptions;
use super::options::StrategyKind;
use super::strategy::AnswerStrategy;
use super::strategy::StrategyTools;
use super::suite::TaskSuite;

/// Opened model with the judges and the strategy of an evaluation.
pub struct Evaluator<'a> {
    services: &'a Services,
    modules: &'a PackageModules,
    options: &'a MeasureOptions,
    /// The model that answers.
    pub provider: Arc<Provider>,
    judge: FunctionJudge,
    pipeline: StrategyTools,
    /// Holds the registry of the sessions of [`Self::pipeline`].
    _scratch: TempDir,
}

impl<'a> Evaluator<'a> {
    /// Opens the model of the configuration, and starts the judges. `needs_pytest` says that tests
    /// may be for pytest, which is mounted then if Rune has installed it.
    ///
    /// # Errors
    /// [`EvaluationError::Provider`]; [`EvaluationError::Sandbox`]; [`EvaluationError::Judge`];
    /// [`EvaluationError::Request`] for a folder of packages that cannot be mounted;
    /// [`EvaluationError::Files`].
    pub async fn open(
        (services, sandbox): (&'a Services, &Arc<Sandbox>),
        (modules, needs_pytest): (&'a PackageModules, bool),
        options: &'a MeasureOptions,
    ) -> Result<Self, EvaluationError> {
        let interpreter = sandbox.interpreter(services.python())?;
        let limits = Limits::from(&services.config.sandbox);
        let judge = FunctionJudge::start(sandbox, &interpreter, limits).await?;
        let provider = services.models.open(&services.config, &*services.reporter).await?;
        // Sessions of an evaluation must never become training data, so their registry is
        // temporary.
        let scratch = tempfile::tempdir()
            .map_err(|source| EvaluationError::Files { path: std::env::temp_dir(), source })?;
        let mut visible = Judge::new(sandbox, &interpreter);
        visible.limits = limits;
        visible.libs.extend(library_mounts(options.lib.as_slice())?);
        if needs_pytest {
            mount_installed_pytest(&mut visible, &services.home).await?;
        }
        let settings = SessionSettings::new(&services.config);
        let pipeline = StrategyTools::new(visible, settings, &scratch.path().join("rune.db"))?;
        Ok(Self { services, modules, options, provider, judge, pipeline, _scratch: scratch })
    }

    /// Loads an adapter of the registry.
    ///
    /// # Errors
    /// [`EvaluationError::Registry`], [`EvaluationError::Provider`].
    pub async fn load_stored(&self, id: &AdapterId) -> Result<AdapterWeights, EvaluationError> {
        let Services { registry, home, .. } = self.services;
        let adapter = registry.adapter(id)?;
        let folder = AdapterStore::open(registry, home)?.path(id);
        let weights = self.load(id, (&folder, &adapter.sha256)).await?;
        Ok(AdapterWeights { is_stored: true, ..weights })
    }

    /// Loads an adapter that is not in the registry: that in `folder`, whose weights have the
    /// digest `sha256`.
    ///
    /// # Errors
    /// [`EvaluationError::Provider`].
    pub async fn load(
        &self,
        id: &AdapterId,
        (folder, sha256): (&Path, &str),
    ) -> Result<AdapterWeights, EvaluationError> {
        self.provider.load_adapter(id, folder).await?;
        Ok(AdapterWeights { id: id.clone(), sha256: sha256.to_owned(), is_stored: false })
    }

    /// Returns what the options show for each task of a suite.
    ///
    /// # Errors
    /// Those of [`SuiteMemory::recall`].
    pub async fn memory(&self, suite: &TaskSuite) -> Result<SuiteMemory, EvaluationError> {
        if !self.options.shows_records {
            return Ok(SuiteMemory::default());
        }
        let tools = (self.services, &*self.provider, &self.pipeline.judge);
        SuiteMemory::recall(tools, self.options.lib.as_slice(), suite).await
    }

    /// Unloads an adapter, which frees its memory. A server that fails to do so is only reported:
    /// nothing depends on it.
    pub async fn unload(&self, weights: &AdapterWeights) {
        if let Err(error) = self.provider.unload_adapter(&weights.id).await {
            self.services.notice(format!("{} stays loaded: {}", weights.id, with_causes(&error)));
        }
    }

    /// Returns tools that ask with another seed and, for single completions, with another sampling.
    pub fn other_tools<'t>(&'t self, sampling: &'t Sampling, seed: u64) -> EvaluationTools<'t> {
        let tools = self.tools(SuiteMemory::default());
        let strategy = match tools.strategy {
            AnswerStrategy::Completions(_) => AnswerStrategy::Completions(sampling),
            other => other,
        };
        EvaluationTools { strategy, seed, ..tools }
    }

    /// Returns the tools to ask the tasks of a suite with.
    pub fn tools(&self, memory: SuiteMemory) -> EvaluationTools<'_> {
        let strategy = match self.options.strategy {
            StrategyKind::Completions => AnswerStrategy::Completions(&self.options.sampling),
            StrategyKind::BestOfN => AnswerStrategy::BestOfN(&self.pipeline),
            StrategyKind::Pipeline => AnswerStrategy::Pipeline(&self.pipeline),
        };
        EvaluationTools {
            provider: &self.provider,
            judge: &self.judge,
            suites: &self.pipeline.judge,
            modules: self.modules,
            strategy,
            registry: &self.services.registry,
            is_fresh: self.options.is_fresh,
            seed: self.services.config.run.seed,
            n_samples: self.options.n_samples,
            memory,
        }
    }
}
