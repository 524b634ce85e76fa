-- What `rune evolve` has decided, with the evidence. `key` is a digest of what the decision is about, so none is made twice.
-- `other` is what the subject was compared with, or what a rollback returns to; NULL is the base.
CREATE TABLE ledger (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('gate', 'promote', 'archive', 'merge', 'rollback')),
    key TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    subject TEXT NOT NULL,
    other TEXT,
    suite TEXT,
    decision TEXT NOT NULL,
    evidence_json TEXT NOT NULL CHECK (json_valid(evidence_json)),
    at TEXT NOT NULL
) STRICT;

CREATE INDEX ledger_by_project ON ledger (project, base_digest, kind);
CREATE INDEX ledger_by_subject ON ledger (subject);

CREATE TRIGGER ledger_never_changes BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger never changes'); END;

CREATE TRIGGER ledger_stays BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'rows of the ledger are never deleted'); END;

-- The tasks of a project's own sessions grow with every session: their newest evaluation counts, on whatever tasks.
DROP VIEW fitness;
CREATE VIEW fitness AS
SELECT * FROM evaluation AS newest
WHERE NOT EXISTS (
    SELECT 1 FROM evaluation AS later
    WHERE later.adapter_id IS newest.adapter_id AND later.base_digest = newest.base_digest
      AND later.suite_digest = newest.suite_digest AND later.split = newest.split AND later.via = newest.via
      AND (later.conditions IS newest.conditions OR later.judge_version <> newest.judge_version
           OR newest.suite = 'sessions')
      AND later.id > newest.id
);
