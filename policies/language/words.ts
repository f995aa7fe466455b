// The words that fields of policies are made of, each with the reason when one is refused. What Istio
// takes and then silently reads as something else is refused here (authorization.md §4.4, §4.15).
import { z } from 'zod'
import { parseBlock } from '../attributes/address.ts'
import { patternProblem } from '../rules/pattern.ts'
import { isTemplate, templateProblem } from '../rules/template.ts'

const shown = (text: string) => JSON.stringify(text)

type Problem = (text: string) => string | undefined

/** A string that has none of the problems; the first one found is told. */
function word(...problems: readonly Problem[]) {
  return z.string().superRefine((text, context) => {
    for (const problemOf of problems) {
      const message = problemOf(text)
      if (message === undefined) continue
      context.addIssue({ code: 'custom', message })
      return
    }
  })
}

/** A list that is given has to have an item. */
export function listOf<T extends z.ZodType>(item: T, most = 512) {
  return z.array(item).min(1, 'a list that is given has to have an item').max(most)
}

const isEmpty: Problem = (text) => (text === '' ? 'an empty string matches nothing' : undefined)

const idOf = (text: string) => text.slice('spiffe://'.length)

/** `trust-domain/path`, with a star at an end; castellan.dev/v1 takes whole SPIFFE IDs too. */
export const principal = word(
  (text) => (text.startsWith('spiffe://') ? patternProblem(idOf(text)) : patternProblem(text)),
  (text) =>
    text.includes('://') && !text.startsWith('spiffe://')
      ? `${shown(text)} is no SPIFFE ID: a principal is trust-domain/path`
      : undefined,
)

const methodGrammar = /^[!#$%&'*+.^_\x60|~0-9A-Za-z-]+$/

export const method = word(
  isEmpty,
  patternProblem,
  (text) =>
    methodGrammar.test(text) ? undefined : `${shown(text)} has characters that no method has`,
  (text) =>
    /[a-z]/.test(text)
      ? `methods are compared as sent: ${shown(text)} would never match, write ${text.toUpperCase()}`
      : undefined,
)

export const path = word(
  isEmpty,
  templateProblem,
  (text) => (isTemplate(text) ? undefined : patternProblem(text)),
  (text) =>
    /[?#]/.test(text)
      ? `paths are compared without query and fragment: ${shown(text)} would never match`
      : undefined,
  (text) => (/^[/*]/.test(text) ? undefined : 'a path pattern starts with a slash or a star'),
)

export const host = word(isEmpty, patternProblem, (text) =>
  /[\s/,]/.test(text) ? `${shown(text)} is no host: no slash, comma or space` : undefined,
)

export const value = word(isEmpty, patternProblem)

export const port = word((text) =>
  /^(?:0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535
    ? undefined
    : 'a port is a number from 0 to 65535, in quotes: no names, no ranges',
)

export const ipBlock = word((text) =>
  parseBlock(text) === undefined
    ? `${shown(text)} is no IP address or CIDR, such as 10.0.0.0/8`
    : undefined,
)

/** A namespace, in which a star stands for any run of characters. */
export const namespace = word(isEmpty, (text) =>
  text.includes('/') ? `${shown(text)} is no namespace: it has a slash` : undefined,
)

/** `NAMESPACE/ACCOUNT`, or `ACCOUNT` of the policy's own namespace. */
export const serviceAccount = word(
  isEmpty,
  (text) => (text.length > 320 ? 'longer than 320 characters' : undefined),
  (text) => (text.includes('*') ? 'a service account has no wildcards' : undefined),
  (text) =>
    /^[^/]+(?:\/[^/]+)?$/.test(text)
      ? undefined
      : `${shown(text)} is no service account: write NAMESPACE/ACCOUNT or ACCOUNT`,
)

export const trustDomain = word(isEmpty, patternProblem, (text) =>
  text.includes('/') ? `${shown(text)} is no trust domain: it has a slash` : undefined,
)

/** `issuer/subject`, split at the last slash; each half is a pattern of its own (authorization.md §4.7). */
export const requestPrincipal = word(isEmpty, (text) => {
  const slash = text.lastIndexOf('/')
  if (slash < 0) return patternProblem(text)
  const [issuer, subject] = [text.slice(0, slash), text.slice(slash + 1)]
  if (issuer === '' || subject === '') return `${shown(text)} lacks the issuer or the subject`
  return patternProblem(issuer) ?? patternProblem(subject)
})

export const labelKey = word(isEmpty, (text) =>
  text.includes('*') ? 'a label has no wildcards' : undefined,
)
export const labelValue = word((text) =>
  text.includes('*') ? 'a label has no wildcards' : undefined,
)

export const name = z
  .string()
  .max(253)
  .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, 'a name has a-z, 0-9, hyphens and dots')
