import { describe, expect, it } from 'vitest'
import { checkVouched } from '../../../ca/attestors/attestor.ts'
import {
  agentIdOfToken,
  hashOfToken,
  joinTokenAttestor,
  newToken,
} from '../../../ca/attestors/join-token.ts'
import { parseTrustDomain } from '../../../spiffe/id.ts'
import { createFakeClock } from '../../support/fake-clock.ts'

const trustDomain = parseTrustDomain('example.org')
const clock = createFakeClock(1_900_000_000_000)
const attest = (payload: Uint8Array) =>
  joinTokenAttestor(trustDomain, clock).attest(payload, new Uint8Array(), () =>
    Promise.reject(new Error('not asked')),
  )

describe('join tokens', () => {
  it('are 256 random bits', () => {
    const all = Array.from({ length: 100 }, newToken)
    expect(new Set(all).size).toBe(100)
    for (const token of all) expect(token).toMatch(/^[A-Za-z0-9_-]{43}$/)
  })

  it('vouch for an agent whose ID says nothing of the token', async () => {
    const token = newToken()
    const facts = await attest(Buffer.from(token))
    checkVouched(facts)
    const name = hashOfToken(token).toString('hex').slice(0, 32)
    expect(facts).toEqual({
      kind: 'node',
      agentId: `spiffe://example.org/spire/agent/join_token/${name}`,
      attestationType: 'join_token',
      selectors: [],
      canReattest: false,
      token: { hash: hashOfToken(token), now: clock.now() },
    })
    expect(agentIdOfToken(trustDomain, token)).toBe(
      `spiffe://example.org/spire/agent/join_token/${name}`,
    )
    expect(JSON.stringify(facts)).not.toContain(token)
  })

  it.each([0, 257, 100_000])('are not %i bytes long', async (length) => {
    await expect(attest(Buffer.alloc(length, 'a'))).rejects.toMatchObject({
      code: 'ERR_BAD_REQUEST',
      message: 'a join token is 1 to 256 bytes',
      fields: [{ field: 'params.data.payload', problem: 'not a join token' }],
    })
  })

  it('are bytes, whatever they say: what is no text is just another token', async () => {
    const facts = await attest(Buffer.of(0xff, 0x00, 0x2f))
    expect(facts).toMatchObject({ kind: 'node', attestationType: 'join_token' })
  })
})
