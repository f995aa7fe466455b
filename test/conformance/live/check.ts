// A live check: what one client finds out about an agent at its socket.
import { strict as assert } from 'node:assert'
import { Code, ConnectError } from '@connectrpc/connect'
import type { Scene } from './scene.ts'

export interface Check {
  readonly ids: readonly string[]
  readonly says: string
  /** Rejects with what is wrong, or through `skip`. */
  readonly run: (scene: Scene) => void | Promise<void>
}

export const check = (ids: string, says: string, run: Check['run']): Check => ({
  ids: ids.split(' '),
  says,
  run,
})

/** Why a check says nothing about this agent. */
export class NotApplicable extends Error {}

export function skip(reason: string): never {
  throw new NotApplicable(reason)
}

/** A part that this run may lack. */
export type Maybe<T> =
  | { readonly kind: 'there'; readonly it: T }
  | { readonly kind: 'missing'; readonly reason: string }

export function need<T>(part: Maybe<T>): T {
  return part.kind === 'there' ? part.it : skip(part.reason)
}

/** of whatever is waited for */
export const patience = () => AbortSignal.timeout(60_000)

export async function first<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const message of stream) return message
  return assert.fail('the stream ended without a message')
}

/** The error of a call that has to fail. */
export async function refusal(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call
  } catch (error) {
    if (error instanceof ConnectError) return error
    throw error
  }
  return assert.fail('it was not refused')
}

export async function assertRefused(call: Promise<unknown>, code: Code): Promise<void> {
  const error = await refusal(call)
  const said = `${Code[error.code]} (${error.rawMessage})`
  assert.equal(error.code, code, `refused with ${said} instead of ${Code[code]}`)
}
