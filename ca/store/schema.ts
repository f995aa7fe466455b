// The tables, as migrations: each is applied once, in order, and never edited after a release.
import type { Dialect, Migrations } from '../../runtime/db/database.ts'

const first = ({ integer, bytes, counted, counter, table, keyedTable }: Dialect): string => `
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) ${keyedTable};

-- One row for all that one turn of the event loop reserved: JSON of intents. What is here and not in
-- issued was never delivered.
CREATE TABLE reservations (id ${counted}, at ${integer} NOT NULL, intents TEXT NOT NULL) ${table};

-- Ordered by random serials, each row of a batch would dirty a page of its own.
CREATE TABLE issued (
  place ${counted},
  serial ${bytes} NOT NULL UNIQUE,
  spiffe_id TEXT NOT NULL,
  authority_id TEXT NOT NULL,
  requester TEXT NOT NULL,
  entry_id TEXT NOT NULL,
  not_before ${integer} NOT NULL,
  not_after ${integer} NOT NULL,
  certificate ${bytes} NOT NULL
) ${table};

CREATE TABLE issued_tokens (
  id ${bytes} NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  spiffe_id TEXT NOT NULL,
  authority_id TEXT NOT NULL,
  requester TEXT NOT NULL,
  entry_id TEXT NOT NULL,
  audience TEXT NOT NULL,
  issued_at ${integer} NOT NULL,
  expires_at ${integer} NOT NULL
) ${table};

CREATE TABLE agents (
  id TEXT PRIMARY KEY,
  attestation_type TEXT NOT NULL,
  serial TEXT NOT NULL,
  pending_serial TEXT NOT NULL,
  not_after ${integer} NOT NULL,
  banned ${integer} NOT NULL,
  can_reattest ${integer} NOT NULL,
  selectors TEXT NOT NULL,
  version TEXT NOT NULL,
  attested_at ${integer} NOT NULL
) ${keyedTable};

-- Only hashes: a stolen database joins nobody. reserved_by is the replica that is using the token up.
CREATE TABLE join_tokens (
  hash ${bytes} PRIMARY KEY,
  expires_at ${integer} NOT NULL,
  reserved_by TEXT
) ${keyedTable};

CREATE TABLE entries (
  id TEXT PRIMARY KEY,
  identity TEXT NOT NULL UNIQUE,
  hint TEXT NOT NULL,
  body TEXT NOT NULL
) ${keyedTable};
CREATE INDEX entries_by_hint ON entries (hint) WHERE hint <> '';

-- material: DER of a certificate (x509) or of a SubjectPublicKeyInfo (jwt, wit). replica: who has the key;
-- empty when all have it. sealed_key: empty when it is a file.
CREATE TABLE authorities (
  kind TEXT NOT NULL CHECK (kind IN ('x509', 'jwt', 'wit')),
  id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'old')),
  tainted_at ${integer} NOT NULL,
  material ${bytes} NOT NULL,
  not_before ${integer} NOT NULL,
  not_after ${integer} NOT NULL,
  prepared_at ${integer} NOT NULL,
  replica TEXT NOT NULL,
  sealed_key ${bytes} NOT NULL,
  canary ${bytes} NOT NULL,
  PRIMARY KEY (kind, id)
) ${keyedTable};
CREATE UNIQUE INDEX one_active ON authorities (kind, replica) WHERE state = 'active';

CREATE TABLE overrides (
  place ${counted},
  at ${integer} NOT NULL,
  caller TEXT NOT NULL,
  action TEXT NOT NULL,
  authority_id TEXT NOT NULL,
  reason TEXT NOT NULL
) ${table};

CREATE TABLE policies (version ${counter}, at ${integer} NOT NULL, files TEXT NOT NULL) ${table};

CREATE TABLE federated_bundles (trust_domain TEXT PRIMARY KEY, body TEXT NOT NULL) ${keyedTable};
CREATE TABLE relationships (trust_domain TEXT PRIMARY KEY, body TEXT NOT NULL) ${keyedTable};

CREATE TABLE deny_rules (id TEXT PRIMARY KEY, body TEXT NOT NULL) ${keyedTable};
CREATE TABLE crls (authority_id TEXT PRIMARY KEY, crl ${bytes} NOT NULL) ${keyedTable};

-- The authorities on this database, and when each was alive last.
CREATE TABLE replicas (id TEXT PRIMARY KEY, alive_at ${integer} NOT NULL) ${keyedTable};

-- A replica that may not sign yet asks the others for its own certificate; chain is JSON, empty until then.
CREATE TABLE server_svids (
  replica TEXT PRIMARY KEY,
  csr ${bytes} NOT NULL,
  chain TEXT NOT NULL
) ${keyedTable};

-- Connected agents: who hears them, and the cursor up to which they have put everything to use.
CREATE TABLE acknowledgements (
  agent_id TEXT PRIMARY KEY,
  replica TEXT NOT NULL,
  cursor ${integer} NOT NULL,
  heard_at ${integer} NOT NULL,
  patience ${integer} NOT NULL
) ${keyedTable};

CREATE TABLE events (
  cursor ${counter},
  kind TEXT NOT NULL,
  key TEXT NOT NULL
) ${table};
`

const whoAppliedPolicies = `
ALTER TABLE policies ADD COLUMN caller TEXT NOT NULL DEFAULT '';
ALTER TABLE policies ADD COLUMN message TEXT NOT NULL DEFAULT '';
`

const enforcement = ({ keyedTable }: Dialect) => `
-- What agents say of the policies on their nodes: who hears them, and their enforcement points as JSON.
CREATE TABLE enforcement (
  agent_id TEXT PRIMARY KEY,
  replica TEXT NOT NULL,
  points TEXT NOT NULL
) ${keyedTable};
`

const endpoints = ({ keyedTable }: Dialect) => `
-- What the proxies of each agent's node serve, as JSON.
CREATE TABLE endpoints (
  agent_id TEXT PRIMARY KEY,
  endpoints TEXT NOT NULL
) ${keyedTable};
`

export const migrations: Migrations = (dialect) => [
  first(dialect),
  whoAppliedPolicies,
  enforcement(dialect),
  endpoints(dialect),
]
