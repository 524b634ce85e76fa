//! Collects the files of a work directory from a jail whose processes are all dead.
//!
//! Pid 1 opened the folder before the program ran. Names and file types were chosen by the program,
//! so no link is followed, and nothing but regular files with a single name is opened.

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::OsStr;
use std::fs::File;
use std::fs::Metadata;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::ResolveFlag;
use nix::fcntl::openat2;
use nix::fcntl::readlinkat;
use nix::sys::stat::FileStat;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstatat;

use super::snapshot::belongs_to_git;
use super::snapshot::walk;
use super::sys;

/// Maximum number of collected files.
const FILES: usize = 1000;
/// Maximum depth of nested folders.
const DEPTH: usize = 32;
/// Maximum bytes of all collected files together.
const BYTES: u64 = 64 << 20;

/// Extended attribute by which an overlay marks a folder that hides the one in the lower layer.
const OPAQUE: &CStr = c"user.overlay.opaque";

/// The files that were collected, and the entries that were not.
#[derive(Debug, Default)]
pub(super) struct CollectedFiles {
    /// Relative path and content.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// Relative paths that exist in the base but were removed. A path that ends in `/` stands for
    /// everything below it.
    pub(super) removed: Vec<String>,
    /// Relative path, with control characters escaped, and the reason for not collecting it.
    pub(super) refused: Vec<String>,
    bytes: u64,
    /// The folder that the work directory started with.
    base: Option<OwnedFd>,
}

/// Collects the files below `folder`, sorted by name; with `base` only those that differ from it.
/// If `folder` is the upper layer of an overlay, it holds only what was written, and markers for
/// what was removed.
pub(super) fn collect(folder: &OwnedFd, base: Option<&Path>, is_overlay: bool) -> CollectedFiles {
    let opened = base.and_then(|base| File::open(base).ok()).map(OwnedFd::from);
    let mut collected = CollectedFiles { base: opened, ..CollectedFiles::default() };
    collected.folder(folder, "", DEPTH);
    if let Some(base) = base.filter(|_| !is_overlay) {
        // A copied tree has no markers: what is missing now was removed.
        let mut gone = walk(base).unwrap_or_default();
        gone.retain(|path| is_absent(folder, path));
        collected.removed = gone.iter().map(|path| path.display().to_string()).collect();
        collected.removed.sort();
    }
    collected
}

fn is_absent(folder: &OwnedFd, path: &Path) -> bool {
    let status = fstatat(folder, path, AtFlags::AT_SYMLINK_NOFOLLOW);
    matches!(status, Err(Errno::ENOENT | Errno::ENOTDIR))
}

impl CollectedFiles {
    fn folder(&mut self, folder: &OwnedFd, prefix: &str, depth: usize) {
        let Ok(mut names) = names(folder) else { return self.refuse(prefix, "cannot be listed") };
        names.sort();
        for name in names {
            let path = match name.to_str() {
                Ok(text) if !text.chars().any(char::is_control) => format!("{prefix}{text}"),
                _ => {
                    self.refuse(
                        &format!("{prefix}{}", name.to_string_lossy()),
                        "has an unprintable name",
                    );
                    continue;
                }
            };
            if self.files.len() + self.refused.len() >= FILES {
                return self.refuse(&path, "and everything after it exceed the limit on files");
            }
            if let Err(reason) = self.entry(folder, &name, &path, depth) {
                self.refuse(&path, reason);
            }
        }
    }

    fn entry(
        &mut self,
        folder: &OwnedFd,
        name: &CString,
        path: &str,
        depth: usize,
    ) -> Result<(), &'static str> {
        if belongs_to_git(OsStr::from_bytes(name.as_bytes())) {
            return Err("belongs to git");
        }
        let status = fstatat(folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        let status = status.map_err(|_| "cannot be examined")?;
        match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR if depth == 0 => Err("is nested too deeply"),
            SFlag::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                let below = open(folder, name, flags).map_err(|_| "cannot be opened")?;
                if sys::has_attribute(below.as_fd(), OPAQUE) {
                    self.removed.push(format!("{path}/"));
                }
                self.folder(&below, &format!("{path}/"), depth - 1);
                Ok(())
            }
            SFlag::S_IFREG => self.file(folder, name, path, &status),
            // A whiteout: an overlay puts a character device 0/0 in place of a removed entry.
            SFlag::S_IFCHR if status.st_rdev == 0 => {
                self.removed.push(path.to_owned());
                Ok(())
            }
            SFlag::S_IFLNK if self.is_link_as_before(folder, name, path) => Ok(()),
            _ => Err("is not a regular file"),
        }
    }

    fn file(
        &mut self,
        folder: &OwnedFd,
        name: &CString,
        path: &str,
        status: &FileStat,
    ) -> Result<(), &'static str> {
        // The other name of a hard link may be any file that the program could name.
        if status.st_nlink != 1 {
            return Err("is a hard link");
        }
        let n_bytes = status.st_size.unsigned_abs();
        if n_bytes > BYTES {
            return Err("is too large");
        }
        let file = open(folder, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
        let file = File::from(file.map_err(|_| "cannot be opened")?);
        let mut content = Vec::new();
        file.take(n_bytes).read_to_end(&mut content).map_err(|_| "cannot be read")?;
        if self.is_file_as_before(path, &content) {
            return Ok(());
        }
        self.bytes += n_bytes;
        if self.bytes > BYTES {
            return Err("is too large");
        }
        self.files.push((path.to_owned(), content));
        Ok(())
    }

    /// Opens what the base has at `path`. The program chose the path, so no link on the way is
    /// followed.
    fn before(&self, path: &str, flags: OFlag) -> Option<OwnedFd> {
        open(self.base.as_ref()?, &CString::new(path).ok()?, flags).ok()
    }

    fn is_file_as_before(&self, path: &str, content: &[u8]) -> bool {
        let before = self.before(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(File::from);
        let Some(before) = before else { return false };
        let is_of_same_length =
            |found: Metadata| found.is_file() && found.len() == content.len() as u64;
        let mut old = Vec::new();
        before.metadata().is_ok_and(is_of_same_length)
            && before.take(BYTES).read_to_end(&mut old).is_ok()
            && old == content
    }

    fn is_link_as_before(&self, folder: &OwnedFd, name: &CString, path: &str) -> bool {
        let before = self.before(path, OFlag::O_PATH).map(|link| readlinkat(link, c""));
        let now = readlinkat(folder, name.as_c_str());
        matches!((before, now), (Some(Ok(before)), Ok(now)) if before == now)
    }

    fn refuse(&mut self, path: &str, reason: &str) {
        self.refused.push(format!("`{}` {reason}", path.escape_debug()));
    }
}

fn names(folder: &OwnedFd) -> nix::Result<Vec<CString>> {
    let copy = folder.try_clone().map_err(|_| Errno::EMFILE)?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(copy)?.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Opens the entry `name` directly below `folder`, never through a link or a mount point.
fn open(folder: impl AsFd, name: &CString, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).resolve(resolve);
    openat2(folder, name.as_c_str(), how)
}
