// What a proxyless gRPC program has to do with our agent, whichever gRPC it is of.

import { createClient } from '@connectrpc/connect'
import * as grpc from '@grpc/grpc-js'
import { connectTls } from '../../client/tls-connect.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { matchId } from '../../spiffe/match.ts'
import { parsePem } from '../../spiffe/pem.ts'
import {
  type DrivenGrpc,
  type GrpcProgram,
  idOf,
  type Party,
  parties,
  startDrivenGrpc,
  type Talker,
} from '../support/driven-grpc.ts'
import { eventually, until } from './eventually.ts'
import { deniesRoot } from './grpc-xds-root.ts'

const unary = '/castellan.test.v1.Echo/Unary'
const other = '/castellan.test.v1.Echo/Other'

const policy = (name: string, spec: string) => `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: shop }
spec: ${spec}
`
const principal = idOf('client').slice('spiffe://'.length)
const allow = (paths: readonly string[]) =>
  policy(
    'echo',
    `{ action: ALLOW, rules: [{ from: [{ source: { principals: ["${principal}"] } }],
    to: [{ operation: { paths: [${paths.join(', ')}] } }] }] }`,
  )

function is(answer: string, wanted: string, what: string): void {
  if (!answer.startsWith(wanted)) throw new Error(`${what}: ${answer}, not ${wanted}`)
}

function demand(isSo: boolean, what: string): asserts isSo {
  if (!isSo) throw new Error(what)
}

interface Cast {
  readonly it: DrivenGrpc
  readonly client: Talker
  readonly other: Talker
}

const becomes = async (talker: Talker, line: string, wanted: string) => {
  const began = systemClock.monotonic()
  await eventually(`${line} becomes ${wanted}`, async () =>
    is(await talker.tell(line), wanted, line),
  )
  return `${Math.round(systemClock.monotonic() - began)} ms`
}

async function serves({ client, other: stranger }: Cast): Promise<void> {
  await becomes(client, `call echo ${unary}`, 'ok server')
  is(await client.tell(`call echo ${other}`), 'error PERMISSION_DENIED', 'another method')
  await eventually('a stranger is denied', async () =>
    is(await stranger.tell(`call echo ${unary}`), 'error PERMISSION_DENIED', 'a stranger'),
  )
}

