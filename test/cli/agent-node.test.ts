// What a person at a node asks: status, explain, doctor; a real agent and a real authority.
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { castellan } from '../support/command.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'

const uid = `unix:uid:${process.getuid?.()}`
const idOf = (path: string) => `spiffe://${trustDomain}${path}`
const patience = { timeout: 60_000, interval: 200 }

let node: TestNode
beforeAll(async () => {
  node = await startNode()
  await node.register('/web', [uid])
  await node.register('/near', [uid, 'unix:path:/usr/bin/other'])
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

const asked = (...args: string[]) =>
  castellan([...args, '--admin-socket', node.agent.adminSocket, '-o', 'json'], '')
const explained = async () =>
  JSON.parse((await asked('agent', 'explain', '--pid', `${process.pid}`)).stdout)

describe('castellan agent', () => {
  it('status shows the agent, its authority and the identities it holds', async () => {
    await vi.waitFor(async () => {
      const { code, stdout } = await asked('agent', 'status')
      expect(code).toBe(0)
      const { connected, identities, decisions } = JSON.parse(stdout)
      expect([connected, decisions]).toEqual([true, null])
      const ids = identities.map(({ spiffeId }: { spiffeId: string }) => spiffeId)
      expect(ids).toEqual(expect.arrayContaining([idOf('/web'), idOf('/near')]))
    }, patience)
  })

  it('explain says what a process gets, and what it lacks for the rest', async () => {
    await vi.waitFor(async () => {
      const { matched, near } = await explained()
      expect(matched).toMatchObject([{ spiffeId: idOf('/web') }])
      expect(near).toMatchObject([
        { spiffeId: idOf('/near'), missing: ['unix:path:/usr/bin/other'] },
      ])
    }, patience)
    const { stdout } = await castellan(
      ['agent', 'explain', '--pid', `${process.pid}`, '--admin-socket', node.agent.adminSocket],
      '',
    )
    expect(stdout).toContain(`${idOf('/near')}: it has no unix:path:/usr/bin/other`)
  })

  it('explain of nobody is refused, and without a process is bad usage', async () => {
    expect((await asked('agent', 'explain', '--pid', '4194304')).code).not.toBe(0)
    const { code, stderr } = await asked('agent', 'explain')
    expect([code, stderr]).toEqual([2, expect.stringContaining('Give --pid')])
  })
})

describe('castellan doctor', () => {
  const doctor = (...args: string[]) => castellan(['doctor', ...args, '-o', 'json'], '')

  it('finds nothing wrong with a node and an authority that are well', async () => {
    const found = await doctor('--agent', join(node.folder, 'agent.yaml'))
    expect(JSON.parse(found.stdout).filter((it: { result: string }) => it.result !== 'ok')).toEqual(
      [],
    )
    expect(found.code).toBe(0)
  })

  it('says what is wrong, and what to do about it', async () => {
    await node.stopAuthority()
    const { code, stdout } = await doctor('--agent', join(node.folder, 'agent.yaml'))
    expect(code).toBe(1)
    const wrong = JSON.parse(stdout).filter((it: { result: string }) => it.result === 'wrong')
    expect(wrong[0]).toMatchObject({
      check: expect.stringMatching(/^authority /),
      found: expect.stringContaining('ECONNREFUSED'),
      remedy: expect.stringContaining('is the authority running'),
    })
    await node.startAuthority()
  })
})
