// The embedded database: node:sqlite in WAL with synchronous=FULL, migrations, and group commit: everything
// that is asked for in one turn of the event loop shares a transaction.
import { chmodSync } from 'node:fs'
import { backup, DatabaseSync, type StatementSync } from 'node:sqlite'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { createTurns } from '../lifecycle.ts'
import {
  type Database,
  type Dialect,
  demandKnownVersion,
  type Migrations,
  type OnCommit,
  type Pending,
  pendingOf,
  runEach,
  storeError,
  type Transaction,
  type Work,
} from './database.ts'

export interface SqliteOptions {
  /** of 4 KiB: the database is full then */
  readonly mostPages?: number
  /** called before each statement that writes, begins or ends; a crash harness may stop there */
  readonly beforeStatement?: (sql: string) => void
  readonly onCommit?: OnCommit
}

const dialect: Dialect = {
  integer: 'INTEGER',
  bytes: 'BLOB',
  counted: 'INTEGER PRIMARY KEY',
  counter: 'INTEGER PRIMARY KEY AUTOINCREMENT',
  table: 'STRICT',
  keyedTable: 'STRICT, WITHOUT ROWID',
  among: (column) => `${column} IN (SELECT value FROM json_each(?))`,
}

/** about 4 MiB */
const pagesPerStep = 1000

/** Not what a statement says of the data, but what the machine says of the file (sqlite.org/rescode.html). */
const failures: ReadonlySet<unknown> = new Set([
  ...[7, 8, 10, 11, 13, 14, 26], // NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB
])

function isFailure(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && failures.has(Number(error.errcode) & 0xff)
}

function migrate(db: DatabaseSync, migrations: readonly string[]): void {
  const version = Number(db.prepare('PRAGMA user_version').get()?.user_version ?? 0)
  demandKnownVersion(version, migrations.length)
  for (const [i, sql] of migrations.entries()) {
    if (i < version) continue
    db.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${i + 1}; COMMIT`)
  }
}

function open(path: string, migrations: Migrations, { mostPages }: SqliteOptions): DatabaseSync {
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(path, { timeout: 1000 })
    if (path !== ':memory:') chmodSync(path, 0o600)
    // exclusive: a second program on the same file is refused instead of taking turns
    db.exec(
      'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON',
    )
    migrate(db, migrations(dialect))
    if (mostPages !== undefined) db.exec(`PRAGMA max_page_count = ${mostPages}`)
    return db
  } catch (cause) {
    // or its lock would stay until the next garbage collection
    db?.close()
    throw cause instanceof IdentityError
      ? cause
      : new IdentityError('ERR_STORE', `cannot open ${path}: ${explain(cause)}`, { cause })
  }
}

function transactionOf(db: DatabaseSync, { beforeStatement }: SqliteOptions): Transaction {
  const prepared = new Map<string, StatementSync>()
  const statement = (sql: string): StatementSync => {
    const known = prepared.get(sql)
    if (known !== undefined) return known
    const made = db.prepare(sql)
    prepared.set(sql, made)
    return made
  }
  return {
    async run(sql, ...values) {
      beforeStatement?.(sql)
      return Number(statement(sql).run(...values).changes)
    },
    async insert(into, rows) {
      const marks = rows[0]?.map(() => '?').join(', ')
      const sql = `INSERT INTO ${into} VALUES (${marks})`
      for (const row of rows) {
        beforeStatement?.(sql)
        statement(sql).run(...row)
      }
    },
    async get(sql, ...values) {
      if (sql.startsWith('INSERT')) beforeStatement?.(sql)
      return statement(sql).get(...values)
    },
    all: async (sql, ...values) => statement(sql).all(...values),
  }
}

async function copy(db: DatabaseSync, target: string): Promise<void> {
  try {
    await backup(db, target, { rate: pagesPerStep })
  } catch (cause) {
    const message = `cannot copy to ${target}: ${explain(cause)}`
    throw new IdentityError('ERR_STORE', message, { cause })
  }
}

/** Group commit: what was asked for in one turn of the event loop shares a transaction. */
function createCommits(db: DatabaseSync, transaction: Transaction, onCommit: OnCommit | undefined) {
  const inTurn = createTurns()
  let queue: Pending[] = []
  let committing: Promise<void> | undefined
  let trouble: string | undefined
  let failures = 0

  function failed(cause: unknown): IdentityError {
    const error = storeError(cause)
    failures++
    trouble = error.message
    return error
  }

  async function commit(): Promise<void> {
    const works = queue
    queue = []
    if (works.length === 0) return
    const started = performance.now()
    const before = failures
    let done: Pending[] = []
    try {
      await transaction.run('BEGIN IMMEDIATE')
      // a full disk takes the whole transaction back
      const batch = { transaction, isFailure, isOpen: () => db.isTransaction }
      done = await runEach(works, batch, failed)
      await transaction.run('COMMIT')
    } catch (cause) {
      const error = failed(cause)
      if (db.isOpen && db.isTransaction) await transaction.run('ROLLBACK')
      for (const pending of works) pending.fail(error)
      onCommit?.(performance.now() - started, false)
      return
    }
    onCommit?.(performance.now() - started, failures === before)
    if (done.length > 0 && done.length === works.length) trouble = undefined
    for (const pending of done) pending.settle()
  }

  function flush(): Promise<void> {
    const turn = inTurn(commit).finally(() => {
      if (committing === turn) committing = undefined
    })
    committing = turn
    return turn
  }

  return {
    trouble: () => trouble,
    flush,
    /** The connection sees its own transaction: whoever is not part of it waits until it is committed. */
    async settled(): Promise<void> {
      while (committing !== undefined) await committing
    },
    write<T>(work: Work<T>): Promise<T> {
      if (!db.isOpen)
        return Promise.reject(new IdentityError('ERR_UNAVAILABLE', 'the store is closed'))
      const { pending, result } = pendingOf(work)
      queue.push(pending)
      if (queue.length === 1) setImmediate(flush)
      return result
    },
  }
}

/** Opens or creates the database at `path`; `migrations` are applied in order, each once. */
export function openSqlite(
  path: string,
  migrations: Migrations,
  options: SqliteOptions = {},
): Database {
  const db = open(path, migrations, options)
  const transaction = transactionOf(db, options)
  const { flush, settled, write, trouble } = createCommits(db, transaction, options.onCommit)
  return {
    dialect,
    read: {
      async get(sql, ...values) {
        await settled()
        return transaction.get(sql, ...values)
      },
      async all(sql, ...values) {
        await settled()
        return transaction.all(sql, ...values)
      },
    },
    trouble,
    copyTo: (target) => copy(db, target),
    write,
    writeInTurn: write,
    // the file is locked: there is no other program
    onForeignWrite: () => ({ [Symbol.dispose]() {} }),
    async [Symbol.asyncDispose]() {
      await flush()
      if (db.isOpen) db.close()
    },
  }
}
