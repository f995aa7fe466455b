// The tables, as migrations: each is applied once, in order, and never edited after a release.

const first = `
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- One row for all that one turn of the event loop reserved: JSON of intents. What is here and not in
-- issued was never delivered.
CREATE TABLE reservations (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, intents TEXT NOT NULL) STRICT;

-- With a rowid: ordered by random serials, each row of a batch would dirty a page of its own.
CREATE TABLE issued (
  serial BLOB NOT NULL UNIQUE,
  spiffe_id TEXT NOT NULL,
  authority_id TEXT NOT NULL,
  requester TEXT NOT NULL,
  entry_id TEXT NOT NULL,
  not_before INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  certificate BLOB NOT NULL
) STRICT;

CREATE TABLE issued_tokens (
  id BLOB NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  spiffe_id TEXT NOT NULL,
  authority_id TEXT NOT NULL,
  requester TEXT NOT NULL,
  entry_id TEXT NOT NULL,
  audience TEXT NOT NULL,
  issued_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE agents (
  id TEXT PRIMARY KEY,
  attestation_type TEXT NOT NULL,
  serial TEXT NOT NULL,
  pending_serial TEXT NOT NULL,
  not_after INTEGER NOT NULL,
  banned INTEGER NOT NULL,
  can_reattest INTEGER NOT NULL,
  selectors TEXT NOT NULL,
  version TEXT NOT NULL,
  attested_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Only hashes: a stolen database joins nobody. reserved_by is the serial that is using the token up.
CREATE TABLE join_tokens (
  hash BLOB PRIMARY KEY,
  expires_at INTEGER NOT NULL,
  reserved_by TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE entries (
  id TEXT PRIMARY KEY,
  identity TEXT NOT NULL UNIQUE,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- material: DER of a certificate (x509) or of a SubjectPublicKeyInfo (jwt, wit); the private keys are files.
CREATE INDEX entries_by_hint ON entries (json_extract(body, '$.hint'))
  WHERE json_extract(body, '$.hint') <> '';

CREATE TABLE authorities (
  kind TEXT NOT NULL CHECK (kind IN ('x509', 'jwt', 'wit')),
  id TEXT PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'old')),
  tainted_at INTEGER NOT NULL,
  material BLOB NOT NULL,
  not_before INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  prepared_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_active ON authorities (kind) WHERE state = 'active';

CREATE TABLE overrides (
  at INTEGER NOT NULL,
  caller TEXT NOT NULL,
  action TEXT NOT NULL,
  authority_id TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT;

CREATE TABLE policies (version INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, files TEXT NOT NULL) STRICT;

CREATE TABLE federated_bundles (trust_domain TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE relationships (trust_domain TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE deny_rules (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  cursor INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  key TEXT NOT NULL
) STRICT;
`

export const migrations: readonly string[] = [first]
