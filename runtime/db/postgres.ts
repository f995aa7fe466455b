// PostgreSQL through `pg`, for several programs on one database. Works in turn hold one advisory lock until
// they are committed, so a cursor counted in them is never stepped over; NOTIFY wakes, the tables decide.
import pg from 'pg'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import { type Clock, systemClock } from '../clock.ts'
import { createTopic, createTurns, every } from '../lifecycle.ts'
import {
  type Database,
  type Dialect,
  demandKnownVersion,
  type Migrations,
  type OnCommit,
  type Pending,
  pendingOf,
  type Reader,
  runEach,
  storeError,
  type Transaction,
  type Value,
  type Work,
} from './database.ts'
import { channel, listen } from './notifications.ts'

export interface PostgresOptions {
  readonly clock?: Clock
  readonly onCommit?: OnCommit | undefined
}

const dialect: Dialect = {
  integer: 'BIGINT',
  bytes: 'BYTEA',
  counted: 'BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY',
  counter: 'BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY',
  table: '',
  keyedTable: '',
  among: (column) => `${column} IN (SELECT json_array_elements_text(CAST(? AS json)))`,
}

/** of the advisory lock; any number that nobody else uses */
const lockKey = 0x63_61_73_74
const connections = 4
/** milliseconds */
const connectPatience = 5000
const statementPatience = 30_000
const goodbye = 5000
const forever = { signal: new AbortController().signal }
/** between looks at what a lost notification would have told */
const look = 2000
/** the protocol counts parameters in 16 bits */
const mostParameters = 60_000

// BIGINT as a number: cursors and milliseconds stay far below 2^53
const types = new pg.TypeOverrides()
types.setTypeParser(pg.types.builtins.INT8, Number)

/** SQLSTATE classes that speak of the statement or its data: a data exception, a broken constraint. */
const ofTheWork = new Set(['22', '23'])
/**
 * Connection exceptions, too many of them, an operator's intervention such as a restart, a server that is
 * read-only after a failover, locks and deadlocks: later it may go well.
 */
const ofTheWay = new Set(['08', '25', '40', '53', '55', '57'])

/** What the driver threw, unless it speaks of the data: the machine's fault, or that of the way to it. */
function failureOf(error: unknown): unknown {
  const state = error instanceof pg.DatabaseError ? (error.code ?? '').slice(0, 2) : '08'
  if (ofTheWork.has(state)) return error
  if (!ofTheWay.has(state)) return storeError(error)
  const message = `the database cannot be reached: ${explain(error)}`
  return new IdentityError('ERR_UNAVAILABLE', message, { cause: error, retryAfter: 1000 })
}

const isFailure = (error: unknown) => hasCode(error, 'ERR_STORE', 'ERR_UNAVAILABLE')

interface Statement {
  readonly name: string
  readonly text: string
}

const statements = new Map<string, Statement>()

/** The same with `$1` for the first `?`, and the name under which each connection has it prepared. */
function statementOf(sql: string): Statement {
  const known = statements.get(sql)
  if (known !== undefined) return known
  let count = 0
  const text = sql.replaceAll('?', () => `$${++count}`)
  const made = { name: `castellan_${statements.size}`, text }
  statements.set(sql, made)
  return made
}

type Queryable = Pick<pg.ClientBase, 'query'>

async function query(on: Queryable, statement: Partial<Statement>, values: readonly Value[]) {
  const { name, text = '' } = statement
  try {
    return await on.query({ ...(name === undefined ? {} : { name }), text, values: [...values] })
  } catch (error) {
    throw failureOf(error)
  }
}

function readerOf(on: Queryable): Reader {
  return {
    get: async (sql, ...values) => (await query(on, statementOf(sql), values)).rows[0],
    all: async (sql, ...values) => (await query(on, statementOf(sql), values)).rows,
  }
}

function transactionOf(client: pg.PoolClient): Transaction {
  async function insertSome(into: string, rows: readonly (readonly Value[])[]): Promise<void> {
    const width = rows[0]?.length ?? 0
    const marks = rows.map((_, row) => {
      const numbers = Array.from({ length: width }, (_, column) => `$${row * width + column + 1}`)
      return `(${numbers.join(', ')})`
    })
    // not prepared: its text depends on how many rows there are
    await query(client, { text: `INSERT INTO ${into} VALUES ${marks.join(', ')}` }, rows.flat())
  }

  return {
    ...readerOf(client),
    run: async (sql, ...values) => (await query(client, statementOf(sql), values)).rowCount ?? 0,
    async insert(into, rows) {
      const atOnce = Math.floor(mostParameters / (rows[0]?.length ?? 1))
      for (let at = 0; at < rows.length; at += atOnce)
        await insertSome(into, rows.slice(at, at + atOnce))
    },
  }
}

async function connected(pool: pg.Pool): Promise<pg.PoolClient> {
  try {
    return await pool.connect()
  } catch (error) {
    throw failureOf(error)
  }
}

