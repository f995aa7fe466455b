import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadProxySpec } from '../../proxy-spec/spec.ts'
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

const asking = (http: string, more = 'timeout: 1s') =>
  `${outbound('service: a')}authorizers: { ask: { http: { ${http} }, ${more} } }\n`
const local = 'url: http://127.0.0.1:9000'

const refused: Record<string, readonly [text: string, place: string, problem: string]> = {
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
  'an authorizer in the clear on another machine': [
    asking('url: http://authz.example:80'),
    ':6 authorizers.ask.http.url',
    'plain HTTP to another machine; set allowPlaintext: true if that is meant',
  ],
  'an authorizer that only begins like loopback': [
    asking('url: http://127.0.0.1.example:80'),
    ':6 authorizers.ask.http.url',
    'plain HTTP to another machine',
  ],
  ...Object.fromEntries(
    [
      ...['ftp://127.0.0.1', '127.0.0.1:9000', 'http://a@127.0.0.1', 'http://127.0.0.1/check'],
      ...['http://127.0.0.1:65536', 'unix://authz.sock', 'unix:///run/', 'http://'],
    ].map((url) => [
      `an authorizer at ${url}`,
      [
        asking(`url: "${url}"`),
        ':6 authorizers.ask.http.url',
        'a path goes to pathPrefix',
      ] as const,
    ]),
  ),
  'an authorizer without a limit of time': [
    asking(local, ''),
    ':6 authorizers.ask.timeout',
    'string',
  ],
  'an authorizer with no time': [
    asking(local, 'timeout: 0s'),
    ':6 authorizers.ask.timeout',
    'from 1ms to 60s',
  ],
  'an authorizer with ten minutes': [
    asking(local, 'timeout: 10m'),
    ':6 authorizers.ask.timeout',
    'from 1ms to 60s',
  ],
  'an error that is told as success': [
    asking(local, 'timeout: 1s, statusOnError: 200'),
    ':6 authorizers.ask.statusOnError',
    '400',
  ],
  'an authorizer that is told the body': [
    asking(`${local}, includeRequestBodyInCheck: { maxRequestBytes: 1 }`),
    ':6 authorizers.ask.http.includeRequestBodyInCheck',
    'unknown key',
  ],
  'an authorizer that speaks gRPC': [
    `${outbound('service: a')}authorizers: { ask: { grpc: {}, timeout: 1s } }\n`,
    ':6 authorizers.ask.http',
    'expected object',
  ],
  'an authorizer of no name': [
    `${outbound('service: a')}authorizers: { A: { http: { ${local} }, timeout: 1s } }\n`,
    ':6 authorizers.A',
    'a name has a-z',
  ],
  'roots without TLS': [
    asking(`${local}, roots: a.pem`),
    ':6 authorizers.ask.http.roots',
    'only with https://',
  ],
  'every field': [
    asking(`${local}, headersToUpstreamOnAllow: ["*"]`),
    ':6 authorizers.ask.http.headersToUpstreamOnAllow[0]',
    'a header name, or one as x-* or *-x',
  ],
  ...Object.fromEntries(
    ['Host', 'content-length', 'transfer-encoding', 'x-spiffe-peer-id', 'x-forwarded-for'].map(
      (name) => [
        `an authorizer that sets ${name}`,
        [
          asking(`${local}, headersToUpstreamOnAllow: [${name}]`),
          ':6 authorizers.ask.http.headersToUpstreamOnAllow[0]',
          'never passed on',
        ] as const,
      ],
    ),
  ),
  'a host of its own in the check': [
    asking(`${local}, includeAdditionalHeadersInCheck: { host: a }`),
    ':6 authorizers.ask.http.includeAdditionalHeadersInCheck',
    'never passed on',
  ],
  'an unknown protocol': [
    'inbound:\n  - { listen: 127.0.0.1:1, protocol: udp, forwardTo: 127.0.0.1:1 }\n',
    ':2 inbound[0].protocol',
    'http',
  ],
}

const inbound = (more: string) =>
  `inbound:\n  - { listen: 127.0.0.1:8443, protocol: tcp, forwardTo: 127.0.0.1:1, ${more} }\n`
const senseless = 'has no meaning with protocol: tcp'

