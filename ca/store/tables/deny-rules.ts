// The deny-list's rules.
import { upsert } from '../../../runtime/db/database.ts'
import { listsChanged } from '../model.ts'
import { crlRow, denyRuleRow } from '../rows.ts'
import type { DenyTable } from '../store.ts'
import type { Session } from './session.ts'

export function denyTable({ db, change }: Session): DenyTable {
  return {
    async list() {
      const rows = await db.read.all('SELECT body FROM deny_rules ORDER BY id')
      return rows.map((row) => denyRuleRow.parse(row))
    },
    add: (rule) =>
      change(async (tx, emit) => {
        await tx.insert('deny_rules (id, body)', [[rule.id, JSON.stringify(rule)]])
        await emit('deny', rule.id)
      }),
    remove: (id) =>
      change(async (tx, emit) => {
        const isKnown = (await tx.run('DELETE FROM deny_rules WHERE id = ?', id)) === 1
        if (isKnown) await emit('deny', id)
        return isKnown
      }),
    async crls() {
      const rows = await db.read.all('SELECT * FROM crls ORDER BY authority_id')
      return rows.map((row) => crlRow.parse(row))
    },
    putCrls: (rows) =>
      change(async (tx, emit) => {
        for (const { authorityId, crl } of rows)
          await tx.run(upsert('crls', ['authority_id', 'crl']), authorityId, crl)
        await emit('deny', listsChanged)
      }),
  }
}
