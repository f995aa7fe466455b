import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Authority } from '../../ca/authority.ts'
import { openAuthority } from '../../ca/open.ts'
import { followPolicies } from '../../ca/policies-folder.ts'
import { applyPolicies } from '../../ca/policy-sets.ts'
import { systemClock } from '../../runtime/clock.ts'
import { memoryLog, testConfig } from '../support/ca.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { testFolder } from '../support/folder.ts'
import { refusalOf } from '../support/refusal.ts'

const policy = (name: string, action = 'ALLOW') => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: default }
spec:
  action: ${action}
  rules:
    - to: [{ operation: { methods: [GET] } }]
`

let folder: ReturnType<typeof testFolder>
let policies: ReturnType<typeof testFolder>
let authority: Authority & AsyncDisposable
beforeEach(async () => {
  folder = testFolder()
  policies = testFolder()
  authority = await openAuthority(testConfig(folder.path), { log: memoryLog().log })
})
afterEach(async () => {
  await authority[Symbol.asyncDispose]()
  policies[Symbol.dispose]()
  folder[Symbol.dispose]()
})

const put = (name: string, text: string) => writeFileSync(join(policies.path, name), text)
const inForce = () => authority.registry.policies()

/** A log and a way to wait for its next line with that message, those before included. */
function listeningLog() {
  const { log, lines } = memoryLog()
  const wakes = new Set<() => void>()
  const push = lines.push.bind(lines)
  lines.push = (...more) => {
    const size = push(...more)
    for (const wake of [...wakes]) wake()
    return size
  }
  return {
    log,
    async said(message: string, times = 1): Promise<Record<string, unknown>> {
      for (;;) {
        const all = lines.map((line): Record<string, unknown> => JSON.parse(line))
        const found = all.filter(({ msg }) => msg === message)[times - 1]
        if (found !== undefined) return found
        await new Promise<void>((resolve) => wakes.add(resolve))
      }
    },
  }
}

describe('a folder of policies', () => {
  it('is applied, followed, and emptied', async () => {
    const { log, said } = listeningLog()
    put('b.yaml', policy('b'))
    put('a.yml', policy('a'))
    put('notes.txt', 'not a policy')
    await using _ = followPolicies(policies.path, authority, { log, clock: systemClock })
    await said('policies applied')
    const names = () => inForce().files.map(({ name }) => name)
    expect(names()).toEqual(['a.yml', 'b.yaml'].map((name) => join(policies.path, name)))
    put('b.yaml', policy('b', 'DENY'))
    await said('policies applied', 2)
    expect(inForce().files[1]?.text).toContain('DENY')
    rmSync(join(policies.path, 'a.yml'))
    await said('policies applied', 3)
    expect(names()).toEqual([join(policies.path, 'b.yaml')])
  })

  it('leaves in force what an operator applies, until the folder changes', async () => {
    const { log, said } = listeningLog()
    put('a.yaml', policy('a'))
    const clock = createFakeClock()
    await using _ = followPolicies(policies.path, authority, { log, clock })
    // two readings that agree, then looks every two seconds
    const applied = said('policies applied')
    await clock.asleep()
    await clock.advance(2100)
    await applied
    const byHand = [{ name: 'hand.yaml', text: policy('hand') }]
    await applyPolicies(authority, byHand, { caller: 'local', message: '' })
    await clock.advance(10_000)
    expect(inForce().files).toEqual(byHand)
    put('a.yaml', policy('a', 'DENY'))
    const again = said('policies applied', 2)
    await clock.advance(10_000)
    await again
    expect(inForce().files[0]?.name).toBe(join(policies.path, 'a.yaml'))
    const { versions } = authority.store.policies
    expect((await versions()).map(({ caller }) => caller)).toEqual(['folder', 'local', 'folder'])
  })

  it('with a broken edit changes nothing, and the line is told', async () => {
    const { log, said } = listeningLog()
    put('a.yaml', policy('a'))
    await using _ = followPolicies(policies.path, authority, { log, clock: systemClock })
    await said('policies applied')
    const before = inForce()
    put('a.yaml', policy('a').replace('methods: [GET]', 'methods: [GET], colour: red'))
    const { problems, version } = await said('policies refused; the version in force stays')
    expect(problems).toEqual([
      {
        field: `${join(policies.path, 'a.yaml')}:7 spec.rules[0].to[0].operation.colour`,
        problem: 'unknown key',
      },
    ])
    expect(version).toBe(before.version)
    expect(inForce()).toBe(before)
    put('a.yaml', policy('a', 'DENY'))
    await said('policies applied', 2)
    expect(inForce().version).toBe(before.version + 1)
  })

  it('with a file that a save left empty keeps what is in force', async () => {
    const { log, said } = listeningLog()
    put('a.yaml', policy('a'))
    await using _ = followPolicies(policies.path, authority, { log, clock: systemClock })
    await said('policies applied')
    const before = inForce()
    put('a.yaml', '')
    const { problems } = await said('policies refused; the version in force stays')
    const field = `${join(policies.path, 'a.yaml')}:1`
    expect(problems).toEqual([{ field, problem: 'is empty; delete the file if that is meant' }])
    expect(inForce()).toBe(before)
  })

  it('with a file that is too large keeps what is in force', async () => {
    const { log, said } = listeningLog()
    put('a.yaml', policy('a').padEnd(1024 * 1024 + 1, '#'))
    await using _ = followPolicies(policies.path, authority, { log, clock: systemClock })
    const { problems } = await said('policies refused; the version in force stays')
    const field = `${join(policies.path, 'a.yaml')}:1`
    expect(problems).toEqual([{ field, problem: 'longer than 1 MiB' }])
  })

  it('that is not there is refused at the start', () => {
    const missing = join(policies.path, 'none')
    const follow = () =>
      followPolicies(missing, authority, { log: memoryLog().log, clock: systemClock })
    const found = refusalOf(follow)
    expect(found?.code).toBe('ERR_CONFIG')
    expect(found?.message).toContain(`the policy folder ${missing} cannot be read (ENOENT)`)
  })
})
