CREATE TABLE session (
    id TEXT PRIMARY KEY CHECK (id GLOB '[a-z0-9]*' AND id NOT GLOB '*[^a-z0-9._-]*' AND length(id) <= 128),
    project TEXT NOT NULL,
    task_json TEXT NOT NULL CHECK (json_valid(task_json)),
    task_type TEXT NOT NULL CHECK (task_type IN ('function', 'module', 'cli', 'fix', 'repo')),
    workspace TEXT,
    provider TEXT NOT NULL,
    base_model TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    adapter_id TEXT,
    adapter_reason TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'interrupted', 'solved', 'unsolved', 'failed')),
    verified_by TEXT NOT NULL CHECK (verified_by IN ('user_tests', 'generated_tests', 'none')),
    sandbox_tier TEXT NOT NULL,
    seed INTEGER NOT NULL,
    config_json TEXT NOT NULL CHECK (json_valid(config_json)),
    tokens_in INTEGER NOT NULL CHECK (tokens_in >= 0),
    tokens_out INTEGER NOT NULL CHECK (tokens_out >= 0),
    started_at TEXT NOT NULL,
    ended_at TEXT,
    exit_code INTEGER,
    owner TEXT,
    CHECK (status <> 'solved' OR verified_by <> 'none'),
    CHECK ((status = 'running') = (ended_at IS NULL)),
    CHECK ((status = 'running') = (owner IS NOT NULL))
) STRICT;

CREATE INDEX session_by_project ON session (project, id);
CREATE INDEX session_by_status ON session (status, id);

CREATE TRIGGER session_keeps_its_task
BEFORE UPDATE OF id, project, task_json, task_type, base_model, base_digest, seed, started_at ON session
BEGIN SELECT RAISE(ABORT, 'what a session was asked never changes'); END;

CREATE TRIGGER session_stays_solved BEFORE UPDATE ON session WHEN OLD.status = 'solved'
BEGIN SELECT RAISE(ABORT, 'a solved session never changes'); END;

CREATE TRIGGER session_stays BEFORE DELETE ON session
BEGIN SELECT RAISE(ABORT, 'sessions are never deleted'); END;

CREATE TABLE attempt (
    session_id TEXT NOT NULL REFERENCES session (id),
    seq INTEGER NOT NULL CHECK (seq >= 0),
    phase TEXT NOT NULL CHECK (phase IN ('decompose', 'plan', 'code', 'integrate', 'diagnose', 'repair')),
    subtask TEXT,
    candidate INTEGER NOT NULL CHECK (candidate >= 0),
    prompt TEXT NOT NULL CHECK (json_valid(prompt)),
    prompt_digest TEXT NOT NULL,
    completion TEXT NOT NULL,
    finish_reason TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length', 'repetition', 'cancelled')),
    logprobs_json TEXT CHECK (json_valid(logprobs_json)),
    sampling_json TEXT NOT NULL CHECK (json_valid(sampling_json)),
    seed INTEGER NOT NULL,
    adapter_id TEXT,
    tokens_in INTEGER NOT NULL CHECK (tokens_in >= 0),
    tokens_out INTEGER NOT NULL CHECK (tokens_out >= 0),
    prefill_ms INTEGER NOT NULL,
    decode_ms INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    verdict_json TEXT NOT NULL CHECK (json_valid(verdict_json)),
    files_json TEXT NOT NULL CHECK (json_valid(files_json)),
    at TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
) STRICT;

CREATE TRIGGER attempt_is_next BEFORE INSERT ON attempt
WHEN NEW.seq <> (SELECT coalesce(max(seq) + 1, 0) FROM attempt WHERE session_id = NEW.session_id)
BEGIN SELECT RAISE(ABORT, 'attempts of a session are numbered without gaps'); END;

CREATE TRIGGER attempt_never_changes BEFORE UPDATE ON attempt
BEGIN SELECT RAISE(ABORT, 'attempts never change'); END;

CREATE TRIGGER attempt_stays BEFORE DELETE ON attempt
BEGIN SELECT RAISE(ABORT, 'attempts are never deleted'); END;

-- The columns are those of CloudEvents 1.0; `subject` is the id of what the event tells of.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    time TEXT NOT NULL,
    data_json TEXT NOT NULL CHECK (json_valid(data_json))
) STRICT;

CREATE INDEX event_by_subject ON event (subject, seq);

CREATE TRIGGER event_is_next BEFORE INSERT ON event
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM event)
BEGIN SELECT RAISE(ABORT, 'events are numbered without gaps'); END;

CREATE TRIGGER event_never_changes BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'events never change'); END;

CREATE TRIGGER event_stays BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
