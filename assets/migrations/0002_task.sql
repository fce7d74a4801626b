-- What an attempt was made for (answer, hedge, rescue), and whether its conversation had been served there before.
ALTER TABLE attempt ADD COLUMN task TEXT NOT NULL DEFAULT 'answer';
ALTER TABLE attempt ADD COLUMN bound INTEGER NOT NULL DEFAULT 0;

-- Tokens read from caches because conversations go on where they were served before; and what was lost of a cache, as JSON.
ALTER TABLE request ADD COLUMN won INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request ADD COLUMN cache_lost TEXT;
ALTER TABLE daily ADD COLUMN won INTEGER NOT NULL DEFAULT 0;
