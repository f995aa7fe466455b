// A spire-server with many entries. Its API makes 180 of them a second, so it makes one, and its rows are
// copied in its store while it is stopped.
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { entryOf, openEntries } from '../agents/entries.ts'
import { type Prepared, start } from '../servers/authorities.ts'

/** the parents that the entries are spread over */
export const agents = 5000
const name = 'template'

/** The columns of `table` as they are copied: those of `changed` are expressions over n, which counts. */
function copied(db: DatabaseSync, table: string, changed: Readonly<Record<string, string>>) {
  const columns = db
    .prepare('SELECT name FROM pragma_table_info(?)')
    .all(table)
    .map((row) => String(row.name))
  const quoted = columns.map((column) => `"${column}"`)
  const values = columns.map((column, i) => changed[column] ?? quoted[i])
  return `INSERT INTO ${table} (${quoted.join()})
    WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?)
    SELECT ${values.join()} FROM ${table}, counted`
}

export async function fillStock(prepared: Prepared, folder: string, count: number): Promise<void> {
  {
    await using authority = await start(prepared)
    using maker = openEntries(authority.socket)
    await maker.create([entryOf(name, '/spire/agent/join_token/bench-0')])
  }
  using db = new DatabaseSync(join(folder, 'datastore.sqlite3'))
  db.exec('BEGIN')
  const entries = copied(db, 'registered_entries', {
    id: 'id + n',
    entry_id: "printf('00000000-0000-4000-8000-%012d', n)",
    spiffe_id: "replace(spiffe_id, 'template', 'w' || n)",
    parent_id: `replace(parent_id, 'bench-0', 'bench-' || (n % ${agents}))`,
  })
  const selectors = copied(db, 'selectors', {
    id: 'id + n',
    registered_entry_id: 'registered_entry_id + n',
    value: "replace(value, 'template', 'w' || n)",
  })
  for (const sql of [entries, selectors]) db.prepare(sql).run(count - 1)
  db.exec('COMMIT')
}
