// An agent's side of the authority's gRPC: over TLS as SPIRE's agents do it, or over the local socket.
import { generateKeyPairSync, type KeyPairKeyObjectResult } from 'node:crypto'
import type { DescService } from '@bufbuild/protobuf'
import { type Client, Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { createHttp2Sessions } from '../../client/http2-sessions.ts'
import { openTransport } from '../../client/transport.ts'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { PermissionDeniedDetailsSchema } from '../../proto/gen/spire/api/types/status_pb.js'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { keyPairToPem, toPem } from '../../spiffe/pem.ts'
import { makeCsr } from './csr.ts'

export interface Credential {
  readonly chain: readonly Uint8Array[]
  readonly keys: KeyPairKeyObjectResult
}

export const newKeys = (): KeyPairKeyObjectResult =>
  generateKeyPairSync('ec', { namedCurve: 'prime256v1' })

export interface Connection extends Disposable {
  readonly transport: Transport
  client<S extends DescService>(service: S): Client<S>
}

function connectionOf(transport: Transport, close: () => void): Connection {
  return {
    transport,
    client: (service) => createClient(service, transport),
    [Symbol.dispose]: close,
  }
}

export function connectLocally(socket: string): Connection {
  const local = openTransport({ kind: 'unix', path: socket })
  return connectionOf(local.transport, () => local[Symbol.dispose]())
}

/** The roots that the authority publishes, as PEM, asked over its local socket. */
export async function rootsOf(socket: string): Promise<string> {
  using local = connectLocally(socket)
  const { x509Authorities } = await local.client(Bundle).getBundle({})
  return x509Authorities.map(({ asn1 }) => toPem(asn1, 'CERTIFICATE')).join('')
}

/** TLS with the roots checked by OpenSSL and the server's SPIFFE ID by us. */
export function connectTls(port: number, roots: string, credential?: Credential): Connection {
  const own =
    credential === undefined
      ? {}
      : keyPairToPem({ chain: credential.chain, key: credential.keys.privateKey })
  const baseUrl = `https://127.0.0.1:${port}`
  const options = {
    ca: roots,
    ...own,
    checkServerIdentity: (_: string, { raw }: { raw: Uint8Array }) => {
      const { names } = parseCertificate(raw)
      const uris = names.flatMap((it) => (it.kind === 'uri' ? [it.value] : []))
      return uris.join() === 'spiffe://example.org/spire/server'
        ? undefined
        : new Error(`the server is ${uris}`)
    },
  }
  const sessionManager = createHttp2Sessions(baseUrl, options)
  const transport = createGrpcTransport({ baseUrl, sessionManager })
  return connectionOf(transport, () => sessionManager[Symbol.dispose]())
}

/** Joins by a token. Rejects with the ConnectError of the authority. */
export async function attest(
  connection: Connection,
  token: string,
  keys = newKeys(),
  type = 'join_token',
): Promise<Credential & { id: string }> {
  async function* requests() {
    const data = { type, payload: Buffer.from(token) }
    yield { step: { case: 'params' as const, value: { data, params: { csr: makeCsr(keys) } } } }
  }
  for await (const { step } of connection.client(Agent).attestAgent(requests())) {
    if (step.case !== 'result' || step.value.svid === undefined) continue
    const { certChain, id } = step.value.svid
    return { chain: certChain, keys, id: `spiffe://${id?.trustDomain}${id?.path}` }
  }
  throw new Error('the authority ended the attestation without a result')
}

/** Status code by name, message, and SPIRE's reason if there is one; undefined when `call` succeeded. */
export async function denialOf(call: Promise<unknown>) {
  try {
    await call
    return undefined
  } catch (error) {
    const it = ConnectError.from(error)
    const reason = it.findDetails(PermissionDeniedDetailsSchema)[0]?.reason
    const said = { code: Code[it.code], message: it.rawMessage }
    return reason === undefined ? said : { ...said, reason }
  }
}
