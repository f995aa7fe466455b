import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readSecret, seal, sealingSecret, unseal } from '../../runtime/sealed.ts'
import { testFolder } from '../support/folder.ts'
import { refusalOf } from '../support/refusal.ts'

const secret = sealingSecret(Buffer.from('correct horse battery staple'))
const content = Buffer.from('the key of the citadel')
const damaged = {
  code: 'ERR_SEALED',
  message:
    'the secret does not open this file, or the file is damaged: Unsupported state or unable to authenticate data',
}
const foreign = { code: 'ERR_SEALED', message: 'not a sealed file of this version' }

describe('what is sealed', () => {
  let sealed: Buffer
  beforeAll(() => {
    sealed = seal(content, secret, 'the gate')
  })

  it('opens with its secret for its purpose', () => {
    expect(unseal(sealed, secret, 'the gate')).toEqual(content)
    expect(sealed.includes(content)).toBe(false)
  })

  it('does not open with another secret or for another purpose', () => {
    const other = sealingSecret(Buffer.from('correct horse battery stapl!'))
    expect(refusalOf(() => unseal(sealed, other, 'the gate'))).toEqual(damaged)
    expect(refusalOf(() => unseal(sealed, secret, 'the garden'))).toEqual(damaged)
  })

  it('does not open when any part of it was changed', () => {
    // magic 20, salt 16, nonce 12, tag 16, then the content
    for (const at of [20, 48, sealed.length - 1]) {
      const changed = Buffer.from(sealed)
      changed.writeUInt8(changed.readUInt8(at) ^ 1, at)
      expect(
        refusalOf(() => unseal(changed, secret, 'the gate')),
        String(at),
      ).toEqual(damaged)
    }
    expect(refusalOf(() => unseal(sealed.subarray(0, -1), secret, 'the gate'))).toEqual(damaged)
  })

  it('is told from what was never sealed before a secret is tried', () => {
    for (const bytes of [Buffer.of(), Buffer.alloc(200), sealed.subarray(0, 63)]) {
      expect(refusalOf(() => unseal(bytes, secret, 'the gate'))).toEqual(foreign)
    }
  })

  it('is never twice the same', () => {
    expect(seal(content, secret, 'the gate')).not.toEqual(sealed)
  })
})

describe('a secret', () => {
  let folder: ReturnType<typeof testFolder>
  let file: string
  beforeEach(() => {
    folder = testFolder()
    file = join(folder.path, 'secret')
  })
  afterEach(() => folder[Symbol.dispose]())
  const write = (text: string, mode = 0o600) => {
    writeFileSync(file, text)
    chmodSync(file, mode)
  }

  it('is read without its last line break, and only that', () => {
    write('twelve bytes\n')
    expect(Buffer.from(readSecret(file).bytes).toString()).toBe('twelve bytes')
    write('twelve bytes\n\n')
    expect(Buffer.from(readSecret(file).bytes).toString()).toBe('twelve bytes\n')
  })

  it('is refused when others may read it, when it is short, when it is not there', () => {
    for (const mode of [0o640, 0o604, 0o660, 0o601]) {
      write('twelve bytes', mode)
      expect(refusalOf(() => readSecret(file))).toEqual({
        code: 'ERR_SEALED',
        message: `${file} can be read by others; chmod 600 it`,
      })
    }
    write('eleven byte\n')
    expect(refusalOf(() => readSecret(file))).toEqual({
      code: 'ERR_SEALED',
      message: `${file} holds fewer than 12 bytes`,
    })
    const missing = join(folder.path, 'none')
    expect(refusalOf(() => readSecret(missing))?.message).toContain(
      `cannot read the secret file ${missing} (ENOENT)`,
    )
  })

  it('is not in what a log would print of it', () => {
    const shown = JSON.stringify({ unlock: sealingSecret(Buffer.from('hunter2hunter2')) })
    expect(shown).toBe('{"unlock":"[secret]"}')
  })
})
