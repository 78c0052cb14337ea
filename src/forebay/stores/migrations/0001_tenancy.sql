-- Team > project > key. The tenant of every cache and record is the project, so a project's
-- id is unique by itself, not only within its team: two teams can't share one by accident.
-- Ids of teams and projects are the names people gave them. Times are nanoseconds since the
-- Unix epoch, 0 where there is none.

CREATE TABLE teams (
    id TEXT PRIMARY KEY
);

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id)
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('admin', 'caller')),
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    last4 TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT NOT NULL DEFAULT 0,
    revoked_ns BIGINT NOT NULL DEFAULT 0
);

-- Which pepper the digests above were made with: a lost or swapped pepper file is noticed
-- when the store opens, not by every caller being refused. At most one row.
CREATE TABLE pepper (
    fingerprint BLOB NOT NULL
);

INSERT INTO teams (id) VALUES ('default');
INSERT INTO projects (id, team_id) VALUES ('default', 'default');
