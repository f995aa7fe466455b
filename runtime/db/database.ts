// What the database engines have in common: one way to write SQL, and commits that are on disk.
import { explain, IdentityError } from '../../spiffe/errors.ts'

export type Value = string | number | Uint8Array | null
export type Row = Readonly<Record<string, unknown>>

/** SQL that every engine understands; `?` stands for a value. */
export interface Reader {
  get(sql: string, ...values: Value[]): Promise<Row | undefined>
  all(sql: string, ...values: Value[]): Promise<Row[]>
}

/** Statements inside one transaction. */
export interface Transaction extends Reader {
  /** How many rows it changed. */
  run(sql: string, ...values: Value[]): Promise<number>
  /** Rows into a table, such as `issued (serial, …)`; all rows are of the same length. */
  insert(into: string, rows: readonly (readonly Value[])[]): Promise<void>
}

/** How the engines spell what SQL leaves open. */
export interface Dialect {
  readonly integer: string
  readonly bytes: string
  /** type of a key that the database counts up */
  readonly counted: string
  /** the same; no number comes twice, not even that of the last row after its deletion */
  readonly counter: string
  /** after the closing bracket of a table with a `counted` or `counter` key, or with none */
  readonly table: string
  /** after that of a table with a key of its own */
  readonly keyedTable: string
  /** A condition: the column is among the strings of a JSON array, which is its value. */
  among(column: string): string
}

export type Work<T> = (transaction: Transaction) => Promise<T>

export interface Database extends AsyncDisposable {
  readonly dialect: Dialect
  /** Reads what is committed. */
  readonly read: Reader
  /**
   * Runs `work` in a transaction. Resolves once it is on disk. A work that throws is undone alone and
   * rejects with what it threw; when the commit fails it rejects with ERR_STORE.
   */
  write<T>(work: Work<T>): Promise<T>
  /** The same for works that happen one after the other, whichever program on this database does them. */
  writeInTurn<T>(work: Work<T>): Promise<T>
  /** Called when another program may have written; never called where there is none. */
  onForeignWrite(listener: () => void): Disposable
  /** A consistent copy as a file of its own, made in steps between which writes go on. Throws ERR_STORE. */
  copyTo(path: string): Promise<void>
  /** Why the last write that was tried did not get to the disk; undefined when it did. */
  trouble(): string | undefined
}

/** Told of each commit: its milliseconds, and whether it got to the disk. */
export type OnCommit = (ms: number, isDone: boolean) => void

/** The tables in the words of a dialect, one text for each version. */
export type Migrations = (dialect: Dialect) => readonly string[]

export function storeError(cause: unknown): IdentityError {
  return new IdentityError('ERR_STORE', `the store failed: ${explain(cause)}`, { cause })
}

/** Throws ERR_STORE for a database that a newer program has written. */
export function demandKnownVersion(version: number, known: number): void {
  if (version <= known) return
  throw new IdentityError(
    'ERR_STORE',
    `the store is of version ${version}, this program knows ${known}: use a newer castellan`,
  )
}

/** A work that waits for its transaction, and who waits for the work. */
export interface Pending {
  run(transaction: Transaction): Promise<void>
  settle(): void
  fail(error: unknown): void
}

export function pendingOf<T>(work: Work<T>): { readonly pending: Pending; result: Promise<T> } {
  const { promise, resolve, reject } = Promise.withResolvers<T>()
  let settle = () => {}
  const pending: Pending = {
    async run(transaction) {
      const value = await work(transaction)
      settle = () => resolve(value)
    },
    settle: () => settle(),
    fail: reject,
  }
  return { pending, result: promise }
}

export interface Batch {
  readonly transaction: Transaction
  /** Tells an error of the machine from one of the work: it fails the whole store, not one work. */
  readonly isFailure: (error: unknown) => boolean
  /** Whether the transaction is still open after a work has failed. */
  readonly isOpen: () => boolean
}

/**
 * Runs each work in a savepoint of an open transaction: one that throws is undone alone. Gives those that
 * went well; throws when the transaction itself is gone.
 */
export async function runEach(
  works: readonly Pending[],
  { transaction, isFailure, isOpen }: Batch,
  failed: (cause: unknown) => IdentityError,
): Promise<Pending[]> {
  const done: Pending[] = []
  for (const pending of works) {
    await transaction.run('SAVEPOINT one')
    try {
      await pending.run(transaction)
      await transaction.run('RELEASE SAVEPOINT one')
      done.push(pending)
    } catch (error) {
      if (!isOpen()) throw error
      await transaction.run('ROLLBACK TO SAVEPOINT one')
      await transaction.run('RELEASE SAVEPOINT one')
      pending.fail(isFailure(error) ? failed(error) : error)
    }
  }
  return done
}

/** `INSERT … ON CONFLICT` for a table whose first columns, `keys` of them, are its key. */
export function upsert(table: string, columns: readonly string[], keys = 1): string {
  const key = columns.slice(0, keys).join(', ')
  const others = columns.slice(keys)
  const set = others.map((name) => `${name} = excluded.${name}`).join(', ')
  const marks = columns.map(() => '?').join(', ')
  return `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${marks})
    ON CONFLICT (${key}) DO UPDATE SET ${set}`
}
