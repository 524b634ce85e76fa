-- The family of the task of each session with the user's tests; NULL if it resembles tasks of families in different splits.
CREATE TABLE session_family (
    session_id TEXT PRIMARY KEY REFERENCES session (id),
    family TEXT
) STRICT, WITHOUT ROWID;

CREATE TRIGGER session_family_never_changes BEFORE UPDATE ON session_family
BEGIN SELECT RAISE(ABORT, 'the family of a session never changes'); END;

CREATE TRIGGER session_family_stays BEFORE DELETE ON session_family
BEGIN SELECT RAISE(ABORT, 'families of sessions are never deleted'); END;
