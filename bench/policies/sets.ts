// Sets of policies that all guard one destination, and requests for it.
import {
  destinationOf,
  isRejection,
  type Request,
  readHttp,
} from '../../policies/attributes/request.ts'
import { defaultMesh, type Mesh } from '../../policies/language/mesh.ts'
import type { Policy } from '../../policies/language/policy.ts'
import { noDocuments, type PolicyDocuments } from '../../policies/language/read.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'

export const trustDomain = 'bench.example.org'
export const mesh: Mesh = { ...defaultMesh, trustDomain }

/** What one caller may do: a shape that every engine can be told. */
export interface Permission {
  readonly principal: string
  readonly method: string
  readonly exact: string
  readonly prefix: string
}

export function permissions(count: number): Permission[] {
  return Array.from({ length: count }, (_, i) => ({
    principal: `${trustDomain}/ns/team-${i % 97}/sa/caller-${i}`,
    method: i % 3 === 0 ? 'POST' : 'GET',
    exact: `/orders/${i % 1000}`,
    prefix: `/files/${i % 500}/`,
  }))
}

/** As if they had been read from YAML; each an ALLOW policy of its own. */
export function documentsOf(all: readonly Permission[]): PolicyDocuments {
  const policies = all.map(
    ({ principal, method, exact, prefix }, i): Policy => ({
      namespace: 'shop',
      name: `allow-${i}`,
      action: 'ALLOW',
      rules: [
        {
          from: [{ source: { principals: [principal] } }],
          to: [{ operation: { methods: [method], paths: [exact, `${prefix}*`] } }],
        },
      ],
      selector: undefined,
      targets: undefined,
      isElsewhere: false,
      isShadow: false,
      excused: [],
      expires: undefined,
      provider: undefined,
      isIstio: true,
      file: 'bench.yaml',
      line: 1,
      lines: [1],
    }),
  )
  return { ...noDocuments, policies }
}

export interface Asked {
  readonly permission: Permission
  readonly path: string
  /** what the answer has to be */
  readonly allowed: boolean
}

/** Two of three are allowed; callers and places are spread over the whole set. */
export function asked(all: readonly Permission[], count: number): Asked[] {
  return Array.from({ length: count }, (_, i) => {
    const permission = all[(i * 7919) % all.length]
    if (permission === undefined) throw new RangeError('no permissions')
    const { exact, prefix } = permission
    const path = [exact, `${prefix}report-${i % 50}.txt`, `/private/${i % 100}`][i % 3] ?? exact
    return { permission, path, allowed: i % 3 !== 2 }
  })
}

const destination = destinationOf(parseSpiffeId(`spiffe://${trustDomain}/ns/shop/sa/web`), {
  port: 8443,
})

export function requestOf({ permission, path }: Asked): Request {
  const target = { method: permission.method, target: path, host: 'web', headers: [] }
  const http = readHttp(target, mesh)
  if (isRejection(http)) throw new Error(http.reason)
  const source = parseSpiffeId(`spiffe://${permission.principal}`)
  const nothing = { sourceIp: undefined, remoteIp: undefined, sni: undefined, claims: undefined }
  return { source, destination, http, ...nothing }
}
