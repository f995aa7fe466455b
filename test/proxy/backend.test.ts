// One sidecar before programs that read paths differently: each is decided about as it reads them.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { compile } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { denyNothing } from '../../spiffe/deny-list.ts'
import { contextFor, createTestSource, makeTestAuthority } from '../support/mesh.ts'
import {
  type App,
  dial,
  peerOptions,
  type Sidecar,
  startApp,
  startSidecar,
  untilClosed,
} from '../support/sidecar.ts'

const own = 'spiffe://td.example/ns/shop/sa/payments'
const authority = makeTestAuthority('td.example')
const source = createTestSource(contextFor(authority.issue(own), authority.bundle))
const web = authority.issue('spiffe://td.example/ns/shop/sa/web')

const text = (action: string, path: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${action.toLowerCase()}, namespace: shop }
spec: { action: ${action}, rules: [{ to: [{ operation: { paths: ["${path}"] } }] }] }
`
const setOf = (denied: string) =>
  compile(
    readPolicies([
      { name: 'shop.yaml', text: `${text('ALLOW', '*')}---\n${text('DENY', denied)}` },
    ]),
  )
const stateOf = (denied: string) => ({
  ...{ policies: setOf(denied), endpoints: new Map(), denyList: denyNothing, labels: new Map() },
})

const backends = [undefined, 'rfc3986', 'servlet', 'windows', 'caseless'] as const
let app: App
let sidecar: Sidecar
beforeAll(async () => {
  app = await startApp((_, response) => response.end('from the workload'))
  const inbound = backends.map((backend) => ({
    ...{ listen: '127.0.0.1:0', protocol: 'http', forwardTo: `127.0.0.1:${app.port}` },
    ...(backend === undefined ? {} : { backend }),
  }))
  sidecar = await startSidecar({ inbound }, { source, state: stateOf('/admin*') })
})
afterAll(async () => {
  await sidecar[Symbol.asyncDispose]()
  await app[Symbol.asyncDispose]()
})

async function statusOf(backend: (typeof backends)[number], path: string): Promise<string> {
  const port = sidecar.listeners[backends.indexOf(backend)]?.port ?? 0
  const socket = await dial(peerOptions(port, web, { authority, id: own }))
  const answer = untilClosed(socket)
  socket.write(`GET ${path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n`)
  return (await answer).slice(9, 12)
}

it.each([
  [undefined, '/ADMIN', '200'],
  ['rfc3986', '/ADMIN', '200'],
  ['caseless', '/ADMIN', '403'],
  ['caseless', '/other', '200'],
  ['rfc3986', '/x;v=1/y', '200'],
  ['rfc3986', '/admin', '403'],
  ['servlet', '/;v=1/admin', '403'],
  ['servlet', '/other', '200'],
  ['windows', '/admin.', '403'],
] as const)(
  'before a program that reads as %s, %s is answered %s',
  async (backend, path, status) => {
    expect(await statusOf(backend, path)).toBe(status)
  },
)

it('new policies are of the same backend', async () => {
  sidecar.mesh.put(stateOf('/private*'))
  expect(await statusOf('caseless', '/Private')).toBe('403')
  expect(await statusOf('rfc3986', '/Private')).toBe('200')
  expect(await statusOf('caseless', '/ADMIN')).toBe('200')
})
