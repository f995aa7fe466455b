// Labels of an entry, in Kubernetes' grammar: what selectors of policies mean by them is then the same.
import type { Labels } from '../policies/language/policy.ts'
import type { FieldProblem } from '../spiffe/errors.ts'
import { badRequest } from './wire.ts'

/** shared: most of a million entries have none */
export const noLabels: Labels = Object.freeze({})

const mostLabels = 64
const name = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/
const prefix =
  /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/

const shown = (text: string) => JSON.stringify(text.slice(0, 80))

function keyProblem(key: string): string | undefined {
  const slash = key.indexOf('/')
  const isKey = name.test(key.slice(slash + 1)) && (slash < 0 || prefix.test(key.slice(0, slash)))
  if (isKey) return undefined
  return `${shown(key)} is no label: [PREFIX/]NAME, the name at most 63 letters, digits, hyphens, dots and underscores, with a letter or digit at both ends`
}

function valueProblem(value: string): string | undefined {
  if (value === '' || name.test(value)) return undefined
  return `${shown(value)} is no value: at most 63 letters, digits, hyphens, dots and underscores, with a letter or digit at both ends`
}

export interface LabelChange {
  readonly set: Labels
  readonly remove: readonly string[]
}

/** `labels` after a change. Throws ERR_BAD_REQUEST with every field that is wrong. */
export function changedLabels(labels: Labels, { set, remove }: LabelChange): Labels {
  const problems: FieldProblem[] = []
  const note = (field: string, problem: string | undefined) => {
    if (problem !== undefined) problems.push({ field, problem })
  }
  for (const [key, value] of Object.entries(set)) {
    note('set', keyProblem(key))
    note(`set[${shown(key)}]`, valueProblem(value))
    if (remove.includes(key)) note('remove', `${shown(key)} is set by the same change`)
  }
  for (const key of remove) note('remove', keyProblem(key))
  const kept = Object.entries(labels).filter(([key]) => !remove.includes(key))
  const next = Object.fromEntries([...kept, ...Object.entries(set)])
  const count = Object.keys(next).length
  if (count > mostLabels) note('set', `makes ${count} labels; an entry has at most ${mostLabels}`)
  if (problems.length > 0) badRequest(problems)
  return count === 0 ? noLabels : next
}
