// docs/proxy-spec.md: its example is a spec, and no key of the schema is missing in it or has another default.
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { defaultLimits } from '../../proxy/limits.ts'
import { proxySpec } from '../../proxy-spec/spec.ts'
import { parseConfig } from '../../runtime/config.ts'

const text = readFileSync(new URL('../../docs/proxy-spec.md', import.meta.url), 'utf8')
const [, example = ''] = /```yaml\n([\s\S]*?)```/.exec(text) ?? []
const parts = text.split(/^## /m)

/** Default by key, of the tables under a heading. */
function tableOf(heading: string): ReadonlyMap<string, string> {
  const part = parts.find((it) => it.startsWith(heading)) ?? ''
  const rows = [...part.matchAll(/^\| (`[^|]*`) \| ([^|]*) \| (?:yes|no) \|/gm)]
  return new Map(
    rows.flatMap(([, keys = '', value = '']) => {
      const names = [...keys.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name)
      const values = names.length === 1 ? [value] : value.split(', ')
      return names.map((name, i) => [name, values[i] ?? ''] as const)
    }),
  )
}

const tables = {
  top: tableOf('For all listeners'),
  inbound: tableOf('`inbound`'),
  outbound: tableOf('`outbound`'),
}

const refusal = (spec: unknown) => proxySpec.safeParse(spec).error?.issues ?? []

describe('docs/proxy-spec.md', () => {
  it('has an example that is a spec', () => {
    const { inbound, outbound } = parseConfig(example, 'example', proxySpec)
    expect([inbound.length, outbound.length]).toEqual([1, 1])
  })

  it('has each key of the schema, and no other', () => {
    const { inbound, outbound, ...top } = proxySpec.shape
    const keysOf = (table: ReadonlyMap<string, string>) =>
      new Set([...table.keys()].map((key) => key.split('.')[0]))
    expect(keysOf(tables.top)).toEqual(new Set(Object.keys(top)))
    const listeners = {
      inbound: inbound.unwrap().element.shape,
      outbound: outbound.unwrap().element.shape,
    }
    expect(keysOf(tables.inbound)).toEqual(new Set(Object.keys(listeners.inbound)))
    expect(keysOf(tables.outbound)).toEqual(new Set(Object.keys(listeners.outbound)))
  })

  it('names no key below another that there is not', () => {
    for (const [list, table] of Object.entries(tables)) {
      for (const key of table.keys()) {
        const [outer = '', inner] = key.split('.')
        if (inner === undefined) continue
        const its = { [outer]: { [inner]: null } }
        const issues = refusal(list === 'top' ? its : { [list]: [its] })
        expect(
          issues.some(({ code, path }) => code === 'unrecognized_keys' && path.includes(outer)),
        ).toBe(false)
      }
    }
  })

  it('says the defaults that there are', () => {
    const listener = { listen: '127.0.0.1:0', protocol: 'http' }
    const spec = proxySpec.parse({
      inbound: [{ ...listener, forwardTo: '127.0.0.1:1' }],
      outbound: [{ ...listener, service: 'a', expect: ['spiffe://td/a'], outliers: {} }],
    })
    const [{ mtls } = { mtls: '' }] = spec.inbound
    const [out] = spec.outbound
    const said = (key: string) => tables.outbound.get(key)
    const seconds = (ms = 0) => `${ms / 1000}s`
    expect(tables.inbound.get('mtls')).toBe(mtls)
    expect(tables.top.get('identityHeader')).toBe(spec.identityHeader)
    for (const [key, value] of Object.entries(spec.decisionLog))
      expect(tables.top.get(`decisionLog.${key}`)).toBe(String(value))
    expect([said('connectTimeout'), said('loadBalancing')]).toEqual([
      seconds(out?.connectTimeout),
      out?.loadBalancing,
    ])
    const { attempts, on, backoff } = out?.retries ?? {}
    expect(['attempts', 'on', 'backoff'].map((key) => said(`retries.${key}`))).toEqual([
      String(attempts),
      on?.join(', '),
      `${backoff}ms`,
    ])
    const { consecutiveFailures, interval, ejection, maxEjected } = out?.outliers ?? {}
    expect(
      ['consecutiveFailures', 'interval', 'ejection', 'maxEjected'].map((it) =>
        said(`outliers.${it}`),
      ),
    ).toEqual([
      String(consecutiveFailures),
      seconds(interval),
      seconds(ejection),
      String(maxEjected),
    ])
    const { connections, streams, headerBytes, headers, requestHeaders } = defaultLimits
    const plain = { connections, streams, headerBytes, headers }
    for (const [key, value] of Object.entries(plain))
      expect(tables.inbound.get(`limits.${key}`)).toBe(String(value))
    expect(tables.inbound.get('limits.requestHeaders')).toBe(seconds(requestHeaders))
    expect(tables.inbound.get('limits.idle')).toContain(seconds(defaultLimits.idle))
  })
})
