// One sidecar before programs that read paths differently: each is decided about as it reads them.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { stateUnder } from '../support/mesh.ts'
import { policyText } from '../support/policy-text.ts'
import { askPayments, inboundTo, payments, sourceOf } from '../support/shop.ts'
import { type App, type Sidecar, startApp, startSidecar } from '../support/sidecar.ts'

const source = sourceOf(payments)

const text = (action: string, path: string) =>
  policyText(`[{ to: [{ operation: { paths: ["${path}"] } }] }]`, {
    name: action.toLowerCase(),
    action,
  })
const allBut = (denied: string) => stateUnder(text('ALLOW', '*'), text('DENY', denied))

const backends = [undefined, 'rfc3986', 'servlet', 'windows', 'caseless'] as const
let app: App
let sidecar: Sidecar
beforeAll(async () => {
  app = await startApp((_, response) => response.end('from the workload'))
  const inbound = backends.map((backend) => inboundTo(app.port, backend && { backend }))
  sidecar = await startSidecar({ inbound }, { source, state: allBut('/admin*') })
})
afterAll(async () => {
  await sidecar[Symbol.asyncDispose]()
  await app[Symbol.asyncDispose]()
})

async function statusOf(backend: (typeof backends)[number], path: string): Promise<string> {
  const port = sidecar.listeners[backends.indexOf(backend)]?.port ?? 0
  const head = `GET ${path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n`
  return (await askPayments(port, head)).slice(9, 12)
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
  sidecar.mesh.put(allBut('/private*'))
  expect(await statusOf('caseless', '/Private')).toBe('403')
  expect(await statusOf('rfc3986', '/Private')).toBe('200')
  expect(await statusOf('caseless', '/ADMIN')).toBe('200')
})
