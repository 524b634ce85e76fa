-- Runs of `rune swarm`. `seconds_json` is the wall time spent on each kind of work.
CREATE TABLE swarm_run (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    config_json TEXT NOT NULL CHECK (json_valid(config_json)),
    status TEXT NOT NULL CHECK (status IN ('running', 'interrupted', 'completed', 'failed')),
    generation INTEGER NOT NULL CHECK (generation >= 1),
    seconds_json TEXT NOT NULL CHECK (json_valid(seconds_json)),
    reason TEXT,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    owner TEXT,
    epoch INTEGER NOT NULL DEFAULT 0,
    expires_at TEXT,
    CHECK ((status = 'running') = (owner IS NOT NULL)),
    CHECK ((status = 'running') = (ended_at IS NULL))
) STRICT;

CREATE TRIGGER swarm_run_keeps_its_task BEFORE UPDATE OF id, project, config_json, started_at ON swarm_run
BEGIN SELECT RAISE(ABORT, 'what a swarm was asked never changes'); END;

CREATE TRIGGER swarm_run_stays BEFORE DELETE ON swarm_run
BEGIN SELECT RAISE(ABORT, 'swarms are never deleted'); END;

-- The queue. Work with the same key is queued once.
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    swarm_id TEXT NOT NULL REFERENCES swarm_run (id),
    kind TEXT NOT NULL CHECK (kind IN ('solve', 'train', 'evaluate', 'evolve')),
    key TEXT NOT NULL UNIQUE,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    payload_json TEXT NOT NULL CHECK (json_valid(payload_json)),
    state TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'done', 'failed', 'discarded', 'cancelled')),
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    run_at TEXT NOT NULL,
    seconds REAL NOT NULL DEFAULT 0 CHECK (seconds >= 0),
    result_json TEXT CHECK (result_json IS NULL OR json_valid(result_json)),
    queued_at TEXT NOT NULL,
    ended_at TEXT,
    owner TEXT,
    epoch INTEGER NOT NULL DEFAULT 0,
    expires_at TEXT,
    CHECK ((state = 'leased') = (owner IS NOT NULL)),
    CHECK ((state IN ('queued', 'leased')) = (ended_at IS NULL)),
    CHECK ((state = 'done') = (result_json IS NOT NULL))
) STRICT;

CREATE INDEX job_by_state ON job (swarm_id, generation, kind, state);
CREATE INDEX job_by_kind ON job (swarm_id, kind, state, run_at);

CREATE TRIGGER job_keeps_its_work BEFORE UPDATE OF id, swarm_id, kind, key, generation, payload_json, queued_at ON job
BEGIN SELECT RAISE(ABORT, 'the work of a job never changes'); END;

CREATE TRIGGER job_stays_done BEFORE UPDATE ON job WHEN OLD.state = 'done'
BEGIN SELECT RAISE(ABORT, 'a job that is done never changes'); END;

CREATE TRIGGER job_stays BEFORE DELETE ON job
BEGIN SELECT RAISE(ABORT, 'jobs are never deleted'); END;

-- Every error of every attempt.
CREATE TABLE job_error (
    job_id TEXT NOT NULL REFERENCES job (id),
    attempt INTEGER NOT NULL,
    error TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;

CREATE INDEX job_error_by_job ON job_error (job_id);

-- The job that a session or a training run belongs to: one session or run a job, however often it is tried.
ALTER TABLE session ADD COLUMN job_id TEXT REFERENCES job (id);
CREATE UNIQUE INDEX session_by_job ON session (job_id) WHERE job_id IS NOT NULL;
ALTER TABLE training_run ADD COLUMN job_id TEXT REFERENCES job (id);
CREATE UNIQUE INDEX training_run_by_job ON training_run (job_id) WHERE job_id IS NOT NULL;