/** Runs `work` between BEGIN and COMMIT on a connection of the pool. */
async function inTransaction<T>(pool: pg.Pool, work: Work<T>): Promise<T> {
  const client = await connected(pool)
  let isGone = false
  try {
    await query(client, { text: 'BEGIN ISOLATION LEVEL READ COMMITTED' }, [])
    const value = await work(transactionOf(client))
    const { command } = await query(client, { text: 'COMMIT' }, [])
    // how PostgreSQL answers when a statement before it had failed
    if (command !== 'COMMIT') throw storeError(new Error(`COMMIT ended as ${command}`))
    return value
  } catch (error) {
    isGone = isFailure(error)
    if (!isGone) await query(client, { text: 'ROLLBACK' }, []).catch(() => (isGone = true))
    throw error
  } finally {
    client.release(isGone)
  }
}

const lock = (tx: Transaction) => tx.get('SELECT pg_advisory_xact_lock(?)', lockKey)

async function migrate(pool: pg.Pool, migrations: readonly string[]): Promise<void> {
  await inTransaction(pool, async (tx) => {
    await lock(tx)
    await tx.run('CREATE TABLE IF NOT EXISTS castellan_version (version BIGINT NOT NULL)')
    const row = await tx.get('SELECT max(version) AS version FROM castellan_version')
    const version = Number(row?.version ?? 0)
    demandKnownVersion(version, migrations.length)
    for (const [i, sql] of migrations.entries()) {
      if (i < version) continue
      for (const statement of sql.split(/;\n/)) if (statement.trim() !== '') await tx.run(statement)
      await tx.insert('castellan_version (version)', [[i + 1]])
    }
  })
}

/** A record that the server may forget is none: what it stands for has been delivered. */
async function demandDurable(pool: pg.Pool): Promise<void> {
  const settings = await query(
    pool,
    {
      text: "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS c",
    },
    [],
  )
  const { fsync, c } = settings.rows[0] ?? {}
  if (fsync !== 'off' && c !== 'off') return
  throw new IdentityError(
    'ERR_STORE',
    'the database may forget what it has confirmed: set fsync and synchronous_commit to on',
  )
}

/** What is written, and whether it gets there. */
function createWriting(pool: pg.Pool, onCommit: OnCommit | undefined) {
  const inTurn = createTurns()
  let queue: Pending[] = []
  let trouble: string | undefined

  function failed(cause: unknown): IdentityError {
    const error = cause instanceof IdentityError ? cause : storeError(cause)
    trouble = error.message
    return error
  }

  async function measured<T>(work: Work<T>): Promise<T> {
    const started = performance.now()
    try {
      const value = await inTransaction(pool, work)
      onCommit?.(performance.now() - started, true)
      trouble = undefined
      return value
    } catch (error) {
      if (!isFailure(error)) throw error
      onCommit?.(performance.now() - started, false)
      throw failed(error)
    }
  }

  async function flush(): Promise<void> {
    const works = queue
    queue = []
    if (works.length === 0) return
    try {
      const done = await measured(async (transaction) => {
        await lock(transaction)
        const batch = { transaction, isFailure, isOpen: () => true }
        const good = await runEach(works, batch, failed)
        await transaction.get('SELECT pg_notify(?, ?)', channel, '')
        return good
      })
      for (const pending of done) pending.settle()
    } catch (error) {
      for (const pending of works) pending.fail(error)
    }
  }

  return {
    trouble: () => trouble,
    write: measured,
    writeInTurn<T>(work: Work<T>): Promise<T> {
      const { pending, result } = pendingOf(work)
      queue.push(pending)
      if (queue.length === 1) setImmediate(() => inTurn(flush))
      return result
    },
    finish: () => inTurn(flush),
  }
}

/** Opens the database at `url`, making the tables when they are missing. Throws ERR_STORE, ERR_UNAVAILABLE. */
export async function openPostgres(
  url: string,
  migrations: Migrations,
  { clock = systemClock, onCommit }: PostgresOptions = {},
): Promise<Database> {
  const config: pg.ClientConfig = {
    connectionString: url,
    application_name: 'castellan',
    connectionTimeoutMillis: connectPatience,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    // ours, for a path that has gone silent; the server has its own
    query_timeout: statementPatience + connectPatience,
    types,
  }
  const bounds = {
    statement_timeout: statementPatience,
    idle_in_transaction_session_timeout: statementPatience,
  }
  await using opening = new AsyncDisposableStack()
  const pool = new pg.Pool({ ...config, ...bounds, max: connections })
  // an idle connection that breaks is replaced when it is needed
  pool.on('error', () => {})
  // the pool does not listen while a connection is in use: its query rejects as well
  pool.on('connect', (client) => client.on('error', () => {}))
  // a server that is frozen answers no goodbye
  opening.defer(() => Promise.race([pool.end(), clock.sleep(goodbye, forever)]))
  await demandDurable(pool)
  await migrate(pool, migrations(dialect))
  const { finish, ...writing } = createWriting(pool, onCommit)
  const topic = createTopic<void>()
  opening.use(listen(config, clock, () => topic.publish()))
  opening.use(every(clock, look, () => topic.publish()))
  opening.defer(finish)
  const opened = opening.move()
  return {
    dialect,
    read: readerOf(pool),
    ...writing,
    onForeignWrite: (listener) => topic.subscribe(listener),
    copyTo() {
      const message = 'a PostgreSQL store is copied by pg_dump, its key files with the state folder'
      return Promise.reject(new IdentityError('ERR_PRECONDITION', message))
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}
