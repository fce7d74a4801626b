-- What an attempt was made for: answer, hedge, rescue.
ALTER TABLE attempt ADD COLUMN task TEXT NOT NULL DEFAULT 'answer';
