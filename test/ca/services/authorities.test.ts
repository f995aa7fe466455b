// The state of the rotation for operators, and the way over its gates: with an agent that is connected
// and says nothing.
import { createClient } from '@connectrpc/connect'
import { describe, expect, it } from 'vitest'
import { Authorities } from '../../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { Control } from '../../../proto/gen/castellan/control/v1/control_pb.js'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { SVID } from '../../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { createLatest } from '../../../runtime/lifecycle.ts'
import { denialOf, newKeys } from '../../support/ca-client.ts'
import { makeCsr } from '../../support/csr.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const ca = sharedCa()
const status = () => ca.local.client(Authorities).getStatus({})
const spire = () => ca.local.client(LocalAuthority)

/** An agent on the Control stream that acknowledges what it is told to, and nothing by itself. */
async function silentAgent() {
  const agent = await ca.join()
  const connection = ca.remote(agent)
  const stop = new AbortController()
  const said = createLatest<bigint>(stop.signal)
  async function* requests() {
    yield { message: { case: 'hello' as const, value: { cursor: 0n, epoch: '', version: '' } } }
    for await (const cursor of said)
      yield { message: { case: 'acknowledged' as const, value: { cursor } } }
  }
  const client = createClient(Control, connection.transport)
  const stream = client.subscribe(requests(), { signal: stop.signal })[Symbol.asyncIterator]()
  let cursor = (await stream.next()).value?.cursor ?? 0n
  return {
    ...agent,
    connection,
    /** Acknowledges the newest message; the next one proves that it was heard. */
    acknowledge: () => said.push(cursor),
    async hear() {
      cursor = (await stream.next()).value?.cursor ?? cursor
    },
    [Symbol.dispose]() {
      stop.abort()
      connection[Symbol.dispose]()
    },
  }
}

async function until<T>(look: () => Promise<T>, is: (seen: T) => boolean): Promise<T> {
  while (true) {
    const seen = await look()
    if (is(seen)) return seen
  }
}

describe('the state of the rotation', () => {
  it('shows the phase of each authority and what it carries', async () => {
    const before = await status()
    expect(before.authorities.map(({ kind, phase }) => `${kind} ${phase}`)).toEqual([
      'x509 active',
      'jwt active',
      'wit active',
    ])
    // the authority's own server certificate
    expect(before.authorities[0]?.live).toBe(1n)
    expect(before).toMatchObject({ laggards: [], overrides: [], connectedAgents: 0n })
    expect(before.outlook).toMatchObject({ holders: 0n, firstFailsAt: 0n, lastFailsAt: 0n })
  })

  it('knows when workloads would lose their identity', async () => {
    const agent = await ca.join()
    const path = agent.id.slice('spiffe://example.org'.length)
    const parentId = { trustDomain: 'example.org', path }
    const ttls = [600, 1200, 3000]
    const { results } = await ca.local.client(Entry).batchCreateEntry({
      entries: ttls.map((x509SvidTtl, i) => ({
        spiffeId: { trustDomain: 'example.org', path: `/w${i}` },
        parentId,
        selectors: [{ type: 'unix', value: `uid:${i}` }],
        x509SvidTtl,
      })),
    })
    using connection = ca.remote(agent)
    const params = results.flatMap(({ entry }) =>
      // twice: only the newest of each counts
      [0, 1].map(() => ({ entryId: entry?.id ?? '', csr: makeCsr(newKeys()) })),
    )
    const now = Date.now() / 1000
    await connection.client(SVID).batchNewX509SVID({ params })
    const { outlook } = await status()
    expect(outlook?.holders).toBe(3n)
    const ends = [outlook?.firstFailsAt, outlook?.halfFailedAt, outlook?.lastFailsAt]
    const offsets = ends.map((at) => Math.round((Number(at) - now) / 60))
    expect(offsets).toEqual([10, 20, 50])
  })

  // last: the server's own certificate is of another root afterwards
  it('shows who lags, and records who was not waited for', async () => {
    using agent = await silentAgent()
    agent.acknowledge()
    await until(status, ({ laggards }) => laggards.every(({ agentId }) => agentId !== agent.id))
    const prepared = (await spire().prepareX509Authority({})).preparedAuthority?.authorityId ?? ''
    const lagging = await status()
    const own = lagging.laggards.find(({ agentId }) => agentId === agent.id)
    expect(own).toBeDefined()
    expect(Number(own?.since)).toBeGreaterThan(Date.now() / 1000 - 60)
    const gated = ca.local.client(Authorities)
    const change = { kind: 'x509', authorityId: prepared }
    expect(await denialOf(gated.activate(change))).toEqual({
      code: 'FailedPrecondition',
      message: expect.stringMatching(
        /^cannot activate yet: the bundle in force is not acknowledged/,
      ),
    })
    expect((await status()).overrides).toEqual([])

    const forced = await gated.activate({ ...change, forceReason: 'drill 7' })
    expect(forced).toMatchObject({ kind: 'x509', id: prepared, phase: 'active' })
    const after = await status()
    expect(after.overrides).toMatchObject([
      { caller: 'local', action: 'activate', authorityId: prepared, reason: 'drill 7' },
    ])
    const x509 = after.authorities.filter(({ kind }) => kind === 'x509')
    expect(x509.map(({ phase }) => phase)).toEqual(['old', 'active'])
  })

  const bad = [
    [{ kind: 'x', authorityId: 'a' }, 'kind: is none of x509, jwt and wit'],
    [
      { kind: 'jwt', authorityId: 'a', forceReason: 'a\nb' },
      'force_reason: is not at most 200 printable characters',
    ],
  ] as const
  it.each(bad)('refuses %j', async (request, message) => {
    for (const step of ['activate', 'revoke'] as const)
      expect(await denialOf(ca.local.client(Authorities)[step](request))).toEqual({
        code: 'InvalidArgument',
        message,
      })
  })
})

describe('an authority of another kind', () => {
  const other = sharedCa()

  it('is activated without an override once everybody has followed, whatever reason is given', async () => {
    const authorities = other.local.client(Authorities)
    const { preparedAuthority } = await other.local.client(LocalAuthority).prepareJWTAuthority({})
    const authorityId = preparedAuthority?.authorityId ?? ''
    await authorities.activate({ kind: 'jwt', authorityId, forceReason: 'not needed' })
    expect((await authorities.getStatus({})).overrides).toEqual([])
  })
})
