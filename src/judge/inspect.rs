//! Reads Python without running it: interfaces, imports, lint, stubs.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::harness::Judge;
use super::harness::JudgeError;
use super::harness::JudgeProgram;
use crate::task::SourceFile;

/// Where a file stops being Python.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyntaxFault {
    /// The line, from 1; 0 when unknown.
    pub line: u32,
    /// What the parser says.
    pub message: String,
    /// The line itself.
    pub text: String,
}

/// A module that a file imports, and the names that it uses of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportNeed {
    /// The dotted module name.
    pub module: String,
    /// Names imported from it or read as its attributes, in order.
    pub names: Vec<String>,
}

/// What a top-level statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// `import` or `from ... import`.
    Import,
    /// A function, a class or an assignment.
    Definition,
    /// `if __name__ == "__main__":`.
    Main,
    /// Anything else, such as a docstring or a call.
    Other,
}

/// A top-level statement with the comments right before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopStatement {
    /// What it is.
    pub kind: StatementKind,
    /// Names that it defines.
    pub names: Vec<String>,
    /// Its source.
    pub text: String,
}

/// What a Python file shows without being run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInspection {
    /// The file.
    pub path: String,
    /// Why it can't be parsed; the fields below but [`Self::elisions`] are empty then.
    pub error: Option<SyntaxFault>,
    /// Public functions, classes with their methods, and constants: one signature a line, bodies as
    /// `...`.
    pub interface: String,
    /// Top-level names of imported modules, sorted.
    pub imports: Vec<String>,
    /// Modules outside the standard library and what is used of them, in order.
    pub needs: Vec<ImportNeed>,
    /// Names that are read but bound nowhere, in order: forgotten imports, for the most part.
    pub unbound: Vec<String>,
    /// Names defined at the top level, in order.
    pub defines: Vec<String>,
    /// The top-level statements, in order.
    pub statements: Vec<TopStatement>,
    /// SHA-256 of the syntax tree: the same for code that differs in comments, layout or
    /// docstrings.
    pub digest: Option<String>,
    /// Names that a solution has little honest use for, such as `os._exit` or `sys._getframe`.
    pub suspicious: Vec<String>,
    /// Comments that stand for code left out, such as `# rest of the code`.
    pub elisions: Vec<String>,
    /// Functions whose body is only `pass`, `...`, a docstring or `raise NotImplementedError`.
    pub stubs: Vec<String>,
}

impl FileInspection {
    /// Whether the file is code and all there: it parses and nothing is left out.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && self.elisions.is_empty() && self.stubs.is_empty()
    }
}

/// What a stub's functions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StubKind {
    /// `return None`.
    ReturnsNone,
    /// `raise NotImplementedError`.
    Raises,
}

impl StubKind {
    /// Both kinds: a suite has to fail on each.
    pub const ALL: [Self; 2] = [Self::ReturnsNone, Self::Raises];

    fn body(self) -> &'static str {
        match self {
            Self::ReturnsNone => "return None",
            Self::Raises => "raise NotImplementedError",
        }
    }
}

impl Judge {
    /// Parses the Python files of `files` in the jail; other files are passed over.
    /// # Errors
    /// [`JudgeError::Sandbox`], [`JudgeError::Harness`]; a file that is not Python is no error.
    pub async fn inspect(&self, files: &[SourceFile]) -> Result<Vec<FileInspection>, JudgeError> {
        let python = files.iter().filter(|file| file.module().is_some());
        let readable: Vec<Value> =
            python.map(|file| json!({ "path": file.path, "text": decoded(file) })).collect();
        self.ask(JudgeProgram::Inspect, &[], &json!(readable)).await
    }

    /// The same files with every function's body but `__init__`'s replaced: the negative control of
    /// a suite. Files that can't be parsed, or are not Python, stay as they are.
    /// # Errors
    /// [`JudgeError::Sandbox`], [`JudgeError::Harness`].
    pub async fn stub_of(
        &self,
        files: &[SourceFile],
        kind: StubKind,
    ) -> Result<Vec<SourceFile>, JudgeError> {
        let plan = json!({ "files": files, "body": kind.body() });
        self.ask(JudgeProgram::Stub, &[], &plan).await
    }
}

/// A Python file as text: without a byte order mark, and as Latin-1 where it is not UTF-8, which
/// keeps every name that is plain ASCII.
fn decoded(file: &SourceFile) -> String {
    if file.is_text() {
        file.text.trim_start_matches('\u{feff}').to_owned()
    } else {
        file.bytes().iter().copied().map(char::from).collect()
    }
}
