// What a refused call of the Workload API means: the one place where gRPC statuses become our codes.
import { Code, ConnectError } from '@connectrpc/connect'
import { type ErrorCode, hasCode, IdentityError } from '../spiffe/errors.ts'

const codes: ReadonlyMap<Code, ErrorCode> = new Map<Code, ErrorCode>([
  [Code.InvalidArgument, 'ERR_BAD_REQUEST'],
  [Code.PermissionDenied, 'ERR_NO_IDENTITY'],
  [Code.Unimplemented, 'ERR_UNIMPLEMENTED'],
  [Code.DeadlineExceeded, 'ERR_DEADLINE'],
  [Code.ResourceExhausted, 'ERR_EXHAUSTED'],
])

/** Why `source` was not ready: what it has met, or that it was not answered at all. */
export function notReady(source: { trouble(): unknown }, error: unknown): IdentityError {
  return failureOf(source.trouble() ?? error)
}

/** `codeOf` says what a status means here where it means something else than elsewhere. */
export function failureOf(
  error: unknown,
  codeOf: (status: Code) => ErrorCode | undefined = () => undefined,
): IdentityError {
  if (hasCode(error)) return error
  const status = error instanceof ConnectError ? error.code : Code.Unavailable
  const message = error instanceof ConnectError ? error.rawMessage : 'no answer from the agent'
  const code = codeOf(status) ?? codes.get(status) ?? 'ERR_UNAVAILABLE'
  return new IdentityError(code, message, { cause: error })
}
