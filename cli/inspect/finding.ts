// What an inspection finds: each rule of the standard with whether it holds, and why not.
import { explain, hasCode } from '../../spiffe/errors.ts'

/** `must` decides whether a thing is valid; `should` is advice. */
export type Level = 'must' | 'should'

export interface Finding {
  /** the lines of the checklist that it stands for, then the rule in words */
  readonly rule: string
  readonly level: Level
  readonly verdict: 'holds' | 'broken' | 'not judged'
  /** why it is broken or not judged; empty when it holds */
  readonly reason: string
}

export interface Inspection {
  readonly kind: string
  /** the input and the place in it */
  readonly where: string
  /** what it is, in words */
  readonly what: string
  readonly facts: Readonly<Record<string, unknown>>
  readonly findings: readonly Finding[]
}

/** Says what is wrong with `it`; undefined when nothing is. */
export type Check<T> = (it: T) => string | undefined
export type Checks<T> = Readonly<Record<string, Check<T>>>

export function finding(rule: string, problem: string | undefined, level: Level = 'must'): Finding {
  return problem === undefined
    ? { rule, level, verdict: 'holds', reason: '' }
    : { rule, level, verdict: 'broken', reason: problem }
}

export function notJudged(rule: string, reason: string): Finding {
  return { rule, level: 'must', verdict: 'not judged', reason }
}

export function findingsOf<T>(checks: Checks<T>, it: T, level: Level = 'must'): Finding[] {
  return Object.entries(checks).map(([rule, check]) => finding(rule, check(it), level))
}

/** The findings of one part of a thing: the part stands before each rule. */
export function within(part: string, findings: readonly Finding[]): Finding[] {
  return findings.map((it) => ({ ...it, rule: `${part} ${it.rule}` }))
}

/** What `call` refuses, in words; undefined when it returned. Anything but a refusal is thrown on. */
export function problemOf(call: () => unknown): string | undefined {
  try {
    call()
    return undefined
  } catch (error) {
    if (!hasCode(error)) throw error
    return explain(error)
  }
}

export function isValid({ findings }: Inspection): boolean {
  return !findings.some(({ level, verdict }) => level === 'must' && verdict === 'broken')
}
