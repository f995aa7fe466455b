// Reservations, issued certificates, and join tokens, which are used up with a reservation.
import type { Reader, Transaction, Value } from '../../../runtime/db/database.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import type { SpiffeId } from '../../../spiffe/id.ts'
import { createBatch } from '../batch.ts'
import {
  type AgentChange,
  type Intent,
  type IssuedFilter,
  type IssuedRow,
  type LiveCertificate,
  type TokenRecord,
  type TokenUse,
  unusableToken,
} from '../model.ts'
import { issuedRow, liveRow } from '../rows.ts'
import type { IssuanceTable } from '../store.ts'
import { putAgent } from './agents.ts'
import type { Session } from './session.ts'

const issuedColumns =
  'issued (serial, spiffe_id, authority_id, requester, entry_id, not_before, not_after, certificate)'

const issuedValues = (row: IssuedRow): Value[] => [
  Buffer.from(row.serial, 'hex'),
  row.spiffeId,
  row.authorityId,
  row.requester,
  row.entryId,
  row.notBefore,
  row.notAfter,
  row.certificate,
]

function insertIntents(tx: Transaction, intents: readonly Intent[]): Promise<void> {
  const row = [intents[0]?.at ?? 0, JSON.stringify(intents)]
  return tx.insert('reservations (at, intents)', [row])
}

const tokenColumns = `issued_tokens
  (id, kind, spiffe_id, authority_id, requester, entry_id, audience, issued_at, expires_at)`

const tokenValues = (row: TokenRecord): Value[] => [
  Buffer.from(row.id, 'hex'),
  row.kind,
  row.spiffeId,
  row.authorityId,
  row.requester,
  row.entryId,
  JSON.stringify(row.audience),
  row.issuedAt,
  row.expiresAt,
]

function banned(id: SpiffeId): never {
  throw new IdentityError('ERR_AGENT_BANNED', `${id} was banned or deleted meanwhile`)
}

async function applyChange(tx: Transaction, change: AgentChange, replica: string): Promise<void> {
  if (change.kind === 'attested') {
    if (!(await putAgent(tx, change.agent))) banned(change.agent.id)
    if (change.token === undefined) return
    const sql = 'DELETE FROM join_tokens WHERE hash = ? AND reserved_by = ?'
    if ((await tx.run(sql, change.token, replica)) === 1) return
    throw new IdentityError('ERR_JOIN_TOKEN', unusableToken)
  }
  const changed = await tx.run(
    'UPDATE agents SET pending_serial = ?, not_after = ? WHERE id = ? AND banned = 0',
    change.serial,
    change.notAfter,
    change.id,
  )
  if (changed !== 1) banned(change.id)
}

async function useToken(tx: Transaction, { hash, now }: TokenUse, replica: string): Promise<void> {
  const changed = await tx.run(
    'UPDATE join_tokens SET reserved_by = ? WHERE hash = ? AND reserved_by IS NULL AND expires_at > ?',
    replica,
    hash,
    now,
  )
  if (changed !== 1) throw new IdentityError('ERR_JOIN_TOKEN', unusableToken)
}

/**
 * What a crash of this replica left between reserve and record: nothing was delivered, so the token is
 * good again.
 */
export async function recoverTokens(tx: Transaction, replica: string): Promise<void> {
  await tx.run('UPDATE join_tokens SET reserved_by = NULL WHERE reserved_by = ?', replica)
}

async function free({ db, replica }: Session, hash: Uint8Array): Promise<void> {
  const sql = 'UPDATE join_tokens SET reserved_by = NULL WHERE hash = ? AND reserved_by = ?'
  await db.write((tx) => tx.run(sql, hash, replica))
}

/** milliseconds */
const betweenTries = 1000

/** Until it succeeds, or this program stops: then the next start does it. */
async function freeLater(session: Session, hash: Uint8Array): Promise<void> {
  const { clock, stopped: signal } = session
  while (!signal.aborted) {
    try {
      await clock.sleep(betweenTries, { signal })
      return await free(session, hash)
    } catch {
      // the store itself says what is wrong with it
    }
  }
}

/**
 * Leaves live a day at most, and a clock may have been an hour wrong. CA certificates of authorities below
 * this one live up to a week: here they are missing after a day.
 */
const oldestLive = 26 * 3_600_000

