// The embedded database: node:sqlite in WAL with synchronous=FULL, migrations, and group commit.
import { chmodSync } from 'node:fs'
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
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
}

interface Pending {
  run(transaction: Transaction): void
  settle(): void
  fail(error: unknown): void
}

function storeError(cause: unknown): IdentityError {
  return new IdentityError('ERR_STORE', `the store failed: ${explain(cause)}`, { cause })
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

function open(path: string, migrations: readonly string[]): DatabaseSync {
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(path, { timeout: 1000 })
    if (path !== ':memory:') chmodSync(path, 0o600)
    // exclusive: a second program on the same file is refused instead of taking turns
    db.exec(
      'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON',
    )
    migrate(db, migrations)
    return db
  } catch (cause) {
    // or its lock would stay until the next garbage collection
    db?.close()
    throw cause instanceof IdentityError
      ? cause
      : new IdentityError('ERR_STORE', `cannot open ${path}: ${explain(cause)}`, { cause })
  }
}

function transactionOf(db: DatabaseSync): Transaction {
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
      const { changes, lastInsertRowid } = statement(sql).run(...values)
      return { changes: Number(changes), id: Number(lastInsertRowid) }
    },
    get: (sql, ...values) => statement(sql).get(...values),
    all: (sql, ...values) => statement(sql).all(...values),
  }
}

/** Opens or creates the database at `path`; `migrations` are applied in order, each once. */
export function openDatabase(path: string, migrations: readonly string[]): Database {
  const db = open(path, migrations)
  const transaction = transactionOf(db)
  let queue: Pending[] = []
  let isOpen = true

  function runOne(pending: Pending): boolean {
    transaction.run('SAVEPOINT one')
    try {
      pending.run(transaction)
      transaction.run('RELEASE one')
      return true
    } catch (error) {
      transaction.run('ROLLBACK TO one')
      transaction.run('RELEASE one')
      pending.fail(error)
      return false
    }
  }

  function commit(): void {
    const batch = queue
    queue = []
    let done: Pending[] = []
    try {
      transaction.run('BEGIN IMMEDIATE')
      done = batch.filter(runOne)
      transaction.run('COMMIT')
    } catch (cause) {
      const error = storeError(cause)
      if (isOpen && db.isTransaction) transaction.run('ROLLBACK')
      for (const pending of batch) pending.fail(error)
      return
    }
    for (const pending of done) pending.settle()
  }

  return {
    read: transaction,
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
