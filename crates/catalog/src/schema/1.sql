-- Numbers are never used twice (AUTOINCREMENT): a stale number names nothing rather than something else.

CREATE TABLE lifecycle (
    only INTEGER PRIMARY KEY CHECK (only = 0),
    clean INTEGER NOT NULL
) STRICT;
INSERT INTO lifecycle (only, clean) VALUES (0, 1);

CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE providers (
    key BLOB PRIMARY KEY CHECK (length(key) = 32),
    address TEXT NOT NULL,
    operator TEXT NOT NULL,
    region TEXT NOT NULL,
    capacity_bytes INTEGER NOT NULL,
    free_bytes INTEGER NOT NULL,
    accepting INTEGER NOT NULL,
    added INTEGER NOT NULL,
    last_seen INTEGER,
    requests INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    failures_in_row INTEGER NOT NULL DEFAULT 0,
    lies INTEGER NOT NULL DEFAULT 0,
    latency_us INTEGER NOT NULL DEFAULT 0,
    latency_deviation_us INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE datasets (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
    name TEXT NOT NULL UNIQUE,
    salt BLOB NOT NULL CHECK (length(salt) = 32),
    owner BLOB NOT NULL CHECK (length(owner) = 32),
    epoch INTEGER NOT NULL,
    public INTEGER NOT NULL,
    policy BLOB NOT NULL,
    created INTEGER NOT NULL,
    next_segment INTEGER NOT NULL DEFAULT 0,
    next_ordinal INTEGER NOT NULL DEFAULT 0,
    next_slot INTEGER NOT NULL DEFAULT 0,
    -- Counts every change, so that snapshots need no clock.
    change INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE versions (
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 32),
    place_segment INTEGER NOT NULL,
    place_item INTEGER NOT NULL,
    tree_segment INTEGER NOT NULL,
    tree_item INTEGER NOT NULL,
    layout_segment INTEGER NOT NULL,
    layout_item INTEGER NOT NULL,
    new_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    time INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (dataset, ordinal),
    UNIQUE (dataset, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE refs (
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    slot INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('branch', 'tag')),
    version BLOB NOT NULL,
    PRIMARY KEY (dataset, slot),
    UNIQUE (dataset, name),
    FOREIGN KEY (dataset, version) REFERENCES versions (dataset, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX refs_by_version ON refs (dataset, version);

CREATE TABLE segments (
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    data INTEGER NOT NULL,
    total INTEGER NOT NULL,
    sealed_len INTEGER NOT NULL,
    footer_len INTEGER NOT NULL,
    live_bytes INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('recorded', 'committed', 'doomed')),
    -- The dataset's change number when a push last relied on the segment.
    used INTEGER NOT NULL,
    PRIMARY KEY (dataset, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE fragments (
    dataset INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    position INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 32),
    holder BLOB CHECK (length(holder) = 32),
    claim_until INTEGER NOT NULL,
    PRIMARY KEY (dataset, segment, position),
    FOREIGN KEY (dataset, segment) REFERENCES segments (dataset, number) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX fragments_by_holder ON fragments (holder, id) WHERE holder IS NOT NULL;
CREATE INDEX fragments_by_claim ON fragments (claim_until) WHERE holder IS NOT NULL;
CREATE INDEX fragments_missing ON fragments (dataset, segment, position) WHERE holder IS NULL;

CREATE TABLE pages (
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    list TEXT NOT NULL CHECK (list IN ('map', 'versions', 'refs')),
    level INTEGER NOT NULL,
    page INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    item INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (dataset, list, level, page)
) STRICT, WITHOUT ROWID;

-- Entries of numbered lists that differ from what the newest head says.
CREATE TABLE changes (
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    list TEXT NOT NULL CHECK (list IN ('map', 'versions', 'refs')),
    number INTEGER NOT NULL,
    change INTEGER NOT NULL,
    -- Whether a head should be written for this alone; else it waits for the next commit.
    urgent INTEGER NOT NULL,
    PRIMARY KEY (dataset, list, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX changes_urgent ON changes (dataset) WHERE urgent = 1;

CREATE TABLE heads (
    dataset INTEGER PRIMARY KEY REFERENCES datasets (number) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    -- Numbers of each list given out by then.
    segments INTEGER NOT NULL,
    versions INTEGER NOT NULL,
    refs INTEGER NOT NULL
) STRICT;

CREATE TABLE head_segments (
    dataset INTEGER NOT NULL REFERENCES heads (dataset) ON DELETE CASCADE,
    segment INTEGER NOT NULL,
    PRIMARY KEY (dataset, segment)
) STRICT, WITHOUT ROWID;

CREATE TABLE publications (
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    provider BLOB NOT NULL CHECK (length(provider) = 32),
    sequence INTEGER NOT NULL,
    PRIMARY KEY (dataset, provider)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT;
CREATE INDEX leases_by_dataset ON leases (dataset);

CREATE TABLE lease_uses (
    lease INTEGER NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
    segment INTEGER NOT NULL,
    PRIMARY KEY (lease, segment)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The hash of the work: the same thing is to be done once.
    key BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
    dataset INTEGER REFERENCES datasets (number) ON DELETE CASCADE,
    work TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    -- Taken until this time; 0 when free.
    held_until INTEGER NOT NULL DEFAULT 0,
    -- Asked for again while it was taken: do it once more.
    again INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT
) STRICT;
CREATE INDEX jobs_due ON jobs (not_before);
CREATE INDEX jobs_by_dataset ON jobs (dataset);
