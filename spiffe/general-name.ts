// GeneralName (RFC 5280 §4.2.1.6): what a certificate calls its holder.
import { childrenOf, contentOf, derError, type Element, encodedOf, readElement } from './der.ts'

/** `ip` is 4 or 16 bytes in a name, 8 or 32 (address and mask) in a name constraint. */
export type GeneralName =
  | { readonly kind: 'uri' | 'dns' | 'email'; readonly value: string }
  | { readonly kind: 'ip' | 'directory'; readonly value: Uint8Array }
  | { readonly kind: 'other'; readonly tag: number }

const textKinds: Readonly<Record<number, 'uri' | 'dns' | 'email'>> = {
  129: 'email',
  130: 'dns',
  134: 'uri',
}

function ia5Of(element: Element): string {
  const content = contentOf(element)
  if (content.some((byte) => byte > 0x7f))
    return derError('a name that is not ASCII', element.start)
  return Buffer.from(content).toString('latin1')
}

export function generalNameOf(element: Element): GeneralName {
  const kind = textKinds[element.tag]
  if (kind !== undefined) return { kind, value: ia5Of(element) }
  if (element.tag === 0x87) return { kind: 'ip', value: contentOf(element) }
  if (element.tag === 0xa4) {
    return {
      kind: 'directory',
      value: encodedOf(readElement(element.bytes, element.body, element.end)),
    }
  }
  return { kind: 'other', tag: element.tag }
}

/** The names of a subjectAltName value; never empty. */
export function generalNamesOf(parent: Element): GeneralName[] {
  const names = childrenOf(parent, 256).map(generalNameOf)
  return names.length === 0 ? derError('an empty list of names', parent.start) : names
}
