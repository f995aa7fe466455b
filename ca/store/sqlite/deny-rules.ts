// The deny-list's rules.
import { denyRuleRow } from '../rows.ts'
import type { DenyTable } from '../store.ts'
import type { Session } from './session.ts'

export function denyTable({ db, change }: Session): DenyTable {
  return {
    list: () =>
      db.read.all('SELECT body FROM deny_rules ORDER BY id').map((row) => denyRuleRow.parse(row)),
    add: (rule) =>
      change((tx, emit) => {
        tx.run('INSERT INTO deny_rules (id, body) VALUES (?, ?)', rule.id, JSON.stringify(rule))
        emit('deny', rule.id)
      }),
    remove: (id) =>
      change((tx, emit) => {
        const isKnown = tx.run('DELETE FROM deny_rules WHERE id = ?', id).changes === 1
        if (isKnown) emit('deny', id)
        return isKnown
      }),
  }
}
