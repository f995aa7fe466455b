// Attested agents.
import type { Transaction, Value } from '../../../runtime/db/sqlite.ts'
import { agentRow } from '../rows.ts'
import type { AgentRow, AgentTable } from '../store.ts'
import type { Session } from './session.ts'

const flag = (value: boolean) => (value ? 1 : 0)

export function putAgent(tx: Transaction, it: AgentRow): void {
  tx.run(
    'INSERT OR REPLACE INTO agents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
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
}

export function agentTable({ db, change }: Session): AgentTable {
  const touch = (sql: string, id: string, ...values: Value[]) =>
    change((tx, emit) => {
      const isKnown = tx.run(sql, ...values, id).changes === 1
      if (isKnown) emit('agent', id)
      return isKnown
    })
  return {
    list: () => db.read.all('SELECT * FROM agents ORDER BY id').map((row) => agentRow.parse(row)),
    get(id) {
      const row = db.read.get('SELECT * FROM agents WHERE id = ?', id)
      return row === undefined ? undefined : agentRow.parse(row)
    },
    async promote(id, serial) {
      await db.write((tx) =>
        tx.run(
          "UPDATE agents SET serial = ?, pending_serial = '' WHERE id = ? AND pending_serial = ?",
          serial,
          id,
          serial,
        ),
      )
    },
    ban: (id) =>
      touch("UPDATE agents SET banned = 1, serial = '', pending_serial = '' WHERE id = ?", id),
    delete: (id) => touch('DELETE FROM agents WHERE id = ?', id),
    setVersion: (id, version) => touch('UPDATE agents SET version = ? WHERE id = ?', id, version),
  }
}
