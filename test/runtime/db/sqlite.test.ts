import { statSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Database, openDatabase } from '../../../runtime/db/sqlite.ts'
import { testFolder } from '../../support/ca.ts'
import { refusalOf } from '../../support/refusal.ts'

const migrations = ['CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE) STRICT']

let folder: ReturnType<typeof testFolder>
let path: string
let db: Database
beforeEach(() => {
  folder = testFolder()
  path = join(folder.path, 'test.db')
  db = openDatabase(path, migrations)
})
afterEach(() => {
  db[Symbol.dispose]()
  folder[Symbol.dispose]()
})

const insert = (name: string) =>
  db.write((tx) => tx.run('INSERT INTO t (name) VALUES (?)', name).id)
const names = () => db.read.all('SELECT name FROM t ORDER BY id').map((row) => row.name)
const walSize = () => statSync(`${path}-wal`).size
const pageInWal = 4096 + 24

describe('group commit', () => {
  it('is one transaction for all that one turn asked for', async () => {
    await insert('first')
    const before = walSize()
    const ids = await Promise.all(Array.from({ length: 200 }, (_, i) => insert(`n${i}`)))
    expect(new Set(ids).size).toBe(200)
    expect(names()).toHaveLength(201)
    // each transaction writes at least one page: two hundred of them would be two hundred pages
    expect(walSize() - before).toBeLessThan(20 * pageInWal)
  })

  it('is on the disk with each of its turns: WAL, and every commit is synced', async () => {
    expect(db.read.get('PRAGMA journal_mode')).toEqual({ journal_mode: 'wal' })
    expect(db.read.get('PRAGMA synchronous')).toEqual({ synchronous: 2 })
    const before = walSize()
    for (const name of ['a', 'b', 'c']) await insert(name)
    expect(walSize() - before).toBeGreaterThanOrEqual(3 * pageInWal)
  })

  it('undoes a failing work alone', async () => {
    const boom = new Error('boom')
    const all = await Promise.allSettled([
      insert('before'),
      db.write((tx) => {
        tx.run('INSERT INTO t (name) VALUES (?)', 'half')
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
    expect(names()).toEqual(['before', 'after'])
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
    expect(names()).toEqual([])
    await insert('next')
    expect(names()).toEqual(['next'])
  })

  it('says why it fails while the disk is full, and writes again once there is room', async () => {
    db[Symbol.dispose]()
    const commits: boolean[] = []
    db = openDatabase(path, migrations, {
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
    expect(db.read.get('SELECT count(*) AS n FROM t')).toEqual({ n: written })
    await db.write((tx) => tx.run('DELETE FROM t'))
    await fill()
    expect(db.trouble()).toBeUndefined()
    expect(commits.filter((isDone) => !isDone)).toHaveLength(1)
  })

  it('takes what is asked for while it commits into the next one', async () => {
    const order: string[] = []
    let inner: Promise<number> | undefined
    await db.write(() => {
      order.push('outer')
      inner = insert('inner').finally(() => order.push('inner'))
    })
    order.push('outer done')
    await inner
    expect(order).toEqual(['outer', 'outer done', 'inner'])
    expect(names()).toEqual(['inner'])
  })

  it('keeps the order in which it was asked', async () => {
    const seen: number[] = []
    const all = Array.from({ length: 50 }, (_, i) => insert(`n${i}`).then(() => seen.push(i)))
    await Promise.all(all)
    expect(seen).toEqual(Array.from({ length: 50 }, (_, i) => i))
    expect(names()).toEqual(seen.map((i) => `n${i}`))
  })
})

describe('a database', () => {
  it('writes what is queued when it is closed, and nothing after that', async () => {
    const last = insert('last')
    db[Symbol.dispose]()
    await last
    await expect(insert('late')).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
      message: 'the store is closed',
    })
    db[Symbol.dispose]()
    db = openDatabase(path, migrations)
    expect(names()).toEqual(['last'])
  })

  it('belongs to its owner alone', () => {
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  it('is opened by one program at a time', () => {
    expect(refusalOf(() => openDatabase(path, migrations))).toEqual({
      code: 'ERR_STORE',
      message: `cannot open ${path}: database is locked: database is locked`,
    })
  })

  it('refuses what is no database, and a folder that is not there', () => {
    const missing = join(folder.path, 'none', 'x.db')
    expect(refusalOf(() => openDatabase(missing, []))).toMatchObject({ code: 'ERR_STORE' })
    expect(refusalOf(() => openDatabase(missing, []))?.message).toMatch(
      /unable to open database file/,
    )
  })

  it('is migrated once, in order, and never backwards', async () => {
    await insert('kept')
    db[Symbol.dispose]()
    const more = [
      ...migrations,
      "UPDATE t SET name = name || '+'",
      "UPDATE t SET name = name || '!'",
    ]
    for (const _ of [1, 2]) {
      db = openDatabase(path, more)
      expect(names()).toEqual(['kept+!'])
      db[Symbol.dispose]()
    }
    expect(refusalOf(() => openDatabase(path, migrations))).toEqual({
      code: 'ERR_STORE',
      message: 'the store is of version 3, this program knows 1: use a newer castellan',
    })
  })

  it('is as it was when a migration fails', async () => {
    await insert('kept')
    db[Symbol.dispose]()
    const bad = [...migrations, 'DROP TABLE t; CREATE TABLE (']
    expect(refusalOf(() => openDatabase(path, bad))).toMatchObject({ code: 'ERR_STORE' })
    db = openDatabase(path, migrations)
    expect(names()).toEqual(['kept'])
  })
})
