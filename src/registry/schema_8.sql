-- The digest of all that decides an evaluation but who answers: only evaluations with equal conditions are compared.
ALTER TABLE evaluation ADD COLUMN conditions TEXT;
-- The comparison with the base, paired by answer: its evaluation, the difference, and its 90 % interval.
ALTER TABLE evaluation ADD COLUMN base_id TEXT REFERENCES evaluation (id);
ALTER TABLE evaluation ADD COLUMN n_families INTEGER CHECK (n_families > 0);
ALTER TABLE evaluation ADD COLUMN gain REAL;
ALTER TABLE evaluation ADD COLUMN gain_low REAL;
ALTER TABLE evaluation ADD COLUMN gain_high REAL CHECK ((gain_high IS NULL) = (base_id IS NULL));

DROP VIEW fitness;
DROP INDEX evaluation_by_adapter;
CREATE INDEX evaluation_by_adapter ON evaluation (adapter_id, base_digest, suite_digest, split, via, conditions, id);

-- The newest evaluation of an adapter (or of the base, where adapter_id is NULL) on each suite, by conditions.
CREATE VIEW fitness AS
SELECT * FROM evaluation AS newest
WHERE NOT EXISTS (
    SELECT 1 FROM evaluation AS later
    WHERE later.adapter_id IS newest.adapter_id AND later.base_digest = newest.base_digest
      AND later.suite_digest = newest.suite_digest AND later.split = newest.split AND later.via = newest.via
      AND later.conditions IS newest.conditions AND later.id > newest.id
);

-- What an answer cost: NULL for what was asked before this step.
ALTER TABLE outcome ADD COLUMN tokens_in INTEGER CHECK (tokens_in >= 0);
ALTER TABLE outcome ADD COLUMN tokens_out INTEGER CHECK (tokens_out >= 0);
ALTER TABLE outcome ADD COLUMN answer_ms INTEGER CHECK (answer_ms >= 0);

-- The terms of the tasks that a dataset was made of; NULL for what was made before this step.
ALTER TABLE dataset ADD COLUMN profile_json TEXT CHECK (json_valid(profile_json));
