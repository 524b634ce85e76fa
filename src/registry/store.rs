//! The folders of adapters: staged, synced, put in place by one rename, and only then known to the
//! database.
//!
//! Whatever this process is killed at, what is in place is whole: a folder without a row is taken
//! in at the next start, or put aside when it is not what its `rune.json` says; what was only
//! staged is removed.

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

/// What Rune knows of an adapter, beside PEFT's files.
const PROVENANCE: &str = "rune.json";
/// Where folders are made, and where those go that are not what they claim.
const STAGING: &str = ".staging";
const ASIDE: &str = ".aside";

/// The adapters of a home: their folders and their rows.
#[derive(Debug)]
pub struct AdapterStore {
    registry: Arc<Registry>,
    folder: PathBuf,
}

/// What is wrong with a stored adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrityError {
    /// The folder or file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl AdapterStore {
    /// Opens the folder `adapters` of `home`, made when it is not there, and clears up after
    /// processes that were killed.
    ///
    /// # Errors
    /// [`RegistryError::Files`], and those of the database.
    pub fn open(registry: &Arc<Registry>, home: &Home) -> Result<Self, RegistryError> {
        let store = Self { registry: Arc::clone(registry), folder: home.adapters() };
        for folder in [store.folder.clone(), store.folder.join(STAGING)] {
            fs::create_dir_all(&folder).map_err(files(&folder))?;
        }
        store.sweep()?;
        store.adopt()?;
        Ok(store)
    }

    /// The folder of the adapter `id`, as PEFT reads it.
    pub fn path(&self, id: &AdapterId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    /// Takes in `adapter` with its `files`, for ever. When this returns, it survives a power cut.
    ///
    /// # Errors
    /// [`RegistryError::AdapterExists`] when it is there already, under whatever id;
    /// [`RegistryError::NotFound`] for an unknown parent; [`RegistryError::Files`].
    pub fn publish(&self, adapter: &Adapter, files: &PeftFiles) -> Result<(), RegistryError> {
        if let Some(taken) = self.registry.same_adapter(adapter)? {
            return Err(RegistryError::AdapterExists(taken));
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

    fn stage(&self, adapter: &Adapter, contents: &PeftFiles) -> Result<PathBuf, RegistryError> {
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
            sync_folder(&staged)
        };
        match write() {
            Ok(()) => Ok(staged),
            Err(error) => {
                let _as_it_was = fs::remove_dir_all(&staged);
                Err(files(&staged)(error))
            }
        }
    }

    fn place(&self, staged: &Path, id: &AdapterId) -> Result<(), RegistryError> {
        let path = self.path(id);
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
        let sealed = fs::set_permissions(&path, fs::Permissions::from_mode(0o555));
        sealed.and_then(|()| sync_folder(&self.folder)).map_err(files(&path))
    }

    /// Removes what dead processes have staged.
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

    /// Takes in folders that were put in place by a process which was killed before it stored the
    /// row.
    fn adopt(&self) -> Result<(), RegistryError> {
        for id in self.folders()? {
            if !matches!(self.registry.adapter(&id), Err(RegistryError::NotFound { .. })) {
                continue;
            }
            let path = self.path(&id);
            let found = PeftFiles::read(&path).map_err(|error| error.to_string());
            let adopted = match found.and_then(|found| self.provenance(&id, &found.sha256())) {
                Ok(adapter) => match self.registry.insert_adapter(&adapter) {
                    Err(RegistryError::AdapterExists(_) | RegistryError::NotFound { .. }) => false,
                    stored => stored.map(|()| true)?,
                },
                Err(_) => false,
            };
            if !adopted {
                let aside = self.folder.join(ASIDE);
                fs::create_dir_all(&aside).map_err(files(&aside))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                    .map_err(files(&path))?;
                fs::rename(&path, aside.join(id.as_str())).map_err(files(&path))?;
            }
        }
        Ok(())
    }

    /// What the folder of `id` says of itself, when it is the weights of `sha256`.
    fn provenance(&self, id: &AdapterId, sha256: &str) -> Result<Adapter, String> {
        let text = fs::read(self.path(id).join(PROVENANCE));
        let text = text.map_err(|error| format!("{PROVENANCE}: {error}"))?;
        let adapter: Adapter =
            serde_json::from_slice(&text).map_err(|error| format!("{PROVENANCE}: {error}"))?;
        if adapter.id != *id || adapter.sha256 != sha256 {
            return Err(format!("it is not what its {PROVENANCE} says"));
        }
        Ok(adapter)
    }

    /// Says what is wrong with the folder of a stored adapter.
    fn check(&self, adapter: &Adapter) -> Result<(), String> {
        let path = self.path(&adapter.id);
        let read =
            |name: &str| fs::read(path.join(name)).map_err(|error| format!("{name}: {error}"));
        let tensors = read(WEIGHTS_FILE)?;
        if sha256(&tensors) != adapter.sha256 {
            return Err(format!("{WEIGHTS_FILE} is not what was stored"));
        }
        PeftFiles::parse(read(CONFIG_FILE)?, tensors)?;
        self.provenance(&adapter.id, &adapter.sha256).map(drop)
    }

    /// Ids of all folders, sorted.
    fn folders(&self) -> Result<Vec<AdapterId>, RegistryError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(files(&self.folder))? {
            let name = entry.map_err(files(&self.folder))?.file_name();
            found.extend(name.to_str().and_then(|name| AdapterId::parse(name).ok()));
        }
        found.sort();
        Ok(found)
    }

    /// Reads every adapter's files and compares them with its row; an empty list means that all is
    /// well.
    ///
    /// # Errors
    /// Those of the database, and [`RegistryError::Files`] when the folders can't be listed.
    pub fn verify(
        &self,
        on_each: &mut dyn FnMut(&AdapterId),
    ) -> Result<Vec<IntegrityError>, RegistryError> {
        let all =
            self.registry.adapters(&AdapterFilter { archived: true, ..Default::default() })?;
        let mut damages = Vec::new();
        for adapter in &all {
            on_each(&adapter.id);
            let reason = self.check(adapter).err();
            let path = self.path(&adapter.id);
            damages.extend(reason.map(|reason| IntegrityError { path, reason }));
        }
        let known: Vec<&AdapterId> = all.iter().map(|adapter| &adapter.id).collect();
        for id in self.folders()?.iter().filter(|id| !known.contains(id)) {
            let reason = "nothing is known of it".to_owned();
            damages.push(IntegrityError { path: self.path(id), reason });
        }
        Ok(damages)
    }

    /// Writes the adapter `id` as a plain PEFT folder at `to`, which must not be there.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Files`].
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

fn files(path: &Path) -> impl Fn(io::Error) -> RegistryError {
    move |source| RegistryError::Files { path: path.to_owned(), source }
}
