// Refuses to run where the runtime hides what authentication rests on.
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { connect, createServer, type PeerCertificate } from 'node:tls'
import { extensionOids } from '../spiffe/certificate.ts'
import * as der from '../spiffe/der-writer.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { toPem } from '../spiffe/pem.ts'
import { peerChain } from './tls-server.ts'

const ecdsaSha256 = der.sequence(der.oid('1.2.840.10045.4.3.2'))
const minute = 60_000

interface Pair {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

function nameOf(text: string): Buffer {
  return der.sequence(
    der.set(der.sequence(der.oid('2.5.4.3'), der.element(0x0c, Buffer.from(text)))),
  )
}

/** A throw-away certificate that lives for two minutes inside this process. */
function certificate(
  subject: string,
  key: Pair,
  issuer: string,
  signer: Pair,
  isCa: boolean,
): string {
  const constraints = der.sequence(...(isCa ? [der.element(0x01, Buffer.of(0xff))] : []))
  const tbs = der.sequence(
    der.element(0xa0, der.integer(Buffer.of(2))),
    der.integer(Buffer.of(1)),
    ecdsaSha256,
    nameOf(issuer),
    der.sequence(der.time(Date.now() - minute), der.time(Date.now() + minute)),
    nameOf(subject),
    key.publicKey.export({ format: 'der', type: 'spki' }),
    der.element(
      0xa3,
      der.sequence(der.extension(extensionOids.basicConstraints, constraints, { critical: true })),
    ),
  )
  const signature = sign('sha256', tbs, signer.privateKey)
  return toPem(der.sequence(tbs, ecdsaSha256, der.bitString(signature)), 'CERTIFICATE')
}

function isOurselves(_: string, peer: PeerCertificate): Error | undefined {
  return peer.subject.CN === 'leaf' ? undefined : new Error('another server answered')
}

async function chainLengthSeen(): Promise<number> {
  const [root, middle, leaf] = [0, 1, 2].map(() =>
    generateKeyPairSync('ec', { namedCurve: 'prime256v1' }),
  )
  if (root === undefined || middle === undefined || leaf === undefined) return 0
  const cert =
    certificate('leaf', leaf, 'middle', middle, false) +
    certificate('middle', middle, 'root', root, true)
  const key = leaf.privateKey.export({ format: 'pem', type: 'pkcs8' })
  const seen = Promise.withResolvers<number>()
  // a handshake with ourselves, whose only question is what this runtime shows of the chain
  const server = createServer({
    cert,
    key,
    requestCert: true,
    ca: certificate('root', root, 'root', root, true),
  })
  server.once('secureConnection', (socket) => seen.resolve(peerChain(socket).length))
  server.once('tlsClientError', seen.reject)
  server.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  const ca = certificate('root', root, 'root', root, true)
  const socket = connect({
    host: '127.0.0.1',
    port,
    cert,
    key,
    ca,
    checkServerIdentity: isOurselves,
  })
  socket.once('error', () => {})
  try {
    return await seen.promise
  } finally {
    socket.destroy()
    server.close()
  }
}

/**
 * Shakes hands with itself once. Throws ERR_RUNTIME where a TLS server does not see the intermediates of
 * its client (Node 24.21.0, nodejs/node 65579): there every verification would be of half a chain.
 */
export async function selfTest(probe: () => Promise<number> = chainLengthSeen): Promise<void> {
  const length = await probe()
  if (length < 2) {
    throw new IdentityError(
      'ERR_RUNTIME',
      `Node ${process.version} hides client intermediates from TLS servers; run castellan by bin/castellan, which uses Node 24.20.0`,
    )
  }
}
