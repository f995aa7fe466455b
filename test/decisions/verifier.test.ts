import { describe, expect, it } from 'vitest'
import { createVerifier } from '../../decisions/verifier.ts'
import { systemClock } from '../../runtime/clock.ts'
import { bundleSourceOf } from '../../spiffe/bundle.ts'
import { makeTestAuthority } from '../support/mesh.ts'

const authority = makeTestAuthority('td.example')
const id = 'spiffe://td.example/ns/shop/sa/web'

function setting() {
  let now = Date.now()
  let asked = 0
  const bundles = bundleSourceOf(authority.bundle)
  const verify = createVerifier(
    (trustDomain) => {
      asked++
      return bundles(trustDomain)
    },
    { ...systemClock, now: () => now },
  )
  return {
    verify,
    asked: () => asked,
    pass(ms: number) {
      now += ms
    },
  }
}

describe('verifier', () => {
  it('verifies a chain once in 30 seconds', () => {
    const { verify, asked, pass } = setting()
    const { chain } = authority.issue(id)
    expect(verify(chain).id).toBe(id)
    pass(29_999)
    verify(chain)
    expect(asked()).toBe(1)
    pass(1)
    verify(chain)
    expect(asked()).toBe(2)
  })

  it('never remembers beyond the end of a certificate', () => {
    const { verify, pass } = setting()
    const { chain } = authority.issue(id, { notAfter: Date.now() + 5_000 })
    verify(chain)
    pass(6_000)
    expect(() => verify(chain)).toThrow(/expired/)
  })

  it('remembers the whole chain, not its leaf alone', () => {
    const { verify } = setting()
    const { chain } = authority.issue(id)
    verify(chain)
    expect(() => verify(chain.slice(0, 1))).toThrow(/no path/)
  })

  it('remembers no refusal', () => {
    const { verify, asked } = setting()
    const { chain } = authority.issue(id, { notBefore: 0, notAfter: 1000 })
    expect(() => verify(chain)).toThrow(/expired/)
    expect(() => verify(chain)).toThrow(/expired/)
    expect(asked()).toBe(2)
  })
})
