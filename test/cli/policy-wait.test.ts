// `castellan policy apply --wait`: what it says when it is done, and who is named when it is not.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport, securityHeader } from '../../client/transport.ts'
import { Sidecar } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { startTestCa } from '../support/ca.ts'
import { castellan } from '../support/command.ts'
import { testFolder } from '../support/folder.ts'
import { type Guarded, startGuarded } from '../support/guarded.ts'

const policy = (path: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: one, namespace: shop }
spec: { rules: [{ to: [{ operation: { paths: [/${path}] } }] }] }
`

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
let guarded: Guarded
beforeAll(async () => {
  guarded = await startGuarded()
}, 120_000)
afterAll(() => guarded[Symbol.asyncDispose]())

function apply(path: string, ...more: string[]) {
  const file = join(folder.path, 'shop.yaml')
  writeFileSync(file, policy(path))
  const socket = ['--socket', guarded.node.authority.socket]
  return castellan(['policy', 'apply', file, '--wait', ...socket, ...more])
}

/** A sidecar that follows its policies and says of each what `answer` makes of its version. */
function startSidecar(answer: (version: bigint) => { version: bigint; refusal?: string }) {
  const endpoint = { kind: 'unix', path: guarded.node.agent.socket } as const
  const local = openTransport(endpoint, { interceptors: [securityHeader] })
  const stop = new AbortController()
  const heard: bigint[] = []
  let wake = Promise.withResolvers<void>()
  async function* reports() {
    for (;;) {
      for (const version of heard.splice(0))
        yield { report: { case: 'ack' as const, value: answer(version) } }
      await wake.promise
      wake = Promise.withResolvers()
      if (stop.signal.aborted) return
    }
  }
  async function follow() {
    const states = createClient(Sidecar, local.transport).subscribe(reports(), {
      signal: stop.signal,
    })
    for await (const { version } of states) {
      heard.push(version)
      wake.resolve()
    }
  }
  const following = follow().catch(() => {})
  return {
    async [Symbol.asyncDispose]() {
      stop.abort()
      wake.resolve()
      await following
      local[Symbol.dispose]()
    },
  }
}

describe('castellan policy apply --wait', () => {
  it('ends when every sidecar decides with it: the next request is decided so', async () => {
    for (const path of ['a', 'b', 'c']) {
      const { code, stdout } = await apply(path)
      expect(code).toBe(0)
      expect(stdout).toMatch(
        /^version \d+ is in force; 2 of 2 enforcement points decide with it\n$/,
      )
      expect(await guarded.ask(`/${path}`)).toBe('200')
      expect(await guarded.ask('/z')).toBe('403')
    }
    const json = JSON.parse((await apply('d', '-o', 'json')).stdout)
    expect(json).toMatchObject({ points: 2, acknowledged: 2, laggards: [] })
  })

  it('names a sidecar that says nothing, and exits with 3 when time is up', async () => {
    await using _ = startSidecar(() => ({ version: 0n }))
    await expect
      .poll(async () => (await apply('e', '--timeout', '1s')).stderr, { timeout: 60_000 })
      .toMatch(
        /only 2 of 3 enforcement points decide with it\n {2}spiffe:\/\/example\.org\/ns\/shop\/sa\/\w+ \(process \d+ at spiffe:\/\/example\.org\/\S+\) has no version yet\n$/,
      )
    const { code, stderr, stdout } = await apply('f', '--timeout', '1s')
    expect(code).toBe(3)
    expect(stderr).toContain('2 of 3 enforcement points decide with version')
    expect(stdout).toContain('is in force')
    expect(await guarded.ask('/f')).toBe('200')
  })

  it('says why a sidecar refuses it, and keeps waiting', async () => {
    await using _ = startSidecar((version) => ({ version, refusal: 'no room for it' }))
    await expect
      .poll(async () => (await apply('g', '--timeout', '1s')).stderr, { timeout: 60_000 })
      .toContain('has no version yet; it refused: no room for it')
  })

  it('forgets a sidecar that went away', async () => {
    const acknowledging = startSidecar((version) => ({ version }))
    await expect
      .poll(async () => (await apply('h')).stdout, { timeout: 60_000 })
      .toContain('3 of 3 enforcement points')
    await acknowledging[Symbol.asyncDispose]()
    await expect
      .poll(async () => (await apply('i')).stdout, { timeout: 60_000 })
      .toContain('2 of 2 enforcement points')
  })

  it('waits after a rollback and a deletion too', async () => {
    const socket = ['--socket', guarded.node.authority.socket]
    await apply('j')
    const back = await castellan(['policy', 'rollback', '1', '--wait', ...socket])
    expect(back.stdout).toMatch(/with the files of 1; 2 of 2 enforcement points decide with it\n$/)
    expect(await guarded.ask('/a')).toBe('200')
    const deleted = await castellan(['policy', 'delete', 'shop/one', '--wait', ...socket])
    expect(deleted.stdout).toMatch(/^deleted shop\/one; .* 2 of 2 enforcement points/)
    expect(await guarded.ask('/a')).toBe('403')
  })

  it('names an agent that went away a moment ago: its sidecars decide as before', async () => {
    await guarded.node.agent[Symbol.asyncDispose]()
    const { code, stderr } = await apply('k', '--timeout', '1s')
    expect(code).toBe(3)
    expect(stderr).toMatch(/\n {2}spiffe:\/\/example\.org\/spire\/agent\/\S+ has version \d+\n/)
    expect(await guarded.ask('/j')).toBe('403')
  })

  it('says so when no agent was ever there', async () => {
    await using ca = await startTestCa()
    const file = join(folder.path, 'shop.yaml')
    const socket = ['--socket', ca.running.socket]
    const { code, stdout } = await castellan(['policy', 'apply', file, '--wait', ...socket])
    expect([code, stdout]).toEqual([
      0,
      'version 1 is in force; no agent is connected that could decide with it\n',
    ])
  })
})
