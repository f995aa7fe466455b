// The rotation of authorities as an operator drives it, with a real agent and a real workload below it.
import { ConnectError, createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startX509Source, type X509Source } from '../../client/x509-source.ts'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { denialOf } from '../support/ca-client.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'

let node: TestNode
let source: X509Source
beforeAll(async () => {
  node = await startNode()
  await node.register('/web', [`unix:uid:${process.getuid?.()}`])
  source = startX509Source({ kind: 'unix', path: node.agent.socket })
  await source.ready(AbortSignal.timeout(60_000))
}, 120_000)
afterAll(async () => {
  await source[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})

const operator = () => createClient(LocalAuthority, node.local)
const published = async () =>
  (await createClient(Bundle, node.local).getBundle({})).x509Authorities.map(
    ({ asn1, tainted }) =>
      `${Buffer.from(asn1).toString('hex').slice(-16)}${tainted ? ' tainted' : ''}`,
  )
const serialNow = () => source.current()?.svids[0].serial

/** What is refused until the agents have followed succeeds once they have. */
async function eventually<T>(step: () => Promise<T>): Promise<T> {
  return await vi.waitFor(
    async () => {
      try {
        return await step()
      } catch (error) {
        expect(ConnectError.from(error).message).toMatch(
          /^\[failed_precondition\] cannot \w+ yet: /,
        )
        throw error
      }
    },
    { timeout: 120_000, interval: 200 },
  )
}

describe('an X.509 authority', () => {
  it('is prepared, activated, tainted and revoked, and no workload is left behind', async () => {
    const before = await operator().getX509AuthorityState({})
    const old = before.active?.authorityId ?? ''
    expect(before).toMatchObject({
      active: { authorityId: expect.stringMatching(/^[0-9a-f]{40}$/) },
    })
    const { preparedAuthority: next } = await operator().prepareX509Authority({})
    const id = next?.authorityId ?? ''
    expect(await published()).toHaveLength(2)
    await eventually(() => operator().activateX509Authority({ authorityId: id }))
    expect(await operator().getX509AuthorityState({})).toMatchObject({
      active: { authorityId: id },
      old: { authorityId: old },
    })

    const serial = serialNow()
    const renewed = Promise.withResolvers<void>()
    using _ = source.subscribe(() => {
      if (serialNow() !== serial) renewed.resolve()
    })
    expect(await denialOf(operator().revokeX509Authority({ authorityId: old }))).toMatchObject({
      code: 'FailedPrecondition',
    })
    await operator().taintX509Authority({ authorityId: old })
    expect((await published()).filter((it) => it.endsWith('tainted'))).toHaveLength(1)
    await eventually(() => operator().revokeX509Authority({ authorityId: old }))
    expect(await published()).toHaveLength(1)
    await renewed.promise
    const [svid] = source.current()?.svids ?? []
    expect(svid?.id).toBe('spiffe://example.org/web')
    await vi.waitFor(
      () => {
        const bundle = source.current()?.bundles(parseTrustDomain(trustDomain))
        expect(bundle?.authorities).toHaveLength(1)
      },
      { timeout: 60_000 },
    )
    await node.restartAgent()
    await source.ready(AbortSignal.timeout(60_000))
  }, 240_000)

  it('is not activated, tainted or revoked out of turn', async () => {
    const { active } = await operator().getX509AuthorityState({})
    const authorityId = active?.authorityId ?? ''
    const steps = {
      activate: (id: string) => operator().activateX509Authority({ authorityId: id }),
      taint: (id: string) => operator().taintX509Authority({ authorityId: id }),
      revoke: (id: string) => operator().revokeX509Authority({ authorityId: id }),
    }
    for (const [name, step] of Object.entries(steps)) {
      const wanted = name === 'activate' ? 'prepared' : 'old'
      for (const [id, is] of [
        [authorityId, 'active'],
        ['x', 'unknown'],
      ] as const) {
        expect(await denialOf(step(id))).toEqual({
          code: 'FailedPrecondition',
          message: `authority "${id}" is ${is}, not ${wanted}`,
        })
      }
    }
  })
})
