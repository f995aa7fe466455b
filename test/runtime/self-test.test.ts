import { describe, expect, it } from 'vitest'
import { selfTest } from '../../runtime/self-test.ts'
import { IdentityError } from '../../spiffe/errors.ts'

describe('the self-test', () => {
  it('passes on this runtime, by a handshake of its own', async () => {
    await expect(selfTest()).resolves.toBe(undefined)
  })

  it.each([0, 1])('refuses a runtime that shows %i certificates of a chain', async (length) => {
    await expect(selfTest(async () => length)).rejects.toThrow(
      new IdentityError(
        'ERR_RUNTIME',
        `Node ${process.version} hides client intermediates from TLS servers; run castellan by bin/castellan, which uses Node 24.20.0`,
      ),
    )
  })

  it('does not take a failed probe for a pass', async () => {
    const failure = new Error('handshake failed')
    await expect(selfTest(() => Promise.reject(failure))).rejects.toBe(failure)
  })
})
