//! Measures base models and adapters on held-out tasks.
//!
//! A [`TaskSuite`] is a list of tasks whose answers are judged out of process. [`run`] asks the
//! base or an adapter all of them, and [`PassRate`](crate::event::PassRate) is the result with its
//! confidence interval. Two scores on the same tasks are compared task by task
//! ([`PairedScores`](crate::event::PairedScores)).

mod answers;
mod contamination;
mod error;
mod evaluator;
mod families;
mod formats;
mod intervals;
mod library;
mod measure;
mod memory;
mod modules;
mod options;
mod sessions;
mod statistics;
mod store;
mod strategy;
mod suite;
mod task;

pub use crate::registry::AnswerCost;
pub use answers::AdapterWeights;
pub use answers::AnswerCounter;
pub use answers::EvalOutcome;
pub use answers::EvaluationTools;
pub use answers::JUDGE_VERSION;
pub use answers::SuiteOutcomes;
pub use answers::UnjudgeableTask;
pub use answers::conditions;
pub use answers::conditions_of;
pub use answers::run;
pub use contamination::TextOverlap;
pub use contamination::overlaps;
pub use error::EvaluationError;
pub use evaluator::Evaluator;
pub use families::join as join_families;
pub use formats::SuiteFormat;
pub use measure::MeasuredAdapters;
pub use measure::MeasuredOutcomes;
pub use measure::measure;
pub use measure::refuse_seen;
pub use measure::store_scores;
pub use memory::SuiteMemory;
pub use modules::PackageModules;
pub use options::MeasureOptions;
pub use options::StrategyKind;
pub use options::modules_of;
pub use sessions::session_suite;
pub use sessions::task_of_user;
pub use statistics::PairedAnswer;
pub use statistics::PassAtK;
pub use statistics::TaskScore;
pub use statistics::by_task;
pub use statistics::compare;
pub use statistics::gain_e_value;
pub use statistics::groups;
pub use statistics::points;
pub use statistics::score;
pub use statistics::score_events;
pub use store::SuiteStore;
pub use strategy::AnswerStrategy;
pub use strategy::StrategyTools;
pub use suite::TaskSuite;
pub use task::AnswerCheck;
pub use task::EvalTask;
pub use task::FunctionCheck;
pub use task::SESSIONS_SUITE;
