-- Model servers that give their GPU to a training run. One row a server; its id is the URL.
-- `before_json` is what the server had and answered before it slept.
CREATE TABLE gpu_lease (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('serving', 'draining', 'sleeping', 'training', 'waking', 'verifying', 'degraded')),
    before_json TEXT NOT NULL CHECK (json_valid(before_json)),
    detail TEXT NOT NULL DEFAULT '',
    since TEXT NOT NULL,
    owner TEXT,
    epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    expires_at TEXT,
    CHECK ((state IN ('serving', 'degraded')) = (owner IS NULL))
) STRICT;

CREATE TRIGGER gpu_lease_epoch_grows BEFORE UPDATE OF epoch ON gpu_lease WHEN NEW.epoch < OLD.epoch
BEGIN SELECT RAISE(ABORT, 'the epoch never goes back'); END;

CREATE TRIGGER gpu_lease_stays BEFORE DELETE ON gpu_lease
BEGIN SELECT RAISE(ABORT, 'leases are never deleted'); END;
