// A root on the deny-list, and a gRPC program without a proxy: whoever shows a certificate of it is refused, on a
// connection of before as well, while that certificate lives.
import { createClient } from '@connectrpc/connect'
import * as grpc from '@grpc/grpc-js'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { parsePem, toPem } from '../../spiffe/pem.ts'
import { newKeys } from '../support/ca-client.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'
import { type DrivenGrpc, idOf } from '../support/driven-grpc.ts'
import { eventually } from './eventually.ts'

const unary = '/castellan.test.v1.Echo/Unary'
const same = (bytes: Buffer) => bytes

function certificateIn(pem: Buffer) {
  const [leaf = new Uint8Array()] = parsePem(String(pem), 'CERTIFICATE', 'svid.pem')
  return parseCertificate(leaf)
}

/** One that lives longer than what the agent hands out. */
async function minted({ node }: DrivenGrpc) {
  const keys = newKeys()
  const csr = makeCsr(keys, { attributes: [requestedNames([0x86, idOf('client')])] })
  const { svid } = await createClient(SVID, node.local).mintX509SVID({ csr, ttl: 3600 })
  const chain = (svid?.certChain ?? []).map((der) => toPem(der, 'CERTIFICATE')).join('')
  const key = keys.privateKey.export({ format: 'pem', type: 'pkcs8' })
  return { key: Buffer.from(key), chain: Buffer.from(chain) }
}

const held = (it: DrivenGrpc) => ({
  key: it.file('client', 'key.pem'),
  chain: it.file('client', 'svid.pem'),
})

/** A connection of who holds that, whatever the client's files say later. */
function openWith(it: DrivenGrpc, { key, chain }: ReturnType<typeof held>) {
  const credentials = grpc.credentials.createSsl(it.file('client', 'bundle.pem'), key, chain, {
    checkServerIdentity: () => undefined,
  })
  const client = new grpc.Client(`127.0.0.1:${it.ports.server}`, credentials, {
    'grpc.ssl_target_name_override': 'localhost',
    // none is shared with another client
    'grpc.use_local_subchannel_pool': 1,
  })
  return {
    call: () =>
      new Promise<string>((resolve) => {
        const options = { deadline: Date.now() + 5_000 }
        client.makeUnaryRequest(unary, same, same, Buffer.from('hi'), options, (error, value) =>
          resolve(error === null ? `ok ${value}` : `error ${grpc.status[error.code]}`),
        )
      }),
    [Symbol.dispose]: () => client.close(),
  }
}

function is(answer: string, wanted: string, what: string): void {
  if (!answer.startsWith(wanted)) throw new Error(`${what}: ${answer}, not ${wanted}`)
}

/** The next authority signs; gives the one before. */
async function leaveRoot({ node }: DrivenGrpc): Promise<string> {
  const authorities = createClient(LocalAuthority, node.local)
  const { active } = await authorities.getX509AuthorityState({})
  const { preparedAuthority } = await authorities.prepareX509Authority({})
  const authorityId = preparedAuthority?.authorityId ?? ''
  await eventually('the next authority signs', () =>
    createClient(Authorities, node.local).activate({ kind: 'x509', authorityId }),
  )
  return active?.authorityId ?? ''
}

/** Throws what does not hold. */
export async function deniesRoot(it: DrivenGrpc): Promise<string> {
  const old = await minted(it)
  const root = await leaveRoot(it)
  const { serial } = certificateIn(it.file('client', 'svid.pem'))
  using open = openWith(it, old)
  is(await open.call(), 'ok', 'before the denial')
  await createClient(LocalAuthority, it.node.local).taintX509Authority({ authorityId: root })
  const target = { case: 'authorityId', value: root } as const
  await eventually('the root is denied', () =>
    createClient(DenyRules, it.node.local).addRule({ rule: { target, reason: 'a drill' } }),
  )
  const began = Date.now()
  await eventually('its certificates are refused', async () => {
    is(await open.call(), 'error UNAVAILABLE', 'over the connection of before')
    using fresh = openWith(it, old)
    is(await fresh.call(), 'error UNAVAILABLE', 'over a new connection')
  })
  const took = Date.now() - began
  await eventually('who is of the next authority may', async () => {
    if (certificateIn(held(it).chain).serial === serial) throw new Error('it has no other one yet')
    using next = openWith(it, held(it))
    is(await next.call(), 'ok', 'a certificate of the next authority')
  })
  const { proxies } = await it.status()
  const server = proxies.find(({ spiffeId }) => spiffeId === idOf('server'))
  if (!server?.remarks.some((remark) => remark.startsWith(`root ${root} is on the deny-list`)))
    throw new Error(`it is not said that a root is denied: ${server?.remarks.join('; ')}`)
  return `${took} ms`
}
