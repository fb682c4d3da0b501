-- What is agreed with a provider about pay: one row for each, open or given up.
CREATE TABLE agreements (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    provider BLOB NOT NULL UNIQUE CHECK (length(provider) = 32),
    -- Its number in the market; null until the provider has opened it there.
    id INTEGER,
    -- The last revision that the provider is known to hold.
    sequence INTEGER NOT NULL,
    -- What the set of `sequence` has.
    fragments INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    -- The last terms with both signatures, as the payer wrote them.
    signed TEXT,
    -- What was asked of the provider and not answered yet: it may have signed.
    pending_sequence INTEGER,
    pending TEXT,
    state TEXT NOT NULL CHECK (state IN ('open', 'stopped'))
) STRICT;

-- The fragments of each agreement's set. Not derived from `fragments`: what was signed stays as it was signed while
-- fragments move, are lost and are collected, until the provider signs again.
CREATE TABLE agreed (
    agreement INTEGER NOT NULL REFERENCES agreements (number) ON DELETE CASCADE,
    id BLOB NOT NULL CHECK (length(id) = 32),
    length INTEGER NOT NULL,
    -- 0: in the set. 1: comes in, 2: goes out with what is pending.
    change INTEGER NOT NULL CHECK (change IN (0, 1, 2)),
    PRIMARY KEY (agreement, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX agreed_changing ON agreed (agreement, change) WHERE change <> 0;
