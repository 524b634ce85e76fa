-- Records of solved sessions, which later sessions show to the model. `terms` are those of the question and of the names in
-- the answer, separated by spaces.
CREATE TABLE experience (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL UNIQUE REFERENCES session (id),
    project TEXT NOT NULL,
    family TEXT NOT NULL,
    terms TEXT NOT NULL,
    at TEXT NOT NULL,
    question TEXT NOT NULL,
    answer TEXT NOT NULL
) STRICT;

CREATE TRIGGER experience_never_changes BEFORE UPDATE ON experience
BEGIN SELECT RAISE(ABORT, 'records of solved sessions never change'); END;

CREATE TRIGGER experience_stays BEFORE DELETE ON experience
BEGIN SELECT RAISE(ABORT, 'records of solved sessions are never deleted'); END;

-- Which records have a term. Terms are letters and spaces alone, which `ascii` only takes apart at the spaces.
CREATE VIRTUAL TABLE experience_index USING fts5 (
    terms, content = 'experience', content_rowid = 'id', detail = none, columnsize = 0, tokenize = 'ascii'
);

-- In how many records a term is. FTS5 would have to read all of them to tell.
CREATE TABLE experience_term (
    term TEXT PRIMARY KEY,
    n_records INTEGER NOT NULL CHECK (n_records > 0)
) STRICT, WITHOUT ROWID;

-- Sessions that were solved before this step and have no record yet; the next search adds them.
CREATE TABLE experience_backlog (session_id TEXT PRIMARY KEY REFERENCES session (id)) STRICT, WITHOUT ROWID;
INSERT INTO experience_backlog
SELECT id FROM session WHERE status = 'solved' AND verified_by = 'user_tests' AND assurance IS NOT NULL;

-- Records that the prompts of a session show.
ALTER TABLE session ADD COLUMN memory_json TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(memory_json));

CREATE TRIGGER session_keeps_its_memory BEFORE UPDATE OF memory_json ON session
BEGIN SELECT RAISE(ABORT, 'the records that a session shows never change'); END;
