// The store on node:sqlite.
import { randomBytes } from 'node:crypto'
import {
  type Database,
  type DatabaseOptions,
  openDatabase,
  type Transaction,
} from '../../../runtime/db/sqlite.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { authorityRow, eventRow, overrideRow, policiesRow } from '../rows.ts'
import { migrations } from '../schema.ts'
import type { AuthorityTable, EventTable, OverrideRow, PolicyTable, Store } from '../store.ts'
import { agentTable } from './agents.ts'
import { denyTable } from './deny-rules.ts'
import { entryTable } from './entries.ts'
import { federationTable } from './federation.ts'
import { issuanceTable, recoverTokens } from './issuance.ts'
import { createSession, type Session } from './session.ts'

function putOverride(tx: Transaction, it: OverrideRow): void {
  const values = [it.at, it.caller, it.action, it.authorityId, it.reason]
  tx.run('INSERT INTO overrides VALUES (?, ?, ?, ?, ?)', ...values)
}

function authorityTable({ db, change }: Session): AuthorityTable {
  return {
    list: () =>
      db.read
        .all('SELECT * FROM authorities ORDER BY prepared_at')
        .map((row) => authorityRow.parse(row)),
    sequence: () =>
      Number(
        db.read.get("SELECT max(cursor) AS last FROM events WHERE kind = 'bundle'")?.last ?? 0,
      ),
    overrides: (limit) =>
      db.read
        .all('SELECT * FROM overrides ORDER BY rowid DESC LIMIT ?', limit)
        .map((row) => overrideRow.parse(row)),
    set: (rows, removed, override) =>
      change((tx, emit) => {
        if (override !== undefined) putOverride(tx, override)
        for (const id of removed) tx.run('DELETE FROM authorities WHERE id = ?', id)
        // the active one last: at no statement are there two
        const ordered = [...rows].sort(
          (a, b) => Number(a.state === 'active') - Number(b.state === 'active'),
        )
        for (const it of ordered) {
          tx.run(
            // never REPLACE: it would take away whoever else is active
            `INSERT INTO authorities VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
             SET state = excluded.state, tainted_at = excluded.tainted_at`,
            it.kind,
            it.id,
            it.state,
            it.taintedAt,
            it.material,
            it.notBefore,
            it.notAfter,
            it.preparedAt,
          )
        }
        return emit('bundle', '')
      }),
  }
}

function policyTable({ db, change }: Session): PolicyTable {
  return {
    current() {
      const row = db.read.get('SELECT version, files FROM policies ORDER BY version DESC LIMIT 1')
      return row === undefined ? { version: 0, files: [] } : policiesRow.parse(row)
    },
    set: (files, at) =>
      change((tx, emit) => {
        const { id } = tx.run(
          'INSERT INTO policies (at, files) VALUES (?, ?)',
          at,
          JSON.stringify(files),
        )
        emit('policies', String(id))
        return { version: id, files }
      }),
  }
}

function eventTable({ db, topic }: Session): EventTable {
  return {
    after: (cursor, limit) =>
      db.read
        .all('SELECT * FROM events WHERE cursor > ? ORDER BY cursor LIMIT ?', cursor, limit)
        .map((row) => eventRow.parse(row)),
    last: () => Number(db.read.get('SELECT max(cursor) AS last FROM events')?.last ?? 0),
    subscribe: (listener) => topic.subscribe(listener),
  }
}

/** Reads a fact about this store, writing it first when it is new. */
async function fact(db: Database, name: string, initial: string): Promise<string> {
  return db.write((tx) => {
    const row = tx.get('SELECT value FROM meta WHERE name = ?', name)
    if (row !== undefined) return String(row.value)
    tx.run('INSERT INTO meta VALUES (?, ?)', name, initial)
    return initial
  })
}

/** Opens or creates the store at `path` (`:memory:` for none). Throws ERR_STORE, also for another trust domain's. */
export async function openSqliteStore(
  path: string,
  trustDomain: string,
  options: DatabaseOptions = {},
): Promise<Store> {
  const db = openDatabase(path, migrations, options)
  const stored = await fact(db, 'trust domain', trustDomain)
  if (stored !== trustDomain) {
    db[Symbol.dispose]()
    throw new IdentityError(
      'ERR_STORE',
      `${path} is the store of trust domain ${stored}, not of ${trustDomain}`,
    )
  }
  const epoch = await fact(db, 'epoch', randomBytes(8).toString('hex'))
  await db.write(recoverTokens)
  const session = createSession(db)
  return {
    epoch,
    issuance: issuanceTable(session),
    agents: agentTable(session),
    entries: entryTable(session),
    authorities: authorityTable(session),
    policies: policyTable(session),
    federation: federationTable(session),
    denyRules: denyTable(session),
    events: eventTable(session),
    // as much room as a certificate's record needs: one small row fits on a full disk too
    async probe() {
      await db.write((tx) =>
        tx.run("INSERT OR REPLACE INTO meta VALUES ('probe', hex(randomblob(4096)))"),
      )
      await db.write((tx) => tx.run("DELETE FROM meta WHERE name = 'probe'"))
    },
    copyTo: db.copyTo,
    trouble: db.trouble,
    [Symbol.dispose]: () => db[Symbol.dispose](),
  }
}
