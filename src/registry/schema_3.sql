CREATE TABLE dataset (
    digest TEXT PRIMARY KEY CHECK (length(digest) = 64 AND digest NOT GLOB '*[^0-9a-f]*'),
    project TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('sessions', 'file')),
    n_records INTEGER NOT NULL CHECK (n_records > 0),
    families TEXT NOT NULL CHECK (json_valid(families)),
    source_json TEXT NOT NULL CHECK (json_valid(source_json)),
    at TEXT NOT NULL
) STRICT;

CREATE TRIGGER dataset_never_changes BEFORE UPDATE ON dataset
BEGIN SELECT RAISE(ABORT, 'datasets never change'); END;

CREATE TRIGGER dataset_stays BEFORE DELETE ON dataset
BEGIN SELECT RAISE(ABORT, 'datasets are never deleted'); END;

CREATE TABLE training_run (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('qlora', 'hypernetwork')),
    project TEXT NOT NULL,
    config_json TEXT NOT NULL CHECK (json_valid(config_json)),
    dataset_digest TEXT NOT NULL REFERENCES dataset (digest),
    base_model TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'interrupted', 'completed', 'failed')),
    step INTEGER NOT NULL DEFAULT 0 CHECK (step >= 0),
    total_steps INTEGER NOT NULL DEFAULT 0 CHECK (total_steps >= 0),
    best_val_loss REAL,
    adapter_id TEXT REFERENCES adapter (id),
    error TEXT,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    owner TEXT,
    CHECK ((status = 'running') = (owner IS NOT NULL)),
    CHECK ((status = 'running') = (ended_at IS NULL)),
    CHECK (status <> 'completed' OR adapter_id IS NOT NULL)
) STRICT;

CREATE INDEX training_run_by_dataset ON training_run (dataset_digest, base_digest);

CREATE TRIGGER training_run_keeps_its_job
BEFORE UPDATE OF id, kind, project, config_json, dataset_digest, base_model, base_digest, started_at ON training_run
BEGIN SELECT RAISE(ABORT, 'what a run was asked never changes'); END;

CREATE TRIGGER training_run_stays_completed BEFORE UPDATE ON training_run WHEN OLD.status = 'completed'
BEGIN SELECT RAISE(ABORT, 'a completed run never changes'); END;

CREATE TRIGGER training_run_stays BEFORE DELETE ON training_run
BEGIN SELECT RAISE(ABORT, 'training runs are never deleted'); END;

-- A run that is gone on with measures the steps after its checkpoint again: the newest figure counts.
CREATE TABLE metric (
    run_id TEXT NOT NULL REFERENCES training_run (id),
    step INTEGER NOT NULL CHECK (step >= 0),
    name TEXT NOT NULL,
    value REAL NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (run_id, name, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE evaluation (
    id TEXT PRIMARY KEY,
    adapter_id TEXT REFERENCES adapter (id),
    base_digest TEXT NOT NULL,
    suite TEXT NOT NULL,
    suite_digest TEXT NOT NULL,
    split TEXT NOT NULL,
    via TEXT NOT NULL CHECK (via IN ('completions', 'best_of_n', 'pipeline')),
    n_tasks INTEGER NOT NULL CHECK (n_tasks > 0),
    n_samples INTEGER NOT NULL CHECK (n_samples > 0),
    passed INTEGER NOT NULL CHECK (passed BETWEEN 0 AND n_tasks * n_samples),
    pass_at_1 REAL NOT NULL CHECK (pass_at_1 BETWEEN 0 AND 1),
    ci_low REAL NOT NULL,
    ci_high REAL NOT NULL,
    sampling_json TEXT NOT NULL CHECK (json_valid(sampling_json)),
    judge_version TEXT NOT NULL,
    provider TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;

CREATE INDEX evaluation_by_adapter ON evaluation (adapter_id, base_digest, suite_digest, split, via, id);
CREATE INDEX evaluation_by_suite ON evaluation (base_digest, suite_digest, split, via, id);

CREATE TRIGGER evaluation_never_changes BEFORE UPDATE ON evaluation
BEGIN SELECT RAISE(ABORT, 'evaluations never change'); END;

CREATE TRIGGER evaluation_stays BEFORE DELETE ON evaluation
BEGIN SELECT RAISE(ABORT, 'evaluations are never deleted'); END;

-- What came of an answer; the key is the digest of all that decided it, so that nothing is asked twice.
CREATE TABLE outcome (
    key TEXT PRIMARY KEY CHECK (length(key) = 64 AND key NOT GLOB '*[^0-9a-f]*'),
    adapter_id TEXT REFERENCES adapter (id),
    task_digest TEXT NOT NULL,
    seed INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('passed', 'failed')),
    summary TEXT NOT NULL,
    answer TEXT NOT NULL,
    cpu_ms INTEGER NOT NULL CHECK (cpu_ms >= 0),
    at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER outcome_never_changes BEFORE UPDATE ON outcome
BEGIN SELECT RAISE(ABORT, 'outcomes never change'); END;

-- The newest evaluation of an adapter (or of the base, where adapter_id is NULL) on each suite.
CREATE VIEW fitness AS
SELECT * FROM evaluation AS newest
WHERE NOT EXISTS (
    SELECT 1 FROM evaluation AS later
    WHERE later.adapter_id IS newest.adapter_id AND later.base_digest = newest.base_digest
      AND later.suite_digest = newest.suite_digest AND later.split = newest.split AND later.via = newest.via
      AND later.id > newest.id
);

CREATE INDEX adapter_for_all ON adapter (base_model) WHERE scope = 'global' AND archived_at IS NULL;
