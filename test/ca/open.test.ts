import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { vouch } from '../../ca/attestors/attestor.ts'
import { loadCaConfig } from '../../ca/config.ts'
import type { Asked } from '../../ca/issuing.ts'
import { demandInitialised, openAuthority } from '../../ca/open.ts'
import { isInitialised, prepareState } from '../../ca/state-folder.ts'
import { bareCsr } from '../../spiffe/csr.ts'
import { memoryLog, testConfig } from '../support/ca.ts'
import { newKeys } from '../support/ca-client.ts'
import { testFolder } from '../support/folder.ts'
import { refusalOf } from '../support/refusal.ts'

let folder: ReturnType<typeof testFolder>
beforeEach(() => {
  folder = testFolder()
})
afterEach(() => folder[Symbol.dispose]())

const secondStart = async () => {
  await using _ = await openAuthority(testConfig(folder.path), { log: memoryLog().log })
}

describe('the state of an authority', () => {
  it('is laid out for its owner alone, and the key file is never replaced', () => {
    const config = testConfig(folder.path)
    const key = join(folder.path, 'ca.key')
    expect(statSync(config.state).mode & 0o777).toBe(0o700)
    expect(statSync(key).mode & 0o777).toBe(0o600)
    const text = readFileSync(key, 'utf8')
    expect(text).toMatch(/^[A-Za-z0-9_-]{43}\n$/)
    prepareState(config)
    expect(readFileSync(key, 'utf8')).toBe(text)
  })

  it('is initialised once a store is there; before that the next step is told', async () => {
    const config = testConfig(folder.path)
    expect(isInitialised(config)).toBe(false)
    expect(refusalOf(() => demandInitialised(config, 'ca.yaml'))).toEqual({
      code: 'ERR_CONFIG',
      message: `${config.state} holds no authority yet; run: castellan ca init --config ca.yaml`,
    })
    await secondStart()
    expect(isInitialised(config)).toBe(true)
    demandInitialised(config, 'ca.yaml')
  })

  it('never makes up a passphrase', async () => {
    const file = join(folder.path, 'ca.yaml')
    const unlock = 'unlock: { passphraseFile: ./pass }'
    writeFileSync(file, `trustDomain: example.org\nstate: ./state\n${unlock}\n`)
    const config = loadCaConfig(file)
    prepareState(config)
    const pass = join(folder.path, 'pass')
    expect(existsSync(pass)).toBe(false)
    const { log } = memoryLog()
    const message = `cannot read the secret file ${pass} (ENOENT)`
    await expect(openAuthority(config, { log })).rejects.toMatchObject({
      code: 'ERR_SEALED',
      message,
    })
    writeFileSync(pass, 'correct horse battery\n', { mode: 0o600 })
    await using _ = await openAuthority(config, { log })
  })

  it('is not opened with another key, and is not harmed by the attempt', async () => {
    await secondStart()
    const key = join(folder.path, 'ca.key')
    const right = readFileSync(key)
    writeFileSync(key, 'another secret of some length\n')
    await expect(secondStart()).rejects.toMatchObject({
      code: 'ERR_SEALED',
      message: 'the secret does not open this file, or the file is damaged',
    })
    writeFileSync(key, right)
    await secondStart()
  })

  it('belongs to one process at a time', async () => {
    const config = testConfig(folder.path)
    const { log } = memoryLog()
    await using _ = await openAuthority(config, { log })
    await expect(openAuthority(config, { log })).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: `cannot open ${join(config.state, 'castellan.db')}: database is locked`,
    })
  })
})

describe('an open authority', () => {
  it('issues, says so in the audit and to whom it may concern', async () => {
    const kinds: string[] = []
    const { log, lines } = memoryLog()
    const onAsked = ({ kind, refusal }: Asked) => void kinds.push(`${kind} ${refusal ?? 'issued'}`)
    await using authority = await openAuthority(testConfig(folder.path), { log, onAsked })
    const issued = await authority.issue(bareCsr(newKeys()), vouch({ kind: 'self' }), {
      kind: 'server',
    })
    expect(kinds).toEqual(['server issued'])
    const records = lines.map((line): object => JSON.parse(line))
    expect(records).toContainEqual(
      expect.objectContaining({
        audit: true,
        msg: 'issued',
        spiffeId: 'spiffe://example.org/spire/server',
        serial: issued.serial,
        notAfter: new Date(issued.notAfter).toISOString(),
        requester: 'spiffe://example.org/spire/server',
        entryId: '',
      }),
    )
  })

  it('says what it did not issue, and why', async () => {
    const { log, lines } = memoryLog()
    await using authority = await openAuthority(testConfig(folder.path), { log })
    const attempt = authority.issue(bareCsr(newKeys()), vouch({ kind: 'self' }), { kind: 'agent' })
    const message = 'a caller of kind self may not have a certificate of kind agent'
    await expect(attempt).rejects.toMatchObject({ code: 'ERR_DENIED', message })
    expect(lines.map((line): object => JSON.parse(line))).toContainEqual(
      expect.objectContaining({
        audit: true,
        level: 'warn',
        msg: 'not issued',
        kind: 'agent',
        err: { code: 'ERR_DENIED', message },
      }),
    )
  })
})
