import { describe, expect, it } from 'vitest'
import { createDecisionLog, type Logged } from '../../decisions/decision-log.ts'
import { proxySpec } from '../../proxy-spec/spec.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { memoryLog } from '../support/ca.ts'
import { createFakeClock } from '../support/fake-clock.ts'

const listener = { listen: '127.0.0.1:0', protocol: 'http', forwardTo: '127.0.0.1:1' }
const specOf = (decisionLog: object) =>
  proxySpec.parse({ inbound: [listener], decisionLog }).decisionLog

const web = 'spiffe://example.org/ns/shop/sa/web'
const logged = (outcome: Logged['outcome'], more: Partial<Logged> = {}): Logged => ({
  outcome,
  request: {
    source: web,
    destination: {
      id: parseSpiffeId('spiffe://example.org/ns/shop/sa/payments'),
      namespace: 'shop',
      labels: {},
      ip: undefined,
      port: 8080,
    },
    http: undefined,
  },
  by: { policy: 'shop/all', rule: 1 },
  ...more,
})

function start(decisionLog: object, random = () => 0.5) {
  const { log, lines } = memoryLog()
  const clock = createFakeClock()
  const note = createDecisionLog({ spec: specOf(decisionLog), log, clock, random })
  const said = () => lines.map((line): Record<string, unknown> => JSON.parse(line))
  return { note, said, clock }
}

describe('the decision log', () => {
  it('has every denial and no allowance when nothing else is said', () => {
    const { note, said } = start({})
    note(logged('allowed'))
    note(logged('denied'))
    note(logged('rejected', { by: undefined, reason: 'an ambiguous path' }))
    expect(said()).toMatchObject([
      { msg: 'decision', outcome: 'denied', source: web, port: 8080, policy: 'shop/all', rule: 1 },
      { outcome: 'rejected', reason: 'an ambiguous path' },
    ])
  })

  it('takes a share, and says which', () => {
    const drawn = [0.05, 0.1, 0.2, 0.99]
    const { note, said } = start({ allowed: 0.1 }, () => drawn.shift() ?? 1)
    for (let i = 0; i < 4; i++) note(logged('allowed'))
    expect(said()).toMatchObject([{ outcome: 'allowed', share: 0.1 }])
  })

  it('has what AUDIT and shadow policies ask for, whatever the share', () => {
    const { note, said } = start({ allowed: 0, denied: 0 })
    note(logged('allowed'))
    note(logged('allowed', { audit: { policy: 'shop/watch', rule: 0 } }))
    note(logged('allowed', { shadow: { outcome: 'wouldDeny', policy: 'shop/next', rule: 2 } }))
    expect(said()).toMatchObject([
      { outcome: 'allowed', audit: { policy: 'shop/watch', rule: 0 } },
      { outcome: 'allowed', shadow: { outcome: 'wouldDeny', policy: 'shop/next', rule: 2 } },
    ])
  })

  it('has a bound, and counts what is over it', async () => {
    const { note, said, clock } = start({ perSecond: 3 })
    for (let i = 0; i < 10; i++) note(logged('denied'))
    expect(said()).toHaveLength(3)
    await clock.advance(1000)
    note(logged('denied'))
    note(logged('denied'))
    const lines = said()
    expect(lines).toHaveLength(5)
    expect(lines[3]).toMatchObject({ dropped: 7 })
    expect(lines[4]).not.toHaveProperty('dropped')
  })

  it.each([{ allowed: 2 }, { denied: -1 }, { perSecond: 0 }, { sample: 1 }])(
    'refuses %j',
    (given) => {
      expect(() => specOf(given)).toThrow()
    },
  )
})
