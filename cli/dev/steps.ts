// The steps of the tour, in order. Each returns what it saw, or throws what was wrong.
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { makeDevelopmentCertificates } from '../../certs-dev/development.ts'
import { type Clock, sleepUntil } from '../../runtime/clock.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import type { Event } from './child.ts'
import type { Credential } from './door.ts'
import { mintStranger, visit } from './intruder.ts'
import { type DevMesh, wholeLog } from './mesh.ts'
import type { Proxies } from './proxies.ts'
import type { Rotations } from './rotations.ts'
import { firstPolicy, identityOf, services, trustDomain } from './stage.ts'
import type { StatusFeed } from './status.ts'
import { call, type Reply, type Traffic } from './traffic.ts'

export interface Check {
  readonly mesh: DevMesh
  readonly feed: StatusFeed
  readonly traffic: Traffic
  readonly shown: Rotations
  readonly events: { readonly who: string; readonly event: Event }[]
  readonly clock: Clock
  readonly signal: AbortSignal
}

export type Step = readonly [name: string, prove: (check: Check) => Promise<string>]

function demand(isTrue: boolean, otherwise: string): asserts isTrue {
  if (!isTrue) throw new Error(otherwise)
}

/** Asks `look` again and again until it says yes, for at most `ms`. Returns how long it took. */
async function within(
  ms: number,
  { clock, signal }: Check,
  otherwise: string,
  look: () => Promise<boolean>,
): Promise<number> {
  const start = clock.monotonic()
  while (!(await look())) {
    demand(clock.monotonic() - start < ms, `${otherwise} within ${ms} ms`)
    await clock.sleep(20, { signal })
  }
  return Math.round(clock.monotonic() - start)
}

/** milliseconds: what takes a fraction of a second, on a machine that stands still for a while */
const patience = 20_000

const postAdmin = ({ mesh, signal }: Check): Promise<Reply> =>
  call(mesh.toPayments, 'POST', '/admin', { signal })

async function identities({ feed, signal }: Check): Promise<string> {
  const wanted = services.map(identityOf)
  const status = await feed.until(({ sidecars, proxies }) => {
    const spoken = new Set([...sidecars, ...proxies].map(({ spiffeId }) => spiffeId))
    return wanted.every((id) => spoken.has(id))
  }, signal)
  return `${status.identities.length} identities, told apart by the path of their program`
}

async function allowed({ mesh, signal }: Check): Promise<string> {
  const { status, peer, body } = await call(mesh.toPayments, 'GET', '/balance', { signal })
  demand(status === 200, `status ${status}`)
  demand(peer === identityOf('payments'), `the peer is ${peer}`)
  demand(body.includes(identityOf('frontend')), 'payments did not learn who called')
  return `200 from ${peer}`
}

async function deniedAndExplained(check: Check): Promise<string> {
  const { feed } = check
  const since = check.clock.now()
  const { status, body } = await postAdmin(check)
  demand(status === 403, `status ${status}`)
  demand(!body.includes('payments/') && !body.includes('rule'), 'the answer gives the policy away')
  let found = ''
  await within(patience, check, 'the agent did not learn of the denial', async () => {
    const denial = (await feed.denials(10)).find(
      ({ at, method }) => method === 'POST' && Number(at) >= since - 50,
    )
    if (denial === undefined) return false
    demand(denial.remedy.includes('/admin'), `no remedy: ${denial.reason}`)
    found = denial.remedy
    return true
  })
  return `403; would be allowed by ${found.slice(0, 60)}…`
}

const allowAdmin = `  - from:
    - source:
        principals: ["${trustDomain}/ns/frontend/sa/frontend"]
    to:
    - operation:
        methods: [POST]
        paths: ["/admin"]
`

async function policyEdit(check: Check): Promise<string> {
  appendFileSync(check.mesh.stage.policyFile, allowAdmin)
  const took = await within(
    patience,
    check,
    'the edit was not in force',
    async () => (await postAdmin(check)).status === 200,
  )
  return `in force after ${took} ms`
}

async function denyRule(check: Check): Promise<string> {
  const deny = `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: payments }
spec: { action: DENY, rules: [{ to: [{ operation: { paths: ["/admin*"] } }] }] }
`
  appendFileSync(check.mesh.stage.policyFile, deny)
  const took = await within(
    patience,
    check,
    'the DENY was not in force',
    async () => (await postAdmin(check)).status === 403,
  )
  const named = async () =>
    (await check.feed.denials(5)).some(({ policy }) => policy === 'payments/no-admin')
  await within(patience, check, 'the denial did not name its rule', named)
  writeFileSync(check.mesh.stage.policyFile, firstPolicy)
  return `payments/no-admin rule 0, in force after ${took} ms`
}

