// Where tokens are looked for in a request (authorization.md §4.13).
import type { HttpAttributes } from '../attributes/request.ts'
import type { Profile } from '../language/mesh.ts'
import type { JwtRuleDocument } from '../language/request-authentication.ts'

export type Location =
  | { readonly in: 'header'; readonly name: string; readonly prefix: string }
  | { readonly in: 'query' | 'cookie'; readonly name: string }

export interface FoundToken {
  readonly token: string
  /** one text for one place, however many rules look there */
  readonly place: string
}

const bearer: Location = { in: 'header', name: 'authorization', prefix: 'Bearer ' }
const defaults: readonly Location[] = [bearer, { in: 'query', name: 'access_token' }]

/** Any place that is named takes the place of the usual ones. */
export function locationsOf(rule: JwtRuleDocument): readonly Location[] {
  const { fromHeaders = [], fromParams = [], fromCookies = [] } = rule
  const named: Location[] = [
    ...fromHeaders.map(
      ({ name, prefix = '' }): Location => ({
        in: 'header',
        name: name.toLowerCase(),
        prefix,
      }),
    ),
    ...fromParams.map((name): Location => ({ in: 'query', name })),
    ...fromCookies.map((name): Location => ({ in: 'cookie', name })),
  ]
  return named.length === 0 ? defaults : named
}

export function placeOf(location: Location): string {
  return location.in === 'header'
    ? `header ${location.name} ${location.prefix}`
    : `${location.in} ${location.name}`
}

function withoutPrefix(value: string, prefix: string, profile: Profile): string | undefined {
  const start = value.slice(0, prefix.length)
  // the scheme of a credential has no case (RFC 9110 §11.1)
  const fits =
    profile === 'strict' ? start.toLowerCase() === prefix.toLowerCase() : start === prefix
  return fits ? value.slice(prefix.length).trim() : undefined
}

function cookieValues(headers: readonly string[], name: string): string[] {
  return headers.flatMap((line) =>
    line.split(';').flatMap((pair) => {
      const equals = pair.indexOf('=')
      if (equals < 0 || pair.slice(0, equals).trim() !== name) return []
      return [
        pair
          .slice(equals + 1)
          .trim()
          .replace(/^"(.*)"$/, '$1'),
      ]
    }),
  )
}

function textsAt(location: Location, http: HttpAttributes, profile: Profile): readonly string[] {
  switch (location.in) {
    case 'header':
      return http.headers
        .values(location.name)
        .flatMap((value) => withoutPrefix(value, location.prefix, profile) ?? [])
    case 'query':
      return http.query === '' ? [] : new URLSearchParams(http.query.slice(1)).getAll(location.name)
    case 'cookie':
      return cookieValues(http.headers.values('cookie'), location.name)
  }
}

/** All tokens at a place; an empty one is none. */
export function tokensAt(
  location: Location,
  http: HttpAttributes,
  profile: Profile,
): readonly FoundToken[] {
  const place = placeOf(location)
  return textsAt(location, http, profile)
    .filter((token) => token !== '')
    .map((token) => ({ token, place }))
}
