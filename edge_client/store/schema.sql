-- The device's memory. Identifiers and hashes are BLOBs of 32 bytes, times are Unix seconds (UTC).

-- One value each: epoch, lost_at, log_size, log_root, log_note, revocation_number, revoked_devices, next_check_in.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- One-time keys for committee duty. The private half is deleted in the transaction that stores
-- the answer, the refusal or the erasure statement.
CREATE TABLE prekeys (
    epoch INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    private_key BLOB NOT NULL,
    public_key BLOB NOT NULL UNIQUE,
    not_after INTEGER NOT NULL,
    message BLOB NOT NULL,              -- the serialised, signed nightshift.v1.Prekey
    published INTEGER NOT NULL DEFAULT 0,
    bound_plan_hash BLOB,               -- the first H it was seen in; any other is refused
    bound_until INTEGER,                -- when that plan's answers end, and the key with them
    PRIMARY KEY (epoch, serial)
);

-- The one plan hash of each cohort that was ever seen.
CREATE TABLE cohorts (
    cohort_id BLOB PRIMARY KEY,
    plan_hash BLOB NOT NULL UNIQUE,
    seen_at INTEGER NOT NULL
) WITHOUT ROWID;

-- The one thing that this device said about a cohort as a member; kept so that the same question gets the
-- same bytes and another gets none.
CREATE TABLE answers (
    cohort_id BLOB PRIMARY KEY,
    plan_hash BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,                 -- answer, refusal or erasure
    set_hash BLOB,                      -- absent for an erasure: the cohort is void, no set is meant
    message BLOB NOT NULL,              -- the serialised request, of the kind: nightshift.v1
    answer_deadline INTEGER NOT NULL,
    answered_at INTEGER NOT NULL,
    sent_at INTEGER
) WITHOUT ROWID;

-- What was encrypted for sending. A row outlives its file: it guards the parent against a second contribution.
CREATE TABLE contributions (
    cohort_id BLOB PRIMARY KEY,
    plan_hash BLOB NOT NULL UNIQUE,
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    parent_release BLOB NOT NULL,
    parent_adapter_sha256 BLOB NOT NULL,
    state TEXT NOT NULL,
    body_sha256 BLOB NOT NULL,
    body_size_bytes INTEGER NOT NULL,
    examples INTEGER NOT NULL,
    n_min INTEGER NOT NULL,
    upload_deadline INTEGER NOT NULL,
    latest_prekey_expiry INTEGER NOT NULL,
    committee_keys BLOB NOT NULL,       -- the members' public keys (DER SubjectPublicKeyInfo), one after another
    erasures_required INTEGER NOT NULL, -- so many members' statements lay a void cohort to rest
    created_at INTEGER NOT NULL,
    sent_at INTEGER,
    laid_to_rest_at INTEGER,            -- when enough statements were seen
    released_in INTEGER,                -- number of the release that holds it
    released_over INTEGER               -- devices in the sums of that release
) WITHOUT ROWID;
CREATE INDEX contributions_parent ON contributions (task, parent_release);
CREATE INDEX contributions_adapter ON contributions (parent_adapter_sha256);

-- The newest release of each task that was ever verified; an older one is not accepted again.
CREATE TABLE releases (
    task TEXT NOT NULL,
    number INTEGER NOT NULL,
    release_id BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (task, number)
) WITHOUT ROWID;

-- Adapters on this disk: released ones and a personal one.
CREATE TABLE adapters (
    name TEXT PRIMARY KEY,              -- task/number, or personal/time
    task TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    base_model BLOB NOT NULL,
    layout BLOB NOT NULL,               -- serialised nightshift.v1.AdapterLayout
    release_id BLOB,
    adopted_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Which adapter answers for each task, and the one before it.
CREATE TABLE in_use (
    task TEXT PRIMARY KEY,
    current TEXT REFERENCES adapters (name),
    previous TEXT REFERENCES adapters (name)
) WITHOUT ROWID;

-- Everything that ever left this device, in plain words.
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    recipient TEXT NOT NULL,
    sentence TEXT NOT NULL,
    details TEXT NOT NULL               -- JSON
);

-- What the coordinator did that it may not do.
CREATE TABLE security_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    sentence TEXT NOT NULL
);

-- Private text: where it lies, never a copy of it.
CREATE TABLE sources (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL UNIQUE,
    format TEXT NOT NULL,
    columns TEXT NOT NULL,              -- JSON
    added_at INTEGER NOT NULL
);

-- Nightly passes, for `status`.
CREATE TABLE passes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    exit_code INTEGER,
    summary TEXT
);
