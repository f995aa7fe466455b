// PEM (RFC 7468), strict: only the expected label, nothing between or behind the blocks but white space.
import type { KeyObject } from 'node:crypto'
import { IdentityError } from './errors.ts'

const block = /-----BEGIN ([A-Z0-9 ]+)-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END \1-----/g

/**
 * The DER contents of all blocks of `label`, in order. Text before the first block and between blocks
 * (OpenSSL prints such) has to be absent. Throws ERR_CERTIFICATE naming `source`.
 */
export function parsePem(text: string, label: string, source: string): Buffer[] {
  const found: Buffer[] = []
  const rest = text.replace(block, (_, name: string, body: string) => {
    if (name !== label) refuse(source, `a ${name} block where only ${label} belongs`)
    const der = Buffer.from(body, 'base64')
    if (der.toString('base64') !== body.replace(/[\r\n]/g, '')) refuse(source, 'malformed base64')
    found.push(der)
    return ''
  })
  if (rest.trim() !== '') refuse(source, 'text outside of PEM blocks')
  if (found.length === 0) refuse(source, `no ${label} block`)
  return found
}

function refuse(source: string, why: string): never {
  throw new IdentityError('ERR_CERTIFICATE', `${source}: ${why}`)
}

export function toPem(der: Uint8Array, label: string): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

/** Certificates one behind the other, as TLS and files want a chain. */
export function chainToPem(chain: readonly Uint8Array[]): string {
  return chain.map((der) => toPem(der, 'CERTIFICATE')).join('')
}

/** What a side of TLS shows, as `node:tls` takes it. */
export function keyPairToPem({ chain, key }: { chain: readonly Uint8Array[]; key: KeyObject }) {
  return { cert: chainToPem(chain), key: String(key.export({ format: 'pem', type: 'pkcs8' })) }
}
