-- What each adapter was trained on, as terms: the terms of its tasks, once each, and every task as indices into them.
CREATE TABLE adapter_card (
    id INTEGER PRIMARY KEY,
    adapter_id TEXT NOT NULL UNIQUE REFERENCES adapter (id),
    terms TEXT NOT NULL,
    tasks BLOB NOT NULL
) STRICT;

CREATE TRIGGER adapter_card_never_changes BEFORE UPDATE ON adapter_card
BEGIN SELECT RAISE(ABORT, 'what an adapter was trained on never changes'); END;

CREATE TRIGGER adapter_card_stays BEFORE DELETE ON adapter_card
BEGIN SELECT RAISE(ABORT, 'what an adapter was trained on is never deleted'); END;

CREATE VIRTUAL TABLE adapter_card_index USING fts5 (
    terms, content = 'adapter_card', content_rowid = 'id', tokenize = 'ascii'
);

-- In how many cards a term is.
CREATE VIRTUAL TABLE adapter_card_term USING fts5vocab (adapter_card_index, row);

-- Probability with which the adapter of a session, or none, was chosen.
ALTER TABLE session ADD COLUMN propensity REAL CHECK (propensity BETWEEN 0 AND 1);

-- How sessions with and without an adapter ended, without reading them.
CREATE INDEX session_by_use ON session (project, task_type, base_digest, adapter_id, status, verified_by, propensity);
