// Paths: the levels of normalisation (§5.1), what strict refuses, and how a backend may read what it is sent.
import type { Backend } from './mesh.ts'

export type PathNormalization = 'none' | 'base' | 'merge-slashes' | 'decode-and-merge-slashes'

/** One way to understand a path; `caseless`: compared in lower case with a lower-cased pattern. */
export interface PathReading {
  readonly text: string
  readonly caseless: boolean
}

const unreserved = /^[A-Za-z0-9._~-]$/

/** One pass: what a decoded escape forms with its surroundings is not decoded again. */
const decodeUnreserved = (path: string): string =>
  path.replace(/%([0-9a-f]{2})/gi, (escaped, hex) => {
    const character = String.fromCharCode(Number.parseInt(hex, 16))
    return unreserved.test(character) ? character : escaped
  })

/** RFC 3986 §5.2.4 for a path that starts with a slash; a final dot segment leaves its slash. */
export function removeDotSegments(path: string): string {
  const kept: string[] = []
  const segments = path.slice(1).split('/')
  segments.forEach((segment, at) => {
    const last = at === segments.length - 1
    if (segment === '..') kept.pop()
    if (segment !== '..' && segment !== '.') kept.push(segment)
    else if (last) kept.push('')
  })
  return `/${kept.join('/')}`
}

/** RFC 3986 §6.2.2.1: the digits of an escape have no case. Istio compares them as sent. */
export const upperEscapes = (path: string): string =>
  path.replace(/%[0-9a-f]{2}/gi, (escaped) => escaped.toUpperCase())

const mergeSlashes = (path: string): string => path.replace(/\/+/g, '/')

export function normalize(path: string, level: PathNormalization): string {
  if (level === 'none') return path
  const decodes = level === 'decode-and-merge-slashes'
  const decoded = decodes ? path.replace(/%2f/gi, '/').replace(/%5c/gi, '\\') : path
  const base = removeDotSegments(decodeUnreserved(decoded).replaceAll('\\', '/'))
  return level === 'base' ? base : mergeSlashes(base)
}

const bothWays = (path: string): readonly string[] => [
  mergeSlashes(removeDotSegments(path)),
  removeDotSegments(mergeSlashes(path)),
]

/**
 * What a backend makes of the path it is forwarded. The order of merging and of removing dot segments
 * is not said for either, nor whether `..` with a space behind it is a dot segment: every way counts.
 */
function backendReadings(forwarded: string, backend: Backend): readonly string[] {
  const segments = forwarded.slice(1).split('/')
  if (backend === 'servlet') {
    const cut = `/${segments.map((segment) => segment.replace(/[;,].*$/s, '')).join('/')}`
    return bothWays(cut)
  }
  if (backend === 'windows') {
    const bare = segments.map((segment) => segment.replace(/(?:[. ]|%20)+$/i, ''))
    const climbing = segments.map((segment, at) => {
      const unspaced = segment.replace(/(?: |%20)+$/i, '')
      return unspaced === '..' || unspaced === '.' ? unspaced : bare[at]
    })
    return [mergeSlashes(`/${bare.join('/')}`), ...bothWays(`/${climbing.join('/')}`)]
  }
  return []
}

const plain = (text: string): PathReading => ({ text, caseless: false })
const caseless = (text: string): PathReading => ({ text, caseless: true })

/** strict, ALLOW: what is forwarded, in every way the backend may read it. */
export function forwardedReadings(path: string, backend: Backend): readonly PathReading[] {
  const forwarded = upperEscapes(normalize(path, 'decode-and-merge-slashes'))
  return [forwarded, ...backendReadings(forwarded, backend)].map(plain)
}

/** strict, DENY: the same, and the path as sent at BASE; before a caseless backend each in any case. */
export function suspectReadings(path: string, backend: Backend): readonly PathReading[] {
  const sent = plain(upperEscapes(normalize(path, 'base')))
  const readings = [sent, ...forwardedReadings(path, backend)]
  return backend === 'caseless'
    ? [...readings, ...readings.map(({ text }) => caseless(text))]
    : readings
}

/** Bytes of a path with each escape decoded once. */
function decodedBytes(path: string): Uint8Array {
  const bytes: number[] = []
  for (let at = 0; at < path.length; at++) {
    const escaped = path[at] === '%'
    bytes.push(escaped ? Number.parseInt(path.slice(at + 1, at + 3), 16) : path.charCodeAt(at))
    if (escaped) at += 2
  }
  return Uint8Array.from(bytes)
}

/** Whether strict refuses a path (no query) of ASCII: broken or doubly encoded escapes, control bytes, invalid UTF-8. */
export function isRefusedInStrict(path: string): boolean {
  if (/%(?![0-9a-f]{2})/i.test(path)) return true
  const bytes = decodedBytes(path)
  if (bytes.some((byte) => byte < 0x20 || byte === 0x7f)) return true
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return /%[0-9a-f]{2}/i.test(text)
  } catch {
    return true
  }
}
