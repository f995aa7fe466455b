// Bundles of other trust domains, and where they are fetched from.
import type { Transaction } from '../../../runtime/db/sqlite.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { entryRow, federatedBundleRow, identityOf, relationshipRow } from '../rows.ts'
import type { EntryRow, FederatedBundleRow, FederationTable, TokenKeyRow } from '../store.ts'
import type { Emit, Session } from './session.ts'

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
const keyBody = (key: TokenKeyRow) => ({ ...key, publicKey: base64(key.publicKey) })

function bodyOf({ x509, jwt, wit, ...rest }: FederatedBundleRow): string {
  return JSON.stringify({
    ...rest,
    x509: x509.map(({ der, tainted }) => ({ der: base64(der), tainted })),
    jwt: jwt.map(keyBody),
    wit: wit.map(keyBody),
  })
}

type Presence = 'absent' | 'present' | 'any'

/** Writes `body` for a trust domain that has to be absent or present before. */
function put(
  tx: Transaction,
  table: 'federated_bundles' | 'relationships',
  { trustDomain, body, before }: { trustDomain: string; body: string; before: Presence },
): void {
  const isThere = tx.get(`SELECT 1 FROM ${table} WHERE trust_domain = ?`, trustDomain) !== undefined
  if (isThere && before === 'absent')
    throw new IdentityError('ERR_ALREADY_EXISTS', `${trustDomain} is there already`)
  if (!isThere && before === 'present')
    throw new IdentityError('ERR_NOT_FOUND', `${trustDomain} not found`)
  tx.run(`INSERT OR REPLACE INTO ${table} (trust_domain, body) VALUES (?, ?)`, trustDomain, body)
}

function entriesWith(tx: Transaction, trustDomain: string): EntryRow[] {
  return tx
    .all(
      `SELECT body FROM entries WHERE EXISTS
       (SELECT 1 FROM json_each(entries.body, '$.federatesWith') WHERE value = ?)`,
      trustDomain,
    )
    .map((row) => entryRow.parse(row))
}

/** What happens to the entries that federate with a trust domain whose bundle goes. */
const consequences = {
  restrict(_tx: Transaction, entries: readonly EntryRow[], _emit: Emit, trustDomain: string) {
    if (entries.length === 0) return
    const message = `${entries.length} entries federate with ${trustDomain}; delete or dissociate them`
    throw new IdentityError('ERR_PRECONDITION', message)
  },
  delete(tx: Transaction, entries: readonly EntryRow[], emit: Emit) {
    for (const { id } of entries) {
      tx.run('DELETE FROM entries WHERE id = ?', id)
      emit('entry', id)
    }
  },
  dissociate(tx: Transaction, entries: readonly EntryRow[], emit: Emit, trustDomain: string) {
    for (const entry of entries) {
      const federatesWith = entry.federatesWith.filter((name) => name !== trustDomain)
      const next: EntryRow = { ...entry, federatesWith, revision: entry.revision + 1 }
      const body = JSON.stringify(next)
      tx.run(
        'UPDATE entries SET identity = ?, body = ? WHERE id = ?',
        identityOf(next),
        body,
        next.id,
      )
      emit('entry', next.id)
    }
  },
} as const

export function federationTable({ db, change }: Session): FederationTable {
  const one = (table: string, trustDomain: string) =>
    db.read.get(`SELECT body FROM ${table} WHERE trust_domain = ?`, trustDomain)
  const all = (table: string) => db.read.all(`SELECT body FROM ${table} ORDER BY trust_domain`)
  return {
    bundles: () => all('federated_bundles').map((row) => federatedBundleRow.parse(row)),
    bundle(trustDomain) {
      const row = one('federated_bundles', trustDomain)
      return row === undefined ? undefined : federatedBundleRow.parse(row)
    },
    setBundle: (bundle, before) =>
      change((tx, emit) => {
        const { trustDomain } = bundle
        put(tx, 'federated_bundles', { trustDomain, body: bodyOf(bundle), before })
        emit('federation', trustDomain)
      }),
    deleteBundle: (trustDomain, mode) =>
      change((tx, emit) => {
        const { changes } = tx.run(
          'DELETE FROM federated_bundles WHERE trust_domain = ?',
          trustDomain,
        )
        if (changes === 0) throw new IdentityError('ERR_NOT_FOUND', `${trustDomain} not found`)
        consequences[mode](tx, entriesWith(tx, trustDomain), emit, trustDomain)
        emit('federation', trustDomain)
      }),
    relationships: () => all('relationships').map((row) => relationshipRow.parse(row)),
    relationship(trustDomain) {
      const row = one('relationships', trustDomain)
      return row === undefined ? undefined : relationshipRow.parse(row)
    },
    setRelationship: (relationship, before, bundle) =>
      change((tx, emit) => {
        const { trustDomain } = relationship
        put(tx, 'relationships', { trustDomain, body: JSON.stringify(relationship), before })
        if (bundle !== undefined)
          put(tx, 'federated_bundles', { trustDomain, body: bodyOf(bundle), before: 'any' })
        emit('federation', trustDomain)
      }),
    deleteRelationship: (trustDomain) =>
      change((tx, emit) => {
        const { changes } = tx.run('DELETE FROM relationships WHERE trust_domain = ?', trustDomain)
        if (changes === 1) emit('federation', trustDomain)
        return changes === 1
      }),
  }
}
