// The authorities on one database: who is alive, which agents each hears, and what the others do for one that
// may not sign yet.
import { upsert } from '../../../runtime/db/database.ts'
import type { AcknowledgementRow } from '../model.ts'
import { acknowledgementRow, chainRow, replicaRow, serverSvidRow } from '../rows.ts'
import type { AcknowledgementTable, ReplicaTable } from '../store.ts'
import type { Session } from './session.ts'

const putAcknowledgement = upsert('acknowledgements', [
  'agent_id',
  'replica',
  'cursor',
  'heard_at',
  'patience',
])
const valuesOf = (it: AcknowledgementRow) =>
  [it.agentId, it.replica, it.cursor, it.heardAt, it.patience] as const

export function acknowledgementTable({ db, replica }: Session): AcknowledgementTable {
  return {
    async list() {
      const rows = await db.read.all('SELECT * FROM acknowledgements ORDER BY agent_id')
      return rows.map((row) => acknowledgementRow.parse(row))
    },
    put: (rows) =>
      db.write(async (tx) => {
        for (const row of rows) await tx.run(putAcknowledgement, ...valuesOf(row))
      }),
    remove: (agents) =>
      db.write(async (tx) => {
        const sql = 'DELETE FROM acknowledgements WHERE agent_id = ? AND replica = ?'
        for (const id of agents) await tx.run(sql, id, replica)
      }),
  }
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

export function replicaTable({ db, change, replica }: Session): ReplicaTable {
  return {
    async list() {
      const rows = await db.read.all('SELECT * FROM replicas ORDER BY id')
      return rows.map((row) => replicaRow.parse(row))
    },
    async alive(at) {
      await db.write((tx) => tx.run(upsert('replicas', ['id', 'alive_at']), replica, at))
    },
    forget: (id) =>
      change(async (tx, emit) => {
        await tx.run('DELETE FROM replicas WHERE id = ?', id)
        await tx.run('DELETE FROM server_svids WHERE replica = ?', id)
        await tx.run('DELETE FROM acknowledgements WHERE replica = ?', id)
        await tx.run('DELETE FROM enforcement WHERE replica = ?', id)
        await tx.run('UPDATE join_tokens SET reserved_by = NULL WHERE reserved_by = ?', id)
        await emit('replica', id)
      }),
    askForSvid: (csr) =>
      change(async (tx, emit) => {
        await tx.run(upsert('server_svids', ['replica', 'csr', 'chain']), replica, csr, '')
        await emit('replica', replica)
      }),
    async asked() {
      const rows = await db.read.all("SELECT replica, csr FROM server_svids WHERE chain = ''")
      return rows.map((row) => serverSvidRow.parse(row))
    },
    answer: (to, csr, chain) =>
      change(async (tx, emit) => {
        // not what was asked for meanwhile with another key
        const sql = 'UPDATE server_svids SET chain = ? WHERE replica = ? AND csr = ?'
        if ((await tx.run(sql, JSON.stringify(chain.map(base64)), to, csr)) === 1)
          await emit('replica', to)
      }),
    async answered() {
      const row = await db.read.get('SELECT chain FROM server_svids WHERE replica = ?', replica)
      return row && chainRow.parse(row)
    },
  }
}
