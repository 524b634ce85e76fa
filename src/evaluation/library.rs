//! Checks answers to tasks of synthetic libraries.

use serde_json::json;

use crate::judge::FunctionTask;
use crate::synthetic::AnswerForm;
use crate::synthetic::LibraryCheck;

use super::modules::PackageModules;

/// Name of the function that judged code is wrapped in.
const ENTRY_POINT: &str = "rune_task";

/// Builds the check of the function that [`program`] makes: for every input, the value of the
/// reference, the name of its type, and whether the library was called.
pub(super) fn question(check: &LibraryCheck) -> FunctionTask {
    let reference = check.reference.replace("{v}", "v");
    let inputs = json!(check.inputs);
    let test = format!(
        "def check(candidate):\n    \
             reference = lambda v: {reference}\n    \
             for items in {inputs}:\n        \
                 wanted = reference(list(items))\n        \
                 assert candidate(list(items)) == [wanted, type(wanted).__name__, True]\n"
    );
    FunctionTask { entry_point: ENTRY_POINT.to_owned(), prelude: String::new(), test }
}

/// `code` as a function of one list that gives the value, the name of its type, and whether the
/// function that the task is about was called.
pub(super) fn program(check: &LibraryCheck, code: &str, modules: &PackageModules) -> String {
    let code = json!(code);
    let (given, value) = match &check.form {
        AnswerForm::Result { variable } => (
            format!("names[{}] = items; exec({code}, names)", json!(variable)),
            "names[\"result\"]".to_owned(),
        ),
        AnswerForm::Function { name } => {
            (format!("exec({code}, names)"), format!("names[{}](items)", json!(name)))
        }
        AnswerForm::Name { all } => (
            format!("import re; said = re.findall(r\"\\w+\", {code})"),
            format!("[name for name in {} if name in said]", json!(all)),
        ),
    };
    let (calls, were_used) = match &check.required {
        Some(uses) => (
            format!("import {0} as library; calls = library._calls; calls.clear()", uses.library),
            format!("set({}) <= set(calls)", json!(uses.names)),
        ),
        None => ("pass".to_owned(), "True".to_owned()),
    };
    format!(
        "{}\n\ndef {ENTRY_POINT}(items):\n    \
             {calls}\n    \
             names = {{\"__name__\": \"solution\"}}\n    \
             {given}\n    \
             value = {value}\n    \
             return [value, type(value).__name__, {were_used}]\n",
        modules.bootstrap(),
    )
}
