// The names that an administrator's CSR asks for (MintX509SVID). Never called for agents: their names
// come from entries.

import { extensionOids } from '../spiffe/certificate.ts'
import {
  childrenOf,
  contentOf,
  type Element,
  expectTag,
  oidOf,
  parseDer,
  readElement,
  tags,
} from '../spiffe/der.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import { generalNamesOf } from '../spiffe/general-name.ts'
import { dnsNamesProblem } from './dns-names.ts'

const extensionRequest = '1.2.840.113549.1.9.14'

export interface RequestedNames {
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
}

function requestedExtensions(csr: Uint8Array): Element[] {
  const [info] = childrenOf(parseDer(csr), 3)
  const attributes = childrenOf(expectTag(info, tags.sequence), 4)[3]
  if (attributes === undefined) return []
  return childrenOf(attributes).flatMap((attribute) => {
    const [id, values] = childrenOf(attribute, 2)
    if (oidOf(id) !== extensionRequest) return []
    const [list] = childrenOf(expectTag(values, tags.set), 1)
    return childrenOf(expectTag(list, tags.sequence))
  })
}

function read(csr: Uint8Array): RequestedNames {
  const san = requestedExtensions(csr).find(
    (it) => oidOf(childrenOf(it, 3)[0]) === extensionOids.subjectAltName,
  )
  if (san === undefined) return { uris: [], dnsNames: [] }
  const value = contentOf(expectTag(childrenOf(san, 3).at(-1), tags.octetString))
  const names = generalNamesOf(expectTag(readElement(value, 0, value.length), tags.sequence))
  const unknown = names.find(({ kind }) => kind !== 'uri' && kind !== 'dns')
  if (unknown !== undefined) {
    throw new IdentityError(
      'ERR_CSR',
      `CSR refused: a name of kind ${unknown.kind} cannot be minted`,
    )
  }
  const dnsNames = names.flatMap((name) => (name.kind === 'dns' ? [name.value] : []))
  const problem = dnsNamesProblem(dnsNames)
  if (problem !== undefined) throw new IdentityError('ERR_CSR', `CSR refused: ${problem}`)
  return { uris: names.flatMap((name) => (name.kind === 'uri' ? [name.value] : [])), dnsNames }
}

/** Throws ERR_CSR when the request cannot be read or asks for names of other kinds. */
export function namesInCsr(csr: Uint8Array): RequestedNames {
  try {
    return read(csr)
  } catch (cause) {
    if (!hasCode(cause, 'ERR_DER')) throw cause
    throw new IdentityError('ERR_CSR', 'CSR refused: it is not well-formed DER', { cause })
  }
}
