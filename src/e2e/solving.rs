//! Steps about sessions: doctor, run, sessions, use.

use std::fs;
use std::fs::File;
use std::io::Read as _;

use serde_json::Value;

use crate::home::Home;
use crate::hub;
use crate::hub::ModelCatalogue;
use crate::trajectory::Attempt;
use crate::trajectory::Session;
use crate::trajectory::SessionStatus;

use super::binary::Ended;
use super::binary::RuneBinary;
use super::binary::argument;
use super::course::Course;
use super::course::PROJECT;
use super::report::StepFailure;
use super::report::StepResult;
use super::report::ensure;
use super::tasks::Lesson;

/// Seeds of the two libraries, which share no name.
const SEEDS: [u64; 2] = [662, 1412];
/// A task that any model solves, but for the sum that its tests ask for.
pub(super) const ADDER: &str =
    "Write adder.py with add(a, b), which returns the sum of two numbers.";
/// Bytes of a model that is cut off.
const CUT_OFF: u64 = 1 << 20;

impl Course<'_> {
    pub(super) async fn doctor(&mut self, has_fault: bool) -> StepResult {
        if has_fault {
            let broken = RuneBinary { home: self.damaged_home()?, ..self.rune.clone() };
            broken.succeed(&["models", "verify", &self.request.model]).await?;
            return Ok(Vec::new());
        }
        let user = RuneBinary { home: self.request.user.clone(), ..self.rune.clone() };
        user.home.create()?;
        user.succeed(&["models", "pull", &self.request.model]).await?;
        fs::create_dir_all(user.home.python())?;
        self.rune = user.with_new_home(self.rune.home.path().to_owned())?;
        self.rune.succeed(&["models", "verify", &self.request.model]).await?;
        let checked = self.rune.succeed(&["doctor", "--json"]).await?;
        self.lessons = SEEDS
            .into_iter()
            .map(|seed| Lesson::write(&self.request.folder, seed, self.request.profile))
            .collect::<Result<_, StepFailure>>()?;
        let n_checks = checked.stdout.lines().count();
        Ok(vec![format!("{n_checks} checks, none failed; {} is whole", self.request.model)])
    }

    /// Creates a home with the start of the model's file.
    fn damaged_home(&self) -> Result<Home, StepFailure> {
        let catalogue = ModelCatalogue::embedded();
        let model = catalogue.get(&self.request.model)?;
        let whole = hub::path(&self.request.user, model)
            .ok_or_else(|| StepFailure(format!("{} is not downloaded", self.request.model)))?;
        let home = Home::new(self.new_folder("damaged"));
        home.create()?;
        fs::create_dir_all(home.models())?;
        let mut start = Vec::new();
        File::open(&whole)?.take(CUT_OFF).read_to_end(&mut start)?;
        fs::write(home.models().join(whole.file_name().unwrap_or_default()), start)?;
        Ok(home)
    }

    pub(super) async fn run(&mut self, has_fault: bool) -> StepResult {
        let sum = if has_fault { 4 } else { 3 };
        // Tests that nothing passes cost as little as may be.
        let few: &[&str] = if has_fault { &["--max-tokens", "200"] } else { &[] };
        let rune = self.solver(&self.rune);
        let solved = self.solve(&rune, ("adder", ADDER, &adder_tests(sum)), few).await?;
        let solved = ended_session(&solved.expect("a simple task", &[0])?)?;
        let tests = "from riddle import riddle\nassert riddle() == 1\nassert riddle() == 2\n";
        let text = "Write riddle.py with riddle(), which returns a number.";
        let few = ["--candidates", "2"];
        let unsolved = self.solve(&rune, ("riddle", text, tests), &few).await?;
        let unsolved = ended_session(&unsolved.expect("contradictory tests", &[1, 6])?)?;
        let kept = unsolved["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let is_kept = kept.map(|path| self.rune.folder.join(path)).any(|path| path.is_file());
        ensure(is_kept, || "the best candidate of the unsolved task is gone".to_owned())?;
        let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
        self.sessions = vec![text(&solved, "subject"), text(&unsolved, "subject")];
        Ok(vec![
            text(&solved, "summary"),
            format!(
                "contradictory tests: exit code {}, the best candidate is kept",
                unsolved["exit_code"]
            ),
        ])
    }

    /// Returns the binary with the model that solves tasks.
    pub(super) fn solver(&self, rune: &RuneBinary) -> RuneBinary {
        rune.with("RUNE_RUN_MODEL", &self.request.solver)
    }

    /// Runs `rune run` on a task, by its name, text and tests, in a folder of its own.
    async fn solve(
        &self,
        rune: &RuneBinary,
        task: (&str, &str, &str),
        options: &[&str],
    ) -> Result<Ended, StepFailure> {
        let mut args = self.task_args(task)?;
        args.extend(options.iter().map(|option| (*option).to_owned()));
        rune.run(&args).await
    }

    /// Writes the tests of a task into a new folder, and returns the arguments that run it.
    pub(super) fn task_args(
        &self,
        (name, text, tests): (&str, &str, &str),
    ) -> Result<Vec<String>, StepFailure> {
        let folder = self.new_folder(name);
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("test_{name}.py"));
        fs::write(&path, tests)?;
        let (tests, out) = (argument(&path), argument(&folder.join("out")));
        let args = ["run", text, "--tests", &tests, "--out", &out, "--json"];
        Ok(args.map(str::to_owned).to_vec())
    }

    pub(super) async fn sessions(&mut self, has_fault: bool) -> StepResult {
        let mut figures = Vec::new();
        let expected = [SessionStatus::Solved, SessionStatus::Unsolved];
        for (id, status) in self.sessions.iter().zip(expected) {
            let mut exported = self.rune.succeed(&["sessions", "export", id]).await?.stdout;
            if has_fault {
                exported = exported.replacen("\"verdict\":\"passed\"", "\"verdict\":\"failed\"", 1);
            }
            let (session, attempts) = read(&exported)?;
            ensure(session.status == status, || {
                format!("session {id} is {}", session.status.as_str())
            })?;
            let registry = self.rune.registry()?;
            let is_same = session == registry.session(id)? && attempts == registry.attempts(id)?;
            ensure(is_same, || format!("the export of session {id} is not what is stored"))?;
            figures.push(format!("{}, attempts: {}", status.as_str(), attempts.len()));
        }
        Ok(figures)
    }

    pub(super) async fn use_promoted(&mut self, has_fault: bool) -> StepResult {
        let project = if has_fault { "another" } else { PROJECT };
        let rune = self.rune.with("RUNE_RUN_PROJECT", project);
        let lesson = &self.lessons[0];
        let (name, lib) = (lesson.library.name(), argument(&lesson.lib));
        let wanted = lesson.library.functions()[0].operation.phrases[0];
        let text = format!(
            "Write work.py with work(rows), which returns {wanted} rows. It uses the library {name}."
        );
        // Any answer will do: which adapter gives it is what counts.
        let tests = "from work import work\nassert work([3, 1, 2]) is not None\n";
        let options = ["--lib", &lib, "--adapter", "auto", "--candidates", "1"];
        let ended = self.solve(&rune, ("work", &text, tests), &options).await?;
        let ended = ended_session(&ended.expect("a session with an adapter", &[0, 1, 6])?)?;
        let id = ended["subject"].as_str().unwrap_or_default();
        let session = rune.registry()?.session(id)?;
        let reason = session.adapter_reason;
        ensure(session.adapter_id.is_some() && session.adapter_id == self.promoted, || {
            format!("the promoted adapter is not used: {reason}")
        })?;
        ensure(!reason.is_empty(), || "no reason is given".to_owned())?;
        Ok(vec![reason])
    }
}

/// Returns tests of the adder in which `1 + 2` is `sum`.
pub(super) fn adder_tests(sum: u32) -> String {
    format!("from adder import add\nassert add(1, 2) == {sum}\nassert add(5, -3) == 2\n")
}

/// Returns the event that ends a session.
fn ended_session(ended: &Ended) -> Result<Value, StepFailure> {
    let last = ended.events("session.completed").pop();
    last.ok_or_else(|| StepFailure("no session ended".to_owned()))
}

/// Reads an exported session.
fn read(exported: &str) -> Result<(Session, Vec<Attempt>), StepFailure> {
    let mut lines = exported.lines();
    let session = serde_json::from_str(lines.next().unwrap_or_default())?;
    let attempts = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok((session, attempts))
}
