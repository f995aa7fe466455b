// The rules of SPIFFE-ID §2 one by one, for whoever has to mend an ID; spiffe/id.ts is what decides.
import { type Checks, findingsOf, type Inspection } from './finding.ts'

/** The components of RFC 3986, Appendix B. */
interface Parts {
  readonly text: string
  readonly name: string
  readonly userinfo: string | undefined
  readonly port: string | undefined
  readonly path: string
  readonly query: string | undefined
  readonly fragment: string | undefined
}

const components = /^(?:[^:/?#]+:)?(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?$/s
const literal = /^(\[[^\]]*\])(?::(.*))?$/s

function partsOf(text: string): Parts {
  const [, authority = '', path = '', query, fragment] = components.exec(text) ?? []
  const at = authority.lastIndexOf('@')
  const host = authority.slice(at + 1)
  const colon = host.indexOf(':')
  const [, ip, ipPort] = literal.exec(host) ?? []
  const ends = colon < 0 ? host.length : colon
  return {
    text,
    name: ip ?? host.slice(0, ends),
    port: ip === undefined && colon >= 0 ? host.slice(colon + 1) : ipPort,
    userinfo: at < 0 ? undefined : authority.slice(0, at),
    path,
    query,
    fragment,
  }
}

const segmentsOf = ({ path }: Parts) => path.split('/').slice(1)
const others = (text: string, allowed: RegExp) => [...new Set(text.replace(allowed, ''))]

function strangers(text: string, allowed: RegExp): string | undefined {
  const found = others(text, allowed)
  return found.length === 0 ? undefined : `it has ${JSON.stringify(found.slice(0, 10).join(''))}`
}

/** All of them hold exactly when spiffe/id.ts accepts the text. */
export const idChecks: Checks<Parts> = {
  'ID-1 the scheme is spiffe://': ({ text }) =>
    text.startsWith('spiffe://') ? undefined : 'it does not start with spiffe://',
  'ID-2 the trust domain is not empty': ({ name }) => (name === '' ? 'it is empty' : undefined),
  'ID-3 no query and no fragment': ({ query, fragment }) => {
    if (query !== undefined) return 'it has a query'
    return fragment === undefined ? undefined : 'it has a fragment'
  },
  'ID-4 no user': ({ userinfo }) => (userinfo === undefined ? undefined : 'it has a user'),
  'ID-5 no port': ({ port }) => (port === undefined ? undefined : 'it has a port'),
  'ID-6 the trust domain is in lower case': ({ name }) =>
    /[A-Z]/.test(name) ? 'it has capital letters' : undefined,
  'ID-7 the trust domain has only a-z 0-9 . - _': ({ name }) => strangers(name, /[A-Za-z0-9._%-]/g),
  'ID-8 no percent-encoding in the trust domain': ({ name }) =>
    name.includes('%') ? 'it has a percent sign' : undefined,
  'ID-9 the trust domain is no IPv6 address': ({ name }) =>
    name.startsWith('[') ? 'it stands in brackets' : undefined,
  'ID-11 no percent-encoding in the path': ({ path }) =>
    path.includes('%') ? 'it has a percent sign' : undefined,
  'ID-12 no empty segment in the path': (parts) =>
    segmentsOf(parts).slice(0, -1).includes('') ? 'it has two slashes in a row' : undefined,
  'ID-13 no dot segment in the path': (parts) => {
    const dots = segmentsOf(parts).find((it) => it === '.' || it === '..')
    return dots === undefined ? undefined : `it has a segment ${dots}`
  },
  'ID-14 no slash at the end': ({ path }) => (path.endsWith('/') ? 'it has one' : undefined),
  'ID-15 the path has only A-Z a-z 0-9 . - _': ({ path }) => strangers(path, /[A-Za-z0-9._%/-]/g),
  'ID-16 at most 2048 bytes': ({ text }) => longerThan(text, 2048),
  'ID-18 a trust domain of at most 255 bytes': ({ name }) => longerThan(name, 255),
}

function longerThan(text: string, most: number): string | undefined {
  const length = Buffer.byteLength(text)
  return length <= most ? undefined : `it has ${length} bytes`
}

export function inspectId(text: string, where: string): Inspection {
  const parts = partsOf(text)
  const findings = findingsOf(idChecks, parts)
  const kind = parts.path === '' ? 'the ID of a trust domain' : "a workload's ID"
  const isId = findings.every(({ verdict }) => verdict === 'holds')
  return {
    kind: 'id',
    where,
    what: isId ? kind : 'no SPIFFE ID',
    facts: isId
      ? { id: text, trustDomain: parts.name, path: parts.path }
      : { text: text.slice(0, 2048) },
    findings,
  }
}
