// Bundles of other trust domains, and where they are fetched from.
import { type Transaction, upsert } from '../../../runtime/db/database.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { entryOf } from '../entry-body.ts'
import type { EntryRow, FederatedBundleRow, TokenKeyRow } from '../model.ts'
import { federatedBundleRow, relationshipRow } from '../rows.ts'
import type { FederationTable } from '../store.ts'
import { replaceEntry } from './entries.ts'
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
async function put(
  tx: Transaction,
  table: 'federated_bundles' | 'relationships',
  { trustDomain, body, before }: { trustDomain: string; body: string; before: Presence },
): Promise<void> {
  const known = await tx.get(`SELECT 1 FROM ${table} WHERE trust_domain = ?`, trustDomain)
  const isThere = known !== undefined
  if (isThere && before === 'absent')
    throw new IdentityError('ERR_ALREADY_EXISTS', `${trustDomain} is there already`)
  if (!isThere && before === 'present')
    throw new IdentityError('ERR_NOT_FOUND', `${trustDomain} not found`)
  await tx.run(upsert(table, ['trust_domain', 'body']), trustDomain, body)
}

async function entriesWith(tx: Transaction, trustDomain: string): Promise<EntryRow[]> {
  // finds too much: the name may stand elsewhere
  const rows = await tx.all('SELECT body FROM entries WHERE body LIKE ?', `%"${trustDomain}"%`)
  return rows
    .map((row) => entryOf(row.body))
    .filter(({ federatesWith }) => federatesWith.includes(trustDomain))
}

/** What happens to the entries that federate with a trust domain whose bundle goes. */
const consequences = {
  async restrict(_tx: Transaction, entries: readonly EntryRow[], _emit: Emit, trustDomain: string) {
    if (entries.length === 0) return
    const message = `${entries.length} entries federate with ${trustDomain}; delete or dissociate them`
    throw new IdentityError('ERR_PRECONDITION', message)
  },
  async delete(tx: Transaction, entries: readonly EntryRow[], emit: Emit) {
    for (const { id } of entries) {
      await tx.run('DELETE FROM entries WHERE id = ?', id)
      await emit('entry', id)
    }
  },
  async dissociate(tx: Transaction, entries: readonly EntryRow[], emit: Emit, trustDomain: string) {
    for (const entry of entries) {
      const federatesWith = entry.federatesWith.filter((name) => name !== trustDomain)
      await replaceEntry(tx, { ...entry, federatesWith, revision: entry.revision + 1 })
      await emit('entry', entry.id)
    }
  },
} as const

export function federationTable({ db, change }: Session): FederationTable {
  const one = (table: string, trustDomain: string) =>
    db.read.get(`SELECT body FROM ${table} WHERE trust_domain = ?`, trustDomain)
  const all = (table: string) => db.read.all(`SELECT body FROM ${table} ORDER BY trust_domain`)
  return {
    bundles: async () =>
      (await all('federated_bundles')).map((row) => federatedBundleRow.parse(row)),
    async bundle(trustDomain) {
      const row = await one('federated_bundles', trustDomain)
      return row === undefined ? undefined : federatedBundleRow.parse(row)
    },
    setBundle: (bundle, before) =>
      change(async (tx, emit) => {
        const { trustDomain } = bundle
        await put(tx, 'federated_bundles', { trustDomain, body: bodyOf(bundle), before })
        await emit('federation', trustDomain)
      }),
    deleteBundle: (trustDomain, mode) =>
      change(async (tx, emit) => {
        const sql = 'DELETE FROM federated_bundles WHERE trust_domain = ?'
        if ((await tx.run(sql, trustDomain)) === 0)
          throw new IdentityError('ERR_NOT_FOUND', `${trustDomain} not found`)
        await consequences[mode](tx, await entriesWith(tx, trustDomain), emit, trustDomain)
        await emit('federation', trustDomain)
      }),
    relationships: async () =>
      (await all('relationships')).map((row) => relationshipRow.parse(row)),
    async relationship(trustDomain) {
      const row = await one('relationships', trustDomain)
      return row === undefined ? undefined : relationshipRow.parse(row)
    },
    setRelationship: (relationship, before, bundle) =>
      change(async (tx, emit) => {
        const { trustDomain } = relationship
        await put(tx, 'relationships', { trustDomain, body: JSON.stringify(relationship), before })
        if (bundle !== undefined)
          await put(tx, 'federated_bundles', { trustDomain, body: bodyOf(bundle), before: 'any' })
        await emit('federation', trustDomain)
      }),
    deleteRelationship: (trustDomain) =>
      change(async (tx, emit) => {
        const sql = 'DELETE FROM relationships WHERE trust_domain = ?'
        const isKnown = (await tx.run(sql, trustDomain)) === 1
        if (isKnown) await emit('federation', trustDomain)
        return isKnown
      }),
  }
}
