import { describe, expect, it } from 'vitest'
import { compile } from '../../policies/compile.ts'
import { decide } from '../../policies/decide.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { httpRequest, policyText } from '../support/policy-text.ts'

interface Peer {
  readonly name: string
  readonly namespace?: string
  /** YAML in flow style */
  readonly spec: string
}

const text = ({ name, namespace = 'shop', spec }: Peer) => `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: ${name}, namespace: ${namespace} }
spec: ${spec}
`

/** Whether plaintext reaches a workload with the label app: web on port 8443, which allows everything. */
function takesPlaintext(...peers: readonly Peer[]): boolean {
  const documents = [policyText('[{}]'), ...peers.map(text)].join('---\n')
  const set = compile(readPolicies([{ name: 'test.yaml', text: documents }]))
  const asked = httpRequest('GET /')
  const destination = { ...asked.destination, labels: { app: 'web' } }
  return decide(set, { ...asked, destination }).allow
}

const strict = '{ mtls: { mode: STRICT } }'
const permissive = '{ mtls: { mode: PERMISSIVE } }'

describe('PeerAuthentication', () => {
  it('leaves plaintext to the policies where it says nothing', () => {
    expect(takesPlaintext()).toBe(true)
    expect(takesPlaintext({ name: 'other', namespace: 'elsewhere', spec: strict })).toBe(true)
  })

  it('denies plaintext where it is STRICT, for the mesh or the namespace', () => {
    expect(takesPlaintext({ name: 'mesh', namespace: 'istio-system', spec: strict })).toBe(false)
    expect(takesPlaintext({ name: 'namespace', spec: strict })).toBe(false)
  })

  it('lets the namespace say otherwise than the mesh, and the workload otherwise than both', () => {
    const mesh = { name: 'mesh', namespace: 'istio-system', spec: strict }
    expect(takesPlaintext(mesh, { name: 'namespace', spec: permissive })).toBe(true)
    const web = '{ selector: { matchLabels: { app: web } }, mtls: { mode: STRICT } }'
    const workload = { name: 'web', spec: web }
    expect(takesPlaintext({ name: 'namespace', spec: permissive }, workload)).toBe(false)
  })

  it('takes UNSET for what stands above it', () => {
    const mesh = { name: 'mesh', namespace: 'istio-system', spec: strict }
    const unset = { name: 'namespace', spec: '{ mtls: { mode: UNSET } }' }
    expect(takesPlaintext(mesh, unset)).toBe(false)
  })

  it('knows modes of single ports', () => {
    const at = (port: number) => ({
      name: 'port',
      spec: `{ selector: { matchLabels: { app: web } }, portLevelMtls: { ${port}: { mode: STRICT } } }`,
    })
    expect(takesPlaintext(at(8443))).toBe(false)
    expect(takesPlaintext(at(9000))).toBe(true)
  })

  it('never denies who has an identity', () => {
    const documents = `${policyText('[{}]')}---\n${text({ name: 'namespace', spec: strict })}`
    const set = compile(readPolicies([{ name: 'test.yaml', text: documents }]))
    expect(decide(set, httpRequest('GET /', { from: 'td/ns/a/sa/x' })).allow).toBe(true)
  })
})
