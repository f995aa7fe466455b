// Who called whom, from a request at a sidecar to a metric of its agent, a line of the log and a table.
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport, securityHeader } from '../../../client/transport.ts'
import { Outcome, Sidecar } from '../../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { castellan } from '../../support/command.ts'
import { type Guarded, payments, startGuarded, web } from '../../support/guarded.ts'
import { freePort } from '../../support/ports.ts'

const patience = { timeout: 60_000 }
const document = (name: string, spec: string, apiVersion = 'security.istio.io/v1') =>
  `apiVersion: ${apiVersion}
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: shop }
spec: ${spec}
`
const paths = (...list: string[]) => `[{ to: [{ operation: { paths: [${list.join(', ')}] } }] }]`
const policies = [
  document('all', `{ rules: ${paths('/ok*', '/watched', '/next')} }`),
  document('watch', `{ action: AUDIT, rules: ${paths('/watched*')} }`),
  document('next', `{ action: DENY, mode: shadow, rules: ${paths('/next*')} }`, 'castellan.dev/v1'),
  document('more', `{ mode: shadow, rules: ${paths('/soon')} }`, 'castellan.dev/v1'),
].join('---\n')

interface Line {
  readonly msg: string
  readonly path?: string
}

let guarded: Guarded
let port: number
beforeAll(async () => {
  port = await freePort()
  guarded = await startGuarded({
    agent: { operations: `127.0.0.1:${port}` },
    spec: { decisionLog: { allowed: 1 } },
  })
  await guarded.apply(policies)
}, 120_000)
afterAll(() => guarded[Symbol.asyncDispose]())

const metrics = async () => await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
const decisions = async () =>
  (await metrics()).split('\n').filter((line) => line.startsWith('castellan_decisions_total'))
const counted = (outcome: string, by: string, rule: string, count: number) =>
  `castellan_decisions_total{source="${web}",destination="${payments}",outcome="${outcome}",policy="${by}",rule="${rule}"} ${count}`

describe('decisions', () => {
  it('are counted by caller, callee, outcome and rule, with what AUDIT and shadow policies say', async () => {
    await expect.poll(() => guarded.ask('/ok'), patience).toBe('200')
    expect(await guarded.ask('/watched?token=sesame')).toBe('200')
    expect(await guarded.ask('/next')).toBe('200')
    expect(await guarded.ask('/soon')).toBe('403')
    expect(await guarded.ask('/never')).toBe('403')
    expect(await guarded.ask('/a%00b')).toBe('400')
    await expect
      .poll(decisions, patience)
      .toEqual(
        expect.arrayContaining([
          counted('audited', 'shop/watch', '0', 1),
          counted('would_deny', 'shop/next', '0', 1),
          counted('would_allow', 'shop/more', '0', 1),
          counted('rejected', '', '', 1),
        ]),
      )
    const lines = await decisions()
    expect(lines.some((line) => /outcome="allowed",policy="shop\/all",rule="0"/.test(line))).toBe(
      true,
    )
    expect(lines.some((line) => /outcome="denied",policy="",rule=""\} [2-9]/.test(line))).toBe(true)
  })

  it('are lines of the log, without queries', () => {
    const lines = guarded.lines
      .map((line): Line => JSON.parse(line))
      .filter(({ msg }) => msg === 'decision')
    const of = (path: string) => lines.find((line) => line.path === path)
    expect(of('/watched')).toMatchObject({
      ...{ outcome: 'allowed', source: web, destination: payments, method: 'GET' },
      ...{ policy: 'shop/all', rule: 0, audit: { policy: 'shop/watch', rule: 0 } },
    })
    expect(of('/next')).toMatchObject({ shadow: { outcome: 'wouldDeny', policy: 'shop/next' } })
    expect(of('/soon')).toMatchObject({ outcome: 'denied', shadow: { outcome: 'wouldAllow' } })
    expect(guarded.lines.join()).not.toContain('sesame')
  })

  it('are a table at the node, which a caller or callee narrows', async () => {
    const run = (...args: string[]) =>
      castellan(['agent', 'flows', '--admin-socket', guarded.node.agent.adminSocket, ...args])
    const { code, stdout } = await run()
    expect(code).toBe(0)
    expect(stdout).toMatch(/^CALLER +CALLEE +OUTCOME +BY +COUNT\n/)
    expect(stdout).toMatch(new RegExp(`${web} +${payments} +would deny +shop/next rule 0 +1`))
    expect((await run('--source', payments)).stdout).toBe('nothing was decided on this node yet\n')
    const json: unknown[] = JSON.parse((await run('--source', web, '-o', 'json')).stdout)
    expect(json).toContainEqual({
      ...{ source: web, destination: payments, outcome: 'audited', count: 1 },
      ...{ policy: 'shop/watch', rule: 0 },
    })
  })
})

it('that a sidecar reports of an identity that is not its own count nowhere', async () => {
  const endpoint = { kind: 'unix', path: guarded.node.agent.socket } as const
  using local = openTransport(endpoint, { interceptors: [securityHeader] })
  const stop = new AbortController()
  const flow = { source: 'spiffe://example.org/liar', outcome: Outcome.ALLOWED, count: 7n }
  const flows = [
    { ...flow, destination: 'spiffe://example.org/ns/bank/sa/ledger' },
    { ...flow, destination: web },
  ]
  async function* reports() {
    yield { report: { case: 'decisions' as const, value: { allowed: 14n, flows } } }
    await new Promise((resolve) => stop.signal.addEventListener('abort', resolve))
  }
  const states = createClient(Sidecar, local.transport).subscribe(reports(), {
    signal: stop.signal,
  })
  const reading = (async () => {
    for await (const _ of states) if (stop.signal.aborted) break
  })().catch(() => {})
  const lies = async () => (await decisions()).filter((line) => line.includes('liar'))
  await expect.poll(lies, patience).toHaveLength(1)
  expect((await lies())[0]).toContain(`destination="${web}"`)
  stop.abort()
  await reading
})

describe('an agent with operations', () => {
  it('says that it is alive and ready, and what it holds', async () => {
    for (const path of ['livez', 'readyz']) {
      const response = await fetch(`http://127.0.0.1:${port}/${path}`)
      expect([response.status, await response.text()]).toEqual([200, 'ok\n'])
    }
    const text = await metrics()
    expect(text).toMatch(/^castellan_agent_connected 1$/m)
    expect(text).toMatch(/^castellan_agent_svids [23]$/m)
    expect(text).toMatch(/^castellan_agent_sidecars 1$/m)
    expect(text).toMatch(/^castellan_agent_sidecars_behind 0$/m)
    expect(text).toMatch(/^castellan_agent_svid_changes_total [1-9]\d*$/m)
  })
})
