import { statSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Database } from '../../../runtime/db/database.ts'
import { openSqlite } from '../../../runtime/db/sqlite.ts'
import { testFolder } from '../../support/folder.ts'
import { refusalOf } from '../../support/refusal.ts'

const tables = ['CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE) STRICT']
const migrations = () => tables

let folder: ReturnType<typeof testFolder>
let path: string
let db: Database
beforeEach(() => {
  folder = testFolder()
  path = join(folder.path, 'test.db')
  db = openSqlite(path, migrations)
})
afterEach(async () => {
  await db[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

const insert = (name: string) =>
  db.write(async (tx) => {
    const row = await tx.get('INSERT INTO t (name) VALUES (?) RETURNING id', name)
    return Number(row?.id)
  })
const names = async () =>
  (await db.read.all('SELECT name FROM t ORDER BY id')).map((row) => row.name)
const walSize = () => statSync(`${path}-wal`).size
const pageInWal = 4096 + 24

describe('group commit', () => {
  it('is one transaction for all that one turn asked for', async () => {
    await insert('first')
    const before = walSize()
    const ids = await Promise.all(Array.from({ length: 200 }, (_, i) => insert(`n${i}`)))
    expect(new Set(ids).size).toBe(200)
    expect(await names()).toHaveLength(201)
    // each transaction writes at least one page: two hundred of them would be two hundred pages
    expect(walSize() - before).toBeLessThan(20 * pageInWal)
  })

  it('is on the disk with each of its turns: WAL, and every commit is synced', async () => {
    expect(await db.read.get('PRAGMA journal_mode')).toEqual({ journal_mode: 'wal' })
    expect(await db.read.get('PRAGMA synchronous')).toEqual({ synchronous: 2 })
    const before = walSize()
    for (const name of ['a', 'b', 'c']) await insert(name)
    expect(walSize() - before).toBeGreaterThanOrEqual(3 * pageInWal)
  })

  it('undoes a failing work alone', async () => {
    const boom = new Error('boom')
    const all = await Promise.allSettled([
      insert('before'),
      db.write(async (tx) => {
        await tx.run('INSERT INTO t (name) VALUES (?)', 'half')
        throw boom
      }),
      insert('before'),
      insert('after'),
    ])
    expect(all.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'rejected',
      'fulfilled',
    ])
    expect(all[1]).toMatchObject({ reason: boom })
    expect(all[2]).toMatchObject({ reason: { code: 'ERR_SQLITE_ERROR' } })
    expect(await names()).toEqual(['before', 'after'])
  })

  it('rejects everybody when the commit itself fails, and writes nothing', async () => {
    await db.write((tx) =>
      tx.run(
        'CREATE TABLE child (parent INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED) STRICT',
      ),
    )
    const all = await Promise.allSettled([
      insert('innocent'),
      db.write((tx) => tx.run('INSERT INTO child VALUES (99)')),
    ])
    for (const it of all) {
      expect(it).toMatchObject({
        status: 'rejected',
        reason: {
          code: 'ERR_STORE',
          message: 'the store failed: FOREIGN KEY constraint failed',
        },
      })
    }
    expect(await names()).toEqual([])
    await insert('next')
    expect(await names()).toEqual(['next'])
  })

  it('says why it fails while the disk is full, and writes again once there is room', async () => {
    await db[Symbol.asyncDispose]()
    const commits: boolean[] = []
    db = openSqlite(path, migrations, {
      mostPages: 20,
      onCommit: (_, isDone) => commits.push(isDone),
    })
    const fill = () => insert(`${Math.random()}`.repeat(500))
    let written = 0
    const failure = (async () => {
      for (; written < 100; written++) await fill()
    })()
    await expect(failure).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: 'the store failed: database or disk is full',
    })
    expect(db.trouble()).toBe('the store failed: database or disk is full')
    expect(await db.read.get('SELECT count(*) AS n FROM t')).toEqual({ n: written })
    await db.write((tx) => tx.run('DELETE FROM t'))
    await fill()
    expect(db.trouble()).toBeUndefined()
    expect(commits.filter((isDone) => !isDone)).toHaveLength(1)
  })

  it('takes what is asked for while it commits into the next one', async () => {
    const order: string[] = []
    let inner: Promise<number> | undefined
    await db.write(async () => {
      order.push('outer')
      inner = insert('inner').finally(() => order.push('inner'))
    })
    order.push('outer done')
    await inner
    expect(order).toEqual(['outer', 'outer done', 'inner'])
    expect(await names()).toEqual(['inner'])
  })

  it('keeps the order in which it was asked', async () => {
    const seen: number[] = []
    const all = Array.from({ length: 50 }, (_, i) => insert(`n${i}`).then(() => seen.push(i)))
    await Promise.all(all)
    expect(seen).toEqual(Array.from({ length: 50 }, (_, i) => i))
    expect(await names()).toEqual(seen.map((i) => `n${i}`))
  })
})

describe('a read', () => {
  it('beside a transaction waits until it is committed, and never sees a part of it', async () => {
    const seen: unknown[] = []
    const writing = db.write(async (tx) => {
      await tx.insert('t (name)', [['a']])
      // whoever reads now is no part of this transaction
      const reading = names().then((all) => seen.push(all))
      for (let i = 0; i < 50; i++) await tx.get('SELECT 1')
      expect(seen).toEqual([])
      await tx.insert('t (name)', [['b']])
      return { reading }
    })
    await (await writing).reading
    expect(seen).toEqual([['a', 'b']])
  })
})

describe('a database', () => {
  it('writes what is queued when it is closed, and nothing after that', async () => {
    const last = insert('last')
    await db[Symbol.asyncDispose]()
    await last
    await expect(insert('late')).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
      message: 'the store is closed',
    })
    await db[Symbol.asyncDispose]()
    db = openSqlite(path, migrations)
    expect(await names()).toEqual(['last'])
  })

  it('belongs to its owner alone', () => {
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  it('is opened by one program at a time', () => {
    expect(refusalOf(() => openSqlite(path, migrations))).toEqual({
      code: 'ERR_STORE',
      message: `cannot open ${path}: database is locked: database is locked`,
    })
  })

  it('refuses what is no database, and a folder that is not there', () => {
    const missing = join(folder.path, 'none', 'x.db')
    expect(refusalOf(() => openSqlite(missing, () => []))).toMatchObject({ code: 'ERR_STORE' })
    expect(refusalOf(() => openSqlite(missing, () => []))?.message).toMatch(
      /unable to open database file/,
    )
  })

  it('is migrated once, in order, and never backwards', async () => {
    await insert('kept')
    await db[Symbol.asyncDispose]()
    const more = () => [
      ...tables,
      "UPDATE t SET name = name || '+'",
      "UPDATE t SET name = name || '!'",
    ]
    for (const _ of [1, 2]) {
      db = openSqlite(path, more)
      expect(await names()).toEqual(['kept+!'])
      await db[Symbol.asyncDispose]()
    }
    expect(refusalOf(() => openSqlite(path, migrations))).toEqual({
      code: 'ERR_STORE',
      message: 'the store is of version 3, this program knows 1: use a newer castellan',
    })
  })

  it('is as it was when a migration fails', async () => {
    await insert('kept')
    await db[Symbol.asyncDispose]()
    const bad = () => [...tables, 'DROP TABLE t; CREATE TABLE (']
    expect(refusalOf(() => openSqlite(path, bad))).toMatchObject({ code: 'ERR_STORE' })
    db = openSqlite(path, migrations)
    expect(await names()).toEqual(['kept'])
  })
})
