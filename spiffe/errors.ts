// The one error of castellan: a closed set of codes, and what each means to a caller.

/** What a caller may conclude from a code: the HTTP status, the gRPC status, and whether to retry. */
interface Meaning {
  readonly http: number
  readonly grpc: number
  readonly retry: boolean
}

const invalid = { http: 400, grpc: 3, retry: false } as const
const denied = { http: 403, grpc: 7, retry: false } as const
const internal = { http: 500, grpc: 13, retry: false } as const
const unavailable = { http: 503, grpc: 14, retry: true } as const

/** gRPC numbers are those of google.rpc.Code; unknown codes do not compile. */
export const meanings = {
  ERR_BAD_REQUEST: invalid,
  ERR_CANCELLED: { http: 499, grpc: 1, retry: false },
  ERR_CERTIFICATE: invalid,
  ERR_CONFIG: invalid,
  ERR_CSR: invalid,
  ERR_DER: invalid,
  ERR_JOIN_TOKEN: invalid,
  ERR_POLICY: invalid,
  ERR_SPIFFE_ID: invalid,
  ERR_DEADLINE: { http: 504, grpc: 4, retry: true },
  ERR_NOT_FOUND: { http: 404, grpc: 5, retry: false },
  ERR_ALREADY_EXISTS: { http: 409, grpc: 6, retry: false },
  ERR_DENIED: denied,
  ERR_NO_IDENTITY: denied,
  ERR_AGENT_BANNED: denied,
  ERR_AGENT_EXPIRED: denied,
  ERR_AGENT_NOT_ACTIVE: denied,
  ERR_AGENT_NOT_ATTESTED: denied,
  ERR_AGENT_MUST_REATTEST: denied,
  ERR_UNTRUSTED: { http: 401, grpc: 16, retry: false },
  ERR_TOO_LARGE: { http: 413, grpc: 8, retry: false },
  ERR_EXHAUSTED: { http: 429, grpc: 8, retry: true },
  ERR_PRECONDITION: { http: 409, grpc: 9, retry: false },
  ERR_CONFLICT: { http: 409, grpc: 10, retry: true },
  ERR_UNIMPLEMENTED: { http: 501, grpc: 12, retry: false },
  ERR_LINT: internal,
  ERR_SEALED: internal,
  ERR_STORE: internal,
  ERR_RUNTIME: internal,
  ERR_UNAVAILABLE: unavailable,
} as const satisfies Record<string, Meaning>

export type ErrorCode = keyof typeof meanings

/** One place in the input that is wrong: `field` is a path such as `entries[0].spiffe_id`. */
export interface FieldProblem {
  readonly field: string
  readonly problem: string
}

export interface ErrorContext {
  readonly cause?: unknown
  readonly fields?: readonly FieldProblem[]
  /** milliseconds after which a retry makes sense */
  readonly retryAfter?: number
}

/**
 * A broken promise with a stable `code`. Messages are lower-case, name the place and carry no secret:
 * no key, token, CSR or PEM ever goes into one.
 */
export class IdentityError extends Error {
  override readonly name = 'IdentityError'
  readonly code: ErrorCode
  readonly fields: readonly FieldProblem[]
  readonly retryAfter: number | undefined

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}) {
    super(message, context.cause === undefined ? {} : { cause: context.cause })
    this.code = code
    this.fields = context.fields ?? []
    this.retryAfter = context.retryAfter
  }
}

export function meaningOf(code: ErrorCode): Meaning {
  return meanings[code]
}

/** Whether `error` is an IdentityError with one of `codes` (any, when none is given). */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is IdentityError {
  return error instanceof IdentityError && (codes.length === 0 || codes.includes(error.code))
}

/** One line for people: the message and those of its causes, without stack. */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const rest = error.cause === undefined ? '' : `: ${explain(error.cause)}`
  return `${error.message}${rest}`
}
