// What gRPC programs are told of policies against the engine, by random policies and calls.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Situation } from '../../../../agent/proxies/envoy/snapshot.ts'
import { judgementOf } from '../../../../agent/proxies/grpc/filters.ts'
import { destinationOf } from '../../../../policies/attributes/request.ts'
import type { PolicySet } from '../../../../policies/compile.ts'
import { evaluateHttp } from '../../../../policies/evaluate.ts'
import type { Labels } from '../../../../policies/language/policy.ts'
import { inbound } from '../../../../proxy-spec/inbound.ts'
import { proxySpec } from '../../../../proxy-spec/spec.ts'
import { isSpiffeId, parseSpiffeId } from '../../../../spiffe/id.ts'
import { type GrpcCall, programOf } from '../../../support/grpc-rbac.ts'
import { scenario, setOf } from '../../../support/lowered-differential.ts'
import type { OracleRequest } from '../../../support/oracle/decide.ts'
import { policySet, policyText } from '../../../support/policy-text.ts'

const options = { timeout: 600_000 }
const port = 8080
const here = `127.0.0.1:${port}`
const identity = parseSpiffeId('spiffe://td/ns/app/sa/web')
const spec = inbound.parse({ listen: here, protocol: 'grpc', forwardTo: here })

const situationOf = (policies: PolicySet, labels: Labels) => ({
  ...{
    policies,
    identity,
    labels,
    revoked: [],
    unseen: [],
    cuts: { inbound: '', outbound: {} },
    asksAlways: false,
    life: 3_600_000,
  },
  spec: proxySpec.parse({ inbound: [{ listen: here, protocol: 'grpc', forwardTo: here }] }),
  ...{ trust: { own: 'td', all: 'ALL' }, isFederated: false },
  ...{ endpoints: new Map(), decisions: undefined },
})

const isText = (text: string) => /^[ -~]*$/.test(text)

type Call = GrpcCall & { readonly caller: string }

const callers = ['spiffe://td/ns/a/sa/x', 'spiffe://td/ns/b/sa/y', 'spiffe://td/ns/ab/sa/x.y']
const targets = ['/a', '/a/b', '/admin', '/b/admin']

/** What was asked, by whoever was asked for or by others, and the same of plain targets. */
function callsOf({ source, http }: OracleRequest): Call[] {
  if (http === undefined) return []
  const by = [...callers, ...(isSpiffeId(source?.principal ?? '') ? [source?.principal ?? ''] : [])]
  const fields = (http.headers ?? [])
    .map(([name = '', value = '']) => [name.toLowerCase(), value] as const)
    // what grpc-js drops before anybody sees it
    .filter(([name, value]) => /^[a-z0-9_.-]+$/.test(name) && isText(value))
    .filter(([name]) => name !== 'host' && !name.endsWith('-bin'))
  const { path: own = '/', host = 'echo' } = http
  // at others grpc-js throws before it asks any rule
  const paths = [own, ...targets].filter(isText)
  if (!isText(host)) return []
  return by.flatMap((caller) => paths.map((path) => ({ path, host, caller, fields })))
}

function engineAllows(set: PolicySet, { path, host, caller, fields }: Call, labels: Labels) {
  const connected = {
    ...{ source: caller, sourceIp: undefined, sni: undefined },
    destination: destinationOf(identity, { port, labels }),
  }
  const raw = { method: 'POST', target: path, host, headers: fields.flat() }
  const result = evaluateHttp(set, connected, { raw, now: 0 })
  if (result.kind === 'decided') return result.decision.allow
  // where no rule asks about it gRPC does not look at it, and nothing behind it does
  return /host|authority|forwarded/i.test(result.rejection.reason) ? 'rejected' : false
}

type Tally = ReturnType<typeof newTally>
const newTally = () => ({ closed: 0, allowed: 0, denied: 0, narrower: 0, rejected: 0 })

function compareCall(isIn: boolean, isAllowed: boolean | 'rejected', tally: Tally): void {
  if (isIn) expect(isAllowed).not.toBe(false)
  tally[isAllowed === 'rejected' ? 'rejected' : isIn ? 'allowed' : 'denied']++
  if (isAllowed === true && !isIn) tally.narrower++
}

function compare(set: PolicySet, asked: readonly OracleRequest[], tally: Tally): void {
  const labels = asked[0]?.destination?.labels ?? {}
  const judgement = judgementOf(spec, situationOf(set, labels))
  const lets = programOf(judgement)
  for (const call of asked.flatMap(callsOf)) {
    const isIn = lets(call)
    if (judgement.by === 'native') compareCall(isIn, engineAllows(set, call, labels), tally)
    else {
      expect(isIn).toBe(false)
      tally.closed++
    }
  }
}

describe('what gRPC programs are told of the deny-list', () => {
  const open = policySet(policyText('[{}]', { namespace: 'app' }))
  const [denied = '', next = ''] = callers.slice(0, 2)
  const asks = (more: Partial<Situation>) => {
    const lets = programOf(judgementOf(spec, { ...situationOf(open, {}), ...more }))
    return [denied, next].map((caller) => lets({ caller, path: '/a', host: 'echo', fields: [] }))
  }

  it('refuses who is denied, and nobody else, whatever policies allow', () => {
    expect(asks({})).toEqual([true, true])
    expect(asks({ revoked: [parseSpiffeId(denied)] })).toEqual([false, true])
  })

  it('lets nobody in where it cannot be seen who is denied', () => {
    expect(asks({ unseen: ['an authority below our own'] })).toEqual([false, false])
  })

  it('takes a rule about nobody for what it is', () => {
    expect(asks({ believed: 'ab denied' })).toEqual([true, true])
  })
})

describe('what gRPC programs are told of policies', () => {
  it('lets nobody in whom the engine denies', options, () => {
    const tally = newTally()
    fc.assert(
      fc.property(scenario, ({ asked, ...documents }) => compare(setOf(documents), asked, tally)),
      { numRuns: 100 },
    )
    console.info(`gRPC: ${JSON.stringify(tally)}`)
    expect(Math.min(tally.closed, tally.allowed, tally.denied)).toBeGreaterThan(50)
  })
})
