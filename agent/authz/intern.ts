// The same text of the same bytes: a certificate comes with each request of its client, and to compare bytes
// costs less than to make text of them and to look that up.
type Slot = { readonly bytes: Buffer; readonly text: string }

const slots = 1024
/** what is shorter is made anew as quickly */
const shortest = 64
/** before the end of a certificate: there its signature is, which no two have in common */
const samples = [60, 67, 74, 81, 88, 95]

/** Gives ASCII as text, the same string again for the same bytes while it is remembered. */
export type Intern = (bytes: Buffer, from: number, to: number) => string

export function createIntern(): Intern {
  const known: (Slot | undefined)[] = Array.from({ length: slots })
  return (bytes, from, to) => {
    const length = to - from
    if (length < shortest) return bytes.toString('latin1', from, to)
    let hash = length
    for (const sample of samples) hash = (hash * 31 + (bytes[to - sample] ?? 0)) | 0
    const slot = (hash >>> 0) % slots
    const kept = known[slot]
    const isSame =
      kept?.bytes.length === length && bytes.compare(kept.bytes, 0, length, from, to) === 0
    if (kept !== undefined && isSame) return kept.text
    const text = bytes.toString('latin1', from, to)
    known[slot] = { bytes: Buffer.from(bytes.subarray(from, to)), text }
    return text
  }
}
