-- Where it was decided that tests pass; NULL for what did not pass, and for everything before this step.
ALTER TABLE session ADD COLUMN assurance TEXT CHECK (assurance IN ('separate', 'same_process'));
ALTER TABLE outcome ADD COLUMN assurance TEXT CHECK (assurance IN ('separate', 'same_process'));
