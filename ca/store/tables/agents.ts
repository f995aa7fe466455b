// Attested agents.
import { type Transaction, upsert, type Value } from '../../../runtime/db/database.ts'
import type { AgentRow } from '../model.ts'
import { agentRow } from '../rows.ts'
import type { AgentTable } from '../store.ts'
import type { Session } from './session.ts'

const flag = (value: boolean) => (value ? 1 : 0)

const put = `${upsert('agents', [
  'id',
  'attestation_type',
  'serial',
  'pending_serial',
  'not_after',
  'banned',
  'can_reattest',
  'selectors',
  'version',
  'attested_at',
])} WHERE agents.banned = 0`

/** False for one that was banned meanwhile. */
export async function putAgent(tx: Transaction, it: AgentRow): Promise<boolean> {
  const changed = await tx.run(
    put,
    it.id,
    it.attestationType,
    it.serial,
    it.pendingSerial,
    it.notAfter,
    flag(it.banned),
    flag(it.canReattest),
    JSON.stringify(it.selectors),
    it.version,
    it.attestedAt,
  )
  return changed === 1
}

export function agentTable({ db, change }: Session): AgentTable {
  const touch = (sql: string, id: string, ...values: Value[]) =>
    change(async (tx, emit) => {
      const isKnown = (await tx.run(sql, ...values, id)) === 1
      if (isKnown) await emit('agent', id)
      return isKnown
    })
  return {
    async list() {
      const rows = await db.read.all('SELECT * FROM agents ORDER BY id')
      return rows.map((row) => agentRow.parse(row))
    },
    async get(id) {
      const row = await db.read.get('SELECT * FROM agents WHERE id = ?', id)
      return row === undefined ? undefined : agentRow.parse(row)
    },
    promote: (id, serial) =>
      change(async (tx, emit) => {
        const sql =
          "UPDATE agents SET serial = ?, pending_serial = '' WHERE id = ? AND pending_serial = ?"
        // told: elsewhere the one that was replaced has to be refused too
        if ((await tx.run(sql, serial, id, serial)) === 1) await emit('agent', id)
      }),
    ban: (id) =>
      touch("UPDATE agents SET banned = 1, serial = '', pending_serial = '' WHERE id = ?", id),
    delete: (id) => touch('DELETE FROM agents WHERE id = ?', id),
    setVersion: (id, version) => touch('UPDATE agents SET version = ? WHERE id = ?', id, version),
  }
}