Object.assign(refused, {
  'a health path of bytes': [inbound('healthPath: /a'), ':2 inbound[0].healthPath', senseless],
  'streams of bytes': [inbound('limits: { streams: 1 }'), ':2 inbound[0].limits', senseless],
  'an HTTP server that speaks first': [
    inbound('serverFirst: true').replace('tcp', 'http'),
    ':2 inbound[0].serverFirst',
    'with protocol: tcp alone',
  ],
  'a health path that could be read in two ways': [
    inbound('healthPath: /a/../b').replace('tcp', 'http'),
    ':2 inbound[0].healthPath',
    'a plain path',
  ],
  'an endpoint that nobody can connect to': [
    inbound('service: a').replace('127.0.0.1:8443', '0.0.0.0:8443'),
    ':2 inbound[0].advertise',
    'say where others reach it',
  ],
  'a service in the clear': [
    inbound('service: a, mtls: off'),
    ':2 inbound[0].service',
    'mtls is off',
  ],
  'an address of no service': [
    inbound('advertise: 127.0.0.1:1'),
    ':2 inbound[0].advertise',
    'of no use without service',
  ],
  'a time limit of bytes': [
    outbound('service: a\n    timeout: 1s').replace('http', 'tcp'),
    'outbound[0].timeout',
    senseless,
  ],
  'a number of requests of bytes': [
    outbound('service: a\n    limits: { requests: 1 }').replace('http', 'tcp'),
    'outbound[0].limits',
    senseless,
  ],
  'an attempt longer than all of them': [
    outbound('service: a\n    timeout: 1s\n    retries: { perTry: 2s }'),
    'outbound[0].retries',
    'perTry is longer than timeout',
  ],
  'an authorizer that sets the identity header': [
    `identityHeader: x-caller\n${asking(`${local}, headersToUpstreamOnAllow: [X-Caller]`)}`,
    ':7 authorizers.ask.http.headersToUpstreamOnAllow',
    'never passed on',
  ],
  'an identity header that others set': [
    `identityHeader: x-forwarded-for\n${outbound('service: a')}`,
    ':1 identityHeader',
    'is a name of proxies',
  ],
})

describe('proxy spec', () => {
  it('takes several addresses of a peer', () => {
    const {
      outbound: [first],
    } = load(outbound('destination: [127.0.0.1:1, "[::1]:2"]'))
    expect(first?.destination).toEqual([
      { host: '127.0.0.1', port: 1 },
      { host: '::1', port: 2 },
    ])
  })

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
      identityHeader: 'x-spiffe-peer-id',
      jwks: { privateAddresses: false },
      authorizers: {},
      trustedProxies: [],
      trustedHops: 0,
      decisionLog: { allowed: 0, denied: 1, perSecond: 100, paths: true },
      inbound: [
        {
          name: 'web',
          listen: { host: '127.0.0.1', port: 8443 },
          protocol: 'http',
          mtls: 'strict',
          serverFirst: false,
          forwardTo: { host: '::1', port: 8080 },
          maxConnectionAge: 1_800_000,
          limits: {},
        },
      ],
      outbound: [
        {
          listen: { host: '127.0.0.1', port: 9001 },
          allowNonLoopback: false,
          protocol: 'http',
          service: 'payments',
          expect: ['spiffe://td/ns/payments/sa/payments'],
          connectTimeout: 5000,
          retries: { attempts: 1, on: ['connect-failure', 'refused-stream'], backoff: 25 },
          loadBalancing: 'least-request',
          limits: {},
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

  it('names authorizers, with defaults that fail closed', () => {
    const fields = 'includeRequestHeadersInCheck: [Cookie, x-spiffe-peer-id, "X-*"]'
    const { ask } = load(asking(`url: "https://[::1]", ${fields}`)).authorizers
    expect(ask).toEqual({
      http: {
        url: { via: 'https', host: '::1', port: 443 },
        allowPlaintext: false,
        pathPrefix: '',
        includeRequestHeadersInCheck: ['cookie', 'x-spiffe-peer-id', 'x-*'],
        includeAdditionalHeadersInCheck: {},
        headersToUpstreamOnAllow: [],
        headersToDownstreamOnDeny: [],
        headersToDownstreamOnAllow: [],
      },
      timeout: 1000,
      failOpen: false,
      statusOnError: 403,
    })
    const urlOf = (http: string) => load(asking(http)).authorizers.ask?.http.url
    expect(urlOf('url: unix:///run/authz.sock')).toEqual({
      via: 'unix',
      socketPath: '/run/authz.sock',
    })
    const elsewhere = { via: 'http', host: 'authz.example', port: 80 }
    expect(urlOf('url: http://authz.example, allowPlaintext: true')).toEqual(elsewhere)
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
