-- Whoever works on a row holds a claim on it: `owner` says who, `epoch` counts the claims, and `expires_at` is when a lease
-- runs out; NULL: the claim lasts as long as the process that holds it.
ALTER TABLE session ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0);
ALTER TABLE session ADD COLUMN expires_at TEXT;
ALTER TABLE training_run ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0);
ALTER TABLE training_run ADD COLUMN expires_at TEXT;

CREATE TRIGGER session_claim_is_new BEFORE UPDATE OF owner ON session
WHEN NEW.owner IS NOT NULL AND NEW.epoch <= OLD.epoch
BEGIN SELECT RAISE(ABORT, 'every claim has an epoch of its own'); END;

CREATE TRIGGER session_epoch_grows BEFORE UPDATE OF epoch ON session WHEN NEW.epoch < OLD.epoch
BEGIN SELECT RAISE(ABORT, 'an epoch never goes back'); END;

CREATE TRIGGER training_run_claim_is_new BEFORE UPDATE OF owner ON training_run
WHEN NEW.owner IS NOT NULL AND NEW.epoch <= OLD.epoch
BEGIN SELECT RAISE(ABORT, 'every claim has an epoch of its own'); END;

CREATE TRIGGER training_run_epoch_grows BEFORE UPDATE OF epoch ON training_run WHEN NEW.epoch < OLD.epoch
BEGIN SELECT RAISE(ABORT, 'an epoch never goes back'); END;
