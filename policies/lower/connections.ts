// What is known of a connection besides its addresses: the port of the workload, and the name that TLS was
// asked for.
import { patternOf } from '../rules/pattern.ts'
import { exactly, type Lower } from './lowering.ts'
import {
  all,
  always,
  any,
  type Input,
  isPresent,
  never,
  not,
  type Predicate,
  text,
} from './predicate.ts'

const port: Input = { kind: 'port' }
const sni: Input = { kind: 'sni' }

interface Polarity {
  readonly isNegated: boolean
  readonly isWidest: boolean
}

function polar(input: Input, named: Predicate, { isNegated, isWidest }: Polarity): Predicate {
  if (!isNegated) return named
  return isWidest ? not(named) : all(isPresent(input), not(named))
}

/** Decided here where the port is known: a listener's own may be another one. */
export const ports: Lower = ({ texts, isNegated, port: known }, { quantifier }) => {
  const numbers = texts.map(Number)
  if (known !== undefined) {
    return exactly(numbers.includes(known) !== isNegated ? always : never)
  }
  const named = any(...numbers.map((it) => text(port, 'exact', String(it))))
  return exactly(polar(port, named, { isNegated, isWidest: quantifier === 'widest' }))
}

/** Names of hosts have no case. */
export const serverNames: Lower = ({ texts, isNegated }, { quantifier }) => {
  const named = any(
    ...texts
      .map((it) => patternOf(it.toLowerCase()))
      .map((it) => (it.kind === 'present' ? isPresent(sni) : text(sni, it.kind, it.text, true))),
  )
  const predicate = polar(sni, named, { isNegated, isWidest: quantifier === 'widest' })
  return { ok: true, predicate, demand: 'tls-inspector' }
}

export const methods: Lower = ({ texts, isNegated }, { quantifier }) => {
  const method: Input = { kind: 'header', name: ':method' }
  const named = any(
    ...texts
      .map(patternOf)
      .map((it) => (it.kind === 'present' ? isPresent(method) : text(method, it.kind, it.text))),
  )
  return exactly(polar(method, named, { isNegated, isWidest: quantifier === 'widest' }))
}
