import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadProxySpec } from '../../proxy/spec.ts'
import { hasCode } from '../../spiffe/errors.ts'

const folder = mkdtempSync(join(tmpdir(), 'castellan-spec-'))
afterAll(() => rmSync(folder, { recursive: true }))

function load(text: string) {
  const file = join(folder, 'proxy.yaml')
  writeFileSync(file, text)
  return loadProxySpec(file)
}

const outbound = (more: string) => `outbound:
  - listen: 127.0.0.1:9001
    protocol: http
    expect: [spiffe://td/ns/payments/sa/payments]
    ${more}
`

const refused: Readonly<Record<string, readonly [text: string, place: string, problem: string]>> = {
  'an unknown key': ['inbound: []\nunknown: 1\n', ':2 unknown', 'unknown key'],
  'no listener': ['identity: spiffe://td/a\n', ':1', 'no listener'],
  'an identity that is none': ['identity: td/a\n', ':1 identity', 'does not start with spiffe://'],
  'no destination': [outbound(''), 'outbound[0].destination', 'either destination or service'],
  'destination and service': [
    outbound('destination: 127.0.0.1:1\n    service: a'),
    'outbound[0].destination',
    'either destination or service',
  ],
  'an outbound listener for everyone': [
    outbound('service: a').replace('127.0.0.1:9001', '0.0.0.0:9001'),
    ':2 outbound[0].listen',
    'not a loopback address',
  ],
  'nobody expected': [
    outbound('service: a').replace(/\[spiffe.*\]/, '[]'),
    'outbound[0].expect',
    'at least one SPIFFE ID',
  ],
  'two listeners on one address': [
    `${outbound('service: a')}inbound:\n  - { listen: 127.0.0.1:9001, protocol: tcp, forwardTo: 127.0.0.1:1 }\n`,
    ':1',
    'two listeners on 127.0.0.1:9001',
  ],
  'an unknown protocol': [
    'inbound:\n  - { listen: 127.0.0.1:1, protocol: udp, forwardTo: 127.0.0.1:1 }\n',
    ':2 inbound[0].protocol',
    'http',
  ],
}

describe('proxy spec', () => {
  it('is read with its defaults', () => {
    const spec = load(`workloadApi: unix:///run/agent.sock
identity: spiffe://td/ns/x/sa/y
inbound:
  - name: web
    listen: 127.0.0.1:8443
    protocol: http
    forwardTo: '[::1]:8080'
    maxConnectionAge: 30m
${outbound('service: payments')}`)
    expect(spec).toEqual({
      workloadApi: 'unix:///run/agent.sock',
      identity: 'spiffe://td/ns/x/sa/y',
      inbound: [
        {
          name: 'web',
          listen: { host: '127.0.0.1', port: 8443 },
          protocol: 'http',
          forwardTo: { host: '::1', port: 8080 },
          maxConnectionAge: 1_800_000,
        },
      ],
      outbound: [
        {
          listen: { host: '127.0.0.1', port: 9001 },
          allowNonLoopback: false,
          protocol: 'http',
          service: 'payments',
          expect: ['spiffe://td/ns/payments/sa/payments'],
        },
      ],
    })
  })

  it('may listen elsewhere when that is said', () => {
    const text = outbound('service: a\n    allowNonLoopback: true').replace(
      '127.0.0.1:9001',
      '0.0.0.0:1',
    )
    expect(load(text).outbound[0]?.listen.host).toBe('0.0.0.0')
  })

  for (const [name, [text, place, problem]] of Object.entries(refused)) {
    it(`refuses ${name}, with its place`, () => {
      const error = (() => {
        try {
          return load(text)
        } catch (caught) {
          return caught
        }
      })()
      if (!hasCode(error, 'ERR_CONFIG')) throw error
      expect(error.message).toContain(place)
      expect(error.message).toContain(problem)
    })
  }
})
