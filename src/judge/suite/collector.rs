//! Finds and reads the files below a folder, within limits and without ever blocking on one.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::fs::FileType;
use std::io;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use super::error::OmittedFile;
use super::error::SuiteError;
use super::error::size_text;
use super::limits::FileLimits;
use crate::task::SourceFile;

/// Limits of a suite, which the jail holds in memory.
const OF_SUITES: FileLimits = FileLimits { n_files: 5_000, n_bytes: 64 << 20 };
/// Maximum bytes read from one file.
const MAX_READ: u64 = 1 << 30;
/// Maximum directory entries visited.
const MAX_ENTRIES: usize = 50_000;

/// Names of folders that belong to tools.
const CACHES: &[&str] = &["__pycache__", "node_modules", "venv", ".git", ".venv", ".tox", ".nox"];
/// Files that mark a folder as a cache, a virtual environment, or a home of Rune.
const CACHE_MARKS: &[&str] = &["CACHEDIR.TAG", "pyvenv.cfg", "rune.db"];
/// Names of build outputs, directly in a project root.
const BUILDS: &[&str] = &["build", "dist", "htmlcov", "target"];

/// A file that was found on disk.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    /// Path of the file, or of a link to it.
    pub(super) path: PathBuf,
    pub(super) n_bytes: u64,
}

/// Collects files below one folder.
#[derive(Debug)]
pub(in crate::judge) struct FileCollector {
    /// The folder that names are relative to; canonical.
    root: PathBuf,
    /// Folders that links may lead into; canonical.
    reach: Vec<PathBuf>,
    /// Files by name relative to the root.
    pub(super) found: BTreeMap<String, FoundFile>,
    pub(super) omitted: Vec<OmittedFile>,
    limits: FileLimits,
    n_entries: usize,
}

/// The treatment of pipes, sockets, devices and unreadable folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OddFile {
    Refuse,
    LeaveOut,
}

/// A folder to visit.
struct OpenFolder {
    path: PathBuf,
    /// Canonical paths of this folder and its ancestors, by which circular links are noticed.
    around: Vec<PathBuf>,
}

