import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { castellan } from '../support/command.ts'

const policies = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  action: DENY
  rules:
  - to: [{ operation: { paths: [/admin] } }]
  - when: [{ key: 'request.auth.claims[group]', values: [out] }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: shop }
spec:
  selector: { matchLabels: { app: web } }
  rules:
  - from: [{ source: { principals: [cluster.local/ns/a/sa/x] } }]
`

describe('policy lower', () => {
  let folder = ''
  let file = ''
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'lower-'))
    file = join(folder, 'p.yaml')
    writeFileSync(file, policies)
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const lower = (...args: string[]) => castellan(['policy', 'lower', '--policies', file, ...args])

  it('prints the tree as a person reads it, and what was refused and why', async () => {
    const { code, stdout } = await lower('--destination', 'shop', '--labels', 'app=web')
    expect(code).toBe(0)
    const lines = stdout.split('\n')
    expect(lines[0]).toMatch(/^the agent has to be asked/)
    expect(lines).toContain(
      '  DENY ns[shop]-policy[no-admin]-rule[0] when the path is "/admin" or the path starts with "/admin?"',
    )
    expect(lines).toContain('  when the caller is "spiffe://cluster.local/ns/a/sa/x"')
    expect(lines).toContain('    ALLOW ns[shop]-policy[callers]-rule[0]')
    expect(lines).toContain(
      '  shop/no-admin, rule 1 at when[0].values: Envoy verifies no tokens here: claims are not known to it',
    )
  })

  it('prints Envoy’s filters with -o json; without all rules, none that allows', async () => {
    const { stdout } = await lower(
      '--destination',
      'spiffe://cluster.local/ns/shop/sa/web',
      '-o',
      'json',
    )
    const it = JSON.parse(stdout)
    expect(it).toMatchObject({ protocol: 'http', needsAuthz: true })
    expect(it.filters.map(({ name }: { name: string }) => name)).toEqual([
      'castellan_guard',
      'castellan_deny',
    ])
    const tcp = JSON.parse((await lower('--destination', 'shop', '--tcp', '-o', 'json')).stdout)
    expect(tcp.protocol).toBe('tcp')
  })

  it.each([
    [['--destination', 'Shop/x'], 'neither a SPIFFE ID nor a namespace'],
    [['--destination', 'shop', '--labels', 'web'], 'write NAME=VALUE'],
    [['--destination', 'shop', '--port', '70000'], 'is no port'],
    [[], '--destination'],
  ])('says what is wrong with %j', async (args, problem) => {
    const { code, stderr } = await lower(...args)
    expect(code).toBe(2)
    expect(stderr).toContain(problem)
  })
})
