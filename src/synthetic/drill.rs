//! A drill: records and tasks of one wording, from which a model of any size learns a library in
//! minutes.

use super::library::SyntheticLibrary;
use super::random::SeededRng;
use super::records::LibraryRecord;
use super::records::record;
use super::tasks::LibraryTask;
use super::templates;
use super::templates::TEST;
use super::templates::TRAINING;

/// Index of the only phrase of an operation that a drill uses.
const PHRASE: usize = 0;

impl SyntheticLibrary {
    /// Generates one record for each function and training variable, in a random order that the
    /// seed reproduces: a comment asks for a value that the function computes.
    pub fn drill_records(&self) -> Vec<LibraryRecord> {
        let mut rng = SeededRng::new(self.seed(), "drill");
        let mut records = Vec::new();
        for function in self.functions() {
            for variable in TRAINING.variables {
                let wanted = format!("{} {variable}", function.operation.phrases[PHRASE]);
                let call = self.call(function, variable);
                let code = templates::assignment(Some(self.name()), &wanted, &call);
                let family = self.drill_family(function.operation.id, variable);
                records.push(record(&code, &family, &mut rng));
            }
        }
        rng.shuffle(&mut records);
        records
    }

    /// Generates the held-out tasks of the drill: the wordings of its records about `4 *
    /// n_variables` other variables. They tell whether names were learned, and not, as
    /// [`Self::tasks`] does, whether they are found from other words. Each is a family of its own.
    pub fn drill_tasks(&self, n_variables: usize) -> Vec<LibraryTask> {
        let mut tasks = Vec::new();
        for function in self.functions() {
            for number in 1..=n_variables {
                for noun in TEST.variables {
                    let variable = format!("{noun}_{number}");
                    let family = self.drill_family(function.operation.id, &variable);
                    let task = self.assignment(function, PHRASE, &variable);
                    tasks.push(LibraryTask { family, ..task });
                }
            }
        }
        tasks
    }

    fn drill_family(&self, operation: &str, variable: &str) -> String {
        format!("{}/drill/{operation}/{variable}", self.name())
    }
}
