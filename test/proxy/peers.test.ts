import { createConnection, createServer } from 'node:net'
import {
  type ConnectionOptions,
  connect,
  createServer as createTlsServer,
  type TLSSocket,
} from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { issueDev, makeDevCa } from '../../certs-dev/authority.ts'
import {
  basicConstraints,
  extendedKeyUsage,
  generalName,
  subjectAltName,
} from '../../certs-dev/extensions.ts'
import type { OwnSvid } from '../../client/x509-source.ts'
import { systemClock } from '../../runtime/clock.ts'
import { serverAuth } from '../../spiffe/svid.ts'
import {
  contextFor,
  createTestSource,
  makeTestAuthority,
  stateOf,
  type TestSource,
} from '../support/mesh.ts'
import { authority, dialPayments, inboundTo, payments, server, web } from '../support/shop.ts'
import {
  type App,
  listening,
  peerOptions,
  type Sidecar,
  startSidecar,
  untilClosed,
} from '../support/sidecar.ts'

const far = 'spiffe://far.example/ns/shop/sa/web'
const hour = 3_600_000
const federated = makeTestAuthority('far.example')
const stranger = makeTestAuthority('stranger.example')
const ownSvid = authority.issue(payments, { notAfter: Date.now() + 10 * hour })

let app: App
let connectionsToApp = 0
let source: TestSource
let sidecar: Sidecar
let offset = 0

beforeAll(async () => {
  app = await listening(
    createServer((socket) => {
      connectionsToApp++
      socket.on('error', () => {})
      socket.write('hello;')
      socket.pipe(socket)
    }),
  )
  source = createTestSource(contextFor(ownSvid, authority.bundle, federated.bundle))
  sidecar = await startSidecar(
    { inbound: [inboundTo(app.port, { protocol: 'tcp' })] },
    { source, state: stateOf('[{}]'), clock: { ...systemClock, now: () => Date.now() + offset } },
  )
})

afterAll(async () => {
  await sidecar[Symbol.asyncDispose]()
  await app[Symbol.asyncDispose]()
})

/** What a peer gets to read; empty when it was refused. */
async function meet(svid: OwnSvid | undefined, more: ConnectionOptions = {}): Promise<string> {
  const socket = connect({ ...peerOptions(sidecar.port, svid, server), ...more })
  socket.once('data', () => socket.end())
  return await untilClosed(socket)
}

const uris = (...names: readonly string[]) => ({
  subjectAltName: subjectAltName(names.map(generalName.uri), { critical: true }),
})

const selfMade = makeDevCa({
  name: 'root of td.example',
  notBefore: 0,
  notAfter: Date.now() + hour,
})
const forger = issueDev(selfMade, {
  id: web,
  notBefore: Date.now() - hour,
  notAfter: Date.now() + hour,
})

const accepted: Readonly<Record<string, OwnSvid>> = {
  'a good one, under an intermediate': authority.issue(web),
  'a federated good one': federated.issue(far),
  'no extended key usage': authority.issue(web, { extensions: { extendedKeyUsage: null } }),
}

const refused: Readonly<Record<string, readonly [svid: OwnSvid | undefined, reason: string]>> = {
  'no certificate': [undefined, 'no certificate'],
  'a federated CA that forges our ID': [federated.issue(web), 'no path to a root'],
  'a CA of the same name': [
    { ...authority.issue(web), chain: forger.chain, key: forger.privateKey },
    'signature',
  ],
  'an unknown trust domain': [
    stranger.issue('spiffe://stranger.example/a'),
    'trust domain stranger.example is not trusted here',
  ],
  'two URI SANs': [authority.issue(web, { extensions: uris(web, far) }), '2 URI names'],
  'no URI SAN': [authority.issue(web, { extensions: { subjectAltName: null } }), '0 URI names'],
  'only the purpose of servers': [
    authority.issue(web, { extensions: { extendedKeyUsage: extendedKeyUsage([serverAuth]) } }),
    'without both serverAuth and clientAuth',
  ],
  'a leaf that is a CA': [
    authority.issue(web, { extensions: { basicConstraints: basicConstraints() } }),
    'a CA certificate',
  ],
  'an expired leaf': [
    authority.issue(web, { notBefore: Date.now() - 2 * hour, notAfter: Date.now() - hour }),
    'expired',
  ],
  'a leaf of tomorrow': [
    authority.issue(web, { notBefore: Date.now() + hour / 2 }),
    'not valid before',
  ],
  'dots in the ID': [
    authority.issue(web, { extensions: uris('spiffe://td.example/ns/../admin') }),
    'no SPIFFE ID',
  ],
  'an ID without path': [
    authority.issue(web, { extensions: uris('spiffe://td.example') }),
    'without a path',
  ],
}

