import { generateKeyPairSync } from 'node:crypto'
import { copyFileSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openKeyFolder } from '../../../ca/authorities/keys.ts'
import { sealingSecret } from '../../../runtime/sealed.ts'
import { testFolder } from '../../support/folder.ts'
import { refusalOf } from '../../support/refusal.ts'

const secret = sealingSecret(Buffer.from('a secret of the test'))
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })

let folder: ReturnType<typeof testFolder>
let path: string
beforeEach(() => {
  folder = testFolder()
  path = join(folder.path, 'keys')
})
afterEach(() => folder[Symbol.dispose]())

describe('keys of authorities', () => {
  it('come back from sealed files that their owner alone can read', () => {
    openKeyFolder(path, secret).save('aa', privateKey)
    expect(readdirSync(path)).toEqual(['x509-aa.sealed'])
    expect(statSync(path).mode & 0o777).toBe(0o700)
    const file = join(path, 'x509-aa.sealed')
    expect(statSync(file).mode & 0o777).toBe(0o600)
    const pkcs8 = privateKey.export({ format: 'der', type: 'pkcs8' })
    expect(readFileSync(file).includes(pkcs8)).toBe(false)
    expect(openKeyFolder(path, secret).load('aa').equals(privateKey)).toBe(true)
  })

  it('are not opened by another secret, nor under another name', () => {
    const keys = openKeyFolder(path, secret)
    keys.save('aa', privateKey)
    const refused = {
      code: 'ERR_SEALED',
      message:
        'the secret does not open this file, or the file is damaged: Unsupported state or unable to authenticate data',
    }
    const other = openKeyFolder(path, sealingSecret(Buffer.from('another secret')))
    expect(refusalOf(() => other.load('aa'))).toEqual(refused)
    copyFileSync(join(path, 'x509-aa.sealed'), join(path, 'x509-bb.sealed'))
    expect(refusalOf(() => keys.load('bb'))).toEqual(refused)
  })

  it('that are missing are named with their place', () => {
    const file = join(path, 'x509-cc.sealed')
    const found = refusalOf(() => openKeyFolder(path, secret).load('cc'))
    expect(found?.code).toBe('ERR_SEALED')
    expect(found?.message).toContain(`the key of authority cc cannot be read from ${file} (ENOENT)`)
  })

  it('of others are removed, and what is no key stays', () => {
    const keys = openKeyFolder(path, secret)
    keys.save('aa', privateKey)
    keys.save('bb', privateKey)
    writeFileSync(join(path, 'readme'), '')
    keys.keepOnly(['bb', 'cc'])
    expect(readdirSync(path)).toEqual(['readme', 'x509-bb.sealed'])
    rmSync(path, { recursive: true })
  })
})
