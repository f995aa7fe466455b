// Envoy's network filter: a CheckRequest without a request is about a connection.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeTestAuthority } from '../../support/mesh.ts'
import { policyText } from '../../support/policy-text.ts'
import { type Asked, rpc, tcp } from './asking.ts'
import {
  bundleMessage,
  type Deciding,
  entryOf,
  escaped,
  payments,
  startDeciding,
  web,
} from './deciding.ts'

/** decisions are counted in the agent's own time */
const patience = { timeout: 60_000 }
const authority = makeTestAuthority('example.org')
const certificate = escaped(authority.issue(web))
const other = escaped(authority.issue('spiffe://example.org/ns/shop/sa/other'))

const policies = [
  policyText(
    `[{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }], to: [{ operation: { ports: ['5432'] } }] }]`,
    { name: 'web' },
  ),
  policyText(`[{ to: [{ operation: { ports: ['5433'], paths: [/x] } }] }]`, { name: 'http' }),
  `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: shop }
spec: { mtls: { mode: STRICT } }
`,
].join('---\n')

let deciding: Deciding
beforeAll(async () => {
  deciding = await startDeciding()
  const { entry, labels } = entryOf(payments)
  const bundle = bundleMessage(authority.bundle)
  deciding.apply({ snapshot: true, bundle, entries: [entry], labels: [labels] })
  deciding.putSvid(authority.issue(payments))
  deciding.putPolicies(1n, policies)
})
afterAll(() => deciding[Symbol.asyncDispose]())

const codeOf = async (asked: Asked) => (await deciding.check(tcp(asked))).status?.code

describe('a connection', () => {
  it('is decided by peers and port', async () => {
    expect(await codeOf({ certificate, port: 5432 })).toBe(0)
    expect(await codeOf({ certificate: other, port: 5432 })).toBe(7)
    expect(await codeOf({ certificate, port: 5433 })).toBe(7)
  })

  it('without a certificate is plaintext: STRICT denies it, whatever else allows it', async () => {
    expect(await codeOf({ port: 5432 })).toBe(7)
    const answer = await deciding.check(rpc('/x', { port: 5433 }))
    expect(answer.status?.code).toBe(7)
    await expect
      .poll(() => deciding.ledger.denials().map(({ reason }) => reason), patience)
      .toContainEqual(expect.stringMatching(/identity|mutual/i))
  })

  it('with a certificate that does not verify is refused', async () => {
    expect(await codeOf({ certificate: 'x', port: 5432 })).toBe(7)
  })
})
