// Policies as text and requests as lines, for tests of decisions.

import {
  destinationOf,
  isRejection,
  type Request,
  readHttp,
} from '../../policies/attributes/request.ts'
import { compile, type PolicySet } from '../../policies/compile.ts'
import type { Connected } from '../../policies/evaluate.ts'
import { defaultMesh } from '../../policies/language/mesh.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'

interface Named {
  readonly name?: string
  readonly namespace?: string
  readonly action?: string
}

/** One document; `rules` is YAML in flow style. */
export function policyText(rules: string, named: Named = {}): string {
  const { name = 'test', namespace = 'shop', action = 'ALLOW' } = named
  return `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec: { action: ${action}, rules: ${rules} }
`
}

export function policySet(...documents: readonly string[]): PolicySet {
  return compile(readPolicies([{ name: 'test.yaml', text: documents.join('---\n') }]))
}

interface Peers {
  /** without spiffe://; undefined is a peer without identity */
  readonly from?: string | undefined
  readonly to?: string
  readonly port?: number
}

export function connectedOf({ from, to = 'td/ns/shop/sa/web', port = 8443 }: Peers): Connected {
  return {
    source: from === undefined ? undefined : parseSpiffeId(`spiffe://${from}`),
    sourceIp: undefined,
    destination: destinationOf(parseSpiffeId(`spiffe://${to}`), { port }),
    sni: undefined,
  }
}

/** `line` is a method and a target: `GET /public?x=1`. */
export function httpRequest(line: string, between: Peers = {}): Request {
  const [method = '', target = ''] = line.split(' ')
  const http = readHttp({ method, target, host: 'web', headers: [] }, defaultMesh)
  if (isRejection(http)) throw new Error(`${line}: ${http.reason}`)
  return { ...connectedOf(between), remoteIp: undefined, http, claims: undefined }
}

export function tcpRequest(between: Peers = {}): Request {
  const nothing = { remoteIp: undefined, http: undefined, claims: undefined }
  return { ...connectedOf(between), ...nothing }
}
