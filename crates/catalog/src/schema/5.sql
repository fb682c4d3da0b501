-- A provider's set on its way into the books, page by page: nothing in `agreements` and `agreed` knows of it until it is whole and
-- found to be what was signed. One for each provider; whoever begins anew ends the one before.
CREATE TABLE adoptions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    provider BLOB NOT NULL UNIQUE CHECK (length(provider) = 32)
) STRICT;
CREATE TABLE adopted (
    adoption INTEGER NOT NULL REFERENCES adoptions (number) ON DELETE CASCADE,
    id BLOB NOT NULL CHECK (length(id) = 32),
    length INTEGER NOT NULL,
    PRIMARY KEY (adoption, id)
) STRICT, WITHOUT ROWID;
