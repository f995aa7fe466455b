// Registration entries: who may have which identity.
import type { Transaction } from '../../../runtime/db/sqlite.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { hintsCollide } from '../../hints.ts'
import { entryRow, identityOf } from '../rows.ts'
import type { EntryRow, EntryTable } from '../store.ts'
import type { Session } from './session.ts'

function sameHint(tx: Transaction, entry: EntryRow): EntryRow | undefined {
  if (entry.hint === '') return undefined
  return tx
    .all(
      `SELECT body FROM entries WHERE json_extract(body, '$.hint') = ?
       AND json_extract(body, '$.hint') <> ''`,
      entry.hint,
    )
    .map((row) => entryRow.parse(row))
    .find((other) => hintsCollide(entry, other))
}

function put(tx: Transaction, entry: EntryRow, sql: string): void {
  const twin = tx.get('SELECT id FROM entries WHERE identity = ?', identityOf(entry))
  if (twin !== undefined && twin.id !== entry.id) {
    throw new IdentityError(
      'ERR_ALREADY_EXISTS',
      `entry ${twin.id} has the same SPIFFE ID, parent and selectors`,
    )
  }
  const same = sameHint(tx, entry)
  if (same !== undefined) {
    throw new IdentityError(
      'ERR_ALREADY_EXISTS',
      `hint ${JSON.stringify(entry.hint)} is that of entry ${same.id}, which the same workload may have`,
    )
  }
  tx.run(sql, identityOf(entry), JSON.stringify(entry), entry.id)
}

export function entryTable({ db, change }: Session): EntryTable {
  return {
    list: () => db.read.all('SELECT body FROM entries').map((row) => entryRow.parse(row)),
    get(id) {
      const row = db.read.get('SELECT body FROM entries WHERE id = ?', id)
      return row === undefined ? undefined : entryRow.parse(row)
    },
    create: (entry) =>
      change((tx, emit) => {
        if (tx.get('SELECT 1 FROM entries WHERE id = ?', entry.id) !== undefined) {
          throw new IdentityError('ERR_ALREADY_EXISTS', `entry ${entry.id} exists already`)
        }
        put(tx, entry, 'INSERT INTO entries (identity, body, id) VALUES (?, ?, ?)')
        emit('entry', entry.id)
      }),
    update: (id, edit) =>
      change((tx, emit) => {
        const row = tx.get('SELECT body FROM entries WHERE id = ?', id)
        if (row === undefined) throw new IdentityError('ERR_NOT_FOUND', `entry ${id} not found`)
        const entry = edit(entryRow.parse(row))
        put(tx, entry, 'UPDATE entries SET identity = ?, body = ? WHERE id = ?')
        emit('entry', id)
        return entry
      }),
    delete: (id) =>
      change((tx, emit) => {
        const isKnown = tx.run('DELETE FROM entries WHERE id = ?', id).changes === 1
        if (isKnown) emit('entry', id)
        return isKnown
      }),
  }
}
