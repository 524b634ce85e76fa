CREATE TABLE adapter (
    id TEXT PRIMARY KEY CHECK (id GLOB '[a-z0-9]*' AND id NOT GLOB '*[^a-z0-9._-]*' AND length(id) <= 128),
    name TEXT,
    project TEXT NOT NULL,
    task_type TEXT NOT NULL CHECK (task_type IN ('function', 'module', 'cli', 'fix', 'repo')),
    scope TEXT NOT NULL CHECK (scope IN ('task', 'project', 'global')),
    base_model TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    recipe_digest TEXT NOT NULL UNIQUE,
    rank INTEGER NOT NULL CHECK (rank BETWEEN 1 AND 256),
    alpha REAL NOT NULL CHECK (alpha > 0),
    target_modules TEXT NOT NULL CHECK (json_valid(target_modules)),
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64 AND sha256 NOT GLOB '*[^0-9a-f]*'),
    size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
    source TEXT NOT NULL CHECK (source IN ('qlora', 'hypernetwork', 'merge', 'import')),
    session_id TEXT REFERENCES session (id),
    dataset_digest TEXT,
    train_families TEXT NOT NULL CHECK (json_valid(train_families)),
    generation INTEGER NOT NULL CHECK (generation >= 0),
    recipe_json TEXT NOT NULL CHECK (json_valid(recipe_json)),
    created_at TEXT NOT NULL,
    archived_at TEXT,
    archive_reason TEXT,
    UNIQUE (base_digest, sha256),
    CHECK ((archived_at IS NULL) = (archive_reason IS NULL))
) STRICT;

CREATE INDEX adapter_by_base ON adapter (base_model, project, task_type) WHERE archived_at IS NULL;

CREATE TRIGGER adapter_keeps_what_it_is BEFORE UPDATE OF
    id, project, task_type, base_model, base_digest, recipe_digest, rank, alpha, target_modules, sha256, size_bytes,
    source, session_id, dataset_digest, train_families, generation, recipe_json, created_at ON adapter
BEGIN SELECT RAISE(ABORT, 'what an adapter is never changes'); END;

CREATE TRIGGER adapter_stays BEFORE DELETE ON adapter
BEGIN SELECT RAISE(ABORT, 'adapters are never deleted'); END;

CREATE TABLE adapter_parent (
    child_id TEXT NOT NULL REFERENCES adapter (id),
    parent_id TEXT NOT NULL REFERENCES adapter (id),
    position INTEGER NOT NULL CHECK (position >= 0),
    weight REAL NOT NULL,
    PRIMARY KEY (child_id, position),
    UNIQUE (child_id, parent_id)
) STRICT;

CREATE INDEX adapter_parent_by_parent ON adapter_parent (parent_id);

CREATE TRIGGER adapter_parent_is_older BEFORE INSERT ON adapter_parent
WHEN (SELECT rowid FROM adapter WHERE id = NEW.parent_id) >= (SELECT rowid FROM adapter WHERE id = NEW.child_id)
BEGIN SELECT RAISE(ABORT, 'a parent is there before its child'); END;

CREATE TRIGGER adapter_parent_never_changes BEFORE UPDATE ON adapter_parent
BEGIN SELECT RAISE(ABORT, 'parents never change'); END;

CREATE TRIGGER adapter_parent_stays BEFORE DELETE ON adapter_parent
BEGIN SELECT RAISE(ABORT, 'parents are never deleted'); END;
