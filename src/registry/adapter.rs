//! Adapter rows. Apart from the archive columns they are written once; `store` owns the folders
//! that belong to them.

use std::time::SystemTime;

use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::ParentAdapter;
use crate::adapter::Scope;
use crate::event::Event;
use crate::event::timestamp;
use crate::registry::codec::from_json;
use crate::registry::codec::from_word;
use crate::registry::codec::to_json;
use crate::registry::database::Registry;
use crate::registry::error::RecordKind;
use crate::registry::error::RegistryError;
use crate::registry::event;

/// Filter for [`Registry::adapters`]; the default lists every adapter that is not archived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdapterFilter {
    /// Project key that the adapter must belong to; `None` matches every project.
    pub project: Option<String>,
    /// Base model that the adapter must fit, `id@digest`; `None` matches every model.
    pub base_model: Option<String>,
    /// Whether archived adapters are included.
    pub archived: bool,
}

/// An adapter in the lineage of another one.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterAncestor {
    /// The ancestor, or the requested adapter itself at depth 0.
    pub adapter: Adapter,
    /// Shortest distance to the requested adapter, in generations.
    pub depth: u32,
}

impl Registry {
    /// Returns the adapter `id`, archived or not.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no adapter has this id.
    pub fn adapter(&self, id: &AdapterId) -> Result<Adapter, RegistryError> {
        self.read(|tx| find(tx, id))
    }

    /// Returns the adapters that match `filter`, newest first.
    ///
    /// # Errors
    /// [`RegistryError::Unreadable`] when a stored value cannot be decoded.
    pub fn adapters(&self, filter: &AdapterFilter) -> Result<Vec<Adapter>, RegistryError> {
        let sql = "SELECT * FROM adapter
             WHERE (:project IS NULL OR project = :project) AND (:base_model IS NULL OR base_model = :base_model)
             AND (:archived OR archived_at IS NULL) ORDER BY created_at DESC, id DESC";
        self.read(|tx| {
            let mut statement = tx.prepare_cached(sql)?;
            let values = named_params! {
                ":project": filter.project,
                ":base_model": filter.base_model,
                ":archived": filter.archived,
            };
            let mut rows = statement.query(values)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read(tx, row)?);
            }
            Ok(found)
        })
    }

    /// Returns the adapter that was made by a recipe with this digest; `None` if there is none.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn adapter_of_recipe(&self, digest: &str) -> Result<Option<AdapterId>, RegistryError> {
        self.read(|tx| {
            // Archived ones count: what was made once is not made again.
            let sql = "SELECT id FROM adapter WHERE recipe_digest = ?1";
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query([digest])?;
            rows.next()?.map(|row| parse(&row.get::<_, String>(0)?)).transpose()
        })
    }

    /// Returns the keys of the projects that have adapters which are not archived, sorted.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn adapter_projects(&self) -> Result<Vec<String>, RegistryError> {
        self.read(|tx| {
            let sql = "SELECT DISTINCT project FROM adapter WHERE archived_at IS NULL ORDER BY 1";
            let mut statement = tx.prepare_cached(sql)?;
            let projects = statement.query_map([], |row| row.get(0))?;
            Ok(projects.collect::<Result<_, _>>()?)
        })
    }

    /// Returns the adapter and all its ancestors, each once, nearest first.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no adapter has this id.
    pub fn lineage(&self, id: &AdapterId) -> Result<Vec<AdapterAncestor>, RegistryError> {
        // `UNION` drops rows that were already produced, and the depth is bounded, so the
        // recursion terminates even if the table contained a cycle.
        let sql = "WITH RECURSIVE line (id, depth) AS (
                 SELECT ?1, 0 UNION
                 SELECT parent_id, depth + 1 FROM adapter_parent JOIN line ON child_id = line.id WHERE depth < 1000
             )
             SELECT id, min(depth) AS depth FROM line GROUP BY id ORDER BY depth, id";
        self.read(|tx| {
            // Without this check, an unknown id would give an empty lineage.
            find(tx, id)?;
            let mut statement = tx.prepare_cached(sql)?;
            let rows = statement.query_map([id.as_str()], |row| {
                Ok((row.get::<_, String>("id")?, row.get::<_, u32>("depth")?))
            })?;
            let mut lineage = Vec::new();
            for row in rows {
                let (id, depth) = row?;
                lineage.push(AdapterAncestor { adapter: find(tx, &parse(&id)?)?, depth });
            }
            Ok(lineage)
        })
    }

    /// Archives the adapter `id`. Its row and files stay, but it is no longer selected.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no adapter has this id;
    /// [`RegistryError::AlreadyArchived`] when it is archived.
    pub fn archive_adapter(&self, id: &AdapterId, reason: &str) -> Result<(), RegistryError> {
        self.write(|tx| {
            if archive(tx, id, reason)? {
                Ok(())
            } else {
                Err(RegistryError::AlreadyArchived(id.clone()))
            }
        })
    }

    /// Restores an archived adapter, so that it can be selected again.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when no adapter has this id; [`RegistryError::NotArchived`]
    /// when it is not archived.
    pub fn restore_adapter(&self, id: &AdapterId) -> Result<(), RegistryError> {
        self.write(|tx| {
            if find(tx, id)?.archived_at.is_none() {
                return Err(RegistryError::NotArchived(id.clone()));
            }
            let sql = "UPDATE adapter SET archived_at = NULL, archive_reason = NULL WHERE id = ?1";
            tx.execute(sql, [id.as_str()])?;
            event::append(tx, id.as_str(), &Event::AdapterRestored).map(drop)
        })
    }

    /// Inserts the row of an adapter whose folder is already published. Idempotent: inserting the
    /// same adapter again does nothing.
    ///
    /// # Errors
    /// [`RegistryError::AdapterExists`] when the id is taken, or when another adapter has the same
    /// recipe, or the same weights for the same base model; [`RegistryError::NotFound`] for a
    /// parent that is not in the registry.
    pub(super) fn insert_adapter(&self, adapter: &Adapter) -> Result<(), RegistryError> {
        self.write(|tx| {
            if let Some(duplicate) = find_duplicate(tx, adapter)? {
                // Another process may have adopted the folder between its rename and this insert.
                // Its row then describes the same weights under the same id: that is success.
                let is_stored =
                    duplicate == adapter.id && find(tx, &duplicate)?.sha256 == adapter.sha256;
                return if is_stored {
                    Ok(())
                } else {
                    Err(RegistryError::AdapterExists(duplicate))
                };
            }
            insert(tx, adapter)?;
            for (position, ParentAdapter { id, weight }) in (0_u32..).zip(&adapter.parents) {
                // The foreign key would fail too, but its error does not name the missing parent.
                find(tx, id)?;
                let sql = "INSERT INTO adapter_parent (child_id, parent_id, position, weight) VALUES (?1, ?2, ?3, ?4)";
                tx.execute(sql, (adapter.id.as_str(), id.as_str(), position, weight))?;
            }
            let source = adapter.source;
            let created = Event::AdapterCreated { source, base_model: adapter.base_model.clone() };
            event::append(tx, adapter.id.as_str(), &created).map(drop)
        })
    }

    /// Returns the id of a stored adapter that `adapter` duplicates.
    pub(super) fn duplicate_of(
        &self,
        adapter: &Adapter,
    ) -> Result<Option<AdapterId>, RegistryError> {
        self.read(|tx| find_duplicate(tx, adapter))
    }
}

