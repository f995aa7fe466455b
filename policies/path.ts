// Request paths in the strict profile: every reading a backend could have, or a refusal
// (the rules are authorization.md §5.1; what is ambiguous is never decided).

export type PathReading =
  | {
      readonly ok: true
      /** decoded, merged, without dot segments: what an ALLOW has to match and what is forwarded */
      readonly forwarded: string
      /** every reading that a DENY is compared with, `forwarded` among them */
      readonly readings: readonly string[]
      /** with its question mark; empty when there is none */
      readonly query: string
    }
  | { readonly ok: false; readonly reason: string }

const visible = /^[\x21-\x7e]*$/
const brokenEscape = /%(?![0-9A-Fa-f]{2})/
const controlEscape = /%(?:[01][0-9A-Fa-f]|7[Ff])/
const doubleEscape = /%25[0-9A-Fa-f]{2}/
const escapes = /%([0-9A-Fa-f]{2})/g
const unreserved = /[A-Za-z0-9._~-]/
const longest = 8192

const utf8 = new TextDecoder('utf-8', { fatal: true })

function isUtf8(path: string): boolean {
  try {
    utf8.decode(
      Buffer.from(
        path.replace(escapes, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16))),
        'latin1',
      ),
    )
    return true
  } catch {
    return false
  }
}

function problemOf(target: string, path: string): string | undefined {
  if (target.length > longest) return 'a path longer than 8192 bytes'
  if (!visible.test(target)) return 'bytes in the path that must be escaped'
  if (target.includes('#')) return 'a fragment in the path'
  if (!path.startsWith('/')) return 'a path that does not start with a slash'
  if (brokenEscape.test(path)) return 'a broken percent escape'
  if (controlEscape.test(path)) return 'an escaped control byte'
  if (doubleEscape.test(path)) return 'a doubly encoded escape'
  return isUtf8(path) ? undefined : 'an escaped byte sequence that is not UTF-8'
}

/** RFC 3986 §5.2.4; the result starts with a slash and has no dot segments. */
function withoutDotSegments(path: string): string {
  const kept: string[] = []
  const segments = path.slice(1).split('/')
  for (const [i, segment] of segments.entries()) {
    const isLast = i === segments.length - 1
    if (segment === '..') kept.pop()
    if (segment !== '.' && segment !== '..') kept.push(segment)
    else if (isLast) kept.push('')
  }
  return `/${kept.join('/')}`
}

/** BASE of authorization.md: unreserved escapes decoded once, backslashes turned, dot segments gone. */
function based(path: string): string {
  const decoded = path.replace(escapes, (whole, hex: string) => {
    const char = String.fromCharCode(Number.parseInt(hex, 16))
    return unreserved.test(char) ? char : whole.toUpperCase()
  })
  return withoutDotSegments(decoded.replaceAll('\\', '/'))
}

function decodedAndMerged(path: string): string {
  const slashed = path.replace(/%2F|%5C/gi, '/')
  return withoutDotSegments(based(slashed).replace(/\/{2,}/g, '/'))
}

/** Reads a request target in origin form (`/path?query`). */
export function readPath(target: string): PathReading {
  const mark = target.indexOf('?')
  const path = mark < 0 ? target : target.slice(0, mark)
  const problem = problemOf(target, path)
  if (problem !== undefined) return { ok: false, reason: problem }
  const base = based(path)
  const forwarded = decodedAndMerged(path)
  // decoding can make a new escape: /%25%32%66 becomes /%252f
  if (decodedAndMerged(forwarded) !== forwarded || problemOf(forwarded, forwarded) !== undefined) {
    return { ok: false, reason: 'a path whose normal form is not stable' }
  }
  const readings = base === forwarded ? [forwarded] : [forwarded, base]
  return { ok: true, forwarded, readings, query: mark < 0 ? '' : target.slice(mark) }
}