describe('who is let in', () => {
  for (const [name, svid] of Object.entries(accepted)) {
    it(`accepts ${name}`, async () => {
      expect(await meet(svid)).toBe('hello;')
    })
  }

  for (const [name, [svid, reason]] of Object.entries(refused)) {
    it(`refuses ${name}, says why in the log, and the workload sees nothing`, async () => {
      const [before, failures, lines] = [
        connectionsToApp,
        sidecar.tally.failures,
        sidecar.lines.length,
      ]
      expect(await meet(svid)).toBe('')
      expect(connectionsToApp).toBe(before)
      expect(sidecar.tally.failures).toBe(failures + 1)
      const line = sidecar.lines.slice(lines).find((it) => it.includes('connection refused'))
      expect(line).toContain(reason)
    })
  }

  it('speaks nothing older than TLS 1.2', async () => {
    const options = {
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    } as const
    expect(await meet(authority.issue(web), options)).toBe('')
    expect(await meet(authority.issue(web), { maxVersion: 'TLSv1.2' })).toBe('hello;')
  })
})

/** Connects twice, the second time with the session of the first; says whether it was resumed. */
async function resumes(options: ConnectionOptions): Promise<boolean> {
  const sessions: Buffer[] = []
  const first = connect(options)
  first.on('session', (session) => sessions.push(session))
  first.once('data', () => first.end())
  await untilClosed(first)
  const session = sessions.at(-1) ?? first.getSession()
  const second = connect({ ...options, ...(session === undefined ? {} : { session }) })
  let reused = false
  second.once('secureConnect', () => {
    reused = second.isSessionReused()
  })
  second.once('data', () => second.end())
  expect(await untilClosed(second)).toBe('hello;')
  return reused
}

describe('resumption', () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`never happens with ${version}`, async () => {
      const svid = authority.issue(web)
      const versions = { minVersion: version, maxVersion: version }
      const options = { ...peerOptions(sidecar.port, svid, server), ...versions }
      expect(await resumes(options)).toBe(false)
    })

    it(`would with ${version}, were it allowed`, async () => {
      const { cert, key } = peerOptions(0, ownSvid, server)
      const usual = createTlsServer({ cert, key }, (socket) => socket.end('hello;'))
      await using careless = await listening(usual)
      const versions = { minVersion: version, maxVersion: version }
      const options = { ...peerOptions(careless.port, authority.issue(web), server), ...versions }
      expect(await resumes(options)).toBe(true)
    })
  }
})

/** A connection through which bytes have passed. */
async function live(svid: OwnSvid): Promise<{ socket: TLSSocket; closed: Promise<string> }> {
  const socket = await dialPayments(sidecar.port, svid)
  const closed = untilClosed(socket)
  await new Promise((resolve) => socket.once('data', resolve))
  return { socket, closed }
}

describe('a live connection ends', () => {
  it('when its root leaves the bundle, and others stay', async () => {
    const [ours, theirs] = [await live(authority.issue(web)), await live(federated.issue(far))]
    source.put(contextFor(ownSvid, authority.bundle))
    await theirs.closed
    ours.socket.end('still here')
    expect(await ours.closed).toBe('hello;still here')
    expect(await meet(federated.issue(far))).toBe('')
    source.put(contextFor(ownSvid, authority.bundle, federated.bundle))
  })

  it('when the certificate of its peer expires', async () => {
    const { closed } = await live(authority.issue(web))
    offset = 2 * hour
    await closed
    offset = 0
  })

  it('when this side loses its identity, and nobody is let in', async () => {
    const { closed } = await live(authority.issue(web))
    source.put(undefined)
    await closed
    expect(await meet(authority.issue(web))).toBe('')
    source.put(contextFor(ownSvid, authority.bundle, federated.bundle))
    expect(await meet(authority.issue(web))).toBe('hello;')
  })

  it('when the own certificate expires, and nobody is let in', async () => {
    const svid = authority.issue(web, { notAfter: Date.now() + 48 * hour })
    const { closed } = await live(svid)
    offset = 11 * hour
    await closed
    expect(await meet(svid)).toBe('')
    offset = 0
  })

  it('when policies deny it, and none is opened', async () => {
    const { closed } = await live(authority.issue(web))
    sidecar.mesh.put(stateOf('[]'))
    await closed
    const before = connectionsToApp
    expect(await meet(authority.issue(web))).toBe('')
    expect(connectionsToApp).toBe(before)
    expect(sidecar.tally.take()?.denied).toBeGreaterThanOrEqual(2)
    sidecar.mesh.put(stateOf('[{}]'))
  })
})

describe('a handshake', () => {
  it('is not waited for longer than its limit, however it trickles', async () => {
    await using impatient = await startSidecar(
      { inbound: [inboundTo(1, { protocol: 'tcp' })] },
      { source, state: stateOf('[{}]'), limits: { handshake: 100 } },
    )
    const socket = createConnection(impatient.port, '127.0.0.1')
    const trickle = setInterval(() => socket.write('\x16'), 20)
    await untilClosed(socket)
    clearInterval(trickle)
  })
})