/// Archives an adapter with its event, unless it is archived already. Returns whether it was not.
pub(super) fn archive(
    tx: &Transaction<'_>,
    id: &AdapterId,
    reason: &str,
) -> Result<bool, RegistryError> {
    if find(tx, id)?.archived_at.is_some() {
        return Ok(false);
    }
    let at = timestamp(SystemTime::now());
    let sql = "UPDATE adapter SET archived_at = ?2, archive_reason = ?3 WHERE id = ?1";
    tx.execute(sql, (id.as_str(), at, reason))?;
    event::append(tx, id.as_str(), &Event::AdapterArchived { reason: reason.to_owned() })?;
    Ok(true)
}

/// Gives an adapter a scope, unless it has it or a wider one.
pub(super) fn widen(
    tx: &Transaction<'_>,
    id: &AdapterId,
    scope: Scope,
) -> Result<(), RegistryError> {
    // A scope is never narrowed here: another project may rely on it.
    if find(tx, id)?.scope < scope {
        tx.execute("UPDATE adapter SET scope = ?2 WHERE id = ?1", (id.as_str(), scope.as_str()))?;
    }
    Ok(())
}

/// A duplicate has the same id, the same recipe, or the same weights for the same base model: the
/// columns with uniqueness constraints.
fn find_duplicate(
    tx: &Transaction<'_>,
    adapter: &Adapter,
) -> Result<Option<AdapterId>, RegistryError> {
    let sql = "SELECT id FROM adapter
         WHERE id = ?1 OR recipe_digest = ?2 OR (base_digest = ?3 AND sha256 = ?4) LIMIT 1";
    let mut statement = tx.prepare_cached(sql)?;
    let Adapter { id, recipe_digest, base_digest, sha256, .. } = adapter;
    let mut rows = statement.query((id.as_str(), recipe_digest, base_digest, sha256))?;
    rows.next()?.map(|row| parse(&row.get::<_, String>(0)?)).transpose()
}

