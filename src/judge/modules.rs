//! Which modules the interpreter has by itself.

use serde_json::json;

use super::harness::Judge;
use super::harness::JudgeError;
use super::harness::tail;
use crate::sandbox::Job;

/// Answers on descriptor 3 which of the names on standard input can be imported. Of a name without dots nothing is run.
const QUESTION: &str = "\
import importlib.util, json, os, sys
def has(name):
    try:
        return name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None
    except Exception:
        return False
names = json.load(sys.stdin)
with os.fdopen(3, 'w', encoding='ascii') as channel:
    json.dump([name for name in names if has(name)], channel)
";

impl Judge<'_> {
    /// Those of `names`, which are top-level modules, that the interpreter has by itself: standard or installed. It is
    /// asked in the jail, where tests will look for them.
    /// # Errors
    /// [`JudgeError::Sandbox`], [`JudgeError::Harness`].
    pub async fn installed_modules(&self, names: &[String]) -> Result<Vec<String>, JudgeError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let job = Job {
            args: ["-I", "-B", "-c", QUESTION].map(str::to_owned).into(),
            stdin: json!(names).to_string().into_bytes(),
            mounts: self.interpreter.mounts(),
            channel: true,
            limits: self.limits,
            ..Job::new(self.interpreter.executable())
        };
        let outcome = self.sandbox.run(&job).await?;
        serde_json::from_slice(&outcome.channel).map_err(|_| JudgeError::Harness {
            program: "modules",
            exit: outcome.exit,
            stderr: tail(&outcome.stderr),
        })
    }
}
