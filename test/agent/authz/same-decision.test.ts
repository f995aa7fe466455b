// The socket decides as the engine does that is asked directly, about any request and by any policies.
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { fieldsProblem } from '../../../policies/attributes/fields.ts'
import { destinationOf, type RawHttp, readAddress } from '../../../policies/attributes/request.ts'
import { compile } from '../../../policies/compile.ts'
import { policyNameOf } from '../../../policies/decide.ts'
import { evaluateHttp, evaluateTcp } from '../../../policies/evaluate.ts'
import { defaultMesh, type Mesh, meshDocument } from '../../../policies/language/mesh.ts'
import { readPolicies } from '../../../policies/language/read.ts'
import type { CheckResponse } from '../../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { parseSpiffeId } from '../../../spiffe/id.ts'
import { makeTestAuthority } from '../../support/mesh.ts'
import type { OracleRequest } from '../../support/oracle/decide.ts'
import { documentsAbout, textOf } from '../../support/random-policies.ts'
import { requestAbout } from '../../support/random-requests.ts'
import { rpc, tcp } from './asking.ts'
import { bundleMessage, type Deciding, entryOf, escaped, startDeciding } from './deciding.ts'

const authority = makeTestAuthority('td')
const served = 'spiffe://td/ns/app/sa/web'
const labels = { app: 'web' }
const callers = ['spiffe://td/ns/a/sa/x', 'spiffe://td/ns/b/sa/y', 'spiffe://td/ns/ab/sa/x.y']
const certificates = new Map(callers.map((id) => [id, escaped(authority.issue(id))]))
const forwarding = { trustedProxies: ['10.0.0.0/8'], trustedHops: 1 }
const mesh: Mesh = {
  ...defaultMesh,
  ...meshDocument.parse({ trustDomain: 'td', rootNamespace: 'root', ...forwarding }),
}

let deciding: Deciding
let version = 0n
beforeAll(async () => {
  deciding = await startDeciding({ config: forwarding, trustDomain: 'td' })
  const { entry, labels: its } = entryOf(served, { labels })
  const bundle = bundleMessage(authority.bundle)
  deciding.apply({ snapshot: true, bundle, entries: [entry], labels: [its] })
  deciding.putSvid(authority.issue(served))
})
afterAll(() => deciding[Symbol.asyncDispose]())

/** As Envoy tells it: one field of each name, in lower case. */
function joined(pairs: readonly (readonly string[])[]): Record<string, string> {
  const fields: Record<string, string> = {}
  for (const [name = '', value = ''] of pairs) {
    const lower = name.toLowerCase()
    const before = fields[lower]
    fields[lower] = before === undefined ? value : `${before},${value}`
  }
  return fields
}

interface Question {
  readonly source: string | undefined
  readonly from: string
  readonly port: number
  readonly raw: RawHttp | undefined
}

function questionOf({ source, destination, http }: OracleRequest): Question {
  const id = source?.principal
  const headers = Object.entries({
    'x-request-id': 'c1f2',
    'x-forwarded-proto': 'https',
    ...joined(http?.headers ?? []),
  })
  return {
    source: id !== undefined && certificates.has(id) ? id : undefined,
    from: source?.ip ?? '10.2.2.2',
    port: destination?.port || 8443,
    raw:
      http === undefined
        ? undefined
        : {
            method: http.method ?? 'GET',
            target: http.path ?? '/',
            host: http.host || undefined,
            headers: headers.flat(),
          },
  }
}

/** What the engine says: an HTTP status, and what determined it. */
function asked(text: string, { source, from, port, raw }: Question): unknown[] {
  const set = compile(readPolicies([{ name: 'test.yaml', text }]), { mesh })
  // no parser of HTTP would have let it come so far
  if (fieldsProblem(raw?.headers ?? []) !== undefined) return [400, undefined]
  const destination = destinationOf(parseSpiffeId(served), { port, labels })
  const connected = { source, sourceIp: readAddress(from, mesh), destination, sni: undefined }
  const result =
    raw === undefined
      ? evaluateTcp(set, connected)
      : evaluateHttp(set, connected, { raw, now: Date.now() })
  if (result.kind === 'rejected') return [result.rejection.status, undefined]
  const { decision } = result
  return [decision.allow ? 200 : 403, policyNameOf(decision) || undefined]
}

function answered({ status, httpResponse, dynamicMetadata }: CheckResponse): unknown[] {
  const http = httpResponse.case === 'deniedResponse' ? httpResponse.value.status?.code : 200
  if ((status?.code === 0) !== (http === 200)) return ['it contradicts itself']
  return [http, dynamicMetadata?.policy]
}

const subject = fc.constantFrom('addresses' as const, 'messages' as const, 'identities' as const)
const scenario = subject.chain((about) =>
  fc.record({
    documents: documentsAbout[about],
    requests: fc.array(requestAbout[about], { minLength: 20, maxLength: 60 }),
  }),
)

it('decides as the engine that is asked directly', async () => {
  const counts = new Map<unknown, number>()
  await fc.assert(
    fc.asyncProperty(scenario, async ({ documents, requests }) => {
      const text = textOf(documents)
      deciding.putPolicies(++version, text, 'root')
      expect(deciding.ledger.own).toMatchObject({ policies: version, refusal: '' })
      for (const question of requests.map(questionOf)) {
        const { source, from, port, raw } = question
        const certificate = certificates.get(source ?? '') ?? ''
        const common = { certificate, from, port }
        const { method, target = '', host = '', headers = [] } = raw ?? {}
        const fields = Object.fromEntries(
          headers.flatMap((name, i) => (i % 2 === 0 ? [[name, headers[i + 1] ?? '']] : [])),
        )
        const check =
          raw === undefined
            ? tcp(common)
            : rpc(target, {
                ...common,
                host,
                headers: fields,
                ...(method === undefined ? {} : { method }),
              })
        const answer = answered(await deciding.check(check))
        const wanted = asked(text, question)
        counts.set(wanted[0], (counts.get(wanted[0]) ?? 0) + 1)
        expect(answer, JSON.stringify(question)).toEqual(wanted)
      }
    }),
    { numRuns: 40 },
  )
  // each answer was compared more than once
  for (const status of [200, 403, 400]) expect(counts.get(status) ?? 0).toBeGreaterThan(5)
})
