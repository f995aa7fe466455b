// RequestAuthentication as its author writes it (authorization.md §4.13): whose tokens are accepted, and
// where they are looked for.
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { readJwks } from '../tokens/jwks.ts'
import { duration } from './duration.ts'
import { hasOneTarget, istioVersions, metadata, ownVersion, whom } from './metadata.ts'
import * as words from './words.ts'

const headerName = z
  .string()
  .regex(/^[!#$%&'*+.^_\x60|~0-9A-Za-z-]+$/, 'a header name has letters, digits and hyphens')

const jwksUri = z.string().superRefine((text, context) => {
  const problem = uriProblem(text)
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
})

function uriProblem(text: string): string | undefined {
  if (text.startsWith('file:')) return fileProblem(text)
  const [, scheme, authority = ''] = /^([a-z]+):\/\/([^/?#]*)/.exec(text) ?? []
  if (scheme === 'http') return 'keys are not taken over http://, where anybody could change them'
  if (scheme !== 'https') return 'a JWKS address starts with https://, or with file:/// for a file'
  if (authority === '' || authority.includes('@')) return 'a JWKS address has a host and no user'
  if (/:[^\]]*$/.test(authority) && !/:\d{1,5}$/.test(authority)) return 'a port is a number'
  return URL.canParse(text) ? undefined : 'no URL'
}

/** One way to write each path: no host, no dots to walk, nothing behind it. */
function fileProblem(text: string): string | undefined {
  const isPlain = text.startsWith('file:///') && URL.canParse(text) && new URL(text).href === text
  return isPlain && !/[?#]|%2f|%00|\/$/i.test(text)
    ? undefined
    : 'a file of keys is named by its absolute path, as file:///etc/keys/jwks.json'
}

/** The file that a JWKS address names; undefined for what is fetched. */
export function keyFileOf(uri: string): string | undefined {
  return uri.startsWith('file:') ? fileURLToPath(uri) : undefined
}

const jwks = z.string().superRefine((text, context) => {
  const result = readJwks(text)
  if (!result.ok) context.addIssue({ code: 'custom', message: result.problem })
})

const jwtRule = z
  .strictObject({
    issuer: z.string().optional(),
    audiences: words.listOf(z.string().min(1)).optional(),
    jwksUri: jwksUri.optional(),
    // the older spelling of the same
    jwks_uri: jwksUri.optional(),
    jwks: jwks.optional(),
    fromHeaders: words
      .listOf(z.strictObject({ name: headerName, prefix: z.string().optional() }), 32)
      .optional(),
    fromParams: words.listOf(z.string().min(1), 32).optional(),
    fromCookies: words.listOf(z.string().min(1), 32).optional(),
    outputPayloadToHeader: headerName.optional(),
    outputClaimToHeaders: words
      .listOf(z.strictObject({ header: headerName, claim: z.string().min(1) }), 64)
      .optional(),
    forwardOriginalToken: z.boolean().optional(),
    timeout: duration.optional(),
    spaceDelimitedClaims: words.listOf(z.string().min(1), 64).optional(),
  })
  .superRefine((it, context) => {
    const problem = (path: string[], message: string) =>
      context.addIssue({ code: 'custom', path, message })
    if ((it.issuer ?? '') === '' && it.jwksUri === undefined && it.jwks_uri === undefined) {
      problem(['issuer'], 'a rule names at least its issuer or its jwksUri')
    }
    if (it.jwks !== undefined && (it.jwksUri ?? it.jwks_uri) !== undefined) {
      problem(['jwks'], 'give either jwks or jwksUri')
    }
  })

export type JwtRuleDocument = z.infer<typeof jwtRule>

export const requestAuthentication = z
  .strictObject({
    apiVersion: z.enum([...istioVersions, ownVersion]),
    kind: z.literal('RequestAuthentication'),
    metadata,
    spec: z
      .strictObject({ ...whom, jwtRules: z.array(jwtRule).max(64).default([]) })
      .refine(hasOneTarget, 'give one of selector, targetRef and targetRefs'),
    status: z.unknown().optional(),
  })
  .superRefine(({ apiVersion, spec: { jwtRules } }, context) => {
    if (apiVersion === ownVersion) return
    for (const [i, rule] of jwtRules.entries()) {
      for (const field of ['jwksUri', 'jwks_uri'] as const) {
        if (rule[field]?.startsWith('file:') !== true) continue
        const message = `keys from a file only with apiVersion: ${ownVersion}`
        context.addIssue({ code: 'custom', path: ['spec', 'jwtRules', i, field], message })
      }
    }
  })

export type RequestAuthenticationDocument = z.infer<typeof requestAuthentication>
