// What a source is to those who use it: the newest state of something, and word of each change.
import type { Clock } from '../runtime/clock.ts'

export interface SourceOptions {
  readonly clock?: Clock
  /** told of each failed attempt; the source goes on trying */
  readonly onTrouble?: (error: unknown) => void
}

export interface Followed<T> extends AsyncDisposable {
  /** The newest state; undefined before the first one, and once what it speaks of was withdrawn. */
  current(): T | undefined
  /** Resolves with the first state; rejects when the signal is aborted first. */
  ready(signal: AbortSignal): Promise<T>
  /** Why the last attempt failed; undefined when it did not. */
  trouble(): unknown
  /** Called after each change; undefined when the identity was withdrawn. */
  subscribe(listener: (state: T | undefined) => void): Disposable
}
