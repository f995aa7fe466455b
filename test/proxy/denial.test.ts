// A sidecar and its deny-list: who is on it is not let in, and no longer kept.
import { once } from 'node:events'
import type { ClientHttp2Session } from 'node:http2'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { createDenyList, type DenyTarget } from '../../spiffe/deny-list.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'
import { stateOf } from '../support/mesh.ts'
import {
  authority,
  inboundTo,
  openSession,
  payments,
  sourceOf,
  web,
  webSvid,
} from '../support/shop.ts'
import { type App, type Sidecar, startApp, startSidecar } from '../support/sidecar.ts'

const other = 'spiffe://td.example/ns/shop/sa/other'
const source = sourceOf(payments)
const open = stateOf('[{}]')

let app: App
beforeAll(async () => {
  app = await startApp((message, response) => {
    if (message.url !== '/held') response.end('at once')
  })
})
afterAll(() => app[Symbol.asyncDispose]())

function start(): Promise<Sidecar> {
  // live connections are looked at because the list changed, not because time passes
  const limits = { recheck: 3_600_000 }
  return startSidecar({ inbound: [inboundTo(app.port)] }, { source, state: open, limits })
}

function denying(...targets: readonly DenyTarget[]) {
  const rules = targets.map((target) => ({ id: '', target, reason: 'a drill', expiresAt: 0 }))
  return { ...open, denyList: createDenyList(rules) }
}

async function statusOf(of: ClientHttp2Session): Promise<unknown> {
  const stream = of.request({ ':path': '/' })
  const [headers] = await once(stream, 'response')
  stream.resume()
  return headers[':status']
}

const leaf = parseCertificate(webSvid.chain[0] ?? new Uint8Array())
const [root] = authority.bundle.authorities
const authorityId = keyIdOf(root?.publicKey ?? new Uint8Array()).toString('hex')

const targets: readonly (readonly [string, DenyTarget, boolean])[] = [
  ['identity', { kind: 'id', id: parseSpiffeId(web) }, true],
  ['certificate', { kind: 'serial', serial: leaf.serial }, true],
  ['authority', { kind: 'authority', authorityId }, false],
]

describe.each(targets)('a denied %s', (_, target, othersStay) => {
  it('ends its live connection with a request in flight, and leaves the others', async () => {
    await using sidecar = await start()
    const [first, second] = [
      await openSession(sidecar.port),
      await openSession(sidecar.port, authority.issue(other)),
    ]
    const held = first.request({ ':path': '/held' })
    held.on('error', () => {})
    expect([await statusOf(first), await statusOf(second)]).toEqual([200, 200])
    const ended = once(first, 'close')
    sidecar.mesh.put(denying(target))
    await ended
    if (othersStay) expect(await statusOf(second)).toBe(200)
    expect(sidecar.lines.join('')).toContain('is on the deny-list: a drill')
    second.destroy()
  })

  it('is refused at the handshake, until the rule is gone', async () => {
    await using sidecar = await start()
    sidecar.mesh.put(denying(target))
    const refused = await openSession(sidecar.port)
    const failure = once(refused, 'close')
    refused.request({ ':path': '/' }).on('error', () => {})
    await failure
    sidecar.mesh.put(open)
    const again = await openSession(sidecar.port)
    expect(await statusOf(again)).toBe(200)
    again.destroy()
  })
})
