//! Static inspection of Python files: interfaces, imports, lint, stubs. Nothing is executed.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::harness::Judge;
use super::harness::JudgeError;
use super::harness::JudgeProgram;
use crate::task::SourceFile;

/// A syntax error in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyntaxFault {
    /// Line number from 1; 0 if unknown.
    pub line: u32,
    /// Message of the parser.
    pub message: String,
    /// Source text of the line.
    pub text: String,
}

/// A module that a file imports, and the names that it uses from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportNeed {
    /// The dotted module name.
    pub module: String,
    /// Names imported from it or read as its attributes, in order.
    pub names: Vec<String>,
}

/// The kind of a top-level statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// `import` or `from ... import`.
    Import,
    /// A function, a class or an assignment.
    Definition,
    /// The block under `if __name__ == "__main__":`.
    Main,
    /// Anything else, such as a docstring or a call.
    Other,
}

/// A top-level statement with the comments directly before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopStatement {
    /// The kind of the statement.
    pub kind: StatementKind,
    /// Names that the statement defines.
    pub names: Vec<String>,
    /// Source text, comments included.
    pub text: String,
}

/// The result of inspecting a Python file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInspection {
    /// Path of the inspected file.
    pub path: String,
    /// The syntax error, if the file cannot be parsed. All fields below but [`Self::elisions`] are
    /// empty then.
    pub error: Option<SyntaxFault>,
    /// Public functions, classes with their methods, and constants: one signature per line, bodies
    /// as `...`.
    pub interface: String,
    /// Top-level names of imported modules, sorted.
    pub imports: Vec<String>,
    /// Modules outside the standard library and the names used from them, in order.
    pub needs: Vec<ImportNeed>,
    /// Names that are read but bound nowhere, in order: mostly forgotten imports.
    pub unbound: Vec<String>,
    /// Names defined at the top level, in order.
    pub defines: Vec<String>,
    /// The top-level statements, in order.
    pub statements: Vec<TopStatement>,
    /// SHA-256 of the syntax tree: equal for code that differs only in comments, layout or
    /// docstrings.
    pub digest: Option<String>,
    /// Names that an honest solution rarely uses, such as `os._exit` or `sys._getframe`.
    pub suspicious: Vec<String>,
    /// Comments that stand for omitted code, such as `# rest of the code`.
    pub elisions: Vec<String>,
    /// Functions whose body is only `pass`, `...`, a docstring or `raise NotImplementedError`.
    pub stubs: Vec<String>,
}

impl FileInspection {
    /// Whether the file parses and no code is omitted.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && self.elisions.is_empty() && self.stubs.is_empty()
    }
}

/// What a public function or class of a package says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentedName {
    /// Dotted name of the shortest module that offers it.
    pub module: String,
    /// Its signatures as in [`FileInspection::interface`], then the rest of its docstring as
    /// comments.
    pub text: String,
}

/// The body of a stub's functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StubKind {
    /// The body `return None`.
    ReturnsNone,
    /// The body `raise NotImplementedError`.
    Raises,
}

impl StubKind {
    /// Both kinds: a useful suite fails on each.
    pub const ALL: [Self; 2] = [Self::ReturnsNone, Self::Raises];

    fn body(self) -> &'static str {
        match self {
            Self::ReturnsNone => "return None",
            Self::Raises => "raise NotImplementedError",
        }
    }
}

impl Judge {
    /// Parses the Python files among `files` in the jail; other files are ignored.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`], [`JudgeError::Harness`]; a syntax error in a file is not an error.
    pub async fn inspect(&self, files: &[SourceFile]) -> Result<Vec<FileInspection>, JudgeError> {
        self.ask(JudgeProgram::Inspect, &[], &readable(files)).await
    }

    /// Lists what the public functions and classes of packages say about themselves, including
    /// those that a package imports from its private modules. `files` are all files of the
    /// packages; those that are not Python or cannot be parsed are ignored.
    ///
    /// # Errors
    /// [`JudgeError::Sandbox`], [`JudgeError::Harness`].
    pub async fn documentation(
        &self,
        files: &[SourceFile],
    ) -> Result<Vec<DocumentedName>, JudgeError> {
        self.ask(JudgeProgram::Document, &[], &readable(files)).await
    }

    /// Replaces the body of every function except `__init__` by that of `kind`: the negative
    /// control of a suite. Files that cannot be parsed, or are not Python, stay unchanged.
    ///
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

/// Returns the Python files among `files` for a program in the jail. Parsing happens there, because
/// the parser of CPython is not made for hostile text.
fn readable(files: &[SourceFile]) -> Value {
    let python = files.iter().filter(|file| file.module().is_some());
    python.map(|file| json!({ "path": file.path, "text": decoded(file) })).collect()
}

/// Decodes a Python file: without its byte order mark, and as Latin-1 if it is not UTF-8, which
/// preserves all ASCII names.
fn decoded(file: &SourceFile) -> String {
    if file.is_text() {
        file.text.trim_start_matches('\u{feff}').to_owned()
    } else {
        file.bytes().iter().copied().map(char::from).collect()
    }
}
