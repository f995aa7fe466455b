// From an error to an exit code and a message with the next step (design.md §12).
import { Code, ConnectError } from '@connectrpc/connect'
import { BadRequestSchema } from '../proto/gen/google/rpc/error_details_pb.js'
import { errnoOf, peerOfFailure } from '../runtime/errno.ts'
import { type ErrorCode, explain, IdentityError } from '../spiffe/errors.ts'
import type { ExitCode } from './context.ts'

const exitCodes: Readonly<Partial<Record<ErrorCode, ExitCode>>> = {
  ERR_BAD_REQUEST: 2,
  ERR_CERTIFICATE: 2,
  ERR_CONFIG: 2,
  ERR_CSR: 2,
  ERR_DER: 2,
  ERR_JOIN_TOKEN: 2,
  ERR_POLICY: 2,
  ERR_SPIFFE_ID: 2,
  ERR_SEALED: 2,
  ERR_DENIED: 1,
  ERR_NO_IDENTITY: 1,
  ERR_NOT_FOUND: 1,
  ERR_ALREADY_EXISTS: 1,
  ERR_PRECONDITION: 1,
  ERR_UNTRUSTED: 1,
  ERR_CANCELLED: 3,
  ERR_DEADLINE: 3,
  ERR_EXHAUSTED: 3,
  ERR_UNAVAILABLE: 3,
  ERR_RUNTIME: 3,
  ERR_STORE: 3,
}

const connectCodes: Readonly<Partial<Record<Code, ExitCode>>> = {
  [Code.InvalidArgument]: 2,
  [Code.OutOfRange]: 2,
  [Code.FailedPrecondition]: 1,
  [Code.NotFound]: 1,
  [Code.AlreadyExists]: 1,
  [Code.PermissionDenied]: 1,
  [Code.Unauthenticated]: 1,
  [Code.Unavailable]: 3,
  [Code.DeadlineExceeded]: 3,
  [Code.Canceled]: 3,
  [Code.Aborted]: 3,
  [Code.ResourceExhausted]: 3,
}

export interface Failure {
  readonly exitCode: ExitCode
  /** for people; the first line says what, further lines where */
  readonly message: string
}

const connecting = new Set(['ENOENT', 'ECONNREFUSED', 'EACCES', 'ECONNRESET', 'EPIPE'])

function ofConnect(error: ConnectError): Failure {
  const errno = errnoOf(error)
  if (connecting.has(errno)) {
    const where = peerOfFailure(error) ?? 'there'
    const message = `nothing answers at ${where} (${errno}); is it running? Name another socket with --socket`
    return { exitCode: 3, message }
  }
  const fields = error
    .findDetails(BadRequestSchema)
    .flatMap(({ fieldViolations }) =>
      fieldViolations.map(({ field, description }) => `${field}: ${description}`),
    )
    // the message names the first one by itself
    .filter((line) => !error.rawMessage.includes(line))
    .map((line) => `  ${line}`)
  return {
    exitCode: connectCodes[error.code] ?? 4,
    message: [error.rawMessage, ...fields].join('\n'),
  }
}

export function failureOf(error: unknown): Failure {
  if (error instanceof ConnectError) return ofConnect(error)
  if (error instanceof IdentityError) {
    const fields =
      error.fields.length > 1
        ? error.fields.map(({ field, problem }) => `  ${field}: ${problem}`)
        : []
    return { exitCode: exitCodes[error.code] ?? 4, message: [explain(error), ...fields].join('\n') }
  }
  if (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'string' &&
    /^E[A-Z]+$/.test(error.code)
  ) {
    return { exitCode: 3, message: error.message }
  }
  const stack = error instanceof Error ? error.stack : String(error)
  return { exitCode: 4, message: `this is a bug in castellan, please report it:\n${stack}` }
}
