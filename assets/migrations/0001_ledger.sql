-- One row for each finished request; its id begins with the time, so the order of the table is that of their starts, and
-- needs no other index.
CREATE TABLE request (
  id TEXT PRIMARY KEY,
  at INTEGER NOT NULL,            -- milliseconds since 1970, UTC
  finished INTEGER NOT NULL,
  project TEXT NOT NULL,
  client TEXT NOT NULL,
  session TEXT,
  dialect TEXT NOT NULL,
  op TEXT NOT NULL,
  asked TEXT NOT NULL,
  stream INTEGER NOT NULL,
  state TEXT NOT NULL,
  status INTEGER,
  request_bytes INTEGER NOT NULL,
  answer_bytes INTEGER NOT NULL,
  events INTEGER NOT NULL,
  ttft_ms INTEGER,
  duration_ms INTEGER NOT NULL,
  finish TEXT,
  error TEXT,
  reason TEXT,
  attempts INTEGER NOT NULL,
  upstream TEXT NOT NULL,         -- of the last attempt; empty where there was none
  key TEXT NOT NULL,
  model TEXT NOT NULL,
  counted INTEGER NOT NULL,       -- 0: usage is unknown, and the classes below say nothing
  input INTEGER NOT NULL,
  cache_read INTEGER NOT NULL,
  cache_write_5m INTEGER NOT NULL,
  cache_write_1h INTEGER NOT NULL,
  audio_in INTEGER NOT NULL,
  image_in INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  audio_out INTEGER NOT NULL,
  image_out INTEGER NOT NULL,
  searches INTEGER NOT NULL,
  cost INTEGER,                   -- billionths of a dollar; NULL: nobody knows
  sure TEXT NOT NULL,
  demo INTEGER NOT NULL,
  replay_of TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE attempt (
  request TEXT NOT NULL,
  number INTEGER NOT NULL,
  upstream TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  model TEXT NOT NULL,
  answered TEXT,
  started_ms INTEGER NOT NULL,
  head_ms INTEGER,
  ended_ms INTEGER,
  status INTEGER,
  outcome TEXT,
  won INTEGER NOT NULL,
  maybe_billed INTEGER NOT NULL,
  usage TEXT,                     -- JSON, where it is known and not that of the request, whose only attempt this is
  cost INTEGER,
  sure TEXT NOT NULL,
  source TEXT NOT NULL,
  computed INTEGER,
  reported INTEGER,
  price INTEGER,
  PRIMARY KEY (request, number)
) STRICT, WITHOUT ROWID;

-- Prices as they were when they were used.
CREATE TABLE price (
  id INTEGER PRIMARY KEY,
  used TEXT NOT NULL UNIQUE       -- JSON
) STRICT;

-- Sums by day of the ledger's time zone, so that questions about months need not read every request.
CREATE TABLE daily (
  day INTEGER NOT NULL,           -- since 1970
  project TEXT NOT NULL,
  client TEXT NOT NULL,
  upstream TEXT NOT NULL,
  key TEXT NOT NULL,
  model TEXT NOT NULL,
  op TEXT NOT NULL,
  demo INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  input INTEGER NOT NULL,
  cache_read INTEGER NOT NULL,
  cache_write_5m INTEGER NOT NULL,
  cache_write_1h INTEGER NOT NULL,
  audio_in INTEGER NOT NULL,
  image_in INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  audio_out INTEGER NOT NULL,
  image_out INTEGER NOT NULL,
  searches INTEGER NOT NULL,
  cost INTEGER NOT NULL,
  unpriced INTEGER NOT NULL,
  estimated INTEGER NOT NULL,
  at_least INTEGER NOT NULL,
  PRIMARY KEY (day, project, client, upstream, key, model, op, demo)
) STRICT, WITHOUT ROWID;

-- Bodies are cut into chunks where their content says so, and each chunk is kept once: the turns of a conversation share
-- all but their ends.
CREATE TABLE body (
  request TEXT NOT NULL,
  side INTEGER NOT NULL,          -- 0: what was sent, 1: what was answered
  at INTEGER NOT NULL,
  media TEXT NOT NULL,
  total INTEGER NOT NULL,         -- bytes that it had
  head INTEGER NOT NULL,          -- bytes kept of its beginning; what is left of the chunks is its end
  chunks BLOB NOT NULL,           -- their ids, eight bytes each, big endian
  PRIMARY KEY (request, side)
) STRICT, WITHOUT ROWID;

CREATE TABLE chunk (
  id INTEGER PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  refs INTEGER NOT NULL,
  packed INTEGER NOT NULL,        -- 1: deflated
  data BLOB NOT NULL
) STRICT;

CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
