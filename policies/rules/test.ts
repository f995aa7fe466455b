// What tests of a request are made of: the words of a field, whether it is negated, and the setting it
// stands in become one function.
import type { HttpAttributes, Request } from '../attributes/request.ts'
import type { Mesh } from '../language/mesh.ts'
import { patternOf, stringTest } from './pattern.ts'
import { type Quantifier, quantify, quantifyOne } from './quantify.ts'

/** What the meaning of a field depends on besides its words. */
export interface Setting {
  readonly mesh: Mesh
  readonly quantifier: Quantifier
  /** of the policy */
  readonly namespace: string
}

export type Holds = (request: Request) => boolean

export interface Made {
  readonly asksHttp: boolean
  readonly make: (texts: readonly string[], negated: boolean, setting: Setting) => Holds
}

export const none: readonly never[] = []
export const patterns = (texts: readonly string[]) => stringTest(texts.map(patternOf))

type TestOf<T> = (
  texts: readonly string[],
  setting: Setting,
  negated: boolean,
) => (value: T) => boolean

/** A field whose attribute has one value, or none. */
export function single<T>(
  attributeOf: (request: Request, mesh: Mesh) => T | undefined,
  testOf: TestOf<T>,
): Made {
  return {
    asksHttp: false,
    make(texts, negated, setting) {
      const { mesh, quantifier } = setting
      const test = quantifyOne(testOf(texts, setting, negated), negated, quantifier)
      return (request) => test(attributeOf(request, mesh))
    },
  }
}

/** The same of HTTP requests. */
export function singleOfHttp<T>(
  attributeOf: (http: HttpAttributes) => T | undefined,
  testOf: TestOf<T>,
): Made {
  return {
    asksHttp: true,
    make(texts, negated, setting) {
      const test = quantifyOne(testOf(texts, setting, negated), negated, setting.quantifier)
      return ({ http }) => test(http === undefined ? undefined : attributeOf(http))
    },
  }
}

/** A field of HTTP requests whose attribute may have several values. */
export function listOfHttp<T>(
  valuesOf: (http: HttpAttributes, quantifier: Quantifier) => readonly T[],
  testOf: TestOf<T>,
): Made {
  return {
    asksHttp: true,
    make(texts, negated, setting) {
      const { quantifier } = setting
      const test = quantify(testOf(texts, setting, negated), negated, quantifier)
      return ({ http }) => test(http === undefined ? none : valuesOf(http, quantifier))
    },
  }
}
