// What a lowered rule asks: comparisons that a proxy can make by itself, joined by and, or and not. The plain
// description that a driver turns into its proxy's own messages.

/** Where a comparison takes its text from; what is absent compares with nothing. */
export type Input =
  /** the URI SAN of the verified client certificate; several are joined by commas */
  | { readonly kind: 'peer' }
  /** a header's lines joined by commas, or `:method`, `:authority`, `:path` (with its query) */
  | { readonly kind: 'header'; readonly name: string }
  /** of the listener's side of the connection, in decimal */
  | { readonly kind: 'port' }
  | { readonly kind: 'sni' }

export interface TextComparison {
  readonly how: 'exact' | 'prefix' | 'suffix' | 'contains'
  readonly text: string
  readonly ignoresCase: boolean
}

/** RE2, of the whole text; RE2's `\C` is any byte. */
export interface Expression {
  readonly how: 'regex'
  readonly text: string
}

export type Comparison = TextComparison | Expression

/** `prefix` bits of `address` count. */
export interface Block {
  readonly address: string
  readonly prefix: number
}

/** peer: of the socket's other end. client: as X-Forwarded-For says. destination: of the own end. */
export type AddressInput = 'peer' | 'client' | 'destination'

export type Predicate =
  | { readonly kind: 'text'; readonly input: Input; readonly comparison: Comparison }
  | { readonly kind: 'address'; readonly input: AddressInput; readonly blocks: readonly Block[] }
  | { readonly kind: 'all' | 'any'; readonly of: readonly Predicate[] }
  | { readonly kind: 'not'; readonly of: Predicate }

export const always: Predicate = { kind: 'all', of: [] }
export const never: Predicate = { kind: 'any', of: [] }

const isEmpty = (it: Predicate, kind: 'all' | 'any') => it.kind === kind && it.of.length === 0
export const isAlways = (it: Predicate): boolean => isEmpty(it, 'all')
export const isNever = (it: Predicate): boolean => isEmpty(it, 'any')

function joined(kind: 'all' | 'any', list: readonly Predicate[]): Predicate {
  const parts = list.flatMap((it) => (it.kind === kind ? it.of : [it]))
  const decisive = kind === 'all' ? isNever : isAlways
  const decided = parts.find(decisive)
  if (decided !== undefined) return decided
  const [only] = parts
  return only !== undefined && parts.length === 1 ? only : { kind, of: parts }
}

export const all = (...list: readonly Predicate[]): Predicate => joined('all', list)
export const any = (...list: readonly Predicate[]): Predicate => joined('any', list)

export function not(of: Predicate): Predicate {
  if (isAlways(of)) return never
  if (isNever(of)) return always
  return of.kind === 'not' ? of.of : { kind: 'not', of }
}

export const header = (name: string): Input => ({ kind: 'header', name })
export const peer: Input = { kind: 'peer' }

/** A comparison of characters; `ignoresCase` of ASCII letters. */
export function text(
  input: Input,
  how: TextComparison['how'],
  value: string,
  ignoresCase = false,
): Predicate {
  return { kind: 'text', input, comparison: { how, text: value, ignoresCase } }
}

export function regex(input: Input, expression: string): Predicate {
  return { kind: 'text', input, comparison: { how: 'regex', text: expression } }
}

/** Whether there is a text at all, even an empty one. */
export const isPresent = (input: Input): Predicate => regex(input, '\\C*')

/** A literal in an expression that RE2 and JavaScript read alike. */
export const quote = (literal: string): string => literal.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
