// Registration entries: who may have which identity.
import type { Transaction } from '../../../runtime/db/database.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { hintsCollide } from '../../hints.ts'
import { bodyOf, entryOf } from '../entry-body.ts'
import type { EntryRow } from '../model.ts'
import { identityOf } from '../rows.ts'
import type { EntryTable } from '../store.ts'
import type { Session } from './session.ts'

async function sameHint(tx: Transaction, entry: EntryRow): Promise<EntryRow | undefined> {
  if (entry.hint === '') return undefined
  // the second condition is that of the index
  const rows = await tx.all("SELECT body FROM entries WHERE hint = ? AND hint <> ''", entry.hint)
  return rows.map((row) => entryOf(row.body)).find((other) => hintsCollide(entry, other))
}

/** Throws ERR_ALREADY_EXISTS when another entry has the same identity, or its hint beside it. */
async function demandDistinct(tx: Transaction, entry: EntryRow): Promise<void> {
  const twin = await tx.get('SELECT id FROM entries WHERE identity = ?', identityOf(entry))
  if (twin !== undefined && twin.id !== entry.id) {
    throw new IdentityError(
      'ERR_ALREADY_EXISTS',
      `entry ${twin.id} has the same SPIFFE ID, parent and selectors`,
    )
  }
  const same = await sameHint(tx, entry)
  if (same !== undefined) {
    throw new IdentityError(
      'ERR_ALREADY_EXISTS',
      `hint ${JSON.stringify(entry.hint)} is that of entry ${same.id}, which the same workload may have`,
    )
  }
}

/** An entry that is there already, as it is from now on. */
export async function replaceEntry(tx: Transaction, entry: EntryRow): Promise<void> {
  await tx.run(
    'UPDATE entries SET identity = ?, hint = ?, body = ? WHERE id = ?',
    identityOf(entry),
    entry.hint,
    bodyOf(entry),
    entry.id,
  )
}

/** rows that are read at once */
const part = 2000

export function entryTable({ db, change }: Session): EntryTable {
  return {
    async *all() {
      // in parts: the texts of one are gone before those of the next are there
      const sql = 'SELECT id, body FROM entries WHERE id > ? ORDER BY id LIMIT ?'
      for (let after = ''; ; ) {
        const rows = await db.read.all(sql, after, part)
        for (const row of rows) yield entryOf(row.body)
        if (rows.length < part) return
        after = String(rows.at(-1)?.id)
      }
    },
    async some(ids) {
      const sql = `SELECT body FROM entries WHERE ${db.dialect.among('id')}`
      const rows = await db.read.all(sql, JSON.stringify(ids))
      return rows.map((row) => entryOf(row.body))
    },
    create: (entry) =>
      change(async (tx, emit) => {
        if ((await tx.get('SELECT 1 FROM entries WHERE id = ?', entry.id)) !== undefined) {
          throw new IdentityError('ERR_ALREADY_EXISTS', `entry ${entry.id} exists already`)
        }
        await demandDistinct(tx, entry)
        const row = [entry.id, identityOf(entry), entry.hint, bodyOf(entry)]
        await tx.insert('entries (id, identity, hint, body)', [row])
        await emit('entry', entry.id)
      }),
    update: (id, edit) =>
      change(async (tx, emit) => {
        const row = await tx.get('SELECT body FROM entries WHERE id = ?', id)
        if (row === undefined) throw new IdentityError('ERR_NOT_FOUND', `entry ${id} not found`)
        const entry = edit(entryOf(row.body))
        await demandDistinct(tx, entry)
        await replaceEntry(tx, entry)
        await emit('entry', id)
        return entry
      }),
    delete: (id) =>
      change(async (tx, emit) => {
        const isKnown = (await tx.run('DELETE FROM entries WHERE id = ?', id)) === 1
        if (isKnown) await emit('entry', id)
        return isKnown
      }),
  }
}
