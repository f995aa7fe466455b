// A request as the engine understood it: what was sent, what is forwarded, and every reading between; who
// asks, from where; without what would let its reader act as somebody else.
import { addressText } from '../attributes/address.ts'
import type { RawHttp, Request } from '../attributes/request.ts'
import type { Mesh } from '../language/mesh.ts'
import { identityOf, trustDomainOf } from '../rules/identity.ts'
import { hidden, isSecret, shortened } from './values.ts'

/** Members that the request does not have are absent. */
export interface Input {
  readonly caller: {
    readonly principal?: string
    readonly trustDomain?: string
    readonly namespace?: string
    readonly serviceAccount?: string
    /** of the socket's peer */
    readonly ip?: string
    /** of the client, as rules compare it */
    readonly remoteIp?: string
    readonly claims?: unknown
  }
  readonly destination: {
    readonly principal?: string
    readonly namespace: string
    readonly labels: Readonly<Record<string, string>>
    readonly ip?: string
    readonly port?: number
    readonly sni?: string
  }
  readonly http?: {
    readonly method: string
    readonly path: {
      readonly sent: string
      /** with its query */
      readonly forwarded: string
      /** what a DENY is compared with */
      readonly readings: readonly string[]
      /** what an ALLOW has to match, each of them */
      readonly certain: readonly string[]
    }
    readonly host?: { readonly sent: string; readonly name: string }
    readonly headers: readonly (readonly [name: string, value: string])[]
  }
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** Without the members that are undefined. */
function present<T extends object>(value: T): Defined<T>
function present(value: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(Object.entries(value).filter(([, it]) => it !== undefined))
}

/** Values whose names say that they are secret are left out, however deep. */
export function withoutSecrets(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutSecrets)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, it]) => [name, isSecret(name) ? hidden : withoutSecrets(it)]),
  )
}

// three parts in base64url, the first two of them JSON: a token, wherever it stands
const token = /eyJ[\w-]*\.eyJ[\w-]*\.[\w-]*/g

const withoutTokens = (text: string) => text.replace(token, hidden)

/** The query with its names; values of names that may be secret are left out. */
function shownTarget(target: string): string {
  const mark = target.indexOf('?')
  if (mark < 0) return shortened(target)
  const query = target
    .slice(mark + 1)
    .split('&')
    .map((pair) => {
      const equals = pair.indexOf('=')
      const name = equals < 0 ? '' : pair.slice(0, equals)
      return isSecret(name) ? `${name}=${hidden}` : withoutTokens(pair)
    })
  return shortened(`${target.slice(0, mark)}?${query.join('&')}`)
}

function callerOf({ source, sourceIp, remoteIp, claims }: Request): Input['caller'] {
  const known = source === undefined ? undefined : identityOf(source)
  const address = (it: Request['sourceIp']) => (it === undefined ? undefined : addressText(it))
  return present({
    principal: source,
    trustDomain: source === undefined ? undefined : trustDomainOf(source),
    namespace: known?.namespace,
    serviceAccount: known?.serviceAccount,
    ip: address(sourceIp),
    remoteIp: address(remoteIp),
    claims: claims === undefined ? undefined : withoutSecrets(claims),
  })
}

function destinationOf({ destination, sni }: Request): Input['destination'] {
  const { id, namespace, labels, ip, port } = destination
  const more = { principal: id, ip: ip === undefined ? undefined : addressText(ip), port, sni }
  return { namespace, labels, ...present(more) }
}

function headersOf({ headers }: NonNullable<Request['http']>) {
  return headers
    .names()
    .flatMap((name) =>
      headers
        .values(name)
        .map((value) => [name, isSecret(name) ? hidden : withoutTokens(value)] as const),
    )
}

/** `raw` is the request as its parser gave it; undefined on TCP. */
export function inputOf(request: Request, raw: RawHttp | undefined, mesh: Mesh): Input {
  const { http } = request
  const known = { caller: callerOf(request), destination: destinationOf(request) }
  if (http === undefined || raw === undefined) return known
  const { method, path: forwarded, query, readings, certain, host } = http
  const name = mesh.profile === 'istio' ? host?.sent : host?.name
  return {
    ...known,
    http: {
      method,
      path: {
        sent: shownTarget(raw.target),
        forwarded: shownTarget(forwarded + query),
        readings: readings.map(shortened),
        certain: certain.map(shortened),
      },
      ...(host === undefined || name === undefined
        ? {}
        : { host: { sent: raw.host ?? host.sent, name } }),
      headers: headersOf(http),
    },
  }
}
