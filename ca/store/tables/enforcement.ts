// What agents say of the policies on their nodes.
import { upsert } from '../../../runtime/db/database.ts'
import { enforcementRow } from '../rows.ts'
import type { EnforcementTable } from '../store.ts'
import type { Session } from './session.ts'

const put = upsert('enforcement', ['agent_id', 'replica', 'points'])

export function enforcementTable({ db, replica }: Session): EnforcementTable {
  return {
    async list() {
      const rows = await db.read.all('SELECT * FROM enforcement ORDER BY agent_id')
      return rows.map((row) => enforcementRow.parse(row))
    },
    put: (rows) =>
      db.write(async (tx) => {
        for (const { agentId, replica: heardBy, points } of rows)
          await tx.run(put, agentId, heardBy, JSON.stringify(points))
      }),
    remove: (agents) =>
      db.write(async (tx) => {
        const sql = 'DELETE FROM enforcement WHERE agent_id = ? AND replica = ?'
        for (const id of agents) await tx.run(sql, id, replica)
      }),
  }
}
