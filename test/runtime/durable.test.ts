import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { privateFolder, removeUnfinished, writeDurably } from '../../runtime/durable.ts'
import { testFolder } from '../support/folder.ts'

let folder: ReturnType<typeof testFolder>
beforeEach(() => {
  folder = testFolder()
})
afterEach(() => folder[Symbol.dispose]())

describe('a durable file', () => {
  it('is written whole, replaced whole, with its mode', () => {
    const path = join(folder.path, 'file')
    writeDurably(path, 'one', { mode: 0o600 })
    expect(readFileSync(path, 'utf8')).toBe('one')
    const large = Buffer.alloc(3_000_000, 7)
    writeDurably(path, large, { mode: 0o640 })
    expect(readFileSync(path).equals(large)).toBe(true)
    expect(statSync(path).mode & 0o777).toBe(0o640)
    expect(readdirSync(folder.path)).toEqual(['file'])
  })

  it('that was begun by a process that was killed can be taken away, and nothing else', () => {
    const others = ['.hidden', '.file.0123456789AB', 'file', 'file.0123456789ab']
    for (const name of [...others, '.file.0123456789ab', '.state.sealed.ffffffffffff'])
      writeFileSync(join(folder.path, name), 'x')
    removeUnfinished(folder.path)
    expect(readdirSync(folder.path).toSorted()).toEqual(others.toSorted())
  })

  it('leaves nothing behind when it cannot be put in place', () => {
    const path = join(folder.path, 'taken')
    mkdirSync(join(path, 'by a folder'), { recursive: true })
    expect(() => writeDurably(path, 'x', { mode: 0o600 })).toThrow(/EISDIR|ENOTEMPTY|EEXIST/)
    expect(readdirSync(folder.path)).toEqual(['taken'])
    const nowhere = join(folder.path, 'none', 'file')
    expect(() => writeDurably(nowhere, 'x', { mode: 0o600 })).toThrow('ENOENT')
  })
})

describe('a private folder', () => {
  it('is entered by its owner alone; one that is there stays as it is', () => {
    const path = join(folder.path, 'a', 'b')
    privateFolder(path)
    expect(statSync(path).mode & 0o777).toBe(0o700)
    writeDurably(join(path, 'file'), 'x', { mode: 0o600 })
    privateFolder(path)
    expect(readdirSync(path)).toEqual(['file'])
  })
})
