-- How each provider came into the books, and what the registry of providers says of it.
ALTER TABLE providers ADD COLUMN source TEXT NOT NULL DEFAULT 'hand' CHECK (source IN ('hand', 'registry'));
-- Its wallet there; null when the registry does not list it under this key.
ALTER TABLE providers ADD COLUMN wallet BLOB CHECK (length(wallet) = 20);
ALTER TABLE providers ADD COLUMN leaving INTEGER NOT NULL DEFAULT 0;

-- Providers that the owner removed: the registry brings them back no more.
CREATE TABLE removed_providers (
    key BLOB PRIMARY KEY CHECK (length(key) = 32)
) STRICT, WITHOUT ROWID;
