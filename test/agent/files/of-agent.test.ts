// Roots in files: programs that read them look at no deny-list.
import { create } from '@bufbuild/protobuf'
import { beforeEach, expect, it } from 'vitest'
import { type AgentHoldings, materialOfAgent } from '../../../agent/files/of-agent.ts'
import { createKnowledge, type Knowledge } from '../../../agent/knowledge.ts'
import { AuthorityMessageSchema } from '../../../proto/gen/castellan/control/v1/control_pb.js'
import { systemClock } from '../../../runtime/clock.ts'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { hasCode } from '../../../spiffe/errors.ts'
import { keyIdOf } from '../../../spiffe/key-id.ts'
import { bundleOf, entryOf, makeRoot, svidOf, trustDomain } from '../xds/sds-server.ts'

const path = '/web'
const [old, next] = [makeRoot('old'), makeRoot('next')]
const svid = svidOf(next, path)
const begun = Math.floor(Date.now() / 1000) * 1000

let knowledge: Knowledge
let now = begun
beforeEach(() => {
  now = begun
  knowledge = createKnowledge(trustDomain, systemClock)
  const bundle = bundleOf(trustDomain, old, next)
  const entries = [entryOf(path, 1)]
  knowledge.apply(create(AuthorityMessageSchema, { snapshot: true, bundle, entries }))
})

function deny(roots: readonly (typeof old)[], expiresAt = 0n): void {
  const rules = roots.map(({ certificate }) => {
    const value = keyIdOf(parseCertificate(certificate).publicKey).toString('hex')
    return { id: value, target: { case: 'authorityId', value } as const, expiresAt }
  })
  knowledge.apply(create(AuthorityMessageSchema, { revocation: { denyList: { rules }, crls: [] } }))
}

async function material() {
  const unasked = () => Promise.reject(new Error('no token is wanted'))
  const nothing = { [Symbol.dispose]: () => {} }
  const holdings: AgentHoldings = {
    knowledge,
    cache: { svids: new Map([[path, svid]]), want: () => {}, onChange: () => nothing },
    tokens: { get: unasked, dueAt: () => 0 },
    session: { requestJwt: unasked },
    clock: { now: () => now },
  }
  const want = { id: svid.id, hint: undefined, audiences: [], wantsJwks: false }
  const { bundles, until } = await materialOfAgent(holdings).now(want, {
    signal: AbortSignal.timeout(60_000),
  })
  return { roots: bundles[0].authorities.map(({ der }) => Buffer.from(der)), until }
}

it('are all of them while none is denied', async () => {
  expect(await material()).toEqual({
    ...{ roots: [old.certificate, next.certificate], until: Number.POSITIVE_INFINITY },
  })
})

it('are without one that is denied, as long as it is', async () => {
  deny([old], BigInt(begun / 1000 + 60))
  expect(await material()).toEqual({ roots: [next.certificate], until: begun + 60_000 })
  now = begun + 60_000
  expect((await material()).roots).toHaveLength(2)
})

it('are not written where all are denied: what programs have stays', async () => {
  deny([old, next])
  const error = await material().catch((it: unknown) => it)
  expect(hasCode(error, 'ERR_UNAVAILABLE')).toBe(true)
  expect(error).toMatchObject({
    message: `every root of ${trustDomain} is on the deny-list`,
  })
})
