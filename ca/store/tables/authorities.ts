// Authorities of all kinds, and what operators went over the heads of agents for.
import { type Reader, type Transaction, upsert } from '../../../runtime/db/database.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import type { AuthorityKind, AuthorityRow, OverrideRow } from '../model.ts'
import { authorityRow, overrideRow } from '../rows.ts'
import type { AuthorityTable } from '../store.ts'
import type { Session } from './session.ts'

// never one that replaces by state: it would take away whoever else is active
const put = upsert('authorities', [
  'id',
  'kind',
  'state',
  'tainted_at',
  'material',
  'not_before',
  'not_after',
  'prepared_at',
  'replica',
  'sealed_key',
  'canary',
])

async function putRow(tx: Transaction, it: AuthorityRow): Promise<void> {
  await tx.run(
    put,
    it.id,
    it.kind,
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
        for (const id of removed) await tx.run('DELETE FROM authorities WHERE id = ?', id)
        // the active one last: at no statement are there two
        const isActive = ({ state }: AuthorityRow) => Number(state === 'active')
        for (const it of rows.toSorted((a, b) => isActive(a) - isActive(b))) await putRow(tx, it)
        return emit('bundle', kind)
      }),
  }
}
