// The embedded database: node:sqlite in WAL with synchronous=FULL, migrations, and group commit.
import { chmodSync } from 'node:fs'
import { backup, DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { explain, IdentityError } from '../../spiffe/errors.ts'

export type Value = SQLInputValue
export type Row = Readonly<Record<string, unknown>>

/** Statements inside one transaction; each is prepared once per database. */
export interface Transaction {
  run(sql: string, ...values: Value[]): { changes: number; id: number }
  get(sql: string, ...values: Value[]): Row | undefined
  all(sql: string, ...values: Value[]): Row[]
}

export interface Database extends Disposable {
  /** Reads what is committed. */
  readonly read: Pick<Transaction, 'get' | 'all'>
  /**
   * Runs `work` in the next transaction, which takes everything that was asked for in this turn of the
   * event loop. Resolves once it is on disk. A work that throws is undone alone and rejects with what it
   * threw; when the commit fails, all reject with ERR_STORE.
   */
  write<T>(work: (transaction: Transaction) => T): Promise<T>
  /** A consistent copy as a file of its own, made in steps between which writes go on. Throws ERR_STORE. */
  copyTo(path: string): Promise<void>
  /** Why the last write that was tried did not get to the disk; undefined when it did. */
  trouble(): string | undefined
}

export interface DatabaseOptions {
  /** of 4 KiB: the database is full then */
  readonly mostPages?: number
  /** called before each statement that writes, begins or ends; a crash harness may stop there */
  readonly beforeStatement?: (sql: string) => void
  /** told of each commit: its milliseconds, and whether it got to the disk */
  readonly onCommit?: (ms: number, isDone: boolean) => void
}

/** about 4 MiB */
const pagesPerStep = 1000

interface Pending {
  run(transaction: Transaction): void
  settle(): void
  fail(error: unknown): void
}

function storeError(cause: unknown): IdentityError {
  return new IdentityError('ERR_STORE', `the store failed: ${explain(cause)}`, { cause })
}

/** Not what a statement says of the data, but what the machine says of the file (sqlite.org/rescode.html). */
const failures: ReadonlySet<unknown> = new Set([
  ...[7, 8, 10, 11, 13, 14, 26], // NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB
])

function isFailure(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && failures.has(Number(error.errcode) & 0xff)
}

function migrate(db: DatabaseSync, migrations: readonly string[]): void {
  const version = Number(db.prepare('PRAGMA user_version').get()?.user_version ?? 0)
  if (version > migrations.length) {
    throw new IdentityError(
      'ERR_STORE',
      `the store is of version ${version}, this program knows ${migrations.length}: use a newer castellan`,
    )
  }
  for (const [i, sql] of migrations.entries()) {
    if (i < version) continue
    db.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${i + 1}; COMMIT`)
  }
}

function open(
  path: string,
  migrations: readonly string[],
  { mostPages }: DatabaseOptions,
): DatabaseSync {
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(path, { timeout: 1000 })
    if (path !== ':memory:') chmodSync(path, 0o600)
    // exclusive: a second program on the same file is refused instead of taking turns
    db.exec(
      'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON',
    )
    migrate(db, migrations)
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

function transactionOf(db: DatabaseSync, { beforeStatement }: DatabaseOptions): Transaction {
  const prepared = new Map<string, StatementSync>()
  const statement = (sql: string): StatementSync => {
    const known = prepared.get(sql)
    if (known !== undefined) return known
    const made = db.prepare(sql)
    prepared.set(sql, made)
    return made
  }
  return {
    run(sql, ...values) {
      beforeStatement?.(sql)
      const { changes, lastInsertRowid } = statement(sql).run(...values)
      return { changes: Number(changes), id: Number(lastInsertRowid) }
    },
    get: (sql, ...values) => statement(sql).get(...values),
    all: (sql, ...values) => statement(sql).all(...values),
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

/** Opens or creates the database at `path`; `migrations` are applied in order, each once. */
export function openDatabase(
  path: string,
  migrations: readonly string[],
  options: DatabaseOptions = {},
): Database {
  const db = open(path, migrations, options)
  const transaction = transactionOf(db, options)
  let queue: Pending[] = []
  let isOpen = true
  let trouble: string | undefined

  function failed(cause: unknown): IdentityError {
    const error = storeError(cause)
    trouble = error.message
    return error
  }

  function runOne(pending: Pending): boolean {
    transaction.run('SAVEPOINT one')
    try {
      pending.run(transaction)
      transaction.run('RELEASE one')
      return true
    } catch (error) {
      // a full disk takes the whole transaction back
      if (!db.isTransaction) throw error
      transaction.run('ROLLBACK TO one')
      transaction.run('RELEASE one')
      pending.fail(isFailure(error) ? failed(error) : error)
      return false
    }
  }

  function commit(): void {
    const batch = queue
    queue = []
    const started = performance.now()
    let done: Pending[] = []
    try {
      transaction.run('BEGIN IMMEDIATE')
      done = batch.filter(runOne)
      transaction.run('COMMIT')
    } catch (cause) {
      const error = failed(cause)
      if (isOpen && db.isTransaction) transaction.run('ROLLBACK')
      for (const pending of batch) pending.fail(error)
      options.onCommit?.(performance.now() - started, false)
      return
    }
    options.onCommit?.(performance.now() - started, true)
    if (done.length > 0 && done.length === batch.length) trouble = undefined
    for (const pending of done) pending.settle()
  }

  return {
    read: transaction,
    trouble: () => trouble,
    copyTo: (target) => copy(db, target),
    write<T>(work: (transaction: Transaction) => T): Promise<T> {
      const { promise, resolve, reject } = Promise.withResolvers<T>()
      if (!isOpen)
        return Promise.reject(new IdentityError('ERR_UNAVAILABLE', 'the store is closed'))
      let settle = () => {}
      queue.push({
        run(transaction) {
          const value = work(transaction)
          settle = () => resolve(value)
        },
        settle: () => settle(),
        fail: reject,
      })
      if (queue.length === 1) setImmediate(commit)
      return promise
    },
    [Symbol.dispose]() {
      if (!isOpen) return
      if (queue.length > 0) commit()
      isOpen = false
      db.close()
    },
  }
}
