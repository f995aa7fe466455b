// Reservations, issued certificates, and join tokens, which are used up with a reservation.
import type { Database, Transaction, Value } from '../../../runtime/db/sqlite.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { createBatch } from '../batch.ts'
import { issuedRow, liveRow } from '../rows.ts'
import {
  type AgentChange,
  type Intent,
  type IssuanceTable,
  type IssuedFilter,
  type IssuedRow,
  type LiveCertificate,
  type TokenRecord,
  type TokenUse,
  unusableToken,
} from '../store.ts'
import { putAgent } from './agents.ts'
import type { Session } from './session.ts'

function insertIssued(tx: Transaction, row: IssuedRow): void {
  tx.run(
    'INSERT INTO issued VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
    Buffer.from(row.serial, 'hex'),
    row.spiffeId,
    row.authorityId,
    row.requester,
    row.entryId,
    row.notBefore,
    row.notAfter,
    row.certificate,
  )
}

function insertIntents(tx: Transaction, intents: readonly Intent[]): void {
  tx.run(
    'INSERT INTO reservations (at, intents) VALUES (?, ?)',
    intents[0]?.at ?? 0,
    JSON.stringify(intents),
  )
}

function insertToken(tx: Transaction, row: TokenRecord): void {
  tx.run(
    'INSERT INTO issued_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
    Buffer.from(row.id, 'hex'),
    row.kind,
    row.spiffeId,
    row.authorityId,
    row.requester,
    row.entryId,
    JSON.stringify(row.audience),
    row.issuedAt,
    row.expiresAt,
  )
}

function applyChange(tx: Transaction, change: AgentChange): void {
  if (change.kind === 'attested') {
    putAgent(tx, change.agent)
    if (change.token !== undefined) tx.run('DELETE FROM join_tokens WHERE hash = ?', change.token)
    return
  }
  const { changes } = tx.run(
    'UPDATE agents SET pending_serial = ?, not_after = ? WHERE id = ? AND banned = 0',
    change.serial,
    change.notAfter,
    change.id,
  )
  if (changes !== 1) {
    throw new IdentityError('ERR_AGENT_BANNED', `${change.id} was banned or deleted meanwhile`)
  }
}

function useToken(tx: Transaction, { hash, now }: TokenUse, serial: string): void {
  const { changes } = tx.run(
    'UPDATE join_tokens SET reserved_by = ? WHERE hash = ? AND reserved_by IS NULL AND expires_at > ?',
    serial,
    hash,
    now,
  )
  if (changes !== 1) {
    throw new IdentityError('ERR_JOIN_TOKEN', unusableToken)
  }
}

/** What a crash left between reserve and record: nothing was delivered, so the token is good again. */
export function recoverTokens(tx: Transaction): void {
  tx.run('UPDATE join_tokens SET reserved_by = NULL WHERE reserved_by IS NOT NULL')
}

/** leaves live a day at most, and a clock may have been an hour wrong */
const oldestLive = 26 * 3_600_000

/** The place of the first row that was valid from `at` or later: rows are in the order of their time. */
function placeSince({ read }: Database, at: number): number {
  let low = 1
  let high = Number(read.get('SELECT max(rowid) AS last FROM issued')?.last ?? 0) + 1
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    const row = read.get('SELECT not_before FROM issued WHERE rowid >= ? LIMIT 1', middle)
    if (row === undefined || Number(row.not_before) >= at) high = middle
    else low = middle + 1
  }
  return low
}

function liveOnes(db: Database, now: number): LiveCertificate[] {
  return db.read
    .all(
      // beside a max() SQLite takes the other columns from the same row
      `SELECT authority_id, max(not_after) AS ends,
         entry_id <> '' OR requester LIKE 'istio:%' AS is_workload
       FROM issued WHERE rowid >= ? AND not_after > ?
       GROUP BY spiffe_id, entry_id, CASE WHEN requester LIKE 'istio:%' THEN '' ELSE requester END`,
      placeSince(db, now - oldestLive),
      now,
    )
    .map((row) => liveRow.parse(row))
}

function listIssued({ read }: Database, filter: IssuedFilter) {
  const { spiffeId, serial, since, before, limit } = filter
  const conditions: [string, Value][] = [['not_before >= ?', since]]
  if (spiffeId !== undefined) conditions.push(['spiffe_id = ?', spiffeId])
  if (serial !== undefined) conditions.push(['serial = ?', Buffer.from(serial, 'hex')])
  if (before !== undefined) conditions.push(['rowid < ?', before])
  const found = read.all(
    `SELECT rowid AS place, * FROM issued WHERE ${conditions.map(([sql]) => sql).join(' AND ')}
     ORDER BY rowid DESC LIMIT ?`,
    ...conditions.map(([, value]) => value),
    limit + 1,
  )
  const rows = found.slice(0, limit)
  const next = found.length > limit ? Number(rows.at(-1)?.place) : undefined
  return { rows: rows.map((row) => issuedRow.parse(row)), next }
}

export function issuanceTable({ db, change }: Session): IssuanceTable {
  const reservations = createBatch<Intent>((intents) =>
    db.write((tx) => insertIntents(tx, intents)),
  )
  const records = createBatch<IssuedRow>((rows) =>
    db.write((tx) => {
      for (const row of rows) insertIssued(tx, row)
    }),
  )
  const tokens = createBatch<TokenRecord>((rows) =>
    db.write((tx) => {
      for (const row of rows) insertToken(tx, row)
    }),
  )
  return {
    recordToken: tokens,
    reserve(intent, token) {
      if (token === undefined) return reservations(intent)
      return db.write((tx) => {
        useToken(tx, token, intent.serial)
        insertIntents(tx, [intent])
      })
    },
    record(row, agentChange) {
      if (agentChange === undefined) return records(row)
      return change((tx, emit) => {
        insertIssued(tx, row)
        applyChange(tx, agentChange)
        emit('agent', agentChange.kind === 'attested' ? agentChange.agent.id : agentChange.id)
      })
    },
    async release(hash) {
      await db.write((tx) =>
        tx.run('UPDATE join_tokens SET reserved_by = NULL WHERE hash = ?', hash),
      )
    },
    find({ serial, spiffeId, limit }) {
      const rows =
        serial !== undefined
          ? db.read.all('SELECT * FROM issued WHERE serial = ?', Buffer.from(serial, 'hex'))
          : db.read.all(
              'SELECT * FROM issued WHERE spiffe_id = ? ORDER BY not_after DESC LIMIT ?',
              spiffeId ?? '',
              limit,
            )
      return rows.map((row) => issuedRow.parse(row))
    },
    validOf: (ids, now) =>
      db.read
        .all(
          `SELECT * FROM issued WHERE rowid >= ? AND not_after > ?
           AND spiffe_id IN (SELECT value FROM json_each(?))`,
          placeSince(db, now - oldestLive),
          now,
          JSON.stringify([...ids]),
        )
        .map((row) => issuedRow.parse(row)),
    live: (now) => liveOnes(db, now),
    list: (filter) => listIssued(db, filter),
    async createToken({ hash, expiresAt }) {
      await db.write((tx) => {
        const known = tx.get('SELECT 1 FROM join_tokens WHERE hash = ?', hash)
        if (known !== undefined)
          throw new IdentityError('ERR_ALREADY_EXISTS', 'this join token exists already')
        tx.run('INSERT INTO join_tokens (hash, expires_at) VALUES (?, ?)', hash, expiresAt)
      })
    },
  }
}
