// Several attestors as one: what they say together, what one of them cannot spoil, who is refused.
import { describe, expect, it } from 'vitest'
import { type Attestor, createWorkloadAttestor } from '../../../agent/attest/attestor.ts'
import { type Demand, demandOf, everythingAnd } from '../../../agent/attest/demand.ts'
import type { PeerProcess } from '../../../agent/attest/peer-credentials.ts'
import type { Credentials, Proc } from '../../../agent/attest/proc.ts'
import { demandOwnProc } from '../../../agent/attest/workload-attestor.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { everything, never, peer, recordedProc } from './recorded.ts'

const saying = (type: string, ...values: string[]): Attestor => ({
  type,
  attest: async () => ({ selectors: new Set(values.map((it) => `${type}:${it}`)), missing: [] }),
})
const failing = (type: string, why: string): Attestor => ({
  type,
  attest: () => Promise.reject(new IdentityError('ERR_UNAVAILABLE', why)),
})

const nothing = { text: () => '', link: () => '', programFile: () => '' }
const facts = () => ({ version: '', size: 0, links: 1, changedAt: 0, isRegular: true })

/** What /proc says of a process, one state after the other; the last one stays. */
function states(...looks: string[]): Proc {
  let at = 0
  const look = () => looks[Math.min(at++, looks.length - 1)] ?? ''
  const credentials = (): Credentials => ({ uid: 1000, gid: 1000, groups: [] })
  return { ...nothing, facts, credentials, look }
}

function attest(
  attestors: readonly Attestor[],
  options: { proc?: Proc; process?: PeerProcess; demand?: Demand; signal?: AbortSignal } = {},
) {
  const { proc = states('same'), process = peer(7), demand = everything, signal = never } = options
  return createWorkloadAttestor(attestors, proc).attest(process, demand, { signal })
}

describe('attestors together', () => {
  it('R17 all of them failing is Unavailable with a time to come again, never "no identity"', async () => {
    const answer = attest([failing('k8s', 'the kubelet is away'), failing('docker', 'no socket')])
    await expect(answer).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
      retryAfter: 1000,
      message: 'cannot tell what process 7 is: k8s (the kubelet is away), docker (no socket)',
    })
  })

  it('one that fails makes its selectors absent, and that is said; the others stand', async () => {
    const answer = await attest([saying('unix', 'uid:1', 'gid:2'), failing('k8s', 'away')])
    expect([...answer.selectors]).toEqual(['unix:uid:1', 'unix:gid:2'])
    expect(answer.missing).toEqual(['k8s (away)'])
    expect([...answer.failed]).toEqual(['k8s'])
  })

  it('finding nothing is not failing', async () => {
    const answer = await attest([saying('docker'), failing('k8s', 'away')])
    expect([...answer.selectors]).toEqual([])
  })

  it('they are asked side by side', async () => {
    const met = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const
    const meeting = (type: string, mine: 0 | 1): Attestor => ({
      type,
      async attest() {
        met[mine].resolve()
        await met[mine === 0 ? 1 : 0].promise
        return { selectors: new Set([type]), missing: [] }
      },
    })
    const { selectors } = await attest([meeting('a', 0), meeting('b', 1)])
    expect([...selectors]).toEqual(['a', 'b'])
  })

  it('those that no entry asks for are not asked', async () => {
    const demand = demandOf([{ selectors: ['unix:uid:0', 'docker:label:a:b'] }])
    const answer = await attest([saying('unix', 'uid:0'), failing('k8s', 'never asked')], {
      demand,
    })
    expect([...answer.selectors]).toEqual(['unix:uid:0'])
    expect(answer.missing).toEqual([])
    expect(demand.kind('docker:label')).toBe(true)
    expect(demand.kind('docker:env')).toBe(false)
  })

  it('an explanation asks for everything but environments, which hold passwords', () => {
    const asked = everythingAnd(demandOf([]))
    expect(asked.kind('unix:sha256') && asked.type('k8s')).toBe(true)
    expect(asked.kind('docker:env')).toBe(false)
    expect(everythingAnd(demandOf([{ selectors: ['docker:env:A=b'] }])).kind('docker:env')).toBe(
      true,
    )
  })
})

describe('a process', () => {
  it('that ends while it is looked at is denied, whatever the attestors say', async () => {
    let isAlive = true
    const process = peer(7, { isAlive: () => isAlive })
    const ending = (it: Attestor): Attestor => ({
      ...it,
      attest(...asked) {
        isAlive = false
        return it.attest(...asked)
      },
    })
    for (const attestor of [saying('unix', 'uid:1'), failing('unix', 'gone')]) {
      isAlive = true
      await expect(attest([ending(attestor)], { process })).rejects.toMatchObject({
        code: 'ERR_DENIED',
      })
    }
  })

  it('that runs another program meanwhile is looked at again: nothing is of two programs', async () => {
    let asked = 0
    const program: Attestor = {
      type: 'unix',
      attest: async () => ({ selectors: new Set([`unix:path:${++asked}`]), missing: [] }),
    }
    const { selectors } = await attest([program], { proc: states('first', 'second') })
    expect([...selectors]).toEqual(['unix:path:2'])
  })

  it('that never stays what it is gets no answer', async () => {
    const proc = states('1', '2', '3', '4', '5', '6', '7')
    await expect(attest([saying('unix', 'uid:1')], { proc })).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
      message: 'cannot tell what process 7 is: it keeps changing',
    })
  })

  it('that has become another user since it connected has to connect again', async () => {
    const answer = (uid: number, gid: number) =>
      attest([saying('unix')], { process: peer(7, { uid, gid }) })
    await expect(answer(1001, 1000)).rejects.toMatchObject({ code: 'ERR_DENIED' })
    await expect(answer(1000, 1001)).rejects.toThrow('has changed its user or group')
    await expect(answer(1000, 1000)).resolves.toBeDefined()
    // a service that gave up being root
    await expect(answer(0, 0)).resolves.toBeDefined()
  })

  it('is given up when who asked for it has gone', async () => {
    const stop = new AbortController()
    const slow: Attestor = {
      type: 'k8s',
      attest: (_, __, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason))
          stop.abort(new Error('gone'))
        }),
    }
    await expect(attest([slow], { signal: stop.signal })).rejects.toThrow('gone')
  })
})

it('a /proc of another pid namespace tells of other processes: the agent does not start with it', () => {
  const own = (pids: string) => recordedProc({ 'self/status': `Name:\tnode\nNSpid:\t${pids}\n` })
  using same = own('4711')
  using host = own('4711\t12')
  expect(() => demandOwnProc(same.proc)).not.toThrow()
  expect(() => demandOwnProc(host.proc)).toThrow('another pid namespace')
})
