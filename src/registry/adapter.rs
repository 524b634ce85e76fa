//! Adapters: rows that are written once, beside the folders of `store`.

use std::time::SystemTime;

use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::named_params;

use crate::adapter::Adapter;
use crate::adapter::AdapterId;
use crate::adapter::ParentAdapter;
use crate::event::Event;
use crate::event::timestamp;
use crate::registry::codec::from_json;
use crate::registry::codec::from_word;
use crate::registry::codec::to_json;
use crate::registry::database::Registry;
use crate::registry::error::RecordKind;
use crate::registry::error::RegistryError;
use crate::registry::event;

/// Which adapters are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdapterFilter {
    /// Only those of this project.
    pub project: Option<String>,
    /// Only those that fit this base model, `id@digest`.
    pub base_model: Option<String>,
    /// Those that were archived as well.
    pub archived: bool,
}

/// An adapter in the line of another one.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterAncestor {
    /// It.
    pub adapter: Adapter,
    /// Steps up from the one that was asked for, which has 0.
    pub depth: u32,
}

impl Registry {
    /// The adapter `id`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn adapter(&self, id: &AdapterId) -> Result<Adapter, RegistryError> {
        self.read(|tx| one(tx, id))
    }

    /// The adapters that `filter` lets through, the newest first.
    ///
    /// # Errors
    /// [`RegistryError::Unreadable`].
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

    /// The adapter and all that it was made from, each once, the nearest first.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn lineage(&self, id: &AdapterId) -> Result<Vec<AdapterAncestor>, RegistryError> {
        // UNION drops what was seen, so that this ends whatever the table holds.
        let sql = "WITH RECURSIVE line (id, depth) AS (
                 SELECT ?1, 0 UNION
                 SELECT parent_id, depth + 1 FROM adapter_parent JOIN line ON child_id = line.id WHERE depth < 1000
             )
             SELECT id, min(depth) AS depth FROM line GROUP BY id ORDER BY depth, id";
        self.read(|tx| {
            one(tx, id)?;
            let mut statement = tx.prepare_cached(sql)?;
            let rows = statement.query_map([id.as_str()], |row| {
                Ok((row.get::<_, String>("id")?, row.get::<_, u32>("depth")?))
            })?;
            let mut line = Vec::new();
            for row in rows {
                let (id, depth) = row?;
                line.push(AdapterAncestor { adapter: one(tx, &parse(&id)?)?, depth });
            }
            Ok(line)
        })
    }

    /// Archives the adapter `id`: it stays, and is no longer chosen.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::AlreadyArchived`].
    pub fn archive_adapter(&self, id: &AdapterId, reason: &str) -> Result<(), RegistryError> {
        self.write(|tx| {
            if one(tx, id)?.archived_at.is_some() {
                return Err(RegistryError::AlreadyArchived(id.clone()));
            }
            let at = timestamp(SystemTime::now());
            let sql = "UPDATE adapter SET archived_at = ?2, archive_reason = ?3 WHERE id = ?1";
            tx.execute(sql, (id.as_str(), at, reason))?;
            let archived = Event::AdapterArchived { reason: reason.to_owned() };
            event::append(tx, id.as_str(), &archived).map(drop)
        })
    }

    /// Takes an archived adapter back.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::NotArchived`].
    pub fn restore_adapter(&self, id: &AdapterId) -> Result<(), RegistryError> {
        self.write(|tx| {
            if one(tx, id)?.archived_at.is_none() {
                return Err(RegistryError::NotArchived(id.clone()));
            }
            let sql = "UPDATE adapter SET archived_at = NULL, archive_reason = NULL WHERE id = ?1";
            tx.execute(sql, [id.as_str()])?;
            event::append(tx, id.as_str(), &Event::AdapterRestored).map(drop)
        })
    }

    /// Stores the row of an adapter whose folder is in its place. Stored already, and the same, is
    /// stored.
    ///
    /// # Errors
    /// [`RegistryError::AdapterExists`] when the id is taken, or the same weights for the same
    /// base, or the recipe, are there under another one; [`RegistryError::NotFound`] for a parent
    /// that is not there.
    pub(super) fn insert_adapter(&self, adapter: &Adapter) -> Result<(), RegistryError> {
        self.write(|tx| {
            if let Some(taken) = same(tx, adapter)? {
                let is_stored = taken == adapter.id && one(tx, &taken)?.sha256 == adapter.sha256;
                return if is_stored { Ok(()) } else { Err(RegistryError::AdapterExists(taken)) };
            }
            insert(tx, adapter)?;
            for (position, ParentAdapter { id, weight }) in (0_u32..).zip(&adapter.parents) {
                one(tx, id)?;
                let sql = "INSERT INTO adapter_parent (child_id, parent_id, position, weight) VALUES (?1, ?2, ?3, ?4)";
                tx.execute(sql, (adapter.id.as_str(), id.as_str(), position, weight))?;
            }
            let source = adapter.source;
            let created = Event::AdapterCreated { source, base_model: adapter.base_model.clone() };
            event::append(tx, adapter.id.as_str(), &created).map(drop)
        })
    }

    /// The adapter that `adapter` would be a double of.
    pub(super) fn same_adapter(
        &self,
        adapter: &Adapter,
    ) -> Result<Option<AdapterId>, RegistryError> {
        self.read(|tx| same(tx, adapter))
    }
}

fn same(tx: &Transaction<'_>, adapter: &Adapter) -> Result<Option<AdapterId>, RegistryError> {
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

fn one(tx: &Transaction<'_>, id: &AdapterId) -> Result<Adapter, RegistryError> {
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
