// Fetching what others publish (JWKS, bundles), under invariant 9: HTTPS only, a time limit, a size limit,
// no redirects, and no address that the operator did not allow.
import { lookup as resolve } from 'node:dns'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { BlockList, isIP, isIPv6, type LookupFunction } from 'node:net'
import { TLSSocket } from 'node:tls'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { peerChain } from './tls-server.ts'

export interface FetchOptions {
  /** PEM; the public roots when left out */
  readonly roots?: string | undefined
  /** whether an address of a private network or of this machine will do */
  readonly privateAddress: boolean
  /** what to set so that it will do; `privateAddress: true beside this URL` when left out */
  readonly remedy?: string
  /**
   * Whose server it has to be, instead of the host that its certificate names: throws unless the chain
   * (DER, leaf first), which leads to one of `roots`, is theirs.
   */
  readonly verifyServer?: ((chain: readonly Uint8Array[]) => void) | undefined
  /** milliseconds for all of it */
  readonly timeout: number
  /** bytes of the body */
  readonly most: number
  readonly signal?: AbortSignal
}

/** Mozilla's intermediate set, which SPIFFE Federation §5 demands; those of TLS 1.3 are all in it. */
const tls = {
  minVersion: 'TLSv1.2',
  ciphers: [
    ...['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'],
    ...['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256'],
    ...['ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384'],
    ...['ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305'],
    ...['DHE-RSA-AES128-GCM-SHA256', 'DHE-RSA-AES256-GCM-SHA384', 'DHE-RSA-CHACHA20-POLY1305'],
  ].join(':'),
} as const

/** Nobody publishes there: machine metadata services, multicast, addresses that mean "this". */
const never = new BlockList()
never.addSubnet('0.0.0.0', 8)
never.addSubnet('169.254.0.0', 16)
never.addSubnet('224.0.0.0', 3)
never.addAddress('::', 'ipv6')
never.addAddress('fd00:ec2::254', 'ipv6')
never.addSubnet('fe80::', 10, 'ipv6')
never.addSubnet('ff00::', 8, 'ipv6')
// the same by way of NAT64
never.addSubnet('64:ff9b::a9fe:0', 112, 'ipv6')

const inside = new BlockList()
inside.addSubnet('10.0.0.0', 8)
inside.addSubnet('100.64.0.0', 10)
inside.addSubnet('127.0.0.0', 8)
inside.addSubnet('172.16.0.0', 12)
inside.addSubnet('192.0.0.0', 24)
inside.addSubnet('192.168.0.0', 16)
inside.addSubnet('198.18.0.0', 15)
inside.addAddress('::1', 'ipv6')
inside.addSubnet('64:ff9b::', 96, 'ipv6')
inside.addSubnet('fc00::', 7, 'ipv6')

type AddressRule = Pick<FetchOptions, 'privateAddress' | 'remedy'>

/** Why nothing is fetched from `address`; undefined when it may be. */
export function addressProblem(
  address: string,
  { privateAddress, remedy = 'privateAddress: true beside this URL' }: AddressRule,
): string | undefined {
  const family = isIPv6(address) ? 'ipv6' : 'ipv4'
  if (never.check(address, family))
    return `${address} is never fetched from: it is link-local, multicast or unspecified`
  if (!privateAddress && inside.check(address, family))
    return `${address} is on a private network; set ${remedy} to allow it`
  return undefined
}

/** The same for a URL: an address in it is connected to without a lookup. */
export function urlProblem(url: URL, rule: AddressRule): string | undefined {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  return isIP(host) === 0 ? undefined : addressProblem(host, rule)
}

/** Resolves as node:dns does; an address that is refused is never connected to. */
export function guardedLookup(rule: AddressRule): LookupFunction {
  return (host, options, callback) => {
    resolve(host, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, '')
      for (const { address } of addresses) {
        const problem = addressProblem(address, rule)
        if (problem !== undefined) return callback(new Error(problem), '')
      }
      const [first] = addresses
      if (options.all === true) callback(null, addresses)
      else callback(null, first?.address ?? '', first?.family)
    })
  }
}

/** All of an answer's body. Rejects once it is longer than `most` bytes, and ends the answer. */
export function readBody(response: IncomingMessage, most: number): Promise<Buffer> {
  const { promise, resolve: done, reject } = Promise.withResolvers<Buffer>()
  const parts: Buffer[] = []
  let size = 0
  response.on('error', reject)
  response.on('data', (part: Buffer) => {
    size += part.length
    parts.push(part)
    if (size > most) response.destroy(new Error(`the answer is over ${most} bytes`))
  })
  response.on('end', () => done(Buffer.concat(parts)))
  return promise
}

/** As node:tls asks it: undefined, or the error that ends the handshake before anything is sent. */
function identityProblem(
  socket: unknown,
  verify: NonNullable<FetchOptions['verifyServer']>,
): Error | undefined {
  try {
    verify(socket instanceof TLSSocket ? peerChain(socket) : [])
    return undefined
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

async function get(url: URL, options: FetchOptions, signal: AbortSignal): Promise<Buffer> {
  const { promise, resolve: done, reject } = Promise.withResolvers<Buffer>()
  const { roots: ca, verifyServer, most } = options
  const identity =
    verifyServer === undefined
      ? {}
      : {
          // an authority of a bundle is trusted whoever signed it
          allowPartialTrustChain: true,
          checkServerIdentity: (): Error | undefined => identityProblem(asked.socket, verifyServer),
        }
  // no agent: it would resume sessions, and those skip checkServerIdentity
  const connection = { ...tls, ...identity, lookup: guardedLookup(options), agent: false } as const
  const asked = request(
    url,
    { ...connection, ...(ca === undefined ? {} : { ca }), signal },
    (response) => {
      if (response.statusCode !== 200) {
        response.destroy()
        return reject(new Error(`the answer is ${response.statusCode}, not 200`))
      }
      readBody(response, most).then(done, reject)
    },
  )
  asked.on('error', reject)
  asked.end()
  return promise
}

/** The body that `url` answers with. Throws ERR_UNAVAILABLE, naming the URL and the reason. */
export async function fetchBounded(url: string, options: FetchOptions): Promise<Buffer> {
  try {
    const target = new URL(url)
    if (target.protocol !== 'https:') throw new Error('only https is fetched')
    const problem = urlProblem(target, options)
    if (problem !== undefined) throw new Error(problem)
    const late = AbortSignal.timeout(options.timeout)
    const { signal } = options
    return await get(target, options, signal === undefined ? late : AbortSignal.any([signal, late]))
  } catch (cause) {
    throw new IdentityError('ERR_UNAVAILABLE', `cannot fetch ${url}: ${explain(cause)}`, { cause })
  }
}
