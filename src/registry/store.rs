//! The adapter folders. Files are staged and synced, published by one atomic rename, and only then
//! recorded in the database.
//!
//! A published folder is always complete, wherever the process was killed:
//!
//! ```text
//!   killed after               at the next start
//!   -------------------------  -------------------------------------------------
//!   staging in `.staging/`     the staged folder is removed
//!   rename to `adapters/<id>`  adopted: the row is inserted from `rune.json`, or
//!                              moved to `.aside/` if the contents do not match it
//!   insertion of the row       nothing to do
//! ```

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::RenameFlags;
use nix::fcntl::renameat2;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::digest::sha256;
use crate::durable::sync_folder;
use crate::failpoint;
use crate::failpoint::Failpoint;
use crate::home::Home;
use crate::peft::CONFIG_FILE;
use crate::peft::PeftFiles;
use crate::peft::WEIGHTS_FILE;
use crate::registry::adapter::AdapterFilter;
use crate::registry::database::Registry;
use crate::registry::error::RegistryError;
use crate::registry::owner;

/// File with Rune's metadata of an adapter, next to the files of PEFT.
const PROVENANCE: &str = "rune.json";
/// Folder in which adapters are assembled. It is on the same file system, so a rename publishes.
const STAGING: &str = ".staging";
/// Quarantine for folders whose contents do not match their metadata.
const ASIDE: &str = ".aside";

/// The adapters of a home: write-once folders with their rows.
///
/// ```
/// use std::sync::Arc;
///
/// use rune::adapter::AdapterId;
/// use rune::home::Home;
/// use rune::registry::AdapterStore;
/// use rune::registry::Registry;
/// use rune::registry::RegistryError;
///
/// let folder = tempfile::tempdir()?;
/// let home = Home::new(folder.path());
/// let registry = Arc::new(Registry::open(&home.registry())?);
/// let store = AdapterStore::open(&registry, &home)?;
///
/// // Every adapter is intact, because there is none yet.
/// assert!(store.verify(&mut |_id| {})?.is_empty());
///
/// let id = AdapterId::parse("my-adapter")?;
/// assert_eq!(store.path(&id), folder.path().join("adapters/my-adapter"));
/// let export = store.export(&id, &folder.path().join("export"));
/// assert!(matches!(export, Err(RegistryError::NotFound { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AdapterStore {
    registry: Arc<Registry>,
    folder: PathBuf,
}

/// A damaged or unknown adapter folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrityError {
    /// Path of the folder.
    pub path: PathBuf,
    /// Description of the damage.
    pub reason: String,
}

impl AdapterStore {
    /// Opens the folder `adapters` of `home`, creates it if missing, and recovers from processes
    /// that were killed.
    ///
    /// # Errors
    /// [`RegistryError::Files`], and the errors of the database.
    pub fn open(registry: &Arc<Registry>, home: &Home) -> Result<Self, RegistryError> {
        let store = Self { registry: Arc::clone(registry), folder: home.adapters() };
        for folder in [store.folder.clone(), store.folder.join(STAGING)] {
            fs::create_dir_all(&folder).map_err(files(&folder))?;
        }
        store.sweep()?;
        store.adopt()?;
        Ok(store)
    }