async function brokenEdit(check: Check): Promise<string> {
  const { mesh, events } = check
  const isRefusal = ({ event }: Check['events'][number]) =>
    event.msg === 'policies refused; the version in force stays'
  const before = events.filter(isRefusal).length
  writeFileSync(mesh.stage.policyFile, firstPolicy.replace('methods:', 'method:'))
  await within(
    patience,
    check,
    'the edit was not refused',
    async () => events.filter(isRefusal).length > before,
  )
  const problems = JSON.stringify(events.filter(isRefusal).at(-1)?.event.problems)
  demand(
    problems.includes('payments.yaml:15') && problems.includes('method'),
    `the place is not named: ${problems}`,
  )
  const { status } = await call(mesh.toPayments, 'GET', '/balance')
  demand(status === 200, `the old policy is gone: status ${status}`)
  writeFileSync(mesh.stage.policyFile, firstPolicy)
  return 'payments.yaml:15 named, the version before stays'
}

function refused(credential: (check: Check) => Promise<Credential | undefined>): Step[1] {
  return async (check) => {
    const before = check.mesh.payments.served
    const offered = await credential(check)
    const result = await visit(check.mesh, offered, check.clock.now())
    demand(result.kind === 'refused', `it was answered: ${JSON.stringify(result)} (${before})`)
    return 'refused in the handshake'
  }
}

async function foreign({ clock }: Check): Promise<Credential> {
  const made = makeDevelopmentCertificates({
    trustDomain: parseTrustDomain(trustDomain),
    now: clock.now(),
  })
  const good = made.find(({ name }) => name === 'good')
  demand(good !== undefined, 'no development certificate')
  return good
}

async function expired({ mesh, clock, signal }: Check): Promise<Credential> {
  const svid = await mintStranger(mesh, 2)
  await sleepUntil(clock, svid.notAfter + 1000, { signal })
  return svid
}

async function stranger({ mesh, clock }: Check): Promise<string> {
  const result = await visit(mesh, await mintStranger(mesh, 30), clock.now())
  demand(result.kind === 'answered' && result.status === 403, `it got ${JSON.stringify(result)}`)
  return '403'
}

async function wrongServer({ mesh, signal }: Check): Promise<string> {
  const { status, body } = await call(mesh.toWrongServer, 'GET', '/never', { signal })
  const { wrongServer: refusal } = mesh.proxies
  demand(status === refusal, `status ${status}`)
  demand(!body.includes('"service"'), 'the request reached the server')
  return `${refusal}, no byte of the request was sent`
}

const rotationsWanted = 3
const requestsWanted = 1000

async function rotations(check: Check): Promise<string> {
  const { traffic, shown, clock, signal } = check
  const counts = () => services.map((service) => shown.of(service))
  const isEnough = () =>
    traffic.sent >= requestsWanted && counts().every((count) => count >= rotationsWanted)
  while (!isEnough()) await clock.sleep(100, { signal })
  demand(
    traffic.failed === 0 && traffic.denied === 0,
    `${traffic.failed} of ${traffic.sent} failed, ${traffic.denied} were denied: ${traffic.failures.join('; ')}`,
  )
  return `${traffic.sent} requests over ${counts().join(' and ')} rotations, 0 failed`
}

async function noSecrets({ mesh }: Check): Promise<string> {
  const log = wholeLog(mesh)
  const token = readFileSync(mesh.stage.path('token'), 'utf8')
  const key = readFileSync(mesh.stage.path('ca', 'ca.key'), 'utf8').trim()
  demand(!log.includes('-----BEGIN'), 'PEM in the log')
  demand(!log.includes(token), 'the join token in the log')
  demand(!log.includes(key), 'the key file in the log')
  return `${log.split('\n').length} lines without key, token or PEM`
}

export const stepsWith = ({ one }: Proxies): readonly Step[] => [
  [`each ${one} gets its own identity`, identities],
  ['GET /balance is allowed, both sides know whom they speak to', allowed],
  ['POST /admin is denied, explained on the admin socket only', deniedAndExplained],
  ['a policy edit takes effect without a restart', policyEdit],
  ['a DENY overrides, and is named', denyRule],
  ['a broken edit is refused with its line', brokenEdit],
  ['a caller without a certificate is refused', refused(async () => undefined)],
  ['a certificate of a foreign CA is refused', refused(foreign)],
  ['an expired certificate is refused', refused(expired)],
  ['a stranger of our own CA is denied', stranger],
  ['a server of our CA with the wrong identity gets no request', wrongServer],
  ['certificates rotate under traffic', rotations],
  ['no secret in any log', noSecrets],
]
