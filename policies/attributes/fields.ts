// Header fields as a parser decoded them, judged before anything reads them: what two programs could
// understand differently is refused.

const name = /^[!#$%&'*+.^_\x60|~0-9A-Za-z-]+$/
// NUL, CR and LF end a field for somebody; other control bytes mean nothing. What is above is no ASCII
const unsafe = /[\p{Cc}--[\t\u0080-\u009f]]/v

export function isUnsafe(value: string): boolean {
  return unsafe.test(value)
}

/** Names and values in turn. Says what is wrong with them; undefined when nothing is. */
export function fieldsProblem(raw: readonly string[]): string | undefined {
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (!name.test(raw[i] ?? '')) return 'a header name with characters that no name has'
    if (isUnsafe(raw[i + 1] ?? '')) return 'a control character in a header value'
  }
  return undefined
}

/** How many fields of a name (lower case) there are. */
export function countOf(raw: readonly string[], field: string): number {
  let count = 0
  for (let i = 0; i < raw.length; i += 2) if (raw[i]?.toLowerCase() === field) count++
  return count
}

/** The value of the first field of a name (lower case). */
export function fieldOf(raw: readonly string[], field: string): string | undefined {
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i]?.toLowerCase() === field) return raw[i + 1]
  }
  return undefined
}