fn insert(tx: &Transaction<'_>, adapter: &Adapter) -> Result<(), RegistryError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO adapter (id, name, project, task_type, scope, base_model, base_digest, recipe_digest, rank, alpha,
             target_modules, sha256, size_bytes, source, session_id, dataset_digest, train_families, generation,
             recipe_json, created_at)
         VALUES (:id, :name, :project, :task_type, :scope, :base_model, :base_digest, :recipe_digest, :rank, :alpha,
             :target_modules, :sha256, :size_bytes, :source, :session_id, :dataset_digest, :train_families, :generation,
             :recipe_json, :created_at)",
    )?;
    statement.execute(named_params! {
        ":id": adapter.id.as_str(),
        ":name": adapter.name,
        ":project": adapter.project,
        ":task_type": adapter.task_type.as_str(),
        ":scope": adapter.scope.as_str(),
        ":base_model": adapter.base_model,
        ":base_digest": adapter.base_digest,
        ":recipe_digest": adapter.recipe_digest,
        ":rank": adapter.rank,
        ":alpha": adapter.alpha,
        ":target_modules": to_json(&adapter.target_modules),
        ":sha256": adapter.sha256,
        // SQLite has no unsigned integers: a `u64` keeps its bits, and reading casts it back.
        ":size_bytes": adapter.size_bytes.cast_signed(),
        ":source": adapter.source.as_str(),
        ":session_id": adapter.session_id,
        ":dataset_digest": adapter.dataset_digest,
        ":train_families": to_json(&adapter.train_families),
        ":generation": adapter.generation,
        ":recipe_json": adapter.recipe.to_string(),
        ":created_at": adapter.created_at,
    })?;
    Ok(())
}

fn parse(id: &str) -> Result<AdapterId, RegistryError> {
    let unreadable = |_| RegistryError::Unreadable { column: "adapter.id", text: id.to_owned() };
    AdapterId::parse(id).map_err(unreadable)
}

fn find(tx: &Transaction<'_>, id: &AdapterId) -> Result<Adapter, RegistryError> {
    let mut statement = tx.prepare_cached("SELECT * FROM adapter WHERE id = ?1")?;
    let mut rows = statement.query([id.as_str()])?;
    match rows.next()? {
        Some(row) => read(tx, row),
        None => Err(RegistryError::not_found(RecordKind::Adapter, id.as_str())),
    }
}

fn read(tx: &Transaction<'_>, row: &Row<'_>) -> Result<Adapter, RegistryError> {
    let id: String = row.get("id")?;
    let json = |column: &'static str| Ok::<_, RegistryError>(row.get::<_, String>(column)?);
    Ok(Adapter {
        parents: parents(tx, &id)?,
        id: parse(&id)?,
        name: row.get("name")?,
        project: row.get("project")?,
        task_type: from_word("adapter.task_type", row.get("task_type")?)?,
        scope: from_word("adapter.scope", row.get("scope")?)?,
        base_model: row.get("base_model")?,
        base_digest: row.get("base_digest")?,
        recipe_digest: row.get("recipe_digest")?,
        rank: row.get("rank")?,
        alpha: row.get("alpha")?,
        target_modules: from_json("adapter.target_modules", &json("target_modules")?)?,
        sha256: row.get("sha256")?,
        size_bytes: row.get::<_, i64>("size_bytes")?.cast_unsigned(),
        source: from_word("adapter.source", row.get("source")?)?,
        session_id: row.get("session_id")?,
        dataset_digest: row.get("dataset_digest")?,
        train_families: from_json("adapter.train_families", &json("train_families")?)?,
        generation: row.get("generation")?,
        recipe: from_json("adapter.recipe_json", &json("recipe_json")?)?,
        created_at: row.get("created_at")?,
        archived_at: row.get("archived_at")?,
        archive_reason: row.get("archive_reason")?,
    })
}

fn parents(tx: &Transaction<'_>, child: &str) -> Result<Vec<ParentAdapter>, RegistryError> {
    let sql = "SELECT parent_id, weight FROM adapter_parent WHERE child_id = ?1 ORDER BY position";
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query([child])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(ParentAdapter { id: parse(&row.get::<_, String>(0)?)?, weight: row.get(1)? });
    }
    Ok(found)
}
