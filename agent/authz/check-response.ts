// A verdict as Envoy's CheckResponse, in bytes: most of them are the same as one before.
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import type { Determinant } from '../../decisions/flows.ts'
import {
  HeaderValueOption_HeaderAppendAction as Append,
  type HeaderValueOptionSchema,
} from '../../proto/gen/envoy/config/core/v3/base_pb.js'
import { CheckResponseSchema } from '../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { StatusCode } from '../../proto/gen/envoy/type/v3/http_status_pb.js'
import { peerIdHeader } from '../../proxy-spec/header-names.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import { responseOf } from './grpc.ts'
import type { Response } from './http2/responses.ts'
import type { Passed, Stopped, Verdict } from './judge.ts'

type Fields = MessageInitShape<typeof HeaderValueOptionSchema>[]
type Message = MessageInitShape<typeof CheckResponseSchema>

// of google.rpc.Code
const ok = 0
const permissionDenied = 7

const codes: Readonly<Record<Stopped['status'], StatusCode>> = {
  400: StatusCode.BadRequest,
  401: StatusCode.Unauthorized,
  403: StatusCode.Forbidden,
  414: StatusCode.URITooLong,
  429: StatusCode.TooManyRequests,
  431: StatusCode.RequestHeaderFieldsTooLarge,
}

/** In the place of what the request has: what a client sent of that name is gone. */
function overwriting(pairs: readonly string[]): Fields {
  const fields: Fields = []
  for (let i = 0; i + 1 < pairs.length; i += 2) {
    const header = { key: pairs[i] ?? '', value: pairs[i + 1] ?? '' }
    fields.push({ header, appendAction: Append.OVERWRITE_IF_EXISTS_OR_ADD })
  }
  return fields
}

/** RFC 9110 §10.2.3: whole seconds, and none is no time to wait. RFC 6750 §3.1: a 401 says that it was the token. */
export function fieldsOf({ status, retryAfter }: Stopped): readonly string[] {
  if (status === 401) return ['www-authenticate', 'Bearer error="invalid_token"']
  if (retryAfter === undefined) return []
  return ['retry-after', String(Math.max(1, Math.ceil(retryAfter / 1000)))]
}

/** For the proxy's own log, at this node: what a client is told names no policy. */
function metadataOf({ source, by }: Verdict, outcome: string) {
  const { policy, rule } = by
  return {
    outcome,
    ...(policy === '' ? {} : { policy, rule }),
    ...(source === undefined ? {} : { source }),
  }
}

function passedResponse(verdict: Passed): Message {
  return {
    status: { code: ok },
    httpResponse: {
      case: 'okResponse',
      value: {
        headers: overwriting(verdict.sets),
        headersToRemove: [...verdict.drops],
        queryParametersToRemove: [...verdict.dropsParameters],
      },
    },
    dynamicMetadata: metadataOf(verdict, 'allowed'),
  }
}

function stoppedResponse(verdict: Stopped): Message {
  const { status, text, outcome } = verdict
  return {
    status: { code: permissionDenied, message: text },
    httpResponse: {
      case: 'deniedResponse',
      value: {
        status: { code: codes[status] },
        headers: overwriting(fieldsOf(verdict)),
        body: `${text}\n`,
      },
    },
    dynamicMetadata: metadataOf(verdict, outcome),
  }
}

function encoded(verdict: Verdict): Response {
  const message = verdict.kind === 'passed' ? passedResponse(verdict) : stoppedResponse(verdict)
  return responseOf(toBinary(CheckResponseSchema, create(CheckResponseSchema, message)))
}

const passedKey = ({ source, by, sets, drops, dropsParameters }: Passed): string =>
  JSON.stringify([source, by.policy, by.rule, drops, dropsParameters, sets])

function stoppedKey(verdict: Stopped): string {
  const { source, by, status, outcome, text } = verdict
  return JSON.stringify([status, outcome, source, by.policy, by.rule, fieldsOf(verdict), text])
}

const keyOf = (verdict: Verdict) =>
  verdict.kind === 'passed' ? passedKey(verdict) : stoppedKey(verdict)

const mostKept = 4096
// what tokens say is as long as they are, and no two are alike
const longestKept = 1024

/** Nothing but who asks is new, in the usual field. */
function isUsual(verdict: Verdict): verdict is Passed & { readonly source: SpiffeId } {
  if (verdict.kind === 'stopped' || verdict.source === undefined) return false
  const { source, sets, drops, dropsParameters } = verdict
  const changes = sets.length + drops.length + dropsParameters.length
  return changes === 2 && sets[0] === peerIdHeader && sets[1] === source
}

/** The same, by what allowed it and who asked: no key has to be made for it. */
function createUsual() {
  let known = new WeakMap<Determinant, Map<SpiffeId, Response>>()
  let size = 0
  return {
    get: ({ by, source }: { readonly by: Determinant; readonly source: SpiffeId }) =>
      known.get(by)?.get(source),
    put(by: Determinant, source: SpiffeId, response: Response): void {
      if (size >= mostKept) {
        known = new WeakMap()
        size = 0
      }
      const ofRule = known.get(by) ?? new Map<SpiffeId, Response>()
      known.set(by, ofRule.set(source, response))
      size++
    },
  }
}

/** Keeps what it has encoded, as far as it is short. */
export function createResponses(): (verdict: Verdict) => Response {
  const usual = createUsual()
  const known = new Map<string, Response>()

  function usually(verdict: Passed & { readonly source: SpiffeId }): Response {
    const kept = usual.get(verdict)
    if (kept !== undefined) return kept
    const made = encoded(verdict)
    usual.put(verdict.by, verdict.source, made)
    return made
  }

  return (verdict) => {
    if (isUsual(verdict)) return usually(verdict)
    const key = keyOf(verdict)
    const kept = known.get(key)
    if (kept !== undefined) return kept
    const made = encoded(verdict)
    if (key.length > longestKept) return made
    if (known.size >= mostKept) known.clear()
    known.set(key, made)
    return made
  }
}
