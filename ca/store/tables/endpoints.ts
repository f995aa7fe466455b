// Where services are reached: what the proxies of each agent's node serve.
import { upsert } from '../../../runtime/db/database.ts'
import { endpointsRow } from '../rows.ts'
import type { EndpointTable } from '../store.ts'
import type { Session } from './session.ts'

const put = upsert('endpoints', ['agent_id', 'endpoints'])

export function endpointTable({ db, change }: Session): EndpointTable {
  return {
    async list() {
      const rows = await db.read.all('SELECT * FROM endpoints ORDER BY agent_id')
      return rows.map((row) => endpointsRow.parse(row))
    },
    async get(agentId) {
      const row = await db.read.get('SELECT * FROM endpoints WHERE agent_id = ?', agentId)
      return row && endpointsRow.parse(row)
    },
    put: ({ agentId, endpoints }) =>
      change(async (tx, emit) => {
        if (endpoints.length > 0) await tx.run(put, agentId, JSON.stringify(endpoints))
        else await tx.run('DELETE FROM endpoints WHERE agent_id = ?', agentId)
        await emit('endpoints', agentId)
      }),
  }
}
