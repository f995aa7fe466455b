// Request paths (authorization.md §5.1): what is forwarded, and every reading a backend could have of it.
// In strict what is ambiguous is refused, never decided.
import type { Backend, Mesh, PathNormalization } from '../language/mesh.ts'

export type PathReading =
  | {
      readonly ok: true
      /** normalised: what is forwarded, without query */
      readonly forwarded: string
      /** every reading that a DENY is compared with, `forwarded` among them */
      readonly readings: readonly string[]
      /** the readings that an ALLOW has to match, all of them, `forwarded` among them */
      readonly certain: readonly string[]
      /** with its question mark; empty when there is none */
      readonly query: string
    }
  | { readonly ok: false; readonly status: 400 | 414; readonly reason: string }

const visible = /^[\x21-\x7e]*$/
// spaces and control bytes
const unsafe = /[^\x21-\x7e\x80-\uffff]/
const brokenEscape = /%(?![0-9A-Fa-f]{2})/
const controlEscape = /%(?:[01][0-9A-Fa-f]|7[Ff])/
const oneEscape = /%[0-9A-Fa-f]{2}/
const escapes = /%([0-9A-Fa-f]{2})/g
const unreserved = /[A-Za-z0-9._~-]/
const longest = 8192

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Bytes as characters, each escape decoded once. */
const unescaped = (path: string) =>
  path.replace(escapes, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))

function isUtf8(bytes: string): boolean {
  try {
    utf8.decode(Buffer.from(bytes, 'latin1'))
    return true
  } catch {
    return false
  }
}

function problemOf(target: string, path: string): string | undefined {
  if (!visible.test(target)) return 'bytes in the path that must be escaped'
  if (target.includes('#')) return 'a fragment in the path'
  if (!path.startsWith('/')) return 'a path that does not start with a slash'
  if (!path.includes('%')) return undefined
  if (brokenEscape.test(path)) return 'a broken percent escape'
  if (controlEscape.test(path)) return 'an escaped control byte'
  const bytes = unescaped(path)
  if (oneEscape.test(bytes)) return 'a doubly encoded escape'
  return isUtf8(bytes) ? undefined : 'an escaped byte sequence that is not UTF-8'
}

/** RFC 3986 §5.2.4; the result starts with a slash and has no dot segments. */
function withoutDotSegments(path: string): string {
  if (!path.includes('/.')) return path
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

/** BASE: unreserved escapes decoded once, backslashes turned, dot segments gone. */
function based(path: string): string {
  const decoded = path.includes('%')
    ? path.replace(escapes, (whole, hex: string) => {
        const char = String.fromCharCode(Number.parseInt(hex, 16))
        return unreserved.test(char) ? char : whole
      })
    : path
  return withoutDotSegments(decoded.replaceAll('\\', '/'))
}

/** The digits of escapes have no case (RFC 3986 §6.2.2.1). */
export function withUpperEscapes(path: string): string {
  return path.includes('%') ? path.replace(escapes, (each) => each.toUpperCase()) : path
}

const merged = (path: string) => path.replace(/\/{2,}/g, '/')
const slashed = (path: string) => path.replace(/%2F|%5C/gi, '/')

/** What each level makes of a path. */
const levels: Readonly<Record<PathNormalization, (path: string) => string>> = {
  none: (path) => path,
  base: based,
  'merge-slashes': (path) => merged(based(path)),
  'decode-and-merge-slashes': (path) => merged(based(slashed(path))),
}

/** Merging can bring dots behind a slash, so they are looked for again. */
function strictForm(path: string): string {
  return withUpperEscapes(withoutDotSegments(merged(based(slashed(path)))))
}

const eachSegment = (path: string, change: (segment: string) => string) =>
  path.split('/').map(change).join('/')

/** Before and after slashes are merged: backends differ in what they do first. */
const bothOrders = (path: string) => [strictForm(path), withoutDotSegments(merged(path))]

const withoutParameters = (segment: string) => segment.replace(/[;,].*$/, '')

/** Windows drops final dots and spaces; two dots may be a parent or nothing. */
const trimmed = (keep: RegExp) => (segment: string) =>
  keep.test(segment) ? segment : segment.replace(/(?:\.|%20)+$/, '')
const parent = /^\.\.?$/

/** How a backend may understand a path that is forwarded to it. */
const backends: Readonly<Record<Backend, (path: string) => readonly string[]>> = {
  rfc3986: () => [],
  servlet: (path) => bothOrders(eachSegment(path, withoutParameters)),
  windows: (path) => [
    ...bothOrders(eachSegment(path, trimmed(parent))),
    ...bothOrders(
      eachSegment(path, (segment) => trimmed(parent)(segment.replace(/(?:%20)+$/, ''))),
    ),
  ],
  // it is the rules that are compared without case
  caseless: () => [],
}

// every program reads it alike: no escape, no empty segment, none that starts with a dot
const plain = /^\/(?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*\/)*(?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)?$/
// visible, and no fragment in it
const plainQuery = /^[\x21\x22\x24-\x7e]*$/

function readStrictly(target: string, path: string, { backend }: Mesh): PathReading {
  if (target.length > longest) {
    return { ok: false, status: 414, reason: 'a path longer than 8192 bytes' }
  }
  const query = target.slice(path.length)
  if (backend === 'rfc3986' && plain.test(path) && plainQuery.test(query)) {
    const only = [path]
    return { ok: true, forwarded: path, readings: only, certain: only, query }
  }
  const problem = problemOf(target, path)
  if (problem !== undefined) return { ok: false, status: 400, reason: problem }
  const base = withUpperEscapes(based(path))
  const forwarded = strictForm(path)
  // decoding can make a new escape: /%25%32%66 becomes /%252f
  if (strictForm(forwarded) !== forwarded || problemOf(forwarded, forwarded) !== undefined) {
    return { ok: false, status: 400, reason: 'a path whose normal form is not stable' }
  }
  const understood = backends[backend](forwarded)
  if (base === forwarded && understood.length === 0) {
    const only = [forwarded]
    return { ok: true, forwarded, readings: only, certain: only, query }
  }
  const readings = [...new Set([forwarded, base, ...understood])]
  const certain = [...new Set([forwarded, ...understood])]
  return { ok: true, forwarded, readings, certain, query }
}

function readAsIstio(target: string, path: string, { pathNormalization }: Mesh): PathReading {
  if (unsafe.test(target)) {
    return { ok: false, status: 400, reason: 'bytes in the path that must be escaped' }
  }
  const [whole = ''] = target.split('#', 1)
  const bare = path.slice(0, whole.length)
  if (!bare.startsWith('/')) {
    return { ok: false, status: 400, reason: 'a path that does not start with a slash' }
  }
  if (bare.includes('%00')) {
    return { ok: false, status: 400, reason: 'an escaped NUL' }
  }
  const forwarded = levels[pathNormalization](bare)
  const query = whole.slice(bare.length)
  const only = [forwarded]
  return { ok: true, forwarded, readings: only, certain: only, query }
}

/** Reads a request target in origin form (`/path?query`). */
export function readPath(target: string, mesh: Mesh): PathReading {
  const mark = target.indexOf('?')
  const path = mark < 0 ? target : target.slice(0, mark)
  return (mesh.profile === 'strict' ? readStrictly : readAsIstio)(target, path, mesh)
}
