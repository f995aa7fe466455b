import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { loadAgentConfig } from '../../../../agent/config.ts'
import { type Decider, enforcementOf } from '../../../../agent/proxies/envoy/enforcement.ts'
import { compile } from '../../../../policies/compile.ts'
import { defaultMesh } from '../../../../policies/language/mesh.ts'
import { readPolicies } from '../../../../policies/language/read.ts'
import { inbound } from '../../../../proxy-spec/inbound.ts'
import { parseSpiffeId } from '../../../../spiffe/id.ts'

const spec = inbound.parse({
  ...{ listen: '127.0.0.1:8443', protocol: 'http', forwardTo: '127.0.0.1:8080' },
})
const text = `apiVersion: castellan.dev/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop }
spec: { action: DENY, rules: [{ to: [{ operation: { paths: [/admin] } }] }] }
`

function enforced(how: Partial<Decider> = {}, policies = text) {
  const mesh = { ...defaultMesh, trustDomain: 'td' }
  return enforcementOf(spec, 'mutual-tls', {
    policies: compile(readPolicies([{ name: 'p.yaml', text: policies }]), { mesh }),
    identity: parseSpiffeId('spiffe://td/ns/shop/sa/web'),
    ...{ labels: {}, isFederated: false, canAsk: true, asksAlways: false },
    identityHeader: 'x-who',
    unseen: [],
    ...how,
  })
}

describe('who decides at a listener', () => {
  it('is Envoy where it can, and the agent where it has to be', () => {
    expect(enforced()).toMatchObject({ by: 'native', reasons: [] })
    const why = [expect.stringContaining('other trust domains')]
    expect(enforced({ isFederated: true })).toMatchObject({ by: 'asked', reasons: why })
  })

  it('is the agent where that is said: then Envoy refuses nothing that the agent would not hear of', () => {
    const { by, reasons, lowered } = enforced({ asksAlways: true })
    expect({ by, reasons }).toEqual({
      by: 'asked',
      reasons: ['the configuration says that the agent decides'],
    })
    const passes = { kind: 'end', action: 'ALLOW' }
    expect(lowered).toMatchObject({ deny: passes })
    expect(lowered.guard).not.toMatchObject(passes)
    expect(enforced().lowered.deny).not.toMatchObject(passes)
  })

  it('is the agent where a policy names the identity header: Envoy takes off what callers send of it behind the rules', () => {
    const rule = '{ when: [{ key: "request.headers[x-who]", values: [admin] }] }'
    const named = text.replace('DENY', 'ALLOW').replace(/rules: .*\]/, `rules: [${rule}]`)
    const why = [expect.stringContaining('a policy names x-who')]
    expect(enforced({}, named)).toMatchObject({ by: 'asked', reasons: why })
    expect(enforced({ identityHeader: 'x-other' }, named).by).toBe('native')
  })

  it('is nobody where only the agent may decide, and nobody can ask it', () => {
    expect(enforced({ isFederated: true, canAsk: false }).by).toBe('closed')
    expect(enforced({ asksAlways: true, canAsk: false }).by).toBe('closed')
  })
})

it('agent.yaml that wants the agent to decide says where it is asked', () => {
  const folder = mkdtempSync(join(tmpdir(), 'castellan-config-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'agent.yaml')
  const load = (more: object) => {
    const authority = { address: '127.0.0.1:8081', bundle: 'b.pem' }
    const sockets = { socket: 'run/agent.sock', adminSocket: 'admin/agent.sock' }
    const proxies = [{ spec: 'web.yaml', driver: 'envoy', decisions: 'agent' }]
    const text = { trustDomain: 'td', state: 's', authority, ...sockets, proxies, ...more }
    writeFileSync(file, stringify(text))
    return loadAgentConfig(file)
  }
  expect(() => load({})).toThrow(/proxies\[0\]\.decisions: .*nobody answers/)
  expect(load({ decisions: { socket: 'run/authz.sock' } }).proxies).toMatchObject([
    { decisions: 'agent' },
  ])
})