impl FileCollector {
    /// Creates a collector of files below `root`. It follows links into the root and into the
    /// folders of `reach`.
    pub(in crate::judge) fn new(root: &Path, reach: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            root: root.to_owned(),
            reach: std::iter::once(root.to_owned()).chain(reach).collect(),
            found: BTreeMap::new(),
            omitted: Vec::new(),
            limits: OF_SUITES,
            n_entries: 0,
        }
    }

    /// Replaces the limits, which are those of a suite by default.
    pub(in crate::judge) fn with_limits(self, limits: FileLimits) -> Self {
        Self { limits, ..self }
    }

    /// Adds the file at `path`, which the user named. It may be a link that leads anywhere.
    pub(in crate::judge) fn add_named_file(&mut self, path: &Path) -> Result<(), SuiteError> {
        let found = fs::metadata(path).map_err(|error| SuiteError::io(path, error))?;
        self.insert(path, found.len());
        Ok(())
    }

    /// Adds the file at `path`.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), SuiteError> {
        match self.kind(path)? {
            Some((kind, n_bytes)) if kind.is_file() => self.insert(path, n_bytes),
            Some((kind, _)) => return Err(not_a_file(path, kind)),
            None => {}
        }
        Ok(())
    }

    /// Whether the file at `path` was found.
    pub(super) fn has(&self, path: &Path) -> bool {
        let name = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        name.is_some_and(|name| self.found.contains_key(name))
    }

    /// Adds all files below `folder`. Anything that has no end, such as a pipe, is an error.
    pub(in crate::judge) fn add_tree(&mut self, folder: &Path) -> Result<(), SuiteError> {
        let is_whole = self.walk(folder, OddFile::Refuse, |_| true)?;
        if is_whole { Ok(()) } else { Err(self.too_large(folder)) }
    }

    /// Checks that the files, most of them below `folder`, are within the limits.
    pub(super) fn check(&self, folder: &Path) -> Result<(), SuiteError> {
        let is_over =
            self.found.len() > self.limits.n_files || self.n_bytes() > self.limits.n_bytes;
        if is_over { Err(self.too_large(folder)) } else { Ok(()) }
    }

    /// Adds the files below `folder`, nearest first. Of the folders directly in it, visits only
    /// those whose names `is_entered` accepts. Omits anything that is not a file. Returns whether
    /// everything was visited.
    pub(super) fn add_nearby(
        &mut self,
        folder: &Path,
        is_entered: impl Fn(&str) -> bool,
    ) -> Result<bool, SuiteError> {
        self.walk(folder, OddFile::LeaveOut, is_entered)
    }

    /// Removes the files for which `is_kept` is false.
    pub(in crate::judge) fn keep(&mut self, is_kept: impl Fn(&Path) -> bool) {
        self.found.retain(|_, file| is_kept(&file.path));
    }

    /// Reads all files. A data file that cannot be read is omitted; for a Python file that is an
    /// error.
    pub(in crate::judge) fn read(self) -> Result<(Vec<SourceFile>, Vec<OmittedFile>), SuiteError> {
        self.check(&self.root)?;
        let (mut files, mut omitted) = (Vec::new(), self.omitted);
        for (name, FoundFile { path, .. }) in self.found {
            match read_file(&path) {
                Ok(bytes) => files.push(SourceFile::from_bytes(name, bytes)),
                Err(SuiteError::Io { source, .. }) if !super::is_python(&path) => {
                    omitted.push(OmittedFile { path, reason: format!("cannot be read: {source}") });
                }
                Err(error) => return Err(error),
            }
        }
        Ok((files, omitted))
    }

    fn n_bytes(&self) -> u64 {
        self.found.values().map(|file| file.n_bytes).sum()
    }

    fn insert(&mut self, path: &Path, n_bytes: u64) {
        // Names travel as JSON and end up in messages, so they have to be text.
        let name = path.strip_prefix(&self.root).unwrap_or(path).to_str();
        match name {
            Some(name) => {
                self.found.insert(name.to_owned(), FoundFile { path: path.to_owned(), n_bytes });
            }
            None => self.omit(path, "its name is not UTF-8"),
        }
    }

    fn omit(&mut self, path: &Path, reason: impl Into<String>) {
        self.omitted.push(OmittedFile { path: path.to_owned(), reason: reason.into() });
    }

    /// Visits the folders below `start`, and `start` itself. Returns false if it stopped at the
    /// limit on entries.
    fn walk(
        &mut self,
        start: &Path,
        odd: OddFile,
        is_entered: impl Fn(&str) -> bool,
    ) -> Result<bool, SuiteError> {
        // Breadth first: when the limit is reached, the nearest files have been found.
        let around = vec![canonical(start)?];
        let mut folders = VecDeque::from([OpenFolder { path: start.to_owned(), around }]);
        while let Some(folder) = folders.pop_front() {
            let paths = match entries(&folder.path) {
                Err(error) if odd == OddFile::Refuse || folder.path == start => return Err(error),
                Err(_) => {
                    self.omit(&folder.path, "a folder that cannot be read");
                    continue;
                }
                Ok(paths) => paths,
            };
            for path in paths {
                // Entries count even if they are skipped: visiting them takes the time.
                self.n_entries += 1;
                if self.n_entries > MAX_ENTRIES {
                    return Ok(false);
                }
                let Some((kind, n_bytes)) = self.kind(&path)? else { continue };
                if kind.is_dir() {
                    let is_outer = folder.path == start;
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    if !self.is_skipped(&path) && (!is_outer || is_entered(&name)) {
                        folders.extend(self.enter(path, &folder.around, start)?);
                    }
                } else if kind.is_file() {
                    self.insert(&path, n_bytes);
                } else if odd == OddFile::Refuse {
                    return Err(not_a_file(&path, kind));
                } else {
                    self.omit(&path, kind_text(kind));
                }
            }
        }
        Ok(true)
    }

    /// Returns type and size of the entry at `path`, following links; `None` for a link that is
    /// omitted.
    fn kind(&mut self, path: &Path) -> Result<Option<(FileType, u64)>, SuiteError> {
        let failed = |error| SuiteError::io(path, error);
        let found = fs::symlink_metadata(path).map_err(failed)?;
        if !found.is_symlink() {
            return Ok(Some((found.file_type(), found.len())));
        }
        let Ok(target) = fs::canonicalize(path) else {
            self.omit(path, "a link that leads nowhere");
            return Ok(None);
        };
        // Otherwise a cloned repository could bring `~/.ssh` into the jail through a link.
        if !self.reach.iter().any(|folder| target.starts_with(folder)) {
            self.omit(path, format!("a link to `{}`, outside of the project", target.display()));
            return Ok(None);
        }
        let found = fs::metadata(&target).map_err(failed)?;
        Ok(Some((found.file_type(), found.len())))
    }

    /// Prepares to visit the folder at `path`; `None` if a link has led back to a folder around it.
    fn enter(
        &mut self,
        path: PathBuf,
        around: &[PathBuf],
        start: &Path,
    ) -> Result<Option<OpenFolder>, SuiteError> {
        let real = canonical(&path)?;
        if around.contains(&real) || start.starts_with(&real) {
            self.omit(&path, "a link to a folder around it");
            return Ok(None);
        }
        let around = around.iter().cloned().chain([real]).collect();
        Ok(Some(OpenFolder { path, around }))
    }

    /// Whether a folder is of no use to tests: a cache, an environment, a build output, or hidden.
    fn is_skipped(&mut self, folder: &Path) -> bool {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_build = folder.parent() == Some(&self.root)
            && (BUILDS.contains(&&*name) || name.ends_with(".egg-info"));
        let is_cache =
            CACHES.contains(&&*name) || CACHE_MARKS.iter().any(|mark| folder.join(mark).exists());
        // Only this omission may surprise the user; the others are never wanted.
        if name.starts_with('.') && !is_cache && !name.ends_with("_cache") {
            self.omit(folder, "a hidden folder");
        }
        is_build || is_cache || name.starts_with('.')
    }

    /// The error for files beyond the limits; names the largest entries of `folder`.
    fn too_large(&self, folder: &Path) -> SuiteError {
        /// Number of entries to name.
        const NAMED: usize = 3;
        let mut parts: BTreeMap<PathBuf, (u64, usize)> = BTreeMap::new();
        for file in self.found.values() {
            let inside = file.path.strip_prefix(folder).unwrap_or(&file.path);
            let first = inside.components().next().map(|part| PathBuf::from(part.as_os_str()));
            let (n_bytes, count) = parts.entry(first.unwrap_or_default()).or_default();
            (*n_bytes, *count) = (*n_bytes + file.n_bytes, *count + 1);
        }
        // Rank by the limit that is exceeded.
        let by_files = self.n_bytes() <= self.limits.n_bytes;
        let mut parts: Vec<(PathBuf, (u64, usize))> = parts.into_iter().collect();
        parts.sort_by_key(|(_, (n_bytes, count))| {
            std::cmp::Reverse(if by_files { *count as u64 } else { *n_bytes })
        });
        let named = parts.iter().take(NAMED).map(|(path, (n_bytes, count))| {
            let files = if *count == 1 { "file" } else { "files" };
            format!("`{}` ({} in {count} {files})", path.display(), size_text(*n_bytes))
        });
        SuiteError::TooLarge {
            path: folder.to_owned(),
            n_files: self.found.len(),
            n_bytes: self.n_bytes(),
            limits: self.limits,
            largest: named.collect::<Vec<_>>().join(", "),
        }
    }
}

/// Returns the canonical path of `path`, which must exist.
pub(in crate::judge) fn canonical(path: &Path) -> Result<PathBuf, SuiteError> {
    fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SuiteError::NotFound(path.to_owned()),
        _ => SuiteError::io(path, error),
    })
}

/// Lists the entries of `folder`, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, SuiteError> {
    let failed = |error| SuiteError::io(folder, error);
    let entries = fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|e| e.path()));
    let mut paths = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// Reads a regular file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, SuiteError> {
    let failed = |error| SuiteError::io(path, error);
    // Opened without blocking: it may have become a pipe since it was found.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if !kind.is_file() {
        return Err(not_a_file(path, kind));
    }
    let mut bytes = Vec::new();
    file.take(MAX_READ).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

pub(super) fn not_a_file(path: &Path, kind: FileType) -> SuiteError {
    SuiteError::NotAFile { path: path.to_owned(), kind: kind_text(kind) }
}

fn kind_text(kind: FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "something unknown",
    }
}
