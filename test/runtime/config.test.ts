import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  address,
  addressText,
  duration,
  loadConfig,
  parseConfig,
  pathRelativeTo,
} from '../../runtime/config.ts'
import { testFolder } from '../support/folder.ts'
import { refusalOf } from '../support/refusal.ts'

const schema = z.strictObject({ wait: duration.optional(), at: address.optional() })
const parse = (text: string) => parseConfig(text, 'x.yaml', schema)
const quoted = (text: string) => JSON.stringify(text)

describe('a duration', () => {
  it('is a number and a unit', () => {
    const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
    const amount = fc.nat(999_999)
    for (const [unit, ms] of Object.entries(units)) {
      fc.assert(
        fc.property(amount, (n) => {
          expect(duration.parse(`${n}${unit}`)).toBe(n * ms)
        }),
        { numRuns: 20 },
      )
    }
  })

  it('is nothing else', () => {
    const form = /^(0|[1-9]\d{0,5}|\d{1,6})(ms|[smhd])$/
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...'0159msdhy .-+e'), maxLength: 8 }),
        (text) => {
          expect(duration.safeParse(text).success).toBe(form.test(text))
        },
      ),
    )
    for (const text of ['', '1', 's', '-1s', '1.5h', '1 s', '1S', '1e3s', '1000000s', '1s\n']) {
      expect(
        refusalOf(() => parse(`wait: ${quoted(text)}\n`)),
        text,
      ).toEqual({
        code: 'ERR_CONFIG',
        message:
          'x.yaml:1 wait: a duration is a number and one of ms, s, m, h, d, such as 90s or 1h',
      })
    }
  })
})

describe('an address', () => {
  it('is host and port, and comes back as it was written', () => {
    for (const text of ['127.0.0.1:8081', 'localhost:0', '[::1]:65535', 'a-b.c_d:1']) {
      expect(addressText(address.parse(text))).toBe(text)
    }
    expect(address.parse('[fe80::1]:80')).toEqual({ host: 'fe80::1', port: 80 })
  })

  it.each(['', ':80', 'a', 'a:', 'a:65536', 'a:-1', '::1:80', '[::1]', '[x]:1', 'a b:1', 'a:1:2'])(
    'is not %j',
    (text) => {
      expect(refusalOf(() => parse(`at: ${quoted(text)}\n`))).toEqual({
        code: 'ERR_CONFIG',
        message: 'x.yaml:1 at: an address is host:port, such as 127.0.0.1:8081',
      })
    },
  )
})

describe('a configuration', () => {
  it('is read from its file, with paths from there', () => {
    using folder = testFolder()
    const file = join(folder.path, 'x.yaml')
    writeFileSync(file, 'a: ./state\nb: /abs\nc: ../up\n')
    const path = pathRelativeTo(file)
    expect(loadConfig(file, z.strictObject({ a: path, b: path, c: path }))).toEqual({
      a: join(folder.path, 'state'),
      b: '/abs',
      c: join(folder.path, '..', 'up'),
    })
  })

  it('is refused with file, line and field', () => {
    expect(refusalOf(() => parse('# first\nwait: 1s\ncolour: red\n'))).toEqual({
      code: 'ERR_CONFIG',
      message: 'x.yaml:3 colour: unknown key',
    })
    expect(refusalOf(() => parse('# only a comment\n'))).toEqual({
      code: 'ERR_CONFIG',
      message: 'x.yaml:1: the file is empty',
    })
    const missing = refusalOf(() => loadConfig('/none/x.yaml', schema))
    expect(missing?.code).toBe('ERR_CONFIG')
    expect(missing?.message).toContain('cannot read /none/x.yaml (ENOENT)')
  })
})
