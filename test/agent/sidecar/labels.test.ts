// A label that an operator sets decides in the sidecar, through authority, agent and disk.
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Labels } from '../../../proto/gen/castellan/entry/v1/labels_pb.js'
import { type Guarded, startGuarded } from '../../support/guarded.ts'

const patience = { timeout: 60_000 }
const policy = (matchLabels: string, path: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p-${path}, namespace: shop }
spec:
  selector: { matchLabels: ${matchLabels} }
  rules: [{ to: [{ operation: { paths: [/${path}] } }] }]
`

let guarded: Guarded
const label = (set: Record<string, string>, remove: string[] = []) =>
  createClient(Labels, guarded.node.local).updateLabels({
    ...{ entryId: guarded.entries.payments, set, remove },
  })
const asking = (path: string) => () => guarded.ask(path)

beforeAll(async () => {
  guarded = await startGuarded()
}, 120_000)
afterAll(() => guarded[Symbol.asyncDispose]())

describe('labels of an entry', () => {
  it('make policies with a selector speak of its workload, as long as it has them', async () => {
    await guarded.apply(`${policy('{ app: pay, tier: back }', 'ok')}---\n${policy('{}', 'all')}`)
    await expect.poll(asking('/all'), patience).toBe('200')
    expect(await guarded.ask('/ok')).toBe('403')
    await label({ app: 'pay' })
    await label({ app: 'pay', tier: 'back' })
    await expect.poll(asking('/ok'), patience).toBe('200')
    await label({ tier: 'front' })
    await expect.poll(asking('/ok'), patience).toBe('403')
    expect(await guarded.ask('/all')).toBe('200')
    await label({ tier: 'back' })
    await expect.poll(asking('/ok'), patience).toBe('200')
  })

  it('are those of no other identity, though the same process has it', async () => {
    const { web } = guarded.entries
    await createClient(Labels, guarded.node.local).updateLabels({
      entryId: web,
      set: { only: 'web' },
    })
    await guarded.apply(`${policy('{ only: web }', 'ok')}---\n${policy('{}', 'new')}`)
    await expect.poll(asking('/new'), patience).toBe('200')
    expect(await guarded.ask('/ok')).toBe('403')
  })

  it('are known to an agent that starts while its authority is away', async () => {
    await guarded.apply(policy('{ app: pay, tier: back }', 'kept'))
    await expect.poll(asking('/kept'), patience).toBe('200')
    const told = () => guarded.lines.filter((line) => line.includes('policies in force')).length
    const before = told()
    await guarded.node.stopAuthority()
    await guarded.node.restartAgent()
    // by this agent, which the sidecar has asked anew
    await expect.poll(told, patience).toBeGreaterThan(before)
    expect(await guarded.ask('/kept')).toBe('200')
  })
})
