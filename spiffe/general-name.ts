// GeneralName (RFC 5280 §4.2.1.6): what a certificate calls its holder.
import {
  childrenOf,
  contentOf,
  derError,
  type Element,
  encodedOf,
  expectTag,
  onlyChildOf,
  tags,
} from './der.ts'

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

/** A Name: a sequence of sets, encoded. What is inside the sets is only ever compared. */
export function distinguishedNameOf(element: Element | undefined): Uint8Array {
  const name = expectTag(element, tags.sequence)
  for (const part of childrenOf(name)) expectTag(part, tags.set)
  return encodedOf(name)
}

/** One name; an `ip` is as long as it happens to be, which the caller checks. */
export function generalNameOf(element: Element): GeneralName {
  const kind = textKinds[element.tag]
  if (kind !== undefined) return { kind, value: ia5Of(element) }
  if (element.tag === 0x87) return { kind: 'ip', value: contentOf(element) }
  if (element.tag === 0xa4) {
    return { kind: 'directory', value: distinguishedNameOf(onlyChildOf(element)) }
  }
  return { kind: 'other', tag: element.tag }
}

/** The names of a subjectAltName value; never empty. */
export function generalNamesOf(parent: Element): GeneralName[] {
  const names = childrenOf(parent, 256).map(generalNameOf)
  for (const name of names) {
    if (name.kind === 'ip' && name.value.length !== 4 && name.value.length !== 16)
      return derError('an ip address of a wrong length', parent.start)
  }
  return names.length === 0 ? derError('an empty list of names', parent.start) : names
}
