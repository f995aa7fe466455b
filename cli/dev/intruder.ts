// Callers that the tour sends to the door in front of payments, with whatever certificate they have.
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { createClient } from '@connectrpc/connect'
import { openTransport } from '../../client/transport.ts'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { extensionOids } from '../../spiffe/certificate.ts'
import * as der from '../../spiffe/der-writer.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { type Credential, knock } from './door.ts'
import type { DevMesh } from './mesh.ts'
import { identityOf } from './stage.ts'

/** `refused` is a connection that ended without an answer in HTTP. */
export type Visit =
  | { readonly kind: 'answered'; readonly status: number }
  | { readonly kind: 'refused'; readonly reason: string }

const patience = 20_000

/** Knocks at payments' door and asks for the balance. Rejects when nobody opens, or nothing is answered. */
export function visit(
  mesh: DevMesh,
  credential: Credential | undefined,
  now: number,
): Promise<Visit> {
  const { promise, resolve, reject } = Promise.withResolvers<Visit>()
  const { socket, serial } = knock(mesh, 'payments', { credential, now })
  let received = ''
  socket.setTimeout(patience, () =>
    socket.destroy(new IdentityError('ERR_DEADLINE', `no answer within ${patience} ms`)),
  )
  socket.once('secureConnect', () =>
    socket.write('GET /balance HTTP/1.1\r\nhost: payments\r\nconnection: close\r\n\r\n'),
  )
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1')
  })
  let reason = 'closed'
  socket.once('error', (error) => {
    if (error instanceof IdentityError) reject(error)
    reason = error.message
  })
  socket.once('close', () => {
    // a door that nobody stands behind refuses nobody
    if (serial() === undefined) reject(new IdentityError('ERR_UNAVAILABLE', reason))
    const status = /^HTTP\/1\.1 (\d{3}) /.exec(received)?.[1]
    resolve(
      status === undefined
        ? { kind: 'refused', reason }
        : { kind: 'answered', status: Number(status) },
    )
  })
  return promise
}

/** A CSR that asks for a SPIFFE ID, as administrators send one to MintX509SVID. */
function namingCsr(id: string, publicKey: KeyObject, privateKey: KeyObject): Buffer {
  const names = der.sequence(der.element(0x86, Buffer.from(id, 'latin1')))
  const extensions = der.sequence(
    der.extension(extensionOids.subjectAltName, names, { critical: true }),
  )
  const attribute = der.sequence(der.oid('1.2.840.113549.1.9.14'), der.set(extensions))
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  const info = der.sequence(
    der.integer(Buffer.of(0)),
    der.sequence(),
    spki,
    der.element(0xa0, attribute),
  )
  const algorithm = der.sequence(der.oid('1.2.840.10045.4.3.2'))
  return der.sequence(info, algorithm, der.bitString(sign('sha256', info, privateKey)))
}

/** An SVID of the real authority for an identity that no policy speaks of. */
export async function mintStranger(
  mesh: DevMesh,
  seconds: number,
): Promise<Credential & { notAfter: number }> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  using local = openTransport({ kind: 'unix', path: mesh.caSocket })
  const csr = new Uint8Array(namingCsr(identityOf('stranger'), publicKey, privateKey))
  const { svid } = await createClient(SVID, local.transport).mintX509SVID({ csr, ttl: seconds })
  if (svid === undefined) throw new IdentityError('ERR_UNAVAILABLE', 'the authority minted nothing')
  return { chain: svid.certChain, privateKey, notAfter: Number(svid.expiresAt) * 1000 }
}
