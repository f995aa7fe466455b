import { describe, expect, it } from 'vitest'
import { castellan } from '../support/command.ts'
import { sharedCa } from '../support/shared-ca.ts'

const ca = sharedCa()
const run = (...args: string[]) => castellan([...args, '--socket', ca.running.socket])

const made = [
  ...['--spiffe-id', 'spiffe://example.org/ns/shop/sa/web'],
  ...['--parent-id', 'spiffe://example.org/spire/agent/x', '--selector', 'unix:uid:1000'],
]

describe('castellan entry label', () => {
  it('sets and removes labels, which show and list tell', async () => {
    await run('entry', 'create', '--id', 'web', ...made)
    const set = await run('entry', 'label', 'web', 'tier=front', 'app=web', 'empty=')
    expect(set).toEqual({ code: 0, stdout: 'entry web: app=web,empty=,tier=front\n', stderr: '' })
    const changed = await run('entry', 'label', 'web', 'tier=back', 'empty-', '-o', 'json')
    expect(JSON.parse(changed.stdout)).toEqual({ id: 'web', labels: { app: 'web', tier: 'back' } })
    expect((await run('entry', 'show', 'web')).stdout).toMatch(/^labels +app=web,tier=back$/m)
    expect((await run('entry', 'list')).stdout).toMatch(/LABELS\nweb .* app=web,tier=back$/m)
    const shown = await run('entry', 'list', '-o', 'json')
    expect(JSON.parse(shown.stdout)).toMatchObject([{ labels: { app: 'web', tier: 'back' } }])
    const none = await run('entry', 'label', 'web', 'app-', 'tier-')
    expect(none.stdout).toBe('entry web has no labels\n')
    expect((await run('entry', 'show', 'web')).stdout).not.toContain('labels')
  })

  it.each([
    [['web', 'app'], 2, 'castellan: "app": write key=value to set a label, key- to remove one'],
    [['web', 'a=1', 'a=2'], 2, 'castellan: label a is given twice'],
    [['web', 'a b=1'], 2, '"a b" is no label: [PREFIX/]NAME'],
    [['nobody', 'a=1'], 1, 'entry nobody not found'],
  ])('refuses %j', async (args, code, problem) => {
    const refused = await run('entry', 'label', ...args)
    expect(refused.code).toBe(code)
    expect(refused.stderr).toContain(problem)
  })
})
