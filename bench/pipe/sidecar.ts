// The sidecar that is measured, alone in its process: one inbound TCP listener with a fixed identity.
import { createPrivateKey } from 'node:crypto'
import type { X509Context } from '../../client/x509-source.ts'
import { createMesh } from '../../decisions/mesh.ts'
import { createTally } from '../../decisions/tally.ts'
import { compile } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { serve } from '../../proxy/serve.ts'
import { proxySpec } from '../../proxy-spec/spec.ts'
import { systemClock } from '../../runtime/clock.ts'
import { createLog } from '../../runtime/log.ts'
import { bundleOf, bundleSourceOf } from '../../spiffe/bundle.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { denyNothing } from '../../spiffe/deny-list.ts'
import { trustDomainOf } from '../../spiffe/id.ts'
import { parsePem } from '../../spiffe/pem.ts'
import { leafIdOf } from '../../spiffe/svid.ts'

const allowAll = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: all, namespace: default }
spec: { rules: [{}] }
`

function contextOf(chainPem: string, keyPem: string, rootPem: string): X509Context {
  const chain = parsePem(chainPem, 'CERTIFICATE', 'chain')
  const [first = Buffer.of()] = chain
  const leaf = parseCertificate(first)
  const id = leafIdOf(leaf)
  const { serial, notAfter } = leaf
  const svid = { id, chain, key: createPrivateKey(keyPem), serial, notAfter, hint: '' }
  const bundle = bundleOf(trustDomainOf(id), parsePem(rootPem, 'CERTIFICATE', 'root'))
  return { svids: [svid], bundles: bundleSourceOf(bundle) }
}

export interface Setting {
  readonly chain: string
  readonly key: string
  readonly root: string
  readonly workload: string
}

function isSetting(value: unknown): value is Setting {
  return typeof value === 'object' && value !== null && 'chain' in value && 'workload' in value
}

process.once('message', async (message) => {
  if (!isSetting(message)) throw new TypeError('no setting')
  const context = contextOf(message.chain, message.key, message.root)
  const mesh = createMesh()
  const policies = compile(readPolicies([{ name: 'all.yaml', text: allowAll }]))
  mesh.put({ policies, endpoints: new Map(), denyList: denyNothing, labels: new Map() })
  const inbound = { listen: '127.0.0.1:0', protocol: 'tcp', forwardTo: message.workload }
  const serving = await serve(proxySpec.parse({ inbound: [inbound] }), {
    source: { current: () => context, subscribe: () => ({ [Symbol.dispose]() {} }) },
    mesh,
    tally: createTally(systemClock),
    log: createLog({ name: 'proxy', level: 'warn' }),
    clock: systemClock,
  })
  process.send?.({ port: serving.listeners[0]?.port })
})
process.once('disconnect', () => process.exit())
