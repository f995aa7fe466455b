// Authorities of all kinds, and what operators went over the heads of agents for.
import { type Reader, type Transaction, upsert } from '../../../runtime/db/database.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import type { AuthorityKind, AuthorityRow, OverrideRow } from '../model.ts'
import { authorityRow, overrideRow } from '../rows.ts'
import type { AuthorityTable } from '../store.ts'
import type { Session } from './session.ts'

// never one that replaces by state: it would take away whoever else is active
const columns = [
  'kind',
  'id',
  'state',
  'tainted_at',
  'material',
  'not_before',
  'not_after',
  'prepared_at',
  'replica',
  'sealed_key',
  'canary',
]
const put = upsert('authorities', columns, 2)

/** A name is that of one key for good: whoever comes with another one does not take its place. */
async function demandSameKey(tx: Transaction, it: AuthorityRow): Promise<void> {
  const sql = 'SELECT * FROM authorities WHERE kind = ? AND id = ?'
  const row = await tx.get(sql, it.kind, it.id)
  const known = row && authorityRow.parse(row)
  if (known === undefined) return
  if (known.replica === it.replica && Buffer.compare(known.material, it.material) === 0) return
  throw new IdentityError(
    'ERR_ALREADY_EXISTS',
    `authority ${JSON.stringify(it.id)} has another key`,
  )
}

async function putRow(tx: Transaction, it: AuthorityRow): Promise<void> {
  await demandSameKey(tx, it)
  await tx.run(
    put,
    it.kind,
    it.id,
    it.state,
    it.taintedAt,
    it.material,
    it.notBefore,
    it.notAfter,
    it.preparedAt,
    it.replica,
    it.sealedKey,
    it.canary,
  )
}

async function putOverride(tx: Transaction, it: OverrideRow): Promise<void> {
  const row = [it.at, it.caller, it.action, it.authorityId, it.reason]
  await tx.insert('overrides (at, caller, action, authority_id, reason)', [row])
}

async function sequenceOf(read: Reader, kind: AuthorityKind): Promise<number> {
  const sql = "SELECT max(cursor) AS last FROM events WHERE kind = 'bundle' AND key = ?"
  return Number((await read.get(sql, kind))?.last ?? 0)
}

export function authorityTable({ db, change }: Session): AuthorityTable {
  return {
    async list(kind) {
      // this first: rows that are newer than it make the next change fail, never the other way round
      const sequence = await sequenceOf(db.read, kind)
      const sql = 'SELECT * FROM authorities WHERE kind = ? ORDER BY prepared_at, id'
      const rows = await db.read.all(sql, kind)
      return { rows: rows.map((row) => authorityRow.parse(row)), sequence }
    },
    async overrides(limit) {
      const rows = await db.read.all('SELECT * FROM overrides ORDER BY place DESC LIMIT ?', limit)
      return rows.map((row) => overrideRow.parse(row))
    },
    set: (kind, { basedOn, rows, removed, override }) =>
      change(async (tx, emit) => {
        if ((await sequenceOf(tx, kind)) !== basedOn) {
          const message = `the authorities of kind ${kind} were changed meanwhile; look at them again`
          throw new IdentityError('ERR_CONFLICT', message)
        }
        if (override !== undefined) await putOverride(tx, override)
        const sql = 'DELETE FROM authorities WHERE kind = ? AND id = ?'
        for (const id of removed) await tx.run(sql, kind, id)
        // the active one last: at no statement are there two
        const isActive = ({ state }: AuthorityRow) => Number(state === 'active')
        for (const it of rows.toSorted((a, b) => isActive(a) - isActive(b))) await putRow(tx, it)
        return emit('bundle', kind)
      }),
  }
}
