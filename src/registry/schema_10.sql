-- The newest evaluation of an adapter (or of the base, where adapter_id is NULL) on each suite, by conditions. What another
-- version of the judge found counts until the suite is measured again.
DROP VIEW fitness;
CREATE VIEW fitness AS
SELECT * FROM evaluation AS newest
WHERE NOT EXISTS (
    SELECT 1 FROM evaluation AS later
    WHERE later.adapter_id IS newest.adapter_id AND later.base_digest = newest.base_digest
      AND later.suite_digest = newest.suite_digest AND later.split = newest.split AND later.via = newest.via
      AND (later.conditions IS newest.conditions OR later.judge_version <> newest.judge_version)
      AND later.id > newest.id
);

-- A dataset that was made before step 8 gets the terms of its tasks when it is made again.
DROP TRIGGER dataset_never_changes;
CREATE TRIGGER dataset_never_changes
BEFORE UPDATE OF digest, project, kind, n_records, families, source_json, at ON dataset
BEGIN SELECT RAISE(ABORT, 'datasets never change'); END;
CREATE TRIGGER dataset_profile_is_set_once BEFORE UPDATE OF profile_json ON dataset
WHEN OLD.profile_json IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'the profile of a dataset never changes'); END;

-- Whether a record is of a project, without reading the record.
CREATE INDEX experience_by_project ON experience (project);

-- Passages of documents that the prompts of a session show.
ALTER TABLE session ADD COLUMN passages_json TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(passages_json));

CREATE TRIGGER session_keeps_its_passages BEFORE UPDATE OF passages_json ON session
BEGIN SELECT RAISE(ABORT, 'the passages that a session shows never change'); END;
