// The corpus of adversarial requests beside the repository: its README says what each member means.
import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Profile } from '../../policies/language/mesh.ts'

const folder = join(import.meta.dirname, '../../../shared/corpus')

export type Decision = 'allow' | 'deny' | 'reject'

/** What is absent may be anything. */
export interface Expected {
  readonly decision: Decision | readonly Decision[]
  readonly status?: number
  readonly policy?: string
  readonly rule?: number
}

export interface CorpusRequest {
  readonly source?: { readonly principal?: string; readonly ip?: string }
  readonly destination: {
    readonly namespace: string
    readonly labels: Readonly<Record<string, string>>
  }
  readonly remoteIp?: string
  readonly http?: {
    readonly method: string
    readonly path: string
    readonly host?: string
    readonly headers?: readonly (readonly [name: string, value: string])[]
  }
  /** of a token already verified */
  readonly jwt?: object
  /** base64 */
  readonly raw?: string
  readonly h2?: readonly (readonly [name: string, value: string])[]
}

export interface CorpusCase {
  readonly id: string
  readonly request: CorpusRequest
  readonly expect: Readonly<Partial<Record<Profile, Expected>>>
  readonly why: string
}

export interface Fixture {
  readonly name: string
  /** of `policies.yaml` and `mesh.yaml` */
  file(name: string): string
  readonly cases: readonly CorpusCase[]
}

/** Says why there is nothing to run; a failure where a skip is one. */
export function corpusProblem(): string | undefined {
  if (existsSync(folder)) return undefined
  const reason = 'no corpus beside the repository (../shared/corpus)'
  if (process.env.CI === 'true') throw new Error(reason)
  console.info(`skipped: ${reason}`)
  return reason
}

function casesIn(text: string): CorpusCase[] {
  return text.split('\n').flatMap((line) => (line.trim() === '' ? [] : [JSON.parse(line)]))
}

/** Empty when there is no corpus. */
export function corpusFixtures(): Fixture[] {
  return globSync('*/cases.jsonl', { cwd: folder })
    .sort()
    .map((found) => {
      const own = join(folder, dirname(found))
      const file = (name: string) => join(own, name)
      return {
        name: basename(own),
        file,
        cases: casesIn(readFileSync(join(folder, found), 'utf8')),
      }
    })
}

export interface Got {
  readonly decision: Decision
  readonly status?: number | undefined
  readonly policy?: string | undefined
  readonly rule?: number | undefined
}

/** A status is that of a refusal: what is allowed has none, whatever else may be said of the case. */
export function isExpected(wanted: Expected, got: Got): boolean {
  return (
    [wanted.decision].flat().includes(got.decision) &&
    (wanted.status === undefined || wanted.status === got.status) &&
    (wanted.policy === undefined || wanted.policy === got.policy) &&
    (wanted.rule === undefined || wanted.rule === got.rule)
  )
}
