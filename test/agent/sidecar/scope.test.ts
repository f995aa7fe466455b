// What an attested sidecar is shown of the policies: by its own identities, nothing it says.
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport, securityHeader } from '../../../client/transport.ts'
import { scopedTo } from '../../../policies/language/scope.ts'
import { Policies } from '../../../proto/gen/castellan/policy/v1/policies_pb.js'
import { Sidecar, type SidecarState } from '../../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { parseSpiffeId } from '../../../spiffe/id.ts'
import { startNode, type TestNode } from '../../support/node.ts'

const own = parseSpiffeId('spiffe://example.org/ns/shop/sa/web')
const targeted = (name: string, namespace: string, targets: string) => `apiVersion: castellan.dev/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec: { targets: ${targets}, rules: [{}] }
---
`
const plain = (name: string, namespace: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec: { rules: [{}] }
---
`
const text = [
  plain('of-root', 'istio-system'),
  plain('of-shop', 'shop'),
  plain('of-bank', 'bank'),
  targeted('exact', 'bank', '[spiffe://example.org/ns/shop/sa/web]'),
  targeted('prefix', 'istio-system', '[other.org/x, example.org/ns/shop/*]'),
  targeted('other-id', 'shop', '[example.org/ns/shop/sa/other]'),
  targeted('other-domain', 'istio-system', '["other.org/*"]'),
].join('')
const shown = ['of-root', 'of-shop', 'exact', 'prefix']
const namesIn = (files: readonly { readonly text: string }[]) =>
  files.flatMap((it) => [...it.text.matchAll(/name: ([a-z-]+)/g)].map(([, name]) => name))

describe('the scope of a sidecar', () => {
  it('is the root namespace, its own, and what targets its IDs, wherever it stands', () => {
    const files = [{ name: 'all.yaml', text }]
    const scoped = scopedTo(files, new Set(['istio-system', 'shop']), [own])
    expect(namesIn(scoped)).toEqual(shown)
    expect(scoped[0]?.text).toHaveLength(text.length)
    expect(namesIn(scopedTo(files, new Set(['bank']), []))).toEqual(['of-bank'])
  })

  describe('over the socket', () => {
    let node: TestNode
    beforeAll(async () => {
      node = await startNode()
      await node.register('/ns/shop/sa/web', [`unix:uid:${process.getuid?.()}`])
      const files = [{ name: 'all.yaml', text }]
      await createClient(Policies, node.local).applyPolicies({ files })
    }, 120_000)
    afterAll(() => node[Symbol.asyncDispose]())

    it('follows the attested caller', async () => {
      const endpoint = { kind: 'unix', path: node.agent.socket } as const
      using local = openTransport(endpoint, { interceptors: [securityHeader] })
      const stop = new AbortController()
      async function* nothing() {
        await new Promise((resolve) => stop.signal.addEventListener('abort', resolve))
      }
      let last: SidecarState | undefined
      for await (const state of createClient(Sidecar, local.transport).subscribe(nothing())) {
        last = state
        if (state.policies?.version === 1n) break
      }
      stop.abort()
      expect(namesIn(last?.policies?.files ?? [])).toEqual(shown)
    })
  })
})
