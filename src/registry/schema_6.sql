-- What can come of an answer.
CREATE TRIGGER attempt_verdict_is_known BEFORE INSERT ON attempt
WHEN NEW.verdict NOT IN ('passed', 'accepted', 'failed', 'malformed', 'truncated')
BEGIN SELECT RAISE(ABORT, 'no such verdict'); END;
