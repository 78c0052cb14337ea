-- The trace index: what a list of traces shows and filters by, and where the records are.
-- It can be deleted: the writer makes it anew from the segments (docs/decisions/0005).

CREATE TABLE segments (
    id INTEGER PRIMARY KEY,         -- the serial number in its name; higher is newer
    name TEXT NOT NULL UNIQUE,      -- the file's
    sealed INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
);

-- A block covers the traces numbered first … first + count - 1: that is how a trace is found
-- in the segments, and why its own row says nothing of it. The sums answer the overview
-- without a look at single traces. The sets say which values its traces have, each between
-- two unit separators (char 31): a search skips blocks that lack what it looks for, so the
-- traces themselves need no index, and a new one is put at the end of one table.
CREATE TABLE blocks (
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    segment INTEGER NOT NULL REFERENCES segments (id),
    offset INTEGER NOT NULL,        -- of the zstd frame
    length INTEGER NOT NULL,
    oldest_ns INTEGER NOT NULL,     -- received, wall clock
    newest_ns INTEGER NOT NULL,
    failed INTEGER NOT NULL,        -- neither ok nor cancelled by the caller
    cancelled INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    cost_nusd INTEGER NOT NULL,
    saved_nusd INTEGER NOT NULL,
    projects TEXT NOT NULL,
    models TEXT NOT NULL,           -- as asked for
    outcomes TEXT NOT NULL,
    caches TEXT NOT NULL
);
CREATE INDEX blocks_segment ON blocks (segment);
CREATE INDEX blocks_newest ON blocks (newest_ns);

-- One row a record, numbered in the order of arrival at the writer.
CREATE TABLE traces (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    received_ns INTEGER NOT NULL,   -- wall clock
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    key TEXT NOT NULL,              -- its id; '' on loopback
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,            -- as asked for
    provider TEXT NOT NULL,         -- of the last attempt; '' where none was made
    used TEXT NOT NULL,             -- the model that answered, as its provider names it
    status INTEGER NOT NULL,        -- HTTP, as the caller got it; 0: left before
    outcome TEXT NOT NULL,
    cache TEXT NOT NULL,
    tokens_in INTEGER NOT NULL,     -- cached ones included
    tokens_out INTEGER NOT NULL,
    tokens_cached INTEGER NOT NULL, -- read from the provider's prompt cache
    cost_nusd INTEGER,              -- NULL: no price is known
    saved_nusd INTEGER NOT NULL,
    ttft_ns INTEGER NOT NULL,       -- to the first byte of the answer; 0: there was none
    duration_ns INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    stream INTEGER NOT NULL
);

-- What a filter can be set to, newest use of each. Only of requests that were answered, so
-- that nobody fills it with names that nothing has.
CREATE TABLE choices (
    kind TEXT NOT NULL,             -- project, model
    name TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;

-- Ids are random. An index over them would dirty a page for every trace (measured: 20 µs a
-- trace at 1 M), so they are sorted in runs of 32,768 traces when a run is complete; younger
-- ones are found by a look through at most that many rows.
CREATE TABLE runs (
    run INTEGER PRIMARY KEY         -- traces numbered run * 32768 …
);
CREATE TABLE ids (
    run INTEGER NOT NULL,
    id TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (run, id, n)
) WITHOUT ROWID;