    /// Returns the folder of the adapter `id`, which PEFT can load as it is.
    pub fn path(&self, id: &AdapterId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    /// Stores `adapter` with its `files` permanently. Once this has returned, the adapter survives
    /// a power cut.
    ///
    /// # Errors
    /// [`RegistryError::AdapterExists`] when the same adapter is stored, under this or another id;
    /// [`RegistryError::NotFound`] for an unknown parent; [`RegistryError::Files`].
    pub fn publish(&self, adapter: &Adapter, files: &PeftFiles) -> Result<(), RegistryError> {
        // Duplicates and missing parents are rejected before anything is written. `insert_adapter`
        // checks again, because another process may be publishing at the same time.
        if let Some(duplicate) = self.registry.duplicate_of(adapter)? {
            return Err(RegistryError::AdapterExists(duplicate));
        }
        for parent in &adapter.parents {
            self.registry.adapter(&parent.id)?;
        }
        let staged = self.stage(adapter, files)?;
        failpoint::pass(Failpoint::AdapterStaged);
        self.place(&staged, &adapter.id)?;
        failpoint::pass(Failpoint::AdapterPlaced);
        self.registry.insert_adapter(adapter)?;
        failpoint::pass(Failpoint::AdapterStored);
        Ok(())
    }

    /// Writes and syncs all files of the adapter in a new folder below `.staging`.
    fn stage(&self, adapter: &Adapter, contents: &PeftFiles) -> Result<PathBuf, RegistryError> {
        // The owner is part of the name, so that `sweep` can tell whether it is still running.
        let owner = owner::current()?;
        let staged = self.folder.join(STAGING).join(format!("{owner} {}", adapter.id));
        let write = || {
            fs::create_dir(&staged)?;
            let provenance = serde_json::to_vec_pretty(adapter)?;
            let parts = [
                (WEIGHTS_FILE, &contents.tensors),
                (CONFIG_FILE, &contents.config),
                (PROVENANCE, &provenance),
            ];
            for (name, content) in parts {
                let mut file = File::create_new(staged.join(name))?;
                file.write_all(content)?;
                file.set_permissions(fs::Permissions::from_mode(0o444))?;
                file.sync_all()?;
            }
            // Syncing a file does not sync its directory entry.
            sync_folder(&staged)
        };
        match write() {
            Ok(()) => Ok(staged),
            Err(error) => {
                let _best_effort = fs::remove_dir_all(&staged);
                Err(files(&staged)(error))
            }
        }
    }

    /// Moves a staged folder to its final path.
    fn place(&self, staged: &Path, id: &AdapterId) -> Result<(), RegistryError> {
        let path = self.path(id);
        // RENAME_NOREPLACE: plain rename(2) would replace an empty folder, and two processes that
        // publish the same id must not both succeed.
        match renameat2(AT_FDCWD, staged, AT_FDCWD, &path, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => {}
            Err(errno) => {
                fs::remove_dir_all(staged).map_err(files(staged))?;
                return Err(match errno {
                    Errno::EEXIST => RegistryError::AdapterExists(id.clone()),
                    errno => files(&path)(errno.into()),
                });
            }
        }
        // Read-only only now: a folder must be writable to be moved (its `..` entry changes).
        let sealed = fs::set_permissions(&path, fs::Permissions::from_mode(0o555));
        sealed.and_then(|()| sync_folder(&self.folder)).map_err(files(&path))
    }

    /// Removes the staged folders of dead processes.
    fn sweep(&self) -> Result<(), RegistryError> {
        let staging = self.folder.join(STAGING);
        for entry in fs::read_dir(&staging).map_err(files(&staging))? {
            let path = entry.map_err(files(&staging))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !owner::is_alive(name.split(' ').next().unwrap_or_default()) {
                fs::remove_dir_all(&path).map_err(files(&path))?;
            }
        }
        Ok(())
    }

    /// Inserts the rows of folders that were published by a process that was killed before it could
    /// do so, and quarantines folders that are not valid adapters.
    fn adopt(&self) -> Result<(), RegistryError> {
        for id in self.folders()? {
            // `NotFound` alone means that there is no row. Any other error must not cause a folder
            // to be moved.
            if !matches!(self.registry.adapter(&id), Err(RegistryError::NotFound { .. })) {
                continue;
            }
            let path = self.path(&id);
            let found = PeftFiles::read(&path).map_err(|error| error.to_string());
            let adopted = match found.and_then(|found| self.provenance(&id, &found.sha256())) {
                Ok(adapter) => match self.registry.insert_adapter(&adapter) {
                    // A duplicate of a stored adapter, or a parent is missing.
                    Err(RegistryError::AdapterExists(_) | RegistryError::NotFound { .. }) => false,
                    stored => stored.map(|()| true)?,
                },
                Err(_) => false,
            };
            if !adopted {
                // Moved, not deleted: it may be the only copy of somebody's work.
                let aside = self.folder.join(ASIDE);
                fs::create_dir_all(&aside).map_err(files(&aside))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                    .map_err(files(&path))?;
                fs::rename(&path, aside.join(id.as_str())).map_err(files(&path))?;
            }
        }
        Ok(())
    }

    /// Reads the metadata in the folder of `id` and checks that it describes this id and weights
    /// with this `sha256`.
    fn provenance(&self, id: &AdapterId, sha256: &str) -> Result<Adapter, String> {
        let text = fs::read(self.path(id).join(PROVENANCE));
        let text = text.map_err(|error| format!("{PROVENANCE}: {error}"))?;
        let adapter: Adapter =
            serde_json::from_slice(&text).map_err(|error| format!("{PROVENANCE}: {error}"))?;
        if adapter.id != *id || adapter.sha256 != sha256 {
            return Err(format!("{PROVENANCE} does not match the folder's contents"));
        }
        Ok(adapter)
    }

    /// Checks the folder of a stored adapter; the error describes the damage.
    fn check(&self, adapter: &Adapter) -> Result<(), String> {
        let path = self.path(&adapter.id);
        let read =
            |name: &str| fs::read(path.join(name)).map_err(|error| format!("{name}: {error}"));
        let tensors = read(WEIGHTS_FILE)?;
        if sha256(&tensors) != adapter.sha256 {
            return Err(format!("{WEIGHTS_FILE} has changed since it was stored"));
        }
        PeftFiles::parse(read(CONFIG_FILE)?, tensors)?;
        self.provenance(&adapter.id, &adapter.sha256).map(drop)
    }

    /// Returns the ids of all adapter folders, sorted.
    fn folders(&self) -> Result<Vec<AdapterId>, RegistryError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(files(&self.folder))? {
            let name = entry.map_err(files(&self.folder))?.file_name();
            // `.staging` and `.aside` are skipped: an id does not start with a dot.
            found.extend(name.to_str().and_then(|name| AdapterId::parse(name).ok()));
        }
        found.sort();
        Ok(found)
    }

