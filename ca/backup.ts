// A backup is one SQLite file: a consistent copy of the store, and in a table of its own the sealed key
// files as they are. The secret that opens them is not in it.
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { copyDurably, privateFolder, sync, writeDurably } from '../runtime/durable.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { openKeyFolder } from './authorities/keys.ts'
import type { CaConfig } from './config.ts'
import { isInitialised, keysFolder, storePath, unlockingSecret } from './state-folder.ts'
import { authorityRow } from './store/rows.ts'
import type { Store } from './store/store.ts'

const keysTable = 'CREATE TABLE sealed_keys (name TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT'
const keyName = /^(?:x509|jwt|wit)-[\w-]+\.sealed$/
const chunkSize = 64 * 1024

function keyFiles(folder: string): Map<string, Buffer> {
  if (!existsSync(folder)) return new Map()
  const names = readdirSync(folder).filter((name) => keyName.test(name))
  return new Map(names.map((name) => [name, readFileSync(join(folder, name))]))
}

function addKeys(path: string, files: ReadonlyMap<string, Buffer>): void {
  using db = new DatabaseSync(path)
  db.exec(keysTable)
  const insert = db.prepare('INSERT INTO sealed_keys VALUES (?, ?)')
  for (const [name, bytes] of files) insert.run(name, bytes)
}

/** The bytes of a backup, made while the authority runs. What it needs on disk is taken away again. */
export async function* backupOf(store: Store, state: string): AsyncGenerator<Uint8Array> {
  const aside = mkdtempSync(join(state, '.backup-'))
  try {
    const path = join(aside, 'copy')
    // before and after: the keys of every authority that the copy can speak of
    const before = keyFiles(keysFolder(state))
    await store.copyTo(path)
    chmodSync(path, 0o600)
    addKeys(path, new Map([...before, ...keyFiles(keysFolder(state))]))
    await using file = await open(path)
    for await (const chunk of file.createReadStream({ highWaterMark: chunkSize })) yield chunk
  } finally {
    rmSync(aside, { recursive: true, force: true })
  }
}

export interface Restored {
  readonly entries: number
  readonly agents: number
  readonly authorities: number
}

function refuse(file: string, why: string, cause?: unknown): never {
  throw new IdentityError('ERR_BAD_REQUEST', `${file}: ${why}`, { cause })
}

/** Checks the copy at `path` and turns it into a store: without keys, and known to be another one. */
function toStore(path: string, file: string, trustDomain: string) {
  using db = new DatabaseSync(path)
  const check = db.prepare('PRAGMA integrity_check').get()?.integrity_check
  if (check !== 'ok') refuse(file, `is damaged: ${check}`)
  const stored = db.prepare("SELECT value FROM meta WHERE name = 'trust domain'").get()?.value
  if (stored !== trustDomain) refuse(file, `is of trust domain ${stored}, not of ${trustDomain}`)
  const keys = db.prepare('SELECT name, bytes FROM sealed_keys').all()
  const rows = db.prepare('SELECT * FROM authorities').all()
  const count = (table: string) => Number(db.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.n)
  const restored = { entries: count('entries'), agents: count('agents'), authorities: rows.length }
  // cursors of the lost store mean nothing here, and its used tokens must not be good again
  db.exec(`DROP TABLE sealed_keys; DELETE FROM meta WHERE name = 'epoch'; DELETE FROM join_tokens`)
  return { keys, authorities: rows.map((row) => authorityRow.parse(row)), restored }
}

/** SQLite would play an old log over the restored file, and keys that are there may be the only ones. */
function hasRemains(state: string): boolean {
  const logs = ['-wal', '-shm', '-journal'].map((suffix) => `${storePath(state)}${suffix}`)
  return logs.some((path) => existsSync(path)) || keyFiles(keysFolder(state)).size > 0
}

/**
 * Makes the state of `config` from a backup: whole, or not at all. Throws ERR_PRECONDITION when there is
 * an authority already, ERR_BAD_REQUEST for what is no backup of this trust domain, ERR_SEALED when the
 * configured secret does not open its keys.
 */
export function restoreBackup(config: CaConfig, file: string): Restored {
  if (config.store !== undefined) {
    const message = 'a backup is of a store in a file; PostgreSQL has its own: pg_restore'
    throw new IdentityError('ERR_PRECONDITION', message)
  }
  const { state, trustDomain } = config
  if (isInitialised(config) || hasRemains(state)) {
    const message = `${state} holds an authority, or what is left of one; stop it and move that folder away first`
    throw new IdentityError('ERR_PRECONDITION', message)
  }
  // never made up here: a new secret opens nothing
  const secret = unlockingSecret(config)
  privateFolder(state)
  const aside = mkdtempSync(join(state, '.restore-'))
  try {
    const path = storePath(aside)
    copyIn(file, path)
    const { keys, authorities, restored } = read(file, () => toStore(path, file, trustDomain))
    const folder = keysFolder(aside)
    privateFolder(folder)
    for (const { name, bytes } of keys) {
      if (!keyName.test(String(name)) || !(bytes instanceof Uint8Array))
        refuse(file, 'holds a key that is none')
      writeDurably(join(folder, String(name)), bytes, { mode: 0o600 })
    }
    for (const { kind, id } of authorities) openKeyFolder(folder, secret, kind).load(id)
    rmSync(keysFolder(state), { recursive: true, force: true })
    renameSync(folder, keysFolder(state))
    // last: with it the state is an authority's
    renameSync(path, storePath(state))
    sync(state)
    return restored
  } finally {
    rmSync(aside, { recursive: true, force: true })
  }
}

function copyIn(file: string, path: string): void {
  try {
    copyDurably(file, path, { mode: 0o600 })
  } catch (cause) {
    refuse(file, `cannot be read: ${explain(cause)}`, cause)
  }
}

/** What SQLite says of a file that is none of ours. */
function read<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (cause instanceof IdentityError) throw cause
    return refuse(file, `is no backup of an authority: ${explain(cause)}`, cause)
  }
}
