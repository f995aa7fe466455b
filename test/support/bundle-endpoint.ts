// Another trust domain: its authorities, and a real server that publishes its bundle.
import { once } from 'node:events'
import type { RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { SecureContextOptions } from 'node:tls'
import { type DevCa, issueDev, type LeafChoices, makeDevCa } from '../../certs-dev/authority.ts'
import { secureContext } from '../../runtime/tls-server.ts'
import { type BundleDocument, formatBundleDocument } from '../../spiffe/bundle-document.ts'

const day = 86_400_000

export interface ForeignDomain {
  readonly ca: DevCa
  /** DER, of its one X.509 authority */
  readonly root: Uint8Array
  /** What a server of this domain presents as `id`, valid for two days unless `change` says otherwise. */
  credential(id: string, change?: Partial<LeafChoices>, issuer?: DevCa): SecureContextOptions
  /** Its bundle as it is published: sequence 1, its authority, no hint. */
  document(change?: Partial<BundleDocument>): string
}

export function foreignDomain(name: string, now = Date.now()): ForeignDomain {
  const life = { notBefore: now - day, notAfter: now + 2 * day }
  const ca = makeDevCa({ name, ...life })
  const root = ca.certificate
  return {
    ca,
    root,
    credential(id, change = {}, issuer = ca) {
      const { chain, privateKey: key } = issueDev(issuer, { id, ...life, ...change })
      return secureContext({ chain, key })
    },
    document: (change = {}) =>
      formatBundleDocument({
        ...{ x509: [root], jwt: [], wit: [], sequence: 1n, refreshHint: undefined },
        ...change,
      }),
  }
}

export interface Endpoint extends AsyncDisposable {
  readonly url: string
  /** how often it was asked */
  readonly asked: number
  /** What it answers from now on: a body, or anything. */
  says(answer: string | RequestListener): void
  /** Nobody listens on its port until `comesBack`. */
  goesAway(): Promise<void>
  comesBack(): Promise<void>
}

/** An https server on loopback that presents `credential` and, at first, answers with `body`. */
export async function startEndpoint(
  credential: SecureContextOptions,
  body: string,
  host = '127.0.0.1',
): Promise<Endpoint> {
  let asked = 0
  let answer: string | RequestListener = body
  const server = createServer(credential, (request, response) => {
    asked++
    if (typeof answer === 'string') response.end(answer)
    else answer(request, response)
  })
  const listen = async (port: number) => {
    await once(server.listen(port, '127.0.0.1'), 'listening')
    const bound = server.address()
    return typeof bound === 'object' && bound !== null ? bound.port : 0
  }
  const goesAway = async () => {
    if (!server.listening) return
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
  }
  const port = await listen(0)
  return {
    url: `https://${host}:${port}/bundle`,
    get asked() {
      return asked
    },
    says(next) {
      answer = next
    },
    goesAway,
    comesBack: async () => void (await listen(port)),
    [Symbol.asyncDispose]: goesAway,
  }
}
