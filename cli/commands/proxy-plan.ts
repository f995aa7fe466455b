// castellan proxy plan: what each driver would make of a proxy spec.
import { stringify } from 'yaml'
import { z } from 'zod'
import { planOf } from '../../agent/proxies/envoy/plan.ts'
import { demandEnvoyCan } from '../../agent/proxies/envoy/problems.ts'
import { type Situation, snapshotOf } from '../../agent/proxies/envoy/snapshot.ts'
import { demandGrpcCan } from '../../agent/proxies/grpc/problems.ts'
import { grpcSnapshot } from '../../agent/proxies/grpc/snapshot.ts'
import { inFile } from '../../agent/proxies/specs.ts'
import { compile } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import type { ServiceEndpoint } from '../../proxy-spec/endpoint.ts'
import { loadProxySpec, type ProxySpec } from '../../proxy-spec/spec.ts'
import { systemClock } from '../../runtime/clock.ts'
import { address, addressText } from '../../runtime/config.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { type SpiffeId, trustDomainOf } from '../../spiffe/id.ts'
import { answer } from '../context.ts'
import { readMesh, readPolicyTexts } from '../policy/files.ts'
import { flag, optionalText, optionsOf, type Register, text } from '../register.ts'

const options = z.object({
  spec: text,
  driver: z.enum(['envoy', 'grpc', 'embedded'], 'is envoy, grpc or embedded'),
  policies: z.array(z.string()),
  mesh: optionalText,
  endpoint: z.array(z.string()),
  decisions: optionalText,
  askAlways: flag,
  federated: flag,
  resources: flag,
})
type Options = z.infer<typeof options>

/** what a leaf lives for when nothing else is said */
const life = 3_600_000

function identityOf({ identity }: ProxySpec, file: string): SpiffeId {
  if (identity !== undefined) return identity
  throw new IdentityError('ERR_CONFIG', `${file}: identity: name it, policies are about identities`)
}

function endpointsOf(given: readonly string[]) {
  const endpoints = new Map<string, ServiceEndpoint[]>()
  for (const it of given) {
    const [, service = '', where = ''] = /^([^=]+)=(.+)$/.exec(it) ?? []
    const read = address.safeParse(where)
    if (service === '' || !read.success)
      throw new IdentityError('ERR_BAD_REQUEST', `--endpoint ${it}: write SERVICE=HOST:PORT`)
    endpoints.set(service, [...(endpoints.get(service) ?? []), { ...read.data, id: undefined }])
  }
  return endpoints
}

/** Of a driver that the agent tells what to be. */
function planBy(driver: 'envoy' | 'grpc', spec: ProxySpec, it: Options) {
  const situation = situationOf(spec, it)
  if (driver === 'grpc') {
    inFile(it.spec, () => demandGrpcCan(spec))
    return planOf(grpcSnapshot(situation))
  }
  inFile(it.spec, () => demandEnvoyCan(spec, { canAsk: it.decisions !== undefined }))
  return planOf(snapshotOf(situation))
}

function situationOf(spec: ProxySpec, it: Options): Situation {
  const { decisions, federated = false, askAlways: asksAlways = false } = it
  if (asksAlways && decisions === undefined)
    throw new IdentityError('ERR_BAD_REQUEST', '--ask-always: say --decisions as well')
  const identity = identityOf(spec, it.spec)
  const documents = readPolicies(readPolicyTexts(it.policies))
  const mesh = readMesh(it.mesh, 'strict')
  const own = `spiffe://${trustDomainOf(identity)}`
  return {
    ...{
      spec,
      identity,
      labels: {},
      revoked: [],
      unseen: [],
      cuts: { inbound: '', outbound: {} },
      life,
      decisions,
      asksAlways,
    },
    isFederated: federated,
    policies: compile(documents, { mesh, now: systemClock.now() }),
    trust: { own, all: 'ALL' },
    endpoints: endpointsOf(it.endpoint),
  }
}

const whom: Readonly<Record<string, string>> = {
  native: 'it decides alone',
  asked: 'the agent decides, over ext_authz',
  closed: 'nobody gets in',
}

function summary(spec: ProxySpec, { decisions, remarks }: ReturnType<typeof planOf>): string {
  const inbound = spec.inbound.map((it, i) => {
    const name = it.name ?? `inbound-${i}`
    const { by = '', reasons = [] } = decisions[name] ?? {}
    const way = `${addressText(it.listen)} -> ${addressText(it.forwardTo)}`
    const line = `inbound ${name}: ${it.protocol}, mTLS ${it.mtls}, ${way}: ${whom[by] ?? by}`
    return [line, ...reasons.map((reason) => `    ${reason}`)].join('\n')
  })
  const outbound = spec.outbound.map((it, i) => {
    const to = it.service ?? it.destination?.map(addressText).join(', ')
    const expect = it.expect.join(' or ')
    return `outbound ${it.name ?? `outbound-${i}`}: ${it.protocol}, ${addressText(it.listen)} -> ${to} as ${expect}`
  })
  return [...inbound, ...outbound, ...remarks].join('\n')
}

export function proxyPlanCommand(register: Register): void {
  register({
    noun: 'proxy',
    verb: 'plan',
    about: 'Shows what a driver makes of a proxy spec, and who decides at each listener.',
    example: 'castellan proxy plan --spec proxy.yaml --policies policies/ --resources',
    options: [
      ['-s, --spec <file>', 'proxy spec', 'proxy.yaml'],
      ['--driver <name>', 'envoy, grpc or embedded', 'envoy'],
      ['--policies <path...>', 'files, or folders with *.yaml and *.yml', []],
      ['--mesh <file>', 'trust domain, aliases and the like'],
      ['--endpoint <service=host:port>', 'of a service; may be given several times', []],
      ['--decisions <path>', '`decisions.socket` of agent.yaml; without it nobody can be asked'],
      [
        '--ask-always',
        'as with `decisions: agent` in agent.yaml: the agent decides about each request',
      ],
      ['--federated', 'as if the identity were federated with other trust domains'],
      ['--resources', 'the whole configuration, as YAML'],
    ],
    run(context, given) {
      const it = optionsOf(given, options)
      const spec = loadProxySpec(it.spec)
      if (it.driver === 'embedded') {
        answer(context, spec, () => stringify(spec).trimEnd())
        return Promise.resolve(0)
      }
      const plan = planBy(it.driver, spec, it)
      answer(context, plan, () =>
        it.resources === true ? stringify(plan).trimEnd() : summary(spec, plan),
      )
      return Promise.resolve(0)
    },
  })
}
