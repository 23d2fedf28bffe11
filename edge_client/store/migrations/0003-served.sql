-- Whether the owner chose what answers for a task; then no release replaces it.
ALTER TABLE in_use ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;

-- The newest decision about each task that was verified; an older one is not accepted again.
CREATE TABLE decisions (
    task TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    decision_id BLOB NOT NULL,
    served_release BLOB NOT NULL,
    followed INTEGER NOT NULL DEFAULT 0 -- whether what it says to serve was adopted, or kept back for a reason
) WITHOUT ROWID;

-- What this device found when it compared a served release with the adapter that was in use before, on its own
-- hold-out. Losses in nats per answer token; NULL where an operator's rollback was followed without a look.
CREATE TABLE comparisons (
    release_id BLOB PRIMARY KEY,
    task TEXT NOT NULL,
    against TEXT,                       -- name of the other adapter
    loss REAL,
    loss_against REAL,
    kept_back INTEGER NOT NULL,         -- 1: the other one stays in use
    compared_at INTEGER NOT NULL
) WITHOUT ROWID;
