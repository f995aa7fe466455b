// Opens a store: node:sqlite in a file, or PostgreSQL by its URL. The tables are the same.
import { randomBytes } from 'node:crypto'
import type { Clock } from '../../runtime/clock.ts'
import type { Database, OnCommit } from '../../runtime/db/database.ts'
import { openPostgres } from '../../runtime/db/postgres.ts'
import { openSqlite, type SqliteOptions } from '../../runtime/db/sqlite.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { migrations } from './schema.ts'
import type { Store } from './store.ts'
import { agentTable } from './tables/agents.ts'
import { authorityTable } from './tables/authorities.ts'
import { denyTable } from './tables/deny-rules.ts'
import { endpointTable } from './tables/endpoints.ts'
import { enforcementTable } from './tables/enforcement.ts'
import { entryTable } from './tables/entries.ts'
import { openEventLog } from './tables/events.ts'
import { federationTable } from './tables/federation.ts'
import { issuanceTable, recoverTokens } from './tables/issuance.ts'
import { policyTable } from './tables/policies.ts'
import { acknowledgementTable, replicaTable } from './tables/replicas.ts'
import { createSession } from './tables/session.ts'

/** Where a store is: a file (`:memory:` for none), or a database that several authorities may share. */
export type StoreLocation =
  | { readonly path: string; readonly sqlite?: SqliteOptions }
  | {
      /** `postgres://…` */
      readonly url: string
      readonly onCommit?: OnCommit | undefined
    }

export interface StoreOptions {
  readonly trustDomain: string
  readonly clock: Clock
  /** distinct for each authority on one database, the same after its restart */
  readonly replica: string
  /** told why what is committed is not taken in yet; it is tried again */
  readonly onTrouble?: (error: unknown) => void
}

/** Reads a fact about this store, writing it first when it is new. */
function fact(db: Database, name: string, initial: string): Promise<string> {
  return db.writeInTurn(async (tx) => {
    const row = await tx.get('SELECT value FROM meta WHERE name = ?', name)
    if (row !== undefined) return String(row.value)
    await tx.insert('meta (name, value)', [[name, initial]])
    return initial
  })
}

/** As much room as a certificate's record needs: one small row fits on a full disk too. */
async function probe({ write }: Database, replica: string): Promise<void> {
  const name = `probe ${replica}`
  const filling = randomBytes(4096).toString('hex')
  await write((tx) => tx.run('DELETE FROM meta WHERE name = ?', name))
  await write((tx) => tx.insert('meta (name, value)', [[name, filling]]))
  await write((tx) => tx.run('DELETE FROM meta WHERE name = ?', name))
}

/** Throws ERR_STORE, also for the store of another trust domain. */
export async function openStore(location: StoreLocation, options: StoreOptions): Promise<Store> {
  const { trustDomain, clock, replica, onTrouble } = options
  await using opening = new AsyncDisposableStack()
  const isFile = 'path' in location
  const db = opening.use(
    isFile
      ? openSqlite(location.path, migrations, location.sqlite)
      : await openPostgres(location.url, migrations, { clock, onCommit: location.onCommit }),
  )
  const stored = await fact(db, 'trust domain', trustDomain)
  if (stored !== trustDomain) {
    const name = isFile ? location.path : 'the database'
    const message = `${name} is the store of trust domain ${stored}, not of ${trustDomain}`
    throw new IdentityError('ERR_STORE', message)
  }
  const epoch = await fact(db, 'epoch', randomBytes(8).toString('hex'))
  await db.write((tx) => recoverTokens(tx, replica))
  const log = opening.use(await openEventLog(db, { clock, onTrouble }))
  const stop = new AbortController()
  opening.defer(() => stop.abort())
  const session = createSession({ db, replica, clock, stopped: stop.signal }, log)
  const opened = opening.move()
  return {
    epoch,
    replica,
    isShared: !isFile,
    issuance: issuanceTable(session),
    agents: agentTable(session),
    entries: entryTable(session),
    authorities: authorityTable(session),
    policies: policyTable(session),
    federation: federationTable(session),
    denyRules: denyTable(session),
    acknowledgements: acknowledgementTable(session),
    enforcement: enforcementTable(session),
    endpoints: endpointTable(session),
    replicas: replicaTable(session),
    events: log.table,
    probe: () => probe(db, replica),
    copyTo: db.copyTo,
    trouble: () => db.trouble() ?? log.trouble(),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}