    /// Reads the files of every adapter and compares them with its row. An empty list means that
    /// all adapters are intact. `on_each` is called before each adapter is read.
    ///
    /// # Errors
    /// The errors of the database, and [`RegistryError::Files`] when the folders cannot be listed.
    pub fn verify(
        &self,
        on_each: &mut dyn FnMut(&AdapterId),
    ) -> Result<Vec<IntegrityError>, RegistryError> {
        let adapters =
            self.registry.adapters(&AdapterFilter { archived: true, ..Default::default() })?;
        let mut errors = Vec::new();
        for adapter in &adapters {
            on_each(&adapter.id);
            let reason = self.check(adapter).err();
            let path = self.path(&adapter.id);
            errors.extend(reason.map(|reason| IntegrityError { path, reason }));
        }
        let known: Vec<&AdapterId> = adapters.iter().map(|adapter| &adapter.id).collect();
        for id in self.folders()?.iter().filter(|id| !known.contains(id)) {
            let reason = "not in the registry".to_owned();
            errors.push(IntegrityError { path: self.path(id), reason });
        }
        Ok(errors)
    }

    /// Exports the adapter `id` as a plain PEFT folder to the new folder `to`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no adapter has this id; [`RegistryError::Files`], also when
    /// `to` already exists.
    pub fn export(&self, id: &AdapterId, to: &Path) -> Result<(), RegistryError> {
        self.registry.adapter(id)?;
        fs::create_dir(to).map_err(files(to))?;
        for name in [WEIGHTS_FILE, CONFIG_FILE, PROVENANCE] {
            let (source, target) = (self.path(id).join(name), to.join(name));
            fs::copy(&source, &target).map_err(files(&source))?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644))
                .map_err(files(&target))?;
        }
        Ok(())
    }
}

/// Returns a function that turns an I/O error at `path` into [`RegistryError::Files`].
fn files(path: &Path) -> impl Fn(io::Error) -> RegistryError {
    move |source| RegistryError::Files { path: path.to_owned(), source }
}