/** A server with an SVID of ours that is not the expected one; counts whom it has heard. */
async function startWrong({ it }: Cast) {
  let heard = 0
  const server = new grpc.Server()
  const same = (bytes: Buffer) => bytes
  const answer: grpc.handleUnaryCall<Buffer, Buffer> = (_, callback) => {
    heard++
    callback(null, Buffer.from('wrong'))
  }
  const method = {
    ...{ path: unary, requestStream: false, responseStream: false },
    ...{ requestSerialize: same, requestDeserialize: same },
    ...{ responseSerialize: same, responseDeserialize: same },
  }
  server.addService({ unary: method }, { unary: answer })
  const credentials = grpc.ServerCredentials.createSsl(
    it.file('other', 'bundle.pem'),
    [{ private_key: it.file('other', 'key.pem'), cert_chain: it.file('other', 'svid.pem') }],
    true,
  )
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${it.ports.wrong}`, credentials, (error) =>
      error === null ? resolve() : reject(error),
    )
  })
  return { heard: () => heard, [Symbol.dispose]: () => server.forceShutdown() }
}

async function refusesWrongServers(cast: Cast): Promise<string> {
  using wrong = await startWrong(cast)
  const answer = await cast.client.tell(`call wrong ${unary}`)
  is(answer, 'error', 'a server of another ID')
  demand(wrong.heard() === 0, 'a server of another ID was asked')
  return answer.slice(0, 120)
}

/** Calls it with its roots and without a certificate. */
async function refusesTheNameless({ it }: Cast): Promise<void> {
  const credentials = grpc.credentials.createSsl(it.file('client', 'bundle.pem'), null, null, {
    checkServerIdentity: () => undefined,
  })
  const client = new grpc.Client(`127.0.0.1:${it.ports.server}`, credentials, {
    'grpc.ssl_target_name_override': 'localhost',
  })
  const same = (bytes: Buffer) => bytes
  const options = { deadline: Date.now() + 5_000 }
  const answer = await new Promise<string>((resolve) => {
    client.makeUnaryRequest(unary, same, same, Buffer.from('hi'), options, (error, value) =>
      resolve(error === null ? `ok ${value}` : `error ${error.details}`),
    )
  })
  client.close()
  is(answer, 'error', 'a caller without a certificate')
}

async function followsPolicies({ it, client }: Cast): Promise<string> {
  await it.apply(allow([unary, other]))
  const opened = await becomes(client, `call echo ${other}`, 'ok')
  await it.apply(allow([unary]))
  const closed = await becomes(client, `call echo ${other}`, 'error PERMISSION_DENIED')
  is(await client.tell(`call echo ${unary}`), 'ok', 'what is still allowed')
  return `allowed after ${opened}, denied after ${closed}`
}

async function comparesFields({ it, client }: Cast): Promise<void> {
  const role = `rules: [{ when: [{ key: "request.headers[x-role]", values: [guest] }] }]`
  const paths = `rules: [{ to: [{ operation: { paths: ["*/Other"] } }] }]`
  await it.apply(
    [
      allow(['/castellan.test.*']),
      policy('guests', `{ action: DENY, ${role} }`),
      policy('other', `{ action: DENY, ${paths} }`),
    ].join(''),
  )
  await becomes(client, `call echo ${unary} x-role=guest`, 'error PERMISSION_DENIED')
  is(await client.tell(`call echo ${unary} x-role=admin`), 'ok', 'another role')
  is(await client.tell(`call echo ${unary}`), 'ok', 'no role')
  const both = await client.tell(`call echo ${unary} x-role=admin x-role=guest`)
  is(both, 'error PERMISSION_DENIED', 'two roles')
  is(await client.tell(`call echo ${other}`), 'error PERMISSION_DENIED', 'a denied suffix')
  await it.apply(allow([unary]))
  await becomes(client, `call echo ${unary} x-role=guest`, 'ok')
}

/** What gRPC cannot judge lets nobody in, and is said. */
async function failsClosed({ it, client }: Cast): Promise<string> {
  const blocks = `{ action: DENY, rules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8] } }] }] }`
  await it.apply(`${allow([unary])}${policy('networks', blocks)}`)
  await becomes(client, `call echo ${unary}`, 'error PERMISSION_DENIED')
  const { proxies } = await it.status()
  const remark = proxies
    .find(({ spiffeId }) => spiffeId === idOf('server'))
    ?.remarks.find((one) => one.includes('nobody gets in'))
  demand(remark !== undefined, 'it is not said that nobody gets in')
  await it.apply(allow([unary]))
  await becomes(client, `call echo ${unary}`, 'ok')
  return remark
}

const serialOf = (pem: Buffer) =>
  parseCertificate(parsePem(String(pem), 'CERTIFICATE', 'svid.pem')[0] ?? new Uint8Array()).serial

const denials = {
  identity: (_: DrivenGrpc, denied: Party) => ({ case: 'spiffeId', value: idOf(denied) }) as const,
  certificate: (it: DrivenGrpc, denied: Party) =>
    ({ case: 'serial', value: serialOf(it.file(denied, 'svid.pem')) }) as const,
}

async function honoursDenial(
  { it, client }: Cast,
  denied: 'client' | 'server',
  what: keyof typeof denials = 'identity',
): Promise<string> {
  const rules = createClient(DenyRules, it.node.local)
  const target = denials[what](it, denied)
  const { id } = await rules.addRule({ rule: { target, reason: 'a drill' } })
  const took = await becomes(client, `call echo ${unary}`, 'error')
  if (what === 'certificate') {
    const said = (await it.status()).proxies.flatMap(({ remarks }) => remarks)
    demand(
      said.some((one) => one.startsWith(`all of ${idOf(denied)} is refused`)),
      'it is not said that a whole identity is refused',
    )
  }
  await rules.removeRule({ id })
  await becomes(client, `call echo ${unary}`, 'ok')
  return took
}

/** A program whose bootstrap knows no certificates refuses what it is told. */
async function showsRefusals({ it }: Cast): Promise<string> {
  await using broken = await it.start('other', (bootstrap) => ({
    ...bootstrap,
    certificate_providers: {},
  }))
  is(await broken.tell(`call echo ${unary}`), 'error', 'a program without certificates')
  return await eventually('its refusal is shown', async () => {
    const { proxies } = await it.status()
    const refusal = proxies
      .flatMap(({ resources }) => resources)
      .find(({ kind, refusal: why }) => kind === 'clusters' && why !== '')?.refusal
    demand(refusal !== undefined, 'no refusal is shown')
    return refusal.slice(0, 160)
  })
}

/** how many calls there are while the agent is away: more than a program makes before it has noticed */
const whileAway = 800

async function outlivesAgent({ it, client }: Cast): Promise<string> {
  let calls = 0
  const call = async (when: string) => {
    is(await client.tell(`call echo ${unary}`), 'ok', when)
    calls++
  }
  for (let i = 0; i < 2; i++) {
    await it.node.stopAgent()
    for (let n = 0; n < whileAway; n++) await call('while the agent is away')
    await it.node.startAgent()
    await until('the programs are back', async () => {
      await call('while the agent is back')
      const { proxies } = await it.status()
      const ids = new Set(proxies.map(({ spiffeId }) => spiffeId))
      return parties.every((party) => ids.has(idOf(party)))
    })
  }
  await it.apply(allow([unary, other]))
  await becomes(client, `call echo ${other}`, 'ok')
  await it.apply(allow([unary]))
  return `${calls} calls, none failed`
}

/** Both sides come to new certificates, and calls over new connections go on. */
async function rotates({ it, client }: Cast): Promise<string> {
  await using source = startX509Source({ kind: 'unix', path: it.node.agent.socket })
  await source.ready(AbortSignal.timeout(60_000))
  const accept = matchId(parseSpiffeId(idOf('server')))
  const place = { host: '127.0.0.1', port: it.ports.server, accept }
  const shown = new Set<string>()
  const files = new Set<string>()
  let calls = 0
  await until('two rotations', async () => {
    const { socket } = await connectTls(source, { ...place, protocols: ['h2'] })
    shown.add(socket.getPeerCertificate().serialNumber)
    socket.destroy()
    files.add(String(it.file('client', 'svid.pem')))
    is(await client.tell(`fresh echo ${unary}`), 'ok', 'over a new connection')
    is(await client.tell(`call echo ${unary}`), 'ok', 'over the old one')
    calls += 2
    return shown.size > 2 && files.size > 2
  })
  return `${shown.size} certificates of the server, ${files.size} of the client, ${calls} calls`
}

/** What the spec no longer says is not served any more. */
async function withdraws({ it, client }: Cast): Promise<string> {
  const elsewhere = `127.0.0.1:${it.ports.wrong}`
  it.edit('server', {
    inbound: [{ name: 'echo', listen: elsewhere, protocol: 'grpc', forwardTo: elsewhere }],
  })
  return await becomes(client, `fresh echo ${unary}`, 'error UNAVAILABLE')
}

/** Throws what does not hold. */
export async function walkGrpc(program: GrpcProgram, log: (line: string) => void): Promise<void> {
  await using it = await startDrivenGrpc(program, { svidLifetime: '60s' })
  await it.apply(allow([unary]))
  await using _server = await it.start('server')
  await using client = await it.start('client')
  await using stranger = await it.start('other')
  const cast: Cast = { it, client, other: stranger }
  await serves(cast)
  log('ok a caller that may call is served, another one and another method are not')
  log(`ok a server of another ID is not asked: ${await refusesWrongServers(cast)}`)
  await refusesTheNameless(cast)
  log('ok who shows no certificate is not served')
  log(`ok policies: ${await followsPolicies(cast)}`)
  await comparesFields(cast)
  log('ok header fields, beginnings and ends of methods are compared')
  log(`ok what gRPC cannot judge lets nobody in: ${await failsClosed(cast)}`)
  log(`ok a denied caller is refused after ${await honoursDenial(cast, 'client')}`)
  log(`ok a denied server is not called any more after ${await honoursDenial(cast, 'server')}`)
  const wide = await honoursDenial(cast, 'client', 'certificate')
  log(`ok whose certificate is denied is refused as a whole, which is said, after ${wide}`)
  log(`ok a refusal is shown: ${await showsRefusals(cast)}`)
  log(`ok the agent is away twice: ${await outlivesAgent(cast)}`)
  log(`ok rotation: ${await rotates(cast)}`)
  log(`ok certificates of a denied root are refused, after ${await deniesRoot(it)}`)
  log(`ok what is withdrawn is not served any more, after ${await withdraws(cast)}`)
}