/** The place of the first row that was valid from `at` or later: rows are in the order of their time. */
async function placeSince(read: Reader, at: number): Promise<number> {
  let low = 1
  const newest = await read.get('SELECT max(place) AS last FROM issued')
  let high = Number(newest?.last ?? 0) + 1
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    const sql = 'SELECT not_before FROM issued WHERE place >= ? ORDER BY place LIMIT 1'
    const row = await read.get(sql, middle)
    if (row === undefined || Number(row.not_before) >= at) high = middle
    else low = middle + 1
  }
  return low
}

async function liveOnes(read: Reader, now: number): Promise<LiveCertificate[]> {
  const rows = await read.all(
    `SELECT authority_id, is_workload, ends FROM (
       SELECT authority_id, not_after AS ends,
         CASE WHEN entry_id <> '' OR requester LIKE 'istio:%' THEN 1 ELSE 0 END AS is_workload,
         row_number() OVER (
           PARTITION BY spiffe_id, entry_id,
             CASE WHEN requester LIKE 'istio:%' THEN '' ELSE requester END
           ORDER BY not_after DESC) AS rank
       FROM issued WHERE place >= ? AND not_after > ?) AS ranked
     WHERE rank = 1`,
    await placeSince(read, now - oldestLive),
    now,
  )
  return rows.map((row) => liveRow.parse(row))
}

async function listIssued(read: Reader, filter: IssuedFilter) {
  const { spiffeId, serial, since, before, limit } = filter
  const conditions: [string, Value][] = [['not_before >= ?', since]]
  if (spiffeId !== undefined) conditions.push(['spiffe_id = ?', spiffeId])
  if (serial !== undefined) conditions.push(['serial = ?', Buffer.from(serial, 'hex')])
  if (before !== undefined) conditions.push(['place < ?', before])
  const found = await read.all(
    `SELECT * FROM issued WHERE ${conditions.map(([sql]) => sql).join(' AND ')}
     ORDER BY place DESC LIMIT ?`,
    ...conditions.map(([, value]) => value),
    limit + 1,
  )
  const rows = found.slice(0, limit)
  const next = found.length > limit ? Number(rows.at(-1)?.place) : undefined
  return { rows: rows.map((row) => issuedRow.parse(row)), next }
}

async function validOnes(
  { read, dialect }: Session['db'],
  ids: ReadonlySet<SpiffeId>,
  now: number,
): Promise<IssuedRow[]> {
  const rows = await read.all(
    `SELECT * FROM issued WHERE place >= ? AND not_after > ? AND ${dialect.among('spiffe_id')}`,
    await placeSince(read, now - oldestLive),
    now,
    JSON.stringify([...ids]),
  )
  return rows.map((row) => issuedRow.parse(row))
}

export function issuanceTable(session: Session): IssuanceTable {
  const { db, change, replica } = session
  const reservations = createBatch<Intent>((intents) =>
    db.write((tx) => insertIntents(tx, intents)),
  )
  const records = createBatch<IssuedRow>((rows) =>
    db.write((tx) => tx.insert(issuedColumns, rows.map(issuedValues))),
  )
  const tokens = createBatch<TokenRecord>((rows) =>
    db.write((tx) => tx.insert(tokenColumns, rows.map(tokenValues))),
  )
  return {
    recordToken: tokens,
    reserve(intent, token) {
      if (token === undefined) return reservations(intent)
      return db.write(async (tx) => {
        await useToken(tx, token, replica)
        await insertIntents(tx, [intent])
      })
    },
    record(row, agentChange) {
      if (agentChange === undefined) return records(row)
      return change(async (tx, emit) => {
        await tx.insert(issuedColumns, [issuedValues(row)])
        await applyChange(tx, agentChange, replica)
        await emit('agent', agentChange.kind === 'attested' ? agentChange.agent.id : agentChange.id)
      })
    },
    async release(hash) {
      try {
        await free(session, hash)
      } catch (error) {
        // the node tries again, and the database comes back: until then the token looks used
        void freeLater(session, hash)
        throw error
      }
    },
    async find(serial) {
      const sql = 'SELECT * FROM issued WHERE serial = ?'
      const row = await db.read.get(sql, Buffer.from(serial, 'hex'))
      return row && issuedRow.parse(row)
    },
    validOf: (ids, now) => validOnes(db, ids, now),
    live: (now) => liveOnes(db.read, now),
    list: (filter) => listIssued(db.read, filter),
    async createToken({ hash, expiresAt }) {
      const sql =
        'INSERT INTO join_tokens (hash, expires_at) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING'
      if ((await db.write((tx) => tx.run(sql, hash, expiresAt))) === 0)
        throw new IdentityError('ERR_ALREADY_EXISTS', 'this join token exists already')
    },
  }
}
