//! Vocabulary of tasks: [`Task`], its source files, and the subtasks it is split into.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Serialize;

/// Id of a task within its file or session. Unlike the ids of adapters and sessions, it may be any
/// non-empty text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub String);

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Type of a task; sessions, datasets and adapters are keyed by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskType {
    /// A single function, tested by itself.
    Function,
    /// One or more modules, written from scratch.
    #[default]
    Module,
    /// A program with a command-line interface.
    Cli,
    /// A fix of existing code.
    Fix,
    /// A change to a repository.
    Repo,
}

impl TaskType {
    /// Returns the word used in the registry and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Module => "module",
            Self::Cli => "cli",
            Self::Fix => "fix",
            Self::Repo => "repo",
        }
    }
}

/// A file with its path relative to the working directory: separated by `/`, without `..`, not
/// absolute.
///
/// Its JSON form is `{"path", "text"}`, or `{"path", "base64"}` if the content is not UTF-8.
///
/// ```
/// use rune::task::SourceFile;
///
/// let table = SourceFile::from_bytes("tests/names.csv", b"M\xfcller\n".to_vec());
/// assert_eq!(table.bytes(), b"M\xfcller\n");
/// assert_eq!(serde_json::to_value(&table).unwrap()["base64"], "TfxsbGVyCg==");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FileRow", into = "FileRow")]
pub struct SourceFile {
    /// Relative path of the file.
    pub path: String,
    /// Content of the file; empty if it is not UTF-8.
    pub text: String,
    /// Content of a file that is not UTF-8.
    binary: Option<Vec<u8>>,
}

impl SourceFile {
    /// Creates a text file.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), binary: None }
    }

    /// Creates a file with any content.
    pub fn from_bytes(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::new(path, text),
            Err(error) => {
                let binary = Some(error.into_bytes());
                Self { path: path.into(), text: String::new(), binary }
            }
        }
    }

    /// Returns the content as bytes.
    pub fn bytes(&self) -> &[u8] {
        self.binary.as_deref().unwrap_or(self.text.as_bytes())
    }

    /// Whether the content is UTF-8, and [`Self::text`] therefore complete.
    pub fn is_text(&self) -> bool {
        self.binary.is_none()
    }

    /// Returns the dotted module name of a Python file, such as `shop.cart` for `shop/cart.py`;
    /// `None` for any other file.
    pub fn module(&self) -> Option<String> {
        let stem = self.path.strip_suffix(".py")?;
        let stem = stem.strip_suffix("/__init__").unwrap_or(stem);
        Some(stem.replace('/', "."))
    }
}

/// JSON form of a [`SourceFile`].
#[derive(Serialize, Deserialize)]
struct FileRow {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl From<SourceFile> for FileRow {
    fn from(file: SourceFile) -> Self {
        let SourceFile { path, text, binary } = file;
        match binary {
            None => Self { path, text: Some(text), base64: None },
            Some(bytes) => Self { path, text: None, base64: Some(STANDARD.encode(bytes)) },
        }
    }
}

impl TryFrom<FileRow> for SourceFile {
    type Error = String;

    fn try_from(row: FileRow) -> Result<Self, String> {
        let FileRow { path, text, base64 } = row;
        match (text, base64) {
            (Some(text), None) => Ok(Self::new(path, text)),
            (None, Some(base64)) => match STANDARD.decode(base64) {
                Ok(bytes) => Ok(Self::from_bytes(path, bytes)),
                Err(error) => Err(format!("the content of `{path}` is not valid base64: {error}")),
            },
            _ => Err(format!("file `{path}` needs either `text` or `base64`")),
        }
    }
}

/// A coding task with its tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Id of the task.
    pub id: TaskId,
    /// Task description as the user wrote it.
    pub text: String,
    /// Type of the task.
    #[serde(default)]
    pub task_type: TaskType,
    /// Family of the task. Tasks of one family share a template; datasets are split by family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The user's test files; empty if none were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<SourceFile>,
    /// Files or folders among [`Self::tests`] that are passed to the test framework; if empty, file
    /// names determine the tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_targets: Vec<String>,
}

/// A part of a task, as produced by the phase `decompose`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtask {
    /// Short name, unique within the task.
    pub name: String,
    /// Description of the subtask.
    pub description: String,
    /// File that the subtask is written to; several subtasks may share one.
    pub file: String,
    /// Indices of the subtasks that must be finished first. Acyclic, so never the subtask itself.
    pub depends_on: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::SourceFile;

    fn check(json: &str) -> String {
        match serde_json::from_str::<SourceFile>(json) {
            Ok(file) => format!("{:?} {}", file.bytes(), serde_json::to_string(&file).unwrap()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn files_of_any_encoding_round_trip_through_json() {
        insta::assert_snapshot!(check(r#"{"path":"a.py","text":"x"}"#),
            @r#"[120] {"path":"a.py","text":"x"}"#);
        insta::assert_snapshot!(check(r#"{"path":"a.csv","base64":"/A=="}"#),
            @r#"[252] {"path":"a.csv","base64":"/A=="}"#);
        // Base64 content that is valid UTF-8 becomes text.
        assert_eq!(
            check(r#"{"path":"a.py","base64":"77u/eA=="}"#),
            "[239, 187, 191, 120] {\"path\":\"a.py\",\"text\":\"\u{feff}x\"}"
        );
        insta::assert_snapshot!(check(r#"{"path":"a.csv","base64":"?"}"#), @"the content of `a.csv` is not valid base64: Invalid symbol 63, offset 0.");
        insta::assert_snapshot!(check(r#"{"path":"a.csv"}"#), @"file `a.csv` needs either `text` or `base64`");
        insta::assert_snapshot!(check(r#"{"path":"a","text":"","base64":""}"#), @"file `a` needs either `text` or `base64`");
    }
}
